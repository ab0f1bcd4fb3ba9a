"""Write the page about a run with NeMo: ``python projects/demo/report.py CONFIG WORK_DIR``.

WORK_DIR is that of the training; ``tools/test.py --out WORK_DIR --splits ...`` wrote the results
into it. For RefShapes, whose scene graphs are known, the tool prints what they say of the mosaics.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tools' / 'analysis_tools')]
from bank_page import band_edges, draw_edges, draw_own_image, shown_expressions  # noqa: E402
from html_page import figure_png, html_table, image_tag, picture_tag, write_page  # noqa: E402
from refshapes_truth.mosaic_truth import mosaic_truth  # noqa: E402

import nemo_mmseg  # noqa: F401, E402  (registers our classes)
from nemo_mmseg.datasets.base import BaseReferringDataset  # noqa: E402
from nemo_mmseg.datasets.requirements import BankRequirement  # noqa: E402
from nemo_mmseg.datasets.samplers import SampleIndex  # noqa: E402
from nemo_mmseg.datasets.transforms.loading import referent_masks  # noqa: E402
from nemo_mmseg.datasets.transforms.nemo import NeMoMosaic  # noqa: E402
from nemo_mmseg.datasets.wrappers import transforms_in  # noqa: E402
from nemo_mmseg.mining import check_bank  # noqa: E402
from nemo_mmseg.mining.requirements import requirements_of  # noqa: E402
from nemo_mmseg.utils.config import add_config_arguments, load_config  # noqa: E402
from nemo_mmseg.utils.images import read_image  # noqa: E402
from nemo_mmseg.visualization.browse import draw_training_sample  # noqa: E402
from nemo_mmseg.visualization.drawing import (  # noqa: E402
    GT_COLOR,
    PREDICTION_COLOR,
    add_caption,
    draw_mask,
    make_grid,
)


def write_report(
    cfg: Config, dataset: BaseReferringDataset, work_dir: str, splits: Sequence[str]
) -> Path:
    """Write ``index.html`` into a work folder.

    Args:
        cfg: Config of the run, with a NeMoMosaic that mines.
        dataset: Its training data.
        work_dir: Folder of the run, with its log and, in one folder per split, the results.
        splits: The splits with results. The predictions of the first one are shown.

    Returns:
        The page.

    Raises:
        FileNotFoundError: The bank or the results of a split are missing.
    """
    seed = cfg.get('randomness', {}).get('seed') or 0
    folders = {split: Path(work_dir) / split for split in splits}
    metrics = {split: _read(folder, 'metrics') for split, folder in folders.items()}
    sections = [_scores(metrics), _curves(work_dir), _mosaics(dataset, seed)]
    for requirement in requirements_of(dataset):
        if isinstance(requirement, BankRequirement) and requirement.spec.kind == 'images':
            sections.append(_bands(requirement))
    tested = DATASETS.build(dict(cfg.test_dataloader.dataset, split=splits[0]))
    sections.append(_predictions(tested, folders[splits[0]]))
    page = Path(work_dir) / 'index.html'
    write_page(page, f'NeMo on {dataset.metainfo["dataset_name"]}', '\n'.join(sections))
    return page


def _read(folder: Path, name: str) -> Any:
    return json.loads((folder / f'{name}.json').read_text())


def _scores(metrics: dict[str, dict]) -> str:
    columns = list(next(iter(metrics.values())))
    rows = [
        [split, *(f'{values[name]:.4g}' for name in columns)] for split, values in metrics.items()
    ]
    return '<h2>Scores</h2>' + html_table(('split', *columns), rows)


def _curves(work_dir: str) -> str:
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    lines = files[-1].read_text().splitlines() if files else []
    scalars = [json.loads(line) for line in lines if line.strip()]
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


def _mosaics(dataset: BaseReferringDataset, seed: int, number: int = 12) -> str:
    tiles = []
    for index in range(0, len(dataset), max(1, len(dataset) // (4 * number))):
        packed = dataset[SampleIndex(index, epoch=10**6, seed=seed)]
        if 'mosaic' in packed['data_samples'].metainfo:
            tiles.append(draw_training_sample(packed))
        if len(tiles) == number:
            break
    if not tiles:
        return '<h2>Mosaics</h2><p>The config makes none.</p>'
    return (
        '<h2>Mosaics</h2><p>Training samples as the network sees them. Only the referent in the '
        'cell marked <i>target</i> is foreground; the other cells show images that match the '
        'expression and do not hold its referent. Numbers are CLIP similarities.</p>'
        + picture_tag(make_grid(tiles, 4), 'mosaics')
    )


def _bands(requirement: BankRequirement, number: int = 6) -> str:
    """Show, for some expressions, images above the threshold, in the band, and below it."""
    bank = check_bank(requirement.dataset, requirement.spec)
    rule = requirement.bands[-1]  # that of the last epoch, with ramps
    parts = [
        f'<h2>The band</h2><p>{html.escape(str(rule))}. For '
        'some expressions: the own image; images above the threshold, which may show the referent '
        'too and are dropped; images of the band, from which negatives are drawn; images below it, '
        'which are too easy.</p>'
    ]
    for sent_id, text, image in shown_expressions(requirement.dataset, number):
        sizes, edges = band_edges(requirement, bank, sent_id, rule)
        tiles = [draw_own_image(bank, sent_id, image), *draw_edges(edges)]
        parts.append(f'<h3>{html.escape(text)}</h3><p>{sizes}</p>')
        parts.append(picture_tag(make_grid(tiles, len(tiles)), text))
    return ''.join(parts)


def _predictions(dataset: BaseReferringDataset, folder: Path, number: int = 8) -> str:
    """Show the best and the worst predictions, and some between, beside the ground truth."""
    records = _read(folder, 'predictions')['predictions']
    records = sorted(records, key=lambda record: -record['iou'])
    items = {item['img_id']: item for item in map(dataset.get_data_info, range(len(dataset)))}
    quarter, step = len(records) // 4, max(1, len(records) // 4 // number)
    groups = {
        'Good': records[:quarter:step][:number],
        'Middling': records[quarter :: max(1, len(records) // 2 // number)][:number],
        'Bad': records[::-1][:quarter:step][:number],
    }
    parts = [
        '<h2>Predictions</h2><p>Ground truth in green, prediction in orange, spread over the best '
        'quarter, the middle and the worst quarter by IoU.</p>'
    ]
    for name, group in groups.items():
        tiles = [_prediction_tile(record, items[record['image_id']], folder) for record in group]
        parts.append(f'<h3>{name}</h3>' + picture_tag(make_grid(tiles, 4), name))
    return ''.join(parts)


def _prediction_tile(record: dict, item: dict, folder: Path) -> np.ndarray:
    image = np.ascontiguousarray(read_image(item['img_path'])[..., ::-1])
    gt_mask = referent_masks(item)[item['sent_ids'].index(record['sent_id'])] > 0
    prediction = np.array(Image.open(folder / record['mask'])) > 0
    drawn = draw_mask(image, gt_mask, GT_COLOR, alpha=0.0)
    drawn = draw_mask(drawn, prediction, PREDICTION_COLOR, alpha=0.35)
    return add_caption(drawn, f'{record["expression"]}\nIoU {100 * record["iou"]:.0f}', num_lines=3)


def main() -> None:
    """Write the page and print where it lies."""
    parser = argparse.ArgumentParser(description='Write the report page of a run with NeMo')
    add_config_arguments(parser)
    parser.add_argument('work_dir', help='folder of the run')
    parser.add_argument('--splits', nargs='+', default=['val', 'testA', 'testB'])
    args = parser.parse_args()
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    print(f'page: {write_report(cfg, dataset, args.work_dir, args.splits)}')
    if os.path.isfile(os.path.join(os.path.dirname(dataset.split_file), 'scenes.json')):
        for mosaic in transforms_in(dataset.pipeline):
            if isinstance(mosaic, NeMoMosaic):
                print('mosaics by the scene graphs:')
                for name, value in mosaic_truth(dataset, mosaic).items():
                    print(f'  {name}: {value:.4g}')


if __name__ == '__main__':
    main()
