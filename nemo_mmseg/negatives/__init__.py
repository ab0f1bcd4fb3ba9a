"""What mining writes and training reads: image pools, banks, bands, tile stores, the leak guard."""

from .band import Band, BandRule
from .bank import BankSpec, NegativeBank
from .expression_bank import ExpressionBank
from .leak_guard import LeakError, LeakGuard
from .pool import FolderPool, ImagePool
from .ranked_file import BankError, UnknownSentenceError
from .tile_store import TileSpec, TileStore, TileStoreError

__all__ = [
    'Band',
    'BandRule',
    'BankError',
    'BankSpec',
    'ExpressionBank',
    'FolderPool',
    'ImagePool',
    'LeakError',
    'LeakGuard',
    'NegativeBank',
    'TileSpec',
    'TileStore',
    'TileStoreError',
    'UnknownSentenceError',
]
