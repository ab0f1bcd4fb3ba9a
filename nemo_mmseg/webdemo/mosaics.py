"""One expression of a training data set: its band under any threshold, and the mosaic it gets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.datasets.requirements import BankRequirement
from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms.nemo.nemo_mosaic import NeMoMosaic
from nemo_mmseg.datasets.wrappers import data_sets_of, transforms_in
from nemo_mmseg.mining.requirements import check, requirements_of
from nemo_mmseg.negatives.band import TAU_MODES, Band, BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.utils.images import read_image
from nemo_mmseg.visualization.browse import draw_training_sample
from nemo_mmseg.visualization.drawing import fit_image

# Epochs in which a mined mosaic of an expression is looked for.
SEARCHED_EPOCHS = 100
# Expressions that a search lists.
LISTED = 40
TILE_SIDE = 200  # longer side of small pictures, in pixels
# What an image of a ranking can be.
STATES = 'above tau', 'in the band', 'too alike', 'held back', 'below the band'
# Highest tau that is worth a look, where a mode allows more.
HIGHEST_TAU = dict(relative=1.2, margin=0.5)


@dataclass(frozen=True)
class Candidate:
    """An image of an expression's ranking.

    Attributes:
        rank: Its place, from 1.
        name: Its file name in the pool.
        similarity: To the expression.
        state: One of ``STATES``. ``'too alike'`` are those that ``i2i_sim_thres`` drops,
            ``'held back'`` those that a leak guard does.
        chosen: Whether it is in the mosaic.
    """

    rank: int
    name: str
    similarity: float
    state: str
    chosen: bool = False


@dataclass(frozen=True)
class Tile:
    """A small picture of an image.

    Attributes:
        picture: ``(H, W, 3)`` uint8 RGB, at most 200 pixels wide and high.
        candidate: What the ranking says of it; None for a random image.
    """

    picture: np.ndarray
    candidate: Candidate | None


@dataclass(frozen=True)
class MosaicView:
    """What a band and a seed make of an expression.

    Attributes:
        expression: The expression.
        rule: The band.
        own_similarity: Similarity of the expression to its own image.
        candidates: The ranking, down to a few images below the band.
        epoch: The epoch of the training whose sample this is.
        index: The number of the sample in its data set.
        mosaic: The sample as training makes it, with the mask and the similarities of the cells,
            ``(H, W, 3)`` uint8 RGB; None where no epoch has a mined mosaic of the expression.
        record: The mosaic's record, see :class:`NeMoMosaic`; None as above.
        negatives: The negatives in the order of their cells.
        ranking: Candidates at the edges of the band.
    """

    expression: str
    rule: BandRule
    own_similarity: float
    candidates: list[Candidate]
    epoch: int | None
    index: int
    mosaic: np.ndarray | None
    record: dict | None
    negatives: list[Tile]
    ranking: list[Tile]


@dataclass(frozen=True)
class Source:
    """A data set whose samples become mined mosaics.

    Attributes:
        dataset: The innermost data set.
        requirement: What its :class:`NeMoMosaic` needs.
        bank: The bank.
    """

    dataset: BaseReferringDataset
    requirement: BankRequirement
    bank: NegativeBank


class MosaicBrowser:
    """Show what :class:`NeMoMosaic` makes of an expression of a config's training data.

    Mosaics are samples of the data set itself, with another band in its :class:`NeMoMosaic`. With
    the config's own band they are those of the training, pixel by pixel.

    Args:
        cfg: Config with ``train_dataloader``.

    Raises:
        FileNotFoundError: Data or the bank are missing; names the command that mines it.
        ValueError: No data set of the config has a :class:`NeMoMosaic` that reads a bank, or the
            config names a part or an option that there is not.
        BankError, TileStoreError: The file is damaged, or was made of other data.
    """

    def __init__(self, cfg: Config) -> None:
        init_default_scope(cfg.get('default_scope') or 'mmseg')
        self.seed = (cfg.get('randomness') or {}).get('seed') or 0
        loader = cfg.get('train_dataloader') or {}
        self.sources = list(_sources(_build(loader['dataset']))) if 'dataset' in loader else []
        if not self.sources:
            raise ValueError('the config trains on no data set with a NeMoMosaic that reads a bank')
        # Source, item, place in the item, words: what a search looks through.
        self.entries = [
            (number, index, place, text)
            for number, source in enumerate(self.sources)
            for index in range(len(source.dataset))
            for place, text in enumerate(source.dataset.get_data_info(index)['expressions'])
        ]

    @property
    def rule(self) -> BandRule:
        """The config's own band, in the epoch in which mined mosaics begin."""
        mosaic = _mosaic_in(self.sources[0].dataset)
        return mosaic.band.at(mosaic.schedule.start_epoch)

    @property
    def tau_range(self) -> tuple[float, float]:
        """Lowest and highest tau in the config's ``tau_mode``."""
        rule, (low, high, _) = self.rule, TAU_MODES[self.rule.tau_mode]
        if rule.tau is not None:
            high = min(high, max(rule.tau, HIGHEST_TAU.get(rule.tau_mode, high)))
        return low, min(high, self.sources[0].bank.stored)

    def find(self, words: str | None = '', limit: int = LISTED) -> list[tuple[str, int]]:
        """List expressions that hold all words, whatever their case.

        Args:
            words: Words or parts of such; none for all expressions.
            limit: Greatest number of results, which are then spread over all that fit. Defaults to
                40.

        Returns:
            Pairs of the expression with its sentence id, and its number.
        """
        parts = (words or '').lower().split()
        fit = [
            number
            for number, entry in enumerate(self.entries)
            if all(part in entry[3].lower() for part in parts)
        ]
        chosen = np.unique(np.linspace(0, len(fit) - 1, min(limit, len(fit))).astype(int))
        return [(self._label(fit[place]), fit[place]) for place in chosen]

    def _label(self, number: int) -> str:
        source, index, place, text = self.entries[number]
        return f'{text} ({self.sources[source].dataset.get_data_info(index)["sent_ids"][place]})'

    def show(
        self, number: int, tau: float, top_k: int, seed: int | None = None, from_epoch: int = 0
    ) -> MosaicView:
        """Show the band of an expression and the first mined mosaic that training makes of it.

        Args:
            number: Of :meth:`find`.
            tau: Upper threshold, in the config's ``tau_mode``.
            top_k: Images in the band.
            seed: Seed of the training; None for the config's.
            from_epoch: Epoch, from 0, from which on a mosaic is looked for.

        Raises:
            ValueError: A number makes no sense.
        """
        if not 0 <= number < len(self.entries):
            raise ValueError(f'there is no expression {number}')
        source, index, place, expression = self.entries[number]
        bank, requirement = self.sources[source].bank, self.sources[source].requirement
        dataset = with_band(self.sources[source].dataset, tau, top_k)
        sent_id = dataset.get_data_info(index)['sent_ids'][place]
        seed = self.seed if seed is None else seed
        epoch, packed = first_mosaic(dataset, index, sent_id, seed, from_epoch)
        record = None if packed is None else packed['data_samples'].mosaic
        mosaic = _mosaic_in(dataset)
        rule = mosaic.band.at(from_epoch if epoch is None else epoch)
        candidates = rank_candidates(
            bank, sent_id, rule, requirement.held_out(bank), record['names'] if record else ()
        )
        pool = mosaic.candidate_pool(dataset.pool)
        return MosaicView(
            expression=expression,
            rule=rule,
            own_similarity=bank.row(sent_id)[2],
            candidates=candidates,
            epoch=epoch,
            index=index,
            mosaic=None if packed is None else draw_training_sample(packed),
            record=record,
            negatives=_tiles_of(record, candidates, pool) if record else [],
            ranking=[_tile(pool, one.name, one) for one in at_the_edges(candidates)],
        )


def _build(cfg: dict) -> BaseReferringDataset:
    try:
        return DATASETS.build(cfg)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'the training data set cannot be built: {error}') from error


def _sources(dataset: BaseReferringDataset) -> list[Source]:
    """Find the data sets that a NeMoMosaic of their own makes mined mosaics of."""
    banks = [one for one in requirements_of(dataset) if isinstance(one, BankRequirement)]
    found = []
    for inner, _ in data_sets_of(dataset):
        mosaic = _mosaic_in(inner)
        own = [one for one in banks if one.dataset is inner and one.spec.kind == 'images']
        if mosaic is not None and own:
            found.append(Source(inner, own[0], check(own[0])))
    return found


def _mosaic_in(dataset: BaseReferringDataset) -> NeMoMosaic | None:
    found = (part for part in transforms_in(dataset.pipeline) if isinstance(part, NeMoMosaic))
    return next(found, None)


def with_band(dataset: BaseReferringDataset, tau: float, top_k: int) -> BaseReferringDataset:
    """Return the data set with another band in its :class:`NeMoMosaic`.

    Raises:
        ValueError: The band makes no sense, or is too small for a mosaic.
    """
    dataset = copy.copy(dataset)
    dataset.pipeline = copy.deepcopy(dataset.pipeline)
    mosaic = _mosaic_in(dataset)
    if mosaic.band.tau_mode == 'rank':
        tau = int(tau)
    mosaic.band = replace(mosaic.band, tau=tau, top_k=int(top_k))
    mosaic.bands()
    return dataset


def first_mosaic(
    dataset: BaseReferringDataset, index: int, sent_id: int, seed: int, from_epoch: int = 0
) -> tuple[int | None, dict | None]:
    """Find the first epoch in which training shows an expression in a mined mosaic.

    Args:
        dataset: The data set.
        index: The item of the expression; each epoch draws one of its expressions.
        sent_id: Of the expression.
        seed: Seed of the training.
        from_epoch: The first epoch to look at.

    Returns:
        The epoch and the packed sample; None and None where none of 100 epochs has one.
    """
    for epoch in range(from_epoch, from_epoch + SEARCHED_EPOCHS):
        packed = dataset[SampleIndex(index, epoch=epoch, seed=seed)]
        sample = packed['data_samples']
        record = sample.get('mosaic')
        if record and record['kind'] == 'mined' and sample.sent_ids == [sent_id]:
            return epoch, packed
    return None, None


def rank_candidates(
    bank: NegativeBank,
    sent_id: int,
    rule: BandRule,
    held_out: np.ndarray | None = None,
    chosen: Sequence[str] = (),
    below: int = 10,
) -> list[Candidate]:
    """Say of each image of a ranking whether it is in the band, and why not.

    Args:
        bank: The bank.
        sent_id: Of the expression.
        rule: The band.
        held_out: Images ``(I,)`` bool that a leak guard holds back; None for none.
        chosen: File names of the images in the mosaic.
        below: How many images below the band are listed. Defaults to 10.
    """
    rows, similarities, _ = bank.row(sent_id)
    band = bank.band(sent_id, rule, without=held_out)
    states = _states(rows, band, held_out)
    in_band = [place for place, state in enumerate(states) if state == 'in the band']
    end = (in_band[-1] if in_band else band.num_above) + 1 + below
    names = [bank.image_names[row] for row in rows[:end]]
    return [
        Candidate(rank, name, float(similarity), state, state == 'in the band' and name in chosen)
        for rank, (name, similarity, state) in enumerate(zip(names, similarities, states), start=1)
    ]


def _states(rows: np.ndarray, band: Band, held_out: np.ndarray | None) -> list[str]:
    states = np.full(len(rows), 'below the band', object)
    if held_out is not None:
        states[held_out[rows]] = 'held back'
    states[np.isin(rows, band.dropped)] = 'too alike'
    states[np.isin(rows, band.rows)] = 'in the band'
    states[: band.num_above] = 'above tau'
    return states.tolist()


def at_the_edges(candidates: Sequence[Candidate], number: int = 4) -> list[Candidate]:
    """Choose the candidates that tell most about a band, in the order of the ranking.

    Args:
        candidates: Of :func:`rank_candidates`.
        number: How many of the last above tau, of the first in the band (twice as many), of its
            last ones, of those that were dropped within it, and of the first below it. Defaults to
            4.
    """
    groups = {state: [one for one in candidates if one.state == state] for state in STATES}
    shown = [
        *groups['above tau'][-number:],
        *groups['in the band'][: 2 * number],
        *groups['in the band'][-number:],
        *groups['too alike'][:number],
        *groups['held back'][:number],
        *groups['below the band'][:number],
    ]
    return sorted(set(shown), key=lambda one: one.rank)


def _tiles_of(record: dict, candidates: Sequence[Candidate], pool: ImagePool) -> list[Tile]:
    """Return the negatives of a mosaic in the order of their cells."""
    chosen = {one.name: one for one in candidates if one.chosen}
    return [_tile(pool, name, chosen.get(name)) for name in record['names']]


def _tile(pool: ImagePool, name: str, candidate: Candidate | None) -> Tile:
    image = np.ascontiguousarray(read_image(pool.path_of(name))[..., ::-1])
    return Tile(fit_image(image, TILE_SIDE), candidate)
