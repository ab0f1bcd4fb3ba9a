"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

from . import (
    backbones,
    converters,
    decode_heads,
    losses,
    necks,
    protocols,
    segmentors,
    text_encoders,
    utils,
)
from .structures import HeadOutput, TextFeatures

__all__ = [
    'HeadOutput',
    'TextFeatures',
    'backbones',
    'converters',
    'decode_heads',
    'losses',
    'necks',
    'protocols',
    'segmentors',
    'text_encoders',
    'utils',
]
