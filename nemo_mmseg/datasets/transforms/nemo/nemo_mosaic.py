"""NeMo: the training image becomes one cell of a mosaic with images that are hard but wrong.

The whole story of a mosaic, from top to bottom: decide (:meth:`NeMoMosaic.transform`), plan (which
cell, which images; no image is read), render (read, resize, write).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.requirements import (
    BankRequirement,
    NeedsFiles,
    Requirement,
    TileRequirement,
)
from nemo_mmseg.datasets.samplers import generator_of
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankSpec, open_bank
from nemo_mmseg.negatives.leak_guard import LeakGuard, refuse_tested_images
from nemo_mmseg.negatives.pool import ImagePool, bank_fingerprint, folder_pool
from nemo_mmseg.utils.position_words import position_cells

from ..expressions import single_expression
from ..loading import referent_masks
from .cells import Fill, ImageReader, tile_spec
from .grid import Edges, MosaicGrid, windows
from .schedule import BandSchedule, MosaicSchedule, bands_of_training

if TYPE_CHECKING:
    from nemo_mmseg.datasets.base import BaseReferringDataset

NAN = float('nan')


@dataclass(frozen=True)
class MosaicPlan:
    """What a mosaic will show, before any image is read.

    Attributes:
        kind: ``'mined'`` or ``'random'``.
        cell: Cell of the target's image, row by row.
        edges: Pixels at which rows and columns begin, and the last ones end.
        names: File names of the negatives, in the order of the other cells.
        similarities: Their similarities to the expression; NaN for random images.
        places: Where each negative is cropped, in [0, 1), or None where it is stretched.
        self_similarity: Similarity of the expression to its own image; NaN for a random mosaic.
        num_filled: How many cells random images fill for want of mined ones.
        truncated: Whether the bank stores too few neighbours to fill the band.
    """

    kind: str
    cell: int
    edges: Edges
    names: list[str]
    similarities: list[float]
    places: list[float | None]
    self_similarity: float = NAN
    num_filled: int = 0
    truncated: bool = False

    def record(self) -> dict:
        """Return the plan as it travels with the sample."""
        rows, columns = self.edges
        record = dict(vars(self), grid=(len(rows) - 1, len(columns) - 1))
        del record['places']
        return record


@TRANSFORMS.register_module()
class NeMoMosaic(BaseTransform, NeedsFiles):
    """Make a negative-mined mosaic (NeMo, ECCV 2024), or the sample without mosaic.

    For the item's expression the bank gives the images of the pool that match it best. Those above
    the upper threshold ``tau`` are dropped, since they may show the referent too. The next
    ``top_k`` are the band. Negatives are drawn from the band. The item's own image takes a random
    cell of the grid in which its position words stay true, and only its mask is foreground.

    It stands where a pipeline reads and resizes its image, after ``SampleExpressions(num=1)``.
    ``docs/nemo.md`` explains the options.

    With several targets the mask is their union. For a no-target expression it is empty, and a
    negative is an image that does not show the described object either (``docs/grefcoco.md``).

    Required Keys:

    - img_path, height, width, img_id, instances, targets
    - expressions, sent_ids (one each)
    - rng, epoch, pool (the data sets of this package give them)

    Added Keys (for a mosaic):

    - img (``(H, W, 3)`` uint8, BGR), gt_seg_map (``(H, W)`` uint8), img_shape, ori_shape
    - mosaic (dict of kind, cell, grid, edges, names, similarities, self_similarity, num_filled,
      truncated)

    Modified Keys (for a mosaic):

    - seg_fields

    Args:
        size: Height and width of the mosaic, in pixels.
        transforms: Transforms that read and resize a sample without mosaic.
        bank: Where the mined negatives lie and how they are mined: ``path``, ``model``,
            ``pretrained``, ``keep`` (default 1000) and ``images``; see
            :class:`~nemo_mmseg.negatives.BankSpec`. With ``images``, a folder, negatives (random
            ones, too) are its images in place of the data set's own. Defaults to None.
        schedule: How often: ``mined`` (default 0.5), ``random`` (0), ``warmup`` (0) and
            ``start_epoch`` (0); see :class:`.MosaicSchedule`.
        band: Which negatives: ``tau`` (default 0.95), ``tau_mode`` (``'relative'``), ``top_k``
            (100), ``i2i_sim_thres`` (None) and ``too_few`` (``'random'``); see
            :class:`.BandSchedule`. Numbers of ``schedule`` and ``band`` may be ramps over the
            epochs, ``dict(type='LinearRamp', begin=0, end=10, first=0.1, last=0.5)`` or
            ``dict(type='StepRamp', milestones=[5], values=[100, 30])``.
        grid: Rows and columns, or a dict of ``cells`` (such a pair or several), ``probs``,
            ``jitter`` and ``min_cell``; see :class:`.MosaicGrid`. Defaults to (2, 2).
        keep_positions: Whether "left" keeps the image in the left column, and so on. Defaults to
            True.
        fill: How images become cells: ``fit`` (default ``'stretch'``), ``blur`` (0) and
            ``interpolation`` (``'bilinear'``); see :class:`.Fill`.
        tiles: Tile store from which cells are read in place of image files: ``path`` and
            ``encoding`` (default ``'raw'``); see :class:`~nemo_mmseg.negatives.TileSpec`. Defaults
            to None.
        leak_guard: Which images may not be negatives because they are tested on; the arguments of
            :class:`~nemo_mmseg.negatives.LeakGuard`. Defaults to None.

    Raises:
        TypeError: An option of a group is unknown.
        ValueError: Options make no sense or contradict one another.
    """

    def __init__(
        self,
        size: Sequence[int],
        transforms: Sequence[dict],
        bank: dict | None = None,
        schedule: dict | None = None,
        band: dict | None = None,
        grid: Sequence | dict = (2, 2),
        keep_positions: bool = True,
        fill: dict | None = None,
        tiles: dict | None = None,
        leak_guard: dict | None = None,
    ) -> None:
        self.transforms = Compose(list(transforms))
        self.bank = None if bank is None else BankSpec(**bank)
        self.schedule = MosaicSchedule(**(schedule or {}))
        self.band = BandSchedule(**(band or {}))
        self.grid = MosaicGrid(size, **(grid if isinstance(grid, dict) else dict(cells=grid)))
        self.keep_positions = keep_positions
        self.fill = Fill(**(fill or {}))
        self.tiles = None if tiles is None else tile_spec(tiles, self.grid, self.fill)
        self.leak_guard = None if leak_guard is None else LeakGuard(**leak_guard)
        self.reader = ImageReader(self.tiles, self.images)
        self.bands()

    def bands(self, max_epochs: int | None = None) -> list[BandRule]:
        """Return the bands that mined mosaics of a training draw from, each once.

        Args:
            max_epochs: Epochs of the training; None for as many as the options speak of.

        Raises:
            ValueError: The options do not fit together, or not to the training.
        """
        rules = bands_of_training(self.schedule, self.band, max_epochs)
        if rules and self.bank is None:
            raise ValueError(
                f'mined mosaics ({self.schedule}) need bank=dict(path=..., model=..., ...)'
            )
        filled = self.band.too_few == 'random'
        cells = self.grid.fewest_cells if filled else self.grid.most_cells
        for rule in rules:
            rule.check(self.bank.keep, cells - 1)
        return rules

    @property
    def images(self) -> str | None:
        """Folder of the negatives; None where they are the data set's own images."""
        return None if self.bank is None else self.bank.images

    def candidate_pool(self, pool: ImagePool) -> ImagePool:
        """Return all images that could be negatives, held back ones included.

        Args:
            pool: Images of the data set.
        """
        return pool if self.images is None else folder_pool(self.images)

    def negative_pool(self, pool: ImagePool) -> ImagePool:
        """Return the images from which negatives are drawn.

        Args:
            pool: Images of the data set.

        Raises:
            LeakError: Some are tested on, and the guard's action is ``'error'``.
        """
        candidates = self.candidate_pool(pool)
        return candidates if self.leak_guard is None else self.leak_guard.clean(candidates)

    def requirements(
        self, dataset: BaseReferringDataset, max_epochs: int | None = None
    ) -> list[Requirement]:
        """Return the tile store and the bank that mosaics read; see :class:`NeedsFiles`."""
        rules = self.bands(max_epochs)
        negatives, found = self.negative_pool(dataset.pool), []
        if self.images is not None:
            refuse_tested_images(dataset.split_file, negatives, self.leak_guard)
        if self.tiles is not None:
            found.append(TileRequirement(self.candidate_pool(dataset.pool), self.tiles))
        if rules:
            needed = self.grid.most_cells - 1
            found.append(BankRequirement(dataset, self.bank, tuple(rules), needed, self.leak_guard))
        return found

    def transform(self, results: dict) -> dict:
        """Decide what the sample becomes, and make it."""
        rng = generator_of(results)
        kind = self.schedule.kind(results['epoch'], rng.random())
        if kind is None:
            return self.transforms(results)
        plan = self.plan(kind, results, rng)
        if plan.num_filled and self.band.too_few == 'skip':
            return self.transforms(results)
        return self.render(results, plan)

    def plan(self, kind: str, results: dict, rng: np.random.Generator) -> MosaicPlan:
        """Choose the grid, the cell of the target and the negatives.

        Args:
            kind: ``'mined'`` or ``'random'``.
            results: The item, with one expression.
            rng: The sample's generator.
        """
        rows, columns = self.grid.draw(rng)
        expression = single_expression(results, self)
        cells = position_cells(expression if self.keep_positions else '', rows, columns)
        cell = int(rng.choice(sorted(cells)))
        number = rows * columns - 1
        if kind == 'mined':
            negatives = self.draw_mined(results, number, rng)
        else:
            pool = self.negative_pool(results['pool'])
            names = pool.draw(number, self.shown_rows(results, pool), rng)
            negatives = dict(names=names, similarities=[NAN] * number)
        edges = self.grid.edges((rows, columns), rng)
        places = rng.random(number).tolist() if self.fill.crops else [None] * number
        return MosaicPlan(kind, cell, edges, places=places, **negatives)

    def shown_rows(self, results: dict, pool: ImagePool) -> list[int]:
        """Return the rows of a pool whose images no other cell may show.

        They are the sample's image and, if ``ReplaceByNegativeExpression`` replaced its expression,
        the image that the new one was said of.

        Args:
            results: The item.
            pool: Images from which negatives are drawn.
        """
        found = [pool.find(results['img_id'], results['img_path'])]
        if self.images is None and 'said_of' in results:
            found.append(pool.find(results['said_of'], ''))
        return [row for row in found if row is not None]

    def draw_mined(self, results: dict, number: int, rng: np.random.Generator) -> dict:
        """Draw negatives from the band; random images take the places that it cannot fill.

        Args:
            results: The item.
            number: How many negatives.
            rng: The sample's generator.

        Returns:
            Fields of :class:`MosaicPlan`.
        """
        sent_id, pool = results['sent_ids'][0], results['pool']
        bank = open_bank(self.bank.path, bank_fingerprint(pool, self.images))
        held_out = None if self.leak_guard is None else self.leak_guard.leaked_rows(bank)
        if self.images is None and 'said_of' in results:
            # The expression has an image of its own, which the bank knows, and this is another.
            own = bank.image_ids == results['img_id']
            held_out = own if held_out is None else held_out | own
        rule = self.band.at(results['epoch'])
        band = bank.band(sent_id, rule, results['expressions'][0], held_out)
        chosen = rng.permutation(len(band.rows))[:number]
        names = [bank.image_names[row] for row in band.rows[chosen]]
        num_filled = number - len(names)
        if num_filled:
            # Those dropped may show the referent: they fill a cell only where no other can.
            ranking, *_ = bank.row(sent_id)
            dropped = (*ranking[: band.num_above], *band.dropped)
            avoid = [bank.image_names[row] for row in dropped]
            pool = self.negative_pool(pool)
            names += pool.draw(num_filled, self.shown_rows(results, pool), rng, names, avoid)
        return dict(
            names=names,
            similarities=[*map(float, band.similarities[chosen]), *[NAN] * num_filled],
            self_similarity=band.self_similarity,
            num_filled=num_filled,
            truncated=band.truncated,
        )

    def render(self, results: dict, plan: MosaicPlan) -> dict:
        """Read each image once and write it into its cell.

        Args:
            results: The item.
            plan: Of :meth:`plan`.

        Returns:
            ``results`` with image, mask and the record of the mosaic.
        """
        size = self.grid.size
        canvas, mask = np.empty((*size, 3), np.uint8), np.zeros(size, np.uint8)
        pool = self.candidate_pool(results['pool'])
        negatives = iter(zip(plan.names, plan.places))
        for cell, window in enumerate(windows(plan.edges)):
            height, width = (s.stop - s.start for s in window)
            if cell == plan.cell:
                canvas[window] = self.fill.resize(self.reader.target(results), height, width)
                mask[window] = cv2.resize(
                    referent_masks(results)[0],
                    (width, height),
                    interpolation=cv2.INTER_NEAREST_EXACT,
                )
            else:
                name, place = next(negatives)
                image = self.reader.negative(pool, name)
                canvas[window] = self.fill.negative(image, height, width, place)
        results.update(
            img=canvas, gt_seg_map=mask, img_shape=size, ori_shape=size, mosaic=plan.record()
        )
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.grid.size}, bank={self.bank}, '
            f'schedule={self.schedule}, band={self.band}, grid={self.grid.grids}, '
            f'jitter={self.grid.jitter}, keep_positions={self.keep_positions}, fill={self.fill}, '
            f'tiles={self.tiles}, leak_guard={self.leak_guard}, transforms={self.transforms})'
        )
