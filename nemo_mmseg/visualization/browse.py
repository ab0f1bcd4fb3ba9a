"""Draw sheets of augmented training samples: what the network is going to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from tqdm import tqdm

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms.nemo.nemo_mosaic import NeMoMosaic
from nemo_mmseg.datasets.wrappers import data_sets_of, transforms_in
from nemo_mmseg.evaluation.predictions import write_image
from nemo_mmseg.mining.requirements import check, requirements_of

from .drawing import (
    GT_COLOR,
    NEUTRAL_COLOR,
    PREDICTION_COLOR,
    add_caption,
    caption_size,
    draw_label,
    draw_mask,
    make_grid,
)


def draw_training_sample(packed: dict) -> np.ndarray:
    """Draw one sample as it goes to the network.

    Args:
        packed: ``inputs`` ``(3, H, W)`` uint8 BGR and ``data_samples`` with ``gt_sem_seg``
            ``(N, H, W)`` and metainfo ``expressions`` and perhaps ``mosaic``, ``mixed``,
            ``replaced`` and ``num_targets``.

    Returns:
        ``(H', W', 3)`` uint8 RGB: one panel an expression, side by side. The cells of a mosaic show
        the similarity of their image to the expression.
    """
    image = packed['inputs'].numpy()[::-1].transpose(1, 2, 0)
    sample = packed['data_samples']
    masks = sample.gt_sem_seg.data.numpy()
    mosaic = sample.get('mosaic')
    numbers = sample.get('num_targets') or [1] * len(masks)
    panels = []
    for expression, mask, number in zip(sample.expressions, masks, numbers, strict=True):
        drawn = draw_mask(np.ascontiguousarray(image), mask == 1, GT_COLOR, alpha=0.2)
        drawn[mask == 255] = drawn[mask == 255] // 2
        text = expression if number == 1 else f'{expression} [{number or "no"} targets]'
        if mosaic is not None:
            _label_cells(drawn, mosaic, bool(sample.get('flip')))
            text += '\n' + describe_mosaic(mosaic)
        if 'mixed' in sample:
            text += f'\n{sample.mixed["kind"]}: {Path(sample.mixed["img_path"]).name}'
        if 'replaced' in sample:
            text += f'\n{sample.replaced["kind"]}, instead of: {sample.replaced["expression"]}'
        panels.append(add_caption(drawn, text, num_lines=3))
    return make_grid(panels, len(panels))


def describe_mosaic(mosaic: dict) -> str:
    """Describe a mosaic in one line.

    Args:
        mosaic: Metainfo of that name, see :class:`NeMoMosaic`.
    """
    rows, cols = mosaic['grid']
    text = f'{mosaic["kind"]} mosaic {rows}x{cols}'
    if not math.isnan(mosaic['self_similarity']):
        text += f', target image {mosaic["self_similarity"]:.3f}'
    if mosaic['num_filled']:
        text += f', {mosaic["num_filled"]} filled at random'
    if mosaic['truncated']:
        text += ', band truncated'
    return text


def _label_cells(image: np.ndarray, mosaic: dict, flipped: bool) -> None:
    """Write the similarity of each cell into its corner, in place."""
    rows, cols = mosaic['grid']
    width = image.shape[1]
    tops, lefts = mosaic['edges']
    if flipped:
        lefts = [width - right for right in lefts[1:]]
    size = max(9, caption_size(width) - 3)
    scores = iter(mosaic['similarities'])
    for cell in range(rows * cols):
        row, col = divmod(cell, cols)
        if cell == mosaic['cell']:
            text, color = 'target', GT_COLOR
            if not math.isnan(mosaic['self_similarity']):
                text += f' {mosaic["self_similarity"]:.3f}'
        else:
            score = next(scores)
            text = 'random' if math.isnan(score) else f'{score:.3f}'
            color = NEUTRAL_COLOR if math.isnan(score) else PREDICTION_COLOR
        place = (round(lefts[col]) + 2, round(tops[row]) + 2)
        draw_label(image, text, place, color, size)


def browse_dataset(
    cfg: Config,
    out_dir: str,
    num: int = 24,
    epoch: int | None = None,
    indices: Sequence[int] | None = None,
    num_cols: int = 4,
    num_rows: int = 3,
    progress: bool = True,
) -> list[Path]:
    """Write sheets of the training samples that a config makes. This never mines.

    The samples are those of the training: sample ``i`` of an epoch under the config's seed.

    Args:
        cfg: Config with ``train_dataloader``; ``randomness.seed`` (0 if it sets none).
        out_dir: Folder for ``sheet_000.png``, ...
        num: Samples, evenly spread over the data set. Defaults to 24.
        epoch: Epoch, from 0; None for the first in which each :class:`NeMoMosaic` has begun.
        indices: Samples to draw instead of ``num`` spread ones.
        num_cols: Samples in a row of a sheet.
        num_rows: Rows of a sheet.
        progress: Whether to show a progress bar.

    Returns:
        The files, in order.

    Raises:
        FileNotFoundError: A bank is missing; names the command that mines it.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    dataset = DATASETS.build(cfg.train_dataloader['dataset'])
    for requirement in requirements_of(dataset):
        # now: samples that happen to be no mosaics would hide that a file is missing
        check(requirement)
    if epoch is None:
        pipelines = [pipelines for _, pipelines in data_sets_of(dataset)]
        mosaics = [part for part in transforms_in(pipelines) if isinstance(part, NeMoMosaic)]
        epoch = max((mosaic.schedule.start_epoch for mosaic in mosaics), default=0)
    if indices is None:
        spread = np.linspace(0, len(dataset), min(num, len(dataset)), endpoint=False)
        indices = spread.astype(int).tolist()
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    files, tiles = [], []
    for count, index in enumerate(tqdm(indices, unit='sample', disable=not progress), start=1):
        tiles.append(draw_training_sample(dataset[SampleIndex(index, epoch=epoch, seed=seed)]))
        if len(tiles) == num_cols * num_rows or count == len(indices):
            files.append(Path(out_dir) / f'sheet_{len(files):03d}.png')
            write_image(files[-1], make_grid(tiles, num_cols, gap=10))
            tiles = []
    return files
