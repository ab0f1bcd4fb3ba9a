"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

from .backbones import OpenCLIPResNet
from .decode_heads import CRISHead
from .necks import CRISNeck
from .segmentors import ReferringSegmentor
from .text_encoders import OpenCLIPTextEncoder
from .text_features import TextFeatures

__all__ = [
    'CRISHead',
    'CRISNeck',
    'OpenCLIPResNet',
    'OpenCLIPTextEncoder',
    'ReferringSegmentor',
    'TextFeatures',
]
