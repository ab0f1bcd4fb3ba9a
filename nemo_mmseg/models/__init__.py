"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

# ruff: noqa: F401  (each folder imports all its modules, which register their classes)
from . import (
    affinity,
    backbones,
    converters,
    decode_heads,
    losses,
    necks,
    protocols,
    segmentors,
    text_encoders,
)
from .structures import HeadOutput, TextFeatures
