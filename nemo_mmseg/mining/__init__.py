"""Mining of negatives: embedding, exact search, and the bank they end up in."""

from nemo_mmseg.negatives.band import Band, BandRule
from nemo_mmseg.negatives.bank import BankError, NegativeBank, UnknownSentenceError

from .bank_writer import BankWriter
from .made_with import check_bank
from .mine import mine_bank
from .requirements import (
    WantedBank,
    check_band,
    check_passes,
    wanted_banks,
    wanted_stores,
)

__all__ = [
    'Band',
    'BandRule',
    'BankError',
    'BankWriter',
    'NegativeBank',
    'UnknownSentenceError',
    'WantedBank',
    'check_band',
    'check_bank',
    'check_passes',
    'mine_bank',
    'wanted_banks',
    'wanted_stores',
]
