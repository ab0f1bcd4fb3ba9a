"""Mining of negatives: embedding, exact search, and the bank they end up in; and tile stores."""

from .bank_writer import BankWriter
from .mine import check_bank, mine_bank
from .requirements import check, check_bands, make, requirements_of
from .tile_writer import make_tile_store

__all__ = [
    'BankWriter',
    'check',
    'check_bands',
    'check_bank',
    'make',
    'make_tile_store',
    'mine_bank',
    'requirements_of',
]
