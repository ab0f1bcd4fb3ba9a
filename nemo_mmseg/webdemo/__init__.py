"""What the web demo computes, as functions that need no browser; tools/demo_app.py is its page."""

from .mosaics import MosaicBrowser, MosaicView, Tile
from .pictures import PictureSegmenter, SegmentedPicture
from .ready import ABOUT_SMALL_NETWORK, small_refshapes, small_refshapes_configs

__all__ = [
    'ABOUT_SMALL_NETWORK',
    'MosaicBrowser',
    'MosaicView',
    'PictureSegmenter',
    'SegmentedPicture',
    'Tile',
    'small_refshapes',
    'small_refshapes_configs',
]
