"""NeMo: the training image becomes one cell of a mosaic with images that are hard but wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, Compose
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.samplers import generator_of
from nemo_mmseg.datasets.transforms.loading import referent_masks
from nemo_mmseg.mining.requirements import WantedStore
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.leak_guard import LeakGuard, refuse_own_tests
from nemo_mmseg.negatives.pool import ImagePool, bank_fingerprint, folder_pool
from nemo_mmseg.utils.position_words import position_cells

from .cells import MosaicImages, open_bank, random_names
from .grid import Edges, MosaicGrid, windows
from .schedule import MosaicSchedule, Ramp

# Of the argument `bank`; all but the first say how it is mined.
BANK_KEYS = ('path', 'model', 'pretrained', 'keep', 'images', 'index')


@TRANSFORMS.register_module()
class NeMoMosaic(BaseTransform):
    """Negative-mined mosaic augmentation (NeMo, ECCV 2024), or the plain sample.

    For the item's expression the bank gives the images of the pool that match it best. Those above
    the upper threshold ``tau`` are dropped (they may hold the referent too), the next ``top_k`` are
    the band. Negatives are drawn from the band, the item's own image takes a random cell of the
    grid, in which its position words stay true, and only its mask is the target.

    With several targets the mask is their union, and empty where the expression describes nothing
    in its own image: a negative of such an expression is an image that does not show it either,
    guessed as for any other by its similarity (``docs/grefcoco.md``).

    It stands where a pipeline reads and resizes its image, after ``SampleExpressions``;
    ``transforms`` holds the transforms of a sample without mosaic.

    Required Keys:

    - img_path, height, width, img_id, instances, targets, expressions, sent_ids (of one expression)
    - rng, epoch, pool (the data sets of this package give them)

    Added Keys (for a mosaic):

    - img ((H, W, 3) uint8, BGR), gt_seg_map ((H, W) uint8), img_shape, ori_shape
    - mosaic: dict of kind, cell, grid, edges, names, similarities, self_similarity, num_filled,
      truncated

    Values said to be a number or a ramp may change from pass to pass over the data:
    ``dict(type='LinearRamp', begin=0, end=10, first=0.0, last=0.5)`` or
    ``dict(type='StepRamp', milestones=[5, 10], values=[0.1, 0.3, 0.5])``; see
    :mod:`nemo_mmseg.datasets.transforms.ramps`. :class:`NegativeMiningHook` refuses a training that
    is too short for them. A config that inherits a number in their place adds ``_delete_=True``.

    Args:
        size: Height and width of the mosaic, in pixels. The item's own image is stretched to its
            cell, as published.
        transforms: Transforms that read and resize a plain sample.
        bank: Where the mined negatives lie and how they are made: dict of ``path``, ``model``,
            ``pretrained`` and ``keep`` (see :func:`nemo_mmseg.mining.mine_bank`). With ``images``,
            a folder, negatives (random ones, too) are its images in place of the data set's own;
            with ``index`` a faiss index is searched.
        warmup_prob: Before ``start_epoch``, the chance of a random mosaic; number or ramp. Defaults
            to 0.
        random_prob: From ``start_epoch`` on, the chance of a random mosaic; number or ramp.
            Defaults to 0.
        mined_prob: From ``start_epoch`` on, the chance of a mined mosaic; number or ramp. Defaults
            to 0.5. The two exclude one another; the rest is plain samples.
        start_epoch: Pass over the data, from 0, at which mined mosaics begin. Defaults to 0.
        tau: Upper threshold of the similarity; number or ramp, or None for none beside
            ``i2i_sim_thres``. Defaults to 0.95.
        tau_mode: ``'relative'`` compares with ``tau`` times the expression's similarity to its own
            image, ``'margin'`` with that similarity less ``tau`` (the shares and differences of
            NV-Retriever, arXiv 2407.15831), ``'absolute'`` with ``tau`` itself, as published (such
            a tau belongs to one CLIP), and ``'rank'`` drops the first ``tau`` images of the
            ranking. Defaults to ``'relative'``.
        top_k: Images in the band, below the threshold, as many as fill a mosaic or more; number or
            ramp. Defaults to 100.
        i2i_sim_thres: Images that resemble the item's own image more than this (cosine of the
            bank's image vectors) are dropped, too; number, ramp or None. Defaults to None.
        grid: Rows and columns, or a list of such pairs. Defaults to (2, 2).
        grid_probs: Probabilities of the pairs of such a list. Defaults to equal ones.
        crossing: Where the lines between cells lie: ``'fixed'`` (equal cells), a number in (0, 1]
            (moved by up to half a cell times this to either side; 1 with a 2x2 grid is the
            published range, the middle half; below 1 for three or more cells side by side), or
            ``'free'`` (anywhere). Defaults to ``'fixed'``.
        min_cell: The smallest side of a cell where lines move, in pixels. Defaults to 32.
        keep_positions: Whether "left" keeps the image in the left column, and so on. Defaults to
            True.
        short_band: Where an expression's band holds too few images for the grid: ``'random'``
            images of the pool fill the rest (counted in ``mosaic['num_filled']``), or the sample
            stays ``'plain'``. Defaults to ``'random'``.
        negative_fit: How negatives fill their cells: ``'stretch'``, as published, or ``'crop'``,
            cut to the cell's aspect at a random place (the item's own image is always stretched,
            since its referent must not be cut). Defaults to ``'stretch'``.
        negative_blur: Standard deviation of a Gaussian over negatives, as a share of the shorter
            side of the cell. A strong one, such as 0.1, leaves of the augmentation only the
            target's small scale (the paper's ablation). Defaults to 0.
        interpolation: Of the images. Defaults to ``'bilinear'``, as published.
        leak_guard: Which images may not be negatives because they are tested on: dict of
            ``split_files``, ``data_root``, ``splits`` and ``action``, see
            :class:`nemo_mmseg.datasets.LeakGuard`. Defaults to None.
        store: Tile store from which cells are read in place of images: dict of ``path``,
            ``encoding``, ``quality``, ``size``, ``resize`` and ``target``, see
            :class:`nemo_mmseg.datasets.transforms.mosaic_images.MosaicImages`. Defaults to None.
        negative_decode: Without store: ``'full'``, as published, or ``'reduced'``: JPEG files of at
            least twice the cell's size are decoded at 1/2 (1/4, 1/8) of theirs, which costs less
            and aliases less. Defaults to ``'full'``.

    Raises:
        TileStoreError: When the data set is built, if the store is there and was made of other
            images or for other cells.
        LeakError: When the data set is built, if its pool has such images and the guard's action is
            ``'error'``, or if the folder of negatives has images that the data set itself holds
            out, asked for or not.
        ValueError: Options that make no sense or contradict one another: probabilities outside
            [0, 1] or with a sum above 1 in some pass, a ramp that never reaches its last value or
            is over before it is used, a grid of one cell or of more than the band can fill, no bank
            where one is needed or one of unknown entries, ...
    """

    def __init__(
        self,
        size: Sequence[int],
        transforms: Sequence[dict],
        bank: dict | None = None,
        warmup_prob: float | dict | Ramp = 0.0,
        random_prob: float | dict | Ramp = 0.0,
        mined_prob: float | dict | Ramp = 0.5,
        start_epoch: int = 0,
        tau: float | dict | Ramp | None = 0.95,
        tau_mode: str = 'relative',
        top_k: int | dict | Ramp = 100,
        i2i_sim_thres: float | dict | Ramp | None = None,
        grid: Sequence = (2, 2),
        grid_probs: Sequence[float] | None = None,
        crossing: str | float = 'fixed',
        min_cell: int = 32,
        keep_positions: bool = True,
        short_band: str = 'random',
        negative_fit: str = 'stretch',
        negative_blur: float = 0.0,
        interpolation: str = 'bilinear',
        leak_guard: dict | None = None,
        store: dict | None = None,
        negative_decode: str = 'full',
    ) -> None:
        self.layout = MosaicGrid(size, grid, grid_probs, crossing, min_cell)
        self.size = self.layout.size
        self.transforms = Compose(list(transforms))
        if not isinstance(bank, (dict, type(None))):
            raise ValueError(f'bank={bank!r} must be dict(path=..., model=..., ...)')
        self.bank = None if bank is None else dict(bank)
        self.schedule = MosaicSchedule(
            warmup_prob,
            random_prob,
            mined_prob,
            start_epoch,
            tau,
            tau_mode,
            top_k,
            i2i_sim_thres,
            (bank or {}).get('keep'),
        )
        self.keep_positions = keep_positions
        self.short_band = short_band
        self._check_arguments()
        self.pictures = MosaicImages(
            self.layout,
            interpolation,
            negative_fit,
            negative_blur,
            negative_decode,
            store,
            self.images,
        )
        self.leak_guard = None if leak_guard is None else LeakGuard.from_config(leak_guard)

    def _check_arguments(self) -> None:
        if self.short_band not in ('random', 'plain'):
            raise ValueError(f"short_band={self.short_band!r} is none of ('random', 'plain')")
        if unknown := set(self.bank or {}) - set(BANK_KEYS):
            raise ValueError(f'bank has {sorted(unknown)}, but its entries are {BANK_KEYS}')
        if self.mines and not (self.bank and 'path' in self.bank):
            raise ValueError('mined_prob > 0 needs bank=dict(path=..., model=..., ...)')
        if not isinstance(self.keep_positions, bool):
            raise ValueError(f'keep_positions={self.keep_positions!r} must be True or False')
        if self.mines:
            filled = self.short_band == 'random'
            self.schedule.check_cells(
                self.layout.fewest_cells if filled else self.layout.most_cells
            )

    @property
    def mines(self) -> bool:
        """Whether any pass over the data has mined mosaics."""
        return self.schedule.mines

    def band_rules(self) -> list[BandRule]:
        """The band; with ramps, the bands between whose bounds all others lie, by pass."""
        return self.schedule.rules()

    def check_passes(self, passes: int) -> None:
        """Refuse a training of too few passes; see :meth:`MosaicSchedule.check_passes`."""
        self.schedule.check_passes(passes)

    @property
    def images(self) -> str | None:
        """Folder of the negatives; None where they are the data set's own images."""
        return (self.bank or {}).get('images')

    def negatives(self, own: ImagePool) -> ImagePool:
        """The images from which negatives are drawn.

        Args:
            own: Pool of the data set.

        Raises:
            LeakError: See :class:`nemo_mmseg.datasets.LeakGuard`.
            FileNotFoundError: The folder of negatives is missing or empty.
        """
        pool = own if self.images is None else folder_pool(self.images)
        return pool if self.leak_guard is None else self.leak_guard.clean(pool)

    def check_pool(self, dataset: Any) -> None:
        """Refuse images that are tested on, and tile stores of others; see the class.

        Called when the data set is built, and again before its bank is mined.
        """
        pool = self.negatives(dataset.pool)
        if self.images is not None:
            refuse_own_tests(dataset, pool, self.leak_guard)
        for store in self.stores(dataset.pool):
            store.check_if_there()

    def stores(self, own: ImagePool) -> list[WantedStore]:
        """The tile stores that mosaics read, for a data set with these images."""
        return self.pictures.stores(own)

    def transform(self, results: dict) -> dict:
        """Draw the kind of the sample, and make it."""
        rng = generator_of(results)
        kind = self.schedule.kind_at(results['epoch'], rng.random())
        if kind is None:
            return self.transforms(results)
        if len(results['expressions']) != 1:
            raise ValueError(
                f'NeMoMosaic needs one expression, not {len(results["expressions"])}: put '
                'SampleExpressions(num=1) before it'
            )
        plan = self.plan(kind, results, rng)
        if plan.num_filled and self.short_band == 'plain':
            return self.transforms(results)
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
        grid = rows, columns = self.layout.draw(rng)
        expression = results['expressions'][0] if self.keep_positions else ''
        cell = int(rng.choice(sorted(position_cells(expression, rows, columns))))
        wanted, pool = rows * columns - 1, self.negatives(results['pool'])
        if kind == 'random':
            own = pool.find(results['img_id'], results['img_path'])
            names = random_names(pool, own, wanted, rng)
            details = dict(similarities=(float('nan'),) * wanted)
        else:
            names, details = self._mined(results, wanted, rng)
        edges = self.layout.edges(grid, rng)
        places = rng.random(wanted).tolist() if self.pictures.crops else ()
        return MosaicPlan(kind, cell, tuple(names), edges=edges, places=tuple(places), **details)

    def _mined(
        self, results: dict, wanted: int, rng: np.random.Generator
    ) -> tuple[list[str], dict[str, Any]]:
        """Names of negatives from the band, and what the plan says of them."""
        sent_id, expression = results['sent_ids'][0], results['expressions'][0]
        pool = self.negatives(results['pool'])
        bank = open_bank(self.bank['path'], bank_fingerprint(results['pool'], self.images))
        rule = self.schedule.rule_at(results['epoch'])
        if self.leak_guard is None:
            band = bank.band(sent_id, *rule, expression)
        else:
            band = self.leak_guard.band(bank, sent_id, rule, expression)
        chosen = rng.permutation(len(band.rows))[:wanted]
        names = [str(bank.image_names[row]) for row in band.rows[chosen]]
        short = wanted - len(names)
        if short:
            # Those dropped may show the referent: they fill a cell only where no other can.
            ranking, *_ = bank.row(sent_id)
            dropped = (*ranking[: band.above], *band.dropped)
            avoid = [str(bank.image_names[row]) for row in dropped]
            own = pool.find(results['img_id'], results['img_path'])
            names += random_names(pool, own, short, rng, names, avoid)
        similarities = [float(s) for s in band.similarities[chosen]] + [float('nan')] * short
        return names, dict(
            similarities=tuple(similarities),
            self_similarity=float(band.self_similarity),
            num_filled=short,
            truncated=bool(band.truncated),
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
        pool, others = self.negatives(results['pool']), iter(range(len(plan.names)))
        for cell, window in enumerate(windows(plan.edges)):
            height, width = (s.stop - s.start for s in window)
            if cell == plan.cell:
                canvas[window] = self.pictures.target(results, height, width)
                mask[window] = cv2.resize(
                    referent_masks(results)[0],
                    (width, height),
                    interpolation=cv2.INTER_NEAREST_EXACT,
                )
            else:
                other = next(others)
                place = plan.places[other] if plan.places else None
                canvas[window] = self.pictures.negative(
                    pool, plan.names[other], results['pool'], height, width, place
                )
        results.update(
            img=canvas,
            gt_seg_map=mask,
            img_shape=self.size,
            ori_shape=self.size,
            mosaic=plan.record(),
        )
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        settings = dict(
            size=self.size,
            bank=self.bank,
            start_epoch=self.schedule.start_epoch,
            **self.schedule.values,
            tau_mode=self.schedule.tau_mode,
            **self.layout.settings,
            keep_positions=self.keep_positions,
            short_band=self.short_band,
            **self.pictures.settings,
            leak_guard=self.leak_guard,
            transforms=self.transforms,
        )
        return f'{type(self).__name__}({", ".join(f"{k}={v!r}" for k, v in settings.items())})'


@dataclass(frozen=True)
class MosaicPlan:
    """What a mosaic will show, before any image is read.

    Attributes:
        kind: ``'mined'`` or ``'random'``.
        cell: Cell of the referent's image, row by row.
        names: File names of the negatives, in the order of the other cells.
        similarities: Their similarities to the expression; NaN for random images.
        edges: Pixels at which rows and columns begin, and the last ones end.
        places: Where each negative is cropped, in [0, 1); empty where it is stretched.
        self_similarity: Similarity of the expression to its own image; NaN for a random mosaic.
        num_filled: How many negatives the band lacked, so that random images took their places.
        truncated: Whether the band reached below the stored neighbours.
    """

    kind: str
    cell: int
    names: tuple[str, ...]
    similarities: tuple[float, ...]
    edges: Edges
    places: tuple[float, ...] = ()
    self_similarity: float = float('nan')
    num_filled: int = 0
    truncated: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.edges[0]) - 1, len(self.edges[1]) - 1

    def record(self) -> dict[str, Any]:
        """The plan as it travels with the sample."""
        return dict(
            kind=self.kind,
            cell=self.cell,
            grid=self.grid,
            edges=self.edges,
            names=list(self.names),
            similarities=list(self.similarities),
            self_similarity=self.self_similarity,
            num_filled=self.num_filled,
            truncated=self.truncated,
        )
