"""Finds, makes and checks the files that the transforms of a data set need."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from nemo_mmseg.datasets.requirements import (
    BankRequirement,
    NeedsFiles,
    Requirement,
    TileRequirement,
)
from nemo_mmseg.datasets.wrappers import data_sets_of, transforms_in
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, NegativeBank
from nemo_mmseg.negatives.expression_bank import ExpressionBank
from nemo_mmseg.negatives.tile_store import TileStore
from nemo_mmseg.utils.atomic_write import check_file_path

from .mine import check_bank, mine_bank
from .tile_writer import make_tile_store


def requirements_of(dataset: BaseDataset, max_epochs: int | None = None) -> list[Requirement]:
    """Find what the transforms of a data set need from disk.

    Args:
        dataset: A data set, or wrappers around some (``ConcatDataset``, ``RepeatDataset``, ...).
            Transforms may stand inside other transforms.
        max_epochs: Epochs of the training; None where there is none.

    Returns:
        Each requirement once. Tile stores come first: they take minutes, and show images that
        cannot be read. Several requirements of one bank differ in their bands only.

    Raises:
        OSError: The path of one is a folder.
        ValueError: Two files of different content have the same path, or what
            :meth:`NeedsFiles.requirements` raises.
    """
    found: dict[tuple, Requirement] = {}
    contents: dict[str, tuple] = {}
    for inner, pipelines in data_sets_of(dataset):
        for transform in transforms_in(pipelines):
            if not isinstance(transform, NeedsFiles):
                continue
            for requirement in transform.requirements(inner, max_epochs):
                content, use = _content_and_use(requirement)
                check_file_path(requirement.spec.path)
                if contents.setdefault(requirement.spec.path, content) != content:
                    raise ValueError(
                        'two transforms, or two data sets, ask for different files '
                        f'{requirement.spec.path}: give each a path of its own'
                    )
                found.setdefault((content, use), requirement)
    return sorted(found.values(), key=lambda requirement: isinstance(requirement, BankRequirement))


def _content_and_use(requirement: Requirement) -> tuple[tuple, tuple]:
    """What the file holds, and how it is used."""
    if isinstance(requirement, TileRequirement):
        return (requirement.spec, requirement.pool.images_fingerprint), ()
    use = requirement.bands, requirement.num_negatives, requirement.leak_guard
    return (requirement.spec, requirement.dataset.fingerprint), use


def make(
    requirement: Requirement,
    num_workers: int = 2,
    timeout: float = 1800,
    progress: bool = True,
    **mining: Any,
) -> NegativeBank | ExpressionBank | TileStore:
    """Make a file if it is missing, and check it.

    Args:
        requirement: What is needed.
        num_workers: Processes that decode images. Defaults to 2.
        timeout: Seconds to wait for other ranks while nothing gets on. Defaults to 1800.
        progress: Whether rank 0 shows a progress bar. Defaults to True.
        **mining: Of a bank: ``batch_size``, ``device``, ``cache``; see :func:`mine_bank`.

    Returns:
        The file's reader.

    Raises:
        TileStoreError: A tile store is damaged, or was made of other images or with other settings.
        BankError: A bank is damaged, was made for other data or with other settings, or a band of
            it is empty for every expression.
    """
    spec = requirement.spec
    if isinstance(requirement, TileRequirement):
        return make_tile_store(requirement.pool, spec, num_workers, timeout, progress)
    bank = mine_bank(
        requirement.dataset, spec, num_workers=num_workers, timeout=timeout, progress=progress,
        **mining,
    )  # fmt: skip
    check_bands(requirement, bank)
    return bank


def check(requirement: Requirement) -> NegativeBank | ExpressionBank | TileStore:
    """Check that a file is there and is what is needed, without making it.

    Args:
        requirement: What is needed.

    Returns:
        The file's reader.

    Raises:
        FileNotFoundError: It is missing.
        TileStoreError, BankError: See :func:`make`.
    """
    if isinstance(requirement, TileRequirement):
        store = TileStore(requirement.spec.path)
        store.check(requirement.pool, requirement.spec)
        return store
    bank = check_bank(requirement.dataset, requirement.spec)
    check_bands(requirement, bank)
    return bank


def check_bands(
    requirement: BankRequirement, bank: NegativeBank | ExpressionBank
) -> list[np.ndarray]:
    """Look whether the bands leave negatives, and log how many expressions have too few.

    Args:
        requirement: The bands, the number of negatives and the leak guard.
        bank: The bank.

    Returns:
        For each band the number ``(E,)`` of its images (or expressions) for every expression,
        without those that the leak guard drops.

    Raises:
        BankError: A band is empty for every expression.
    """
    without = requirement.held_out(bank)
    remaining = bank.num_remaining(requirement.bands, without)
    all_sizes = [np.minimum(row, rule.top_k) for row, rule in zip(remaining, requirement.bands)]
    for rule, sizes in zip(requirement.bands, all_sizes):
        if not sizes.any():
            by = f'{rule}, with the leak guard,' if without is not None and without.any() else rule
            raise BankError(
                f'the band of every expression is empty: {by} drops all {bank.stored} stored '
                f'{requirement.spec.kind} in {bank.path}. Let it drop fewer, or mine with a larger '
                'keep'
            )
    # Of a ramp the ends are enough: between them bands change step by step.
    shown = sorted({0, len(all_sizes) - 1}) if all_sizes else ()
    for row in shown:
        rule, sizes = requirement.bands[row], all_sizes[row]
        print_log(_summary(bank, rule, sizes, requirement), 'current')
    return all_sizes


def _summary(
    bank: NegativeBank | ExpressionBank,
    rule: BandRule,
    sizes: np.ndarray,
    requirement: BankRequirement,
) -> str:
    needed, kind = requirement.num_negatives, requirement.spec.kind
    text = f'{bank.path}: {rule}: '
    if kind == 'images':
        text += (
            f'{(sizes < needed).sum()} of {len(sizes)} expressions have fewer than the {needed} '
            f'negatives of a mosaic, {(sizes == 0).sum()} have none'
        )
    else:
        text += f'{(sizes == 0).sum()} of {len(sizes)} expressions have none to be replaced by'
    if bank.is_cut:
        below = (sizes < rule.top_k).sum()
        text += f'; {below} bands reach below the {bank.stored} stored {kind}'
    return text
