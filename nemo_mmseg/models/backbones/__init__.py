"""Backbones."""

from .open_clip_resnet import DenseAttentionPool, OpenCLIPResNet

__all__ = ['DenseAttentionPool', 'OpenCLIPResNet']
