"""Inference from Python."""

from .inference import ReferringInferencer, inference_model, init_model
from .pretrained import save_pretrained

__all__ = ['ReferringInferencer', 'inference_model', 'init_model', 'save_pretrained']
