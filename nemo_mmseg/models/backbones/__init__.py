"""Backbones."""

from .lavt_swin_transformer import LAVTSwinTransformer
from .open_clip_resnet import OpenCLIPResNet

__all__ = ['LAVTSwinTransformer', 'OpenCLIPResNet']
