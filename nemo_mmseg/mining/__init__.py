"""Mining of negatives: embedding, exact search, and the bank they end up in."""

from .bank import Band, BankError, NegativeBank, UnknownSentenceError
from .bank_writer import BankWriter
from .mine import check_bank, mine_bank
from .wanted import WantedBank, check_band, data_sets_of, wanted_banks

__all__ = [
    'Band',
    'BankError',
    'BankWriter',
    'NegativeBank',
    'UnknownSentenceError',
    'WantedBank',
    'check_band',
    'check_bank',
    'data_sets_of',
    'mine_bank',
    'wanted_banks',
]
