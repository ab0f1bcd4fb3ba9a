"""Inference from Python."""

from .inference import ReferringInferencer, inference_model, init_model

__all__ = ['ReferringInferencer', 'inference_model', 'init_model']
