"""Inference, the conversion of published checkpoints and the checking of data, from Python."""

from nemo_mmseg.models.converters.convert import convert_checkpoint, convert_file
from nemo_mmseg.utils.config import find_config

from .inference import ReferringInferencer, load_model

__all__ = [
    'ReferringInferencer',
    'convert_checkpoint',
    'convert_file',
    'find_config',
    'load_model',
]
