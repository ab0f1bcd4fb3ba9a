"""Referring segmentation networks: text encoders, backbones, necks, heads, segmentors."""
