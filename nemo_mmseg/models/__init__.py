"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

from .backbones import LAVTSwinTransformer, OpenCLIPResNet
from .decode_heads import CRISHead, LAVTHead
from .necks import CRISNeck
from .segmentors import ReferringSegmentor
from .text_encoders import BERTTextEncoder, OpenCLIPTextEncoder
from .text_features import TextFeatures

__all__ = [
    'BERTTextEncoder',
    'CRISHead',
    'CRISNeck',
    'LAVTHead',
    'LAVTSwinTransformer',
    'OpenCLIPResNet',
    'OpenCLIPTextEncoder',
    'ReferringSegmentor',
    'TextFeatures',
]
