"""NeMo: the training image becomes one cell of a mosaic with images that are hard but wrong."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from nemo_mmseg.mining.bank import NegativeBank

from ..pool import ImagePool
from ..sample_index import generator_of
from .letterbox import INTERPOLATIONS
from .load_referent_mask import referent_masks
from .load_referring_image import read_image
from .position_words import allowed_cells

TAU_MODES = ('relative', 'absolute')
# Handles of banks in this process. They are not kept in the transform, which is pickled to workers.
_OPEN_BANKS: OrderedDict[tuple[str, str], NegativeBank] = OrderedDict()


def _open_bank(path: str, fingerprint: str) -> NegativeBank:
    """The bank at ``path``, checked once in each process to be that of the data set."""
    key = str(path), fingerprint
    if key not in _OPEN_BANKS:
        bank = NegativeBank(path)
        bank.check(fingerprint)
        _OPEN_BANKS[key] = bank
    return _OPEN_BANKS[key]


@dataclass(frozen=True)
class MosaicPlan:
    """What a mosaic will show, before any image is read.

    Attributes:
        kind: ``'mined'`` or ``'random'``.
        cell: Cell of the referent's image, row by row.
        names: File names of the negatives, in the order of the other cells.
        similarities: Their similarities to the expression; NaN for random images.
        self_similarity: Similarity of the expression to its own image; NaN for a random mosaic.
        short: How many negatives the band lacked, so that random images took their places.
        exhausted: Whether the band reached below the stored neighbours.
    """

    kind: str
    cell: int
    names: tuple[str, ...]
    similarities: tuple[float, ...]
    self_similarity: float = float('nan')
    short: int = 0
    exhausted: bool = False


@TRANSFORMS.register_module()
class NeMoMosaic(BaseTransform):
    """Negative-mined mosaic augmentation (NeMo, ECCV 2024), or the plain sample.

    For the item's expression the bank gives the images of the pool that match it best. Those above
    the upper threshold ``tau`` are dropped (they may hold the referent too), the next ``top_k`` are
    the band. Negatives are drawn from the band, the item's own image takes a random cell of the
    grid, in which its position words stay true, and only its mask is the target.

    It stands where a pipeline reads and resizes its image, after ``SampleExpressions``; ``plain``
    holds the transforms of a sample without mosaic.

    Required Keys:

    - img_path, height, width, img_id, instances, targets, expressions, sent_ids (of one expression)
    - rng, visit, pool (the data sets of this package give them)

    Added Keys (for a mosaic):

    - img ((H, W, 3) uint8, BGR), gt_seg_map ((H, W) uint8), img_shape, ori_shape
    - mosaic: dict of kind, cell, grid, names, similarities, self_similarity, short, exhausted

    Args:
        size: Height and width of the mosaic, in pixels. Every image is stretched to its cell, as
            published.
        plain: Transforms that read and resize a plain sample.
        bank: Where the mined negatives lie and how they are made: dict of ``path``, ``model``,
            ``pretrained`` and ``keep`` (see :func:`nemo_mmseg.mining.mine_bank`). None when nothing
            is mined.
        warmup_prob: Before ``start_epoch``, the chance of a random mosaic. Defaults to 0.
        random_prob: From ``start_epoch`` on, the chance of a random mosaic. Defaults to 0.
        mined_prob: From ``start_epoch`` on, the chance of a mined mosaic. Defaults to 0.5. The two
            exclude one another; the rest is plain samples.
        start_epoch: Pass over the data, from 0, at which mined mosaics begin. Defaults to 0.
        tau: Upper threshold of the similarity. Defaults to 0.95.
        tau_mode: ``'relative'`` compares with ``tau`` times the expression's similarity to its own
            image, ``'absolute'`` with ``tau`` itself, as published (such a tau belongs to one
            CLIP). Defaults to ``'relative'``.
        top_k: Images in the band, below the threshold. Defaults to 100.
        grid: Rows and columns. Defaults to (2, 2).
        keep_positions: Whether "left" keeps the image in the left column, and so on. Defaults to
            True.
        short_band: Where the band holds fewer images than the grid has cells: ``'random'`` images
            of the pool fill the rest (counted in ``mosaic['short']``), or the sample stays
            ``'plain'``. Defaults to ``'random'``.
        interpolation: Of the images. Defaults to ``'bilinear'``, as published.

    Raises:
        ValueError: Probabilities outside [0, 1] or with a sum above 1, an unknown mode, a grid of
            one cell, or no bank where one is needed.
    """

    def __init__(
        self,
        size: Sequence[int],
        plain: Sequence[dict],
        bank: dict | None = None,
        warmup_prob: float = 0.0,
        random_prob: float = 0.0,
        mined_prob: float = 0.5,
        start_epoch: int = 0,
        tau: float = 0.95,
        tau_mode: str = 'relative',
        top_k: int = 100,
        grid: Sequence[int] = (2, 2),
        keep_positions: bool = True,
        short_band: str = 'random',
        interpolation: str = 'bilinear',
    ) -> None:
        self.size = tuple(int(s) for s in size)
        self.plain = Compose(list(plain))
        self.bank = None if bank is None else dict(bank)
        self.warmup_prob = warmup_prob
        self.random_prob = random_prob
        self.mined_prob = mined_prob
        self.start_epoch = start_epoch
        self.tau = tau
        self.tau_mode = tau_mode
        self.top_k = top_k
        self.grid = tuple(int(g) for g in grid)
        self.keep_positions = keep_positions
        self.short_band = short_band
        self.interpolation = interpolation
        self._check_arguments()

    def _check_arguments(self) -> None:
        for name in ('warmup_prob', 'random_prob', 'mined_prob'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'NeMoMosaic: {name}={getattr(self, name)} is not in [0, 1]')
        if self.random_prob + self.mined_prob > 1 + 1e-9:
            raise ValueError(
                f'NeMoMosaic: random_prob={self.random_prob} and mined_prob={self.mined_prob} '
                'exclude one another, so their sum must be at most 1'
            )
        if len(self.grid) != 2 or min(self.grid) < 1 or self.grid == (1, 1):
            raise ValueError(
                f'NeMoMosaic: grid={self.grid} must be (rows, columns) with two or more cells'
            )
        if len(self.size) != 2 or self.size[0] < self.grid[0] or self.size[1] < self.grid[1]:
            raise ValueError(f'NeMoMosaic: size={self.size} must be (height, width) of a canvas')
        if self.tau_mode not in TAU_MODES:
            raise ValueError(f'NeMoMosaic: tau_mode={self.tau_mode!r} is none of {TAU_MODES}')
        if self.top_k < 1 or (self.tau_mode == 'relative' and self.tau <= 0):
            raise ValueError(f'NeMoMosaic: top_k={self.top_k} and tau={self.tau} must be positive')
        if self.short_band not in ('random', 'plain'):
            raise ValueError(f'NeMoMosaic: short_band={self.short_band!r} is not random or plain')
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f'NeMoMosaic: interpolation {self.interpolation!r} is unknown')
        if self.mined_prob > 0 and not (self.bank and 'path' in self.bank):
            raise ValueError('NeMoMosaic: mined_prob > 0 needs bank=dict(path=..., model=..., ...)')

    def kind_at(self, visit: int, draw: float) -> str | None:
        """What a sample becomes.

        Args:
            visit: Pass over the data, from 0.
            draw: Uniform number in [0, 1).

        Returns:
            ``'random'``, ``'mined'``, or None for the plain sample.
        """
        if visit < self.start_epoch:
            return 'random' if draw < self.warmup_prob else None
        if draw < self.random_prob:
            return 'random'
        return 'mined' if draw < self.random_prob + self.mined_prob else None

    def transform(self, results: dict) -> dict:
        """Draw the kind of the sample, and make it."""
        rng = generator_of(results)
        kind = self.kind_at(results['visit'], rng.random())
        if kind is None:
            return self.plain(results)
        if len(results['expressions']) != 1:
            raise ValueError(
                f'NeMoMosaic needs one expression, not {len(results["expressions"])}: put '
                'SampleExpressions(num=1) before it'
            )
        plan = self.plan(kind, results, rng)
        if plan.short and self.short_band == 'plain':
            return self.plain(results)
        return self.render(results, plan)

    def plan(self, kind: str, results: dict, rng: np.random.Generator) -> MosaicPlan:
        """Choose the cell and the negatives.

        Args:
            kind: ``'mined'`` or ``'random'``.
            results: The item.
            rng: The sample's generator.

        Returns:
            The plan.

        Raises:
            ValueError: The pool holds no other image.
        """
        rows, columns = self.grid
        expression = results['expressions'][0] if self.keep_positions else ''
        cell = int(rng.choice(allowed_cells(expression, rows, columns)))
        wanted, pool = rows * columns - 1, results['pool']
        if kind == 'random':
            names = _random_names(pool, results['img_id'], wanted, rng)
            return MosaicPlan(kind, cell, tuple(names), (float('nan'),) * wanted)
        bank = _open_bank(self.bank['path'], pool.fingerprint)
        band = bank.band(
            results['sent_ids'][0], self.tau, self.tau_mode, self.top_k, results['expressions'][0]
        )
        chosen = rng.permutation(len(band.rows))[:wanted]
        names = [str(bank.image_names[row]) for row in band.rows[chosen]]
        short = wanted - len(names)
        if short:
            # Images above tau may show the referent: they fill a cell only where no other can.
            rows, *_ = bank.row(results['sent_ids'][0])
            above = [str(bank.image_names[row]) for row in rows[: band.above]]
            names += _random_names(pool, results['img_id'], short, rng, names, above)
        similarities = [float(s) for s in band.similarities[chosen]] + [float('nan')] * short
        return MosaicPlan(
            kind,
            cell,
            tuple(names),
            tuple(similarities),
            float(band.self_similarity),
            short,
            bool(band.exhausted),
        )

    def render(self, results: dict, plan: MosaicPlan) -> dict:
        """Read each image once and write it into its cell.

        Args:
            results: The item.
            plan: Of :meth:`plan`.

        Returns:
            ``results`` with image, mask and the record of the mosaic.
        """
        canvas = np.empty((*self.size, 3), np.uint8)
        mask = np.zeros(self.size, np.uint8)
        others = iter(plan.names)
        for cell, window in enumerate(self._windows()):
            height, width = (s.stop - s.start for s in window)
            if cell == plan.cell:
                image = read_image(results['img_path'], results['height'], results['width'])
                mask[window] = cv2.resize(
                    referent_masks(results)[0],
                    (width, height),
                    interpolation=cv2.INTER_NEAREST_EXACT,
                )
            else:
                image = read_image(results['pool'].path_of(next(others)))
            canvas[window] = cv2.resize(
                image, (width, height), interpolation=INTERPOLATIONS[self.interpolation]
            )
        results.update(
            img=canvas,
            gt_seg_map=mask,
            img_shape=self.size,
            ori_shape=self.size,
            mosaic=dict(
                kind=plan.kind,
                cell=plan.cell,
                grid=self.grid,
                names=list(plan.names),
                similarities=list(plan.similarities),
                self_similarity=plan.self_similarity,
                short=plan.short,
                exhausted=plan.exhausted,
            ),
        )
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def _windows(self) -> list[tuple[slice, slice]]:
        """The cells as slices of the canvas, row by row.

        Where the canvas does not divide, they differ by a pixel.
        """
        rows = np.linspace(0, self.size[0], self.grid[0] + 1).round().astype(int)
        columns = np.linspace(0, self.size[1], self.grid[1] + 1).round().astype(int)
        return [
            (slice(top, bottom), slice(left, right))
            for top, bottom in zip(rows, rows[1:])
            for left, right in zip(columns, columns[1:])
        ]

    def __repr__(self) -> str:
        names = (
            'size bank warmup_prob random_prob mined_prob start_epoch tau tau_mode top_k grid '
            'keep_positions short_band interpolation plain'
        )
        settings = ', '.join(f'{name}={getattr(self, name)!r}' for name in names.split())
        return f'{type(self).__name__}({settings})'


def _random_names(
    pool: ImagePool,
    image_id: int,
    number: int,
    rng: np.random.Generator,
    taken: Sequence[str] = (),
    avoid: Sequence[str] = (),
) -> list[str]:
    """Names of ``number`` images of the pool, other than the item's own and those taken.

    Those to avoid come last; a pool with too few gives some images twice.
    """
    if len(pool) < 2:
        raise ValueError('a mosaic needs a second image, but the pool holds one')
    own, taken, avoid = pool.row_of(image_id), set(taken), set(avoid)
    # A handful more than needed is drawn, so that a large pool is never enumerated.
    size = min(len(pool), number + len(taken) + len(avoid) + 1)
    candidates = rng.choice(len(pool), size=size, replace=False)
    free = [row for row in candidates if row != own and pool.names[row] not in taken]
    free = sorted(free, key=lambda row: pool.names[row] in avoid)[:number]
    while len(free) < number:
        row = int(rng.integers(len(pool)))
        if row != own:
            free.append(row)
    return [str(pool.names[row]) for row in free]
