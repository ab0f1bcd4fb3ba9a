"""Sheets of augmented training samples: what the network is going to see."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from tqdm import tqdm

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.evaluation.predictions import write_image
from nemo_mmseg.mining.requirements import wanted_banks

from .drawing import (
    NEUTRAL_COLOR,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    add_caption,
    caption_size,
    draw_label,
    draw_mask,
    make_grid,
)


def find_settings(cfg: Any, name: str) -> Iterator[dict]:
    """All dicts in a config, however deep, whose `type` is `name`.

    Args:
        cfg: Dict, list or anything else.
        name: Name of a class, without a scope.
    """
    if isinstance(cfg, dict):
        kind = cfg.get('type')
        if isinstance(kind, str) and kind.split('.')[-1] == name:
            yield cfg
        for value in cfg.values():
            yield from find_settings(value, name)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            yield from find_settings(value, name)


def draw_training_sample(packed: dict) -> np.ndarray:
    """Draws one sample as it goes to the network.

    Args:
        packed: `inputs` (3, H, W) uint8 BGR and `data_samples` with `gt_sem_seg` (N, H, W) and
            metainfo `expressions` and perhaps `mosaic`, `mixed` and `num_targets`.

    Returns:
        (H', W', 3) uint8 RGB: one panel an expression, side by side. In a mosaic each negative's
        cell says its similarity to the expression, the referent's own cell that of its image.
    """
    image = packed['inputs'].numpy()[::-1].transpose(1, 2, 0)
    sample = packed['data_samples']
    masks = sample.gt_sem_seg.data.numpy()
    mosaic = sample.get('mosaic')
    numbers = sample.get('num_targets') or [1] * len(masks)
    panels = []
    for expression, mask, number in zip(sample.expressions, masks, numbers, strict=True):
        drawn = draw_mask(np.ascontiguousarray(image), mask == 1, TRUTH_COLOR, alpha=0.2)
        drawn[mask == 255] = drawn[mask == 255] // 2
        text = expression if number == 1 else f'{expression} [{number or "no"} targets]'
        if mosaic is not None:
            _label_cells(drawn, mosaic, bool(sample.get('flip')))
            text += '\n' + describe_mosaic(mosaic)
        if 'mixed' in sample:
            text += f'\n{sample.mixed["kind"]}: {Path(sample.mixed["img_path"]).name}'
        panels.append(add_caption(drawn, text, num_lines=3))
    return make_grid(panels, len(panels))


def describe_mosaic(mosaic: dict) -> str:
    """One line about a mosaic.

    Args:
        mosaic: Metainfo of that name: `kind`, `cell`, `grid`, `names`, `similarities`,
            `self_similarity`, `truncated` and `num_filled`.
    """
    rows, cols = mosaic['grid']
    text = f'{mosaic["kind"]} mosaic {rows}x{cols}'
    if not math.isnan(mosaic['self_similarity']):
        text += f', own image {mosaic["self_similarity"]:.3f}'
    if mosaic.get('num_filled'):
        text += f', {mosaic["num_filled"]} random for want of mined'
    if mosaic.get('truncated'):
        text += ', band reaches below the bank'
    return text


def _label_cells(image: np.ndarray, mosaic: dict, flipped: bool) -> None:
    """Writes the score of each cell into its corner, in place."""
    rows, cols = mosaic['grid']
    height, width = image.shape[:2]
    tops, lefts = mosaic.get('edges') or [
        np.linspace(0, pixels, n + 1) for pixels, n in ((height, rows), (width, cols))
    ]
    if flipped:
        lefts = [width - right for right in lefts[1:]]
    size = max(9, caption_size(width) - 3)
    scores = iter(mosaic['similarities'])
    for cell in range(rows * cols):
        row, col = divmod(cell, cols)
        if cell == mosaic['cell']:
            text, color = 'target', TRUTH_COLOR
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
    """Writes sheets of the training samples that a config makes. Never mines.

    The samples are those of the training: sample `i` of pass `epoch` under the config's seed.

    Args:
        cfg: Config with `train_dataloader`; `randomness.seed` (0 if it sets none).
        out_dir: Folder for `sheet_000.png`, ...
        num: Samples, evenly spread over the data set. Defaults to 24.
        epoch: Pass over the data, from 0; None takes the first in which each `NeMoMosaic` mines.
        indices: Samples to draw instead of `num` spread ones.
        num_cols: Samples in a row of a sheet.
        num_rows: Rows of a sheet.
        progress: Whether to show a progress bar.

    Returns:
        The files, in order.

    Raises:
        FileNotFoundError: If a bank is missing; names the command that mines it.
        ValueError: If there is nothing to draw, or an index is not in the data set.
    """
    if cfg.get('train_dataloader') is None:
        raise ValueError('the config has no train_dataloader to browse')
    mosaics = list(find_settings(cfg.train_dataloader, 'NeMoMosaic'))
    if epoch is None:
        epoch = max((mosaic.get('start_epoch', 0) for mosaic in mosaics), default=0)
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    dataset = DATASETS.build(cfg.train_dataloader['dataset'])
    for wanted in wanted_banks(dataset):
        # now: samples that happen to be no mosaics would hide that it is missing
        wanted.check()
    if indices is None:
        spread = np.linspace(0, len(dataset), min(num, len(dataset)), endpoint=False)
        indices = spread.astype(int).tolist()
    wrong = [index for index in indices if not 0 <= index < len(dataset)]
    if wrong or not indices:
        raise ValueError(f'cannot draw {wrong or "no samples"} of {len(dataset)} samples')
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    per_sheet = num_cols * num_rows
    files = []
    tiles = []
    for count, index in enumerate(tqdm(indices, unit='sample', disable=not progress), start=1):
        tiles.append(draw_training_sample(dataset[SampleIndex(index, epoch=epoch, seed=seed)]))
        if len(tiles) == per_sheet or count == len(indices):
            files.append(Path(out_dir) / f'sheet_{len(files):03d}.png')
            write_image(files[-1], make_grid(tiles, num_cols, gap=10))
            tiles = []
    return files
