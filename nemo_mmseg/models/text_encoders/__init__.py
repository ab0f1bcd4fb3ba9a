"""Text encoders."""

from .bert_text_encoder import BERTTextEncoder
from .open_clip_text_encoder import OpenCLIPTextEncoder

__all__ = ['BERTTextEncoder', 'OpenCLIPTextEncoder']
