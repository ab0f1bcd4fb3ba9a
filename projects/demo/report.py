"""One self-contained page about a training run with NeMo."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from bank_page import edge_tiles, own_tile, shown_expressions
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.datasets.transforms.loading import read_image, referent_masks
from nemo_mmseg.mining.requirements import wanted_banks
from nemo_mmseg.visualization.browse import draw_training_sample
from nemo_mmseg.visualization.drawing import (
    GT_COLOR,
    PREDICTION_COLOR,
    add_caption,
    draw_mask,
    make_grid,
)
from nemo_mmseg.visualization.page import figure_png, html_table, image_tag, picture_tag, write_page


def write_report(cfg: Config, work_dir: str, splits: Sequence[str] = ('val',)) -> Path:
    """Write ``index.html`` into a work folder.

    Args:
        cfg: The run's config, with a NeMoMosaic that mines.
        work_dir: Folder of the run, with its log and, in one folder a split, what ``tools/test.py
            --out`` wrote.
        splits: The splits with results. The first one's predictions are shown.

    Returns:
        The page.

    Raises:
        FileNotFoundError: The bank or the results of a split are missing.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    seed = cfg.get('randomness', {}).get('seed') or 0
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    results = {split: _read(Path(work_dir) / split) for split in splits}
    sections = [_scores(results), _curves(work_dir), _mosaics(dataset, seed)]
    for wanted in wanted_banks(dataset):
        sections.append(_bands(wanted))
    test_cfg = dict(cfg.test_dataloader.dataset, split=splits[0])
    sections.append(
        _predictions(DATASETS.build(test_cfg), results[splits[0]], Path(work_dir) / splits[0])
    )
    page = Path(work_dir) / 'index.html'
    title = f'NeMo on {dataset.metainfo["dataset_name"]}'
    write_page(page, title, '\n'.join(sections))
    return page


def _read(folder: Path) -> dict[str, Any]:
    files = {name: folder / f'{name}.json' for name in ('metrics', 'predictions')}
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(f'there is no {file}; tools/test.py --out writes it')
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def _scores(results: dict[str, dict]) -> str:
    columns = list(next(iter(results.values()))['metrics'])
    rows = [
        [split, *(f'{result["metrics"][name]:.4g}' for name in columns)]
        for split, result in results.items()
    ]
    return '<h2>Scores</h2>' + html_table(('split', *columns), rows)


def _scalars(work_dir: str) -> list[dict]:
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        return []
    return [json.loads(line) for line in files[-1].read_text().splitlines() if line.strip()]


def _curves(work_dir: str) -> str:
    scalars = _scalars(work_dir)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.4))
    trained = [s for s in scalars if 'loss' in s]
    left.plot([s['step'] for s in trained], [s['loss'] for s in trained])
    left.set(title='training loss', xlabel='iteration', yscale='log')
    for name in ('oIoU', 'mIoU'):
        tested = [s for s in scalars if name in s]
        middle.plot([s['step'] for s in tested], [s[name] for s in tested], 'o-', label=name)
    middle.set(title='validation, per cent', xlabel='step')
    middle.legend()
    for name in ('mosaic/mined', 'mosaic/random', 'mosaic/filled', 'mosaic/truncated'):
        shares = [s for s in trained if name in s]
        right.plot([s['step'] for s in shares], [s[name] for s in shares], label=name)
    right.set(title='shares of the samples so far', xlabel='iteration', ylim=(-0.02, 1.02))
    right.legend()
    figure.tight_layout()
    plt.close(figure)
    return '<h2>Training</h2>' + image_tag(figure_png(figure), 'png', 'curves')


def _mosaics(dataset: Any, seed: int, number: int = 12) -> str:
    tiles = []
    index = 0
    while len(tiles) < number and index < len(dataset):
        packed = dataset[SampleIndex(index, epoch=10**6, seed=seed)]
        if 'mosaic' in packed['data_samples'].metainfo:
            tiles.append(draw_training_sample(packed))
        index += max(1, len(dataset) // (4 * number))
    if not tiles:
        return '<h2>Mosaics</h2><p>The config makes none.</p>'
    return (
        '<h2>Mosaics</h2><p>Training samples as the network sees them. Only the referent in the '
        'cell marked <i>target</i> is foreground; the other cells show images that match the '
        'expression and do not hold its referent. Numbers are CLIP similarities.</p>'
        + picture_tag(make_grid(tiles, 4), 'mosaics')
    )


def _bands(wanted: Any, number: int = 6) -> str:
    """For some expressions: images above the threshold, in the band, and below it."""
    bank, rule = wanted.check(), wanted.mosaic.band_rules()[-1]  # the last pass's, with ramps
    parts = [
        f'<h2>The band</h2><p>{html.escape(str(rule))}. For '
        'some expressions: the own image; images above the threshold, which may show the referent '
        'too and are dropped; images of the band, from which negatives are drawn; images below it, '
        'which are too easy.</p>'
    ]
    for sent_id, text, image in shown_expressions(wanted.dataset, number):
        sizes, tiles = edge_tiles(wanted, bank, sent_id, rule)
        tiles = [own_tile(bank, sent_id, image), *tiles]
        parts.append(f'<h3>{html.escape(text)}</h3><p>{sizes}</p>')
        parts.append(picture_tag(make_grid(tiles, len(tiles)), text))
    return ''.join(parts)


def _predictions(dataset: Any, results: dict, folder: Path, number: int = 8) -> str:
    """The best and the worst predictions, and some between, truth beside them."""
    records = sorted(results['predictions']['predictions'], key=lambda r: -r['iou'])
    items = {item['img_id']: item for item in map(dataset.get_data_info, range(len(dataset)))}
    groups = {
        'Good': records[: len(records) // 4 : max(1, len(records) // 4 // number)][:number],
        'Middling': records[len(records) // 4 :: max(1, len(records) // 2 // number)][:number],
        'Bad': records[::-1][: len(records) // 4 : max(1, len(records) // 4 // number)][:number],
    }
    parts = [
        '<h2>Predictions</h2><p>Truth in green, prediction in orange, spread over the best '
        'quarter, the middle and the worst quarter by IoU.</p>'
    ]
    for name, group in groups.items():
        tiles = [_prediction_tile(r, items[r['image_id']], folder) for r in group]
        parts.append(f'<h3>{name}</h3>' + picture_tag(make_grid(tiles, 4), name))
    return ''.join(parts)


def _prediction_tile(record: dict, item: dict, folder: Path) -> np.ndarray:
    image = np.ascontiguousarray(read_image(item['img_path'])[..., ::-1])
    truth = referent_masks(item)[item['sent_ids'].index(record['sent_id'])] > 0
    prediction = np.array(Image.open(folder / record['mask'])) > 0
    drawn = draw_mask(image, truth, GT_COLOR, alpha=0.0)
    drawn = draw_mask(drawn, prediction, PREDICTION_COLOR, alpha=0.35)
    return add_caption(drawn, f'{record["expression"]}\nIoU {100 * record["iou"]:.0f}', num_lines=3)
