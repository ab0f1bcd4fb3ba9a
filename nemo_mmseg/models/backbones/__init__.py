"""Backbones."""

from .lavt_swin_transformer import LAVTSwinTransformer
from .open_clip_resnet import DenseAttentionPool, OpenCLIPResNet
from .pixel_word_attention import PixelWordAttention

__all__ = ['DenseAttentionPool', 'LAVTSwinTransformer', 'OpenCLIPResNet', 'PixelWordAttention']
