"""What a transform needs from disk.

A transform that reads a bank or a tile store says so through :meth:`NeedsFiles.requirements`. Hook
and tools loop over these; ``nemo_mmseg.mining`` makes what is missing and checks what is there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankSpec, NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakGuard
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.negatives.tile_store import TileSpec

if TYPE_CHECKING:
    from .base import BaseReferringDataset


@dataclass(frozen=True)
class BankRequirement:
    """A bank of mined negatives.

    Attributes:
        dataset: The (innermost) data set whose expressions it ranks images for, or whose images
            it ranks expressions for.
        spec: Where it lies and how it is mined.
        bands: The bands that are drawn from it, each once, in the order of the epochs.
        num_negatives: Negatives that the largest mosaic needs; expressions that a sample needs.
        leak_guard: What keeps tested images out of the bands; None for nothing.
    """

    dataset: BaseReferringDataset
    spec: BankSpec
    bands: tuple[BandRule, ...]
    num_negatives: int
    leak_guard: LeakGuard | None = None

    def held_out(self, bank: NegativeBank) -> np.ndarray | None:
        """Return which images ``(I,)`` bool of the bank a leak guard keeps out; None without."""
        return None if self.leak_guard is None else self.leak_guard.leaked_rows(bank)


@dataclass(frozen=True)
class TileRequirement:
    """A tile store.

    Attributes:
        pool: Its images.
        spec: Where it lies and what its tiles are.
    """

    pool: ImagePool
    spec: TileSpec


Requirement = BankRequirement | TileRequirement


class NeedsFiles(ABC):
    """Base of transforms that read files which training can make."""

    @abstractmethod
    def requirements(
        self, dataset: BaseReferringDataset, max_epochs: int | None = None
    ) -> list[Requirement]:
        """List what the transform reads from disk for a data set; tile stores come first.

        Called when the data set is built, and again before a training.

        Args:
            dataset: The (innermost) data set whose samples the transform gets.
            max_epochs: Epochs of the training; None where there is none. Options that make no sense
                in such a training are refused.

        Raises:
            LeakError: Negatives would be images that the data set is tested on.
            ValueError: The training is too short for the options.
        """
