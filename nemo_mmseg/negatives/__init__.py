"""What mining writes and training reads: image pools, banks, bands, tile stores, the leak guard."""

from .band import Band, BandRule
from .bank import BankError, NegativeBank, UnknownSentenceError
from .leak_guard import LeakError, LeakGuard
from .pool import FolderPool, ImagePool
from .tile_store import TileStore, TileStoreError

__all__ = [
    'Band',
    'BandRule',
    'BankError',
    'FolderPool',
    'ImagePool',
    'LeakError',
    'LeakGuard',
    'NegativeBank',
    'TileStore',
    'TileStoreError',
    'UnknownSentenceError',
]
