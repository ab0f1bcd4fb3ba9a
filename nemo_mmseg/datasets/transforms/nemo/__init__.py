"""NeMo: negative-mined mosaics."""

from .nemo_mosaic import NeMoMosaic

__all__ = ['NeMoMosaic']
