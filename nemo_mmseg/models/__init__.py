"""Networks: text encoders, backbones, necks, heads and the segmentor that joins them."""

# ruff: noqa: F401  (registers)
from . import backbones, decode_heads, necks, protocols, segmentors, text_encoders
from .structures import HeadOutput, TextFeatures
