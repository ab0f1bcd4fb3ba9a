"""Inference, the conversion of published checkpoints and the checking of data, from Python."""

from .check_data import check_data
from .convert_checkpoint import convert_checkpoint, convert_file
from .find_config import find_config
from .load_model import load_model
from .referring_inferencer import ReferringInferencer

__all__ = [
    'ReferringInferencer',
    'check_data',
    'convert_checkpoint',
    'convert_file',
    'find_config',
    'load_model',
]
