"""The page about a run of TRIS: its scores, and what each stage made of some expressions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image
from prettytable import PrettyTable

sys.path.insert(0, str(Path(__file__).parent))
from html_page import html_table, picture_tag, write_page  # noqa: E402

from nemo_mmseg.apis.inference import ReferringInferencer  # noqa: E402
from nemo_mmseg.datasets import BaseReferringDataset  # noqa: E402
from nemo_mmseg.datasets.segmentation import decode_segmentation  # noqa: E402
from nemo_mmseg.datasets.transforms.loading import referent_masks  # noqa: E402
from nemo_mmseg.pseudo_labels.response_maps import ResponseMaps  # noqa: E402
from nemo_mmseg.utils.fileio import load_json  # noqa: E402
from nemo_mmseg.utils.images import read_image  # noqa: E402
from nemo_mmseg.visualization.drawing import (  # noqa: E402
    GT_COLOR,
    add_caption,
    draw_mask,
    fit_image,
    make_grid,
)

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
MEASURES = ('mIoU', 'oIoU', 'Pr@0.5', 'PointM', 'PointIt', 'Acc_box')
LONGEST = 256  # side of a picture, in pixels


def write_tris_page(
    path: Path,
    dataset: BaseReferringDataset,
    maps: ResponseMaps,
    masks: Path,
    stage2: tuple[Config, Path],
    results: Mapping[str, Path],
    tested: BaseReferringDataset,
    scores: Scores,
    seconds: Mapping[str, float],
    number: int = 12,
) -> None:
    """Write the page, which needs no other file.

    Args:
        path: File to write.
        dataset: What was learned from, grouped by images, without transforms.
        maps: Its response maps.
        masks: Annotation file of its pseudo masks.
        stage2: Config and checkpoint of the second stage.
        results: Folders that ``tools/test.py --out --splits`` wrote, by name of what was tested.
        tested: The split whose results are shown, built as ``dataset`` is.
        scores: By name of what is scored, split and measure, in per cent.
        seconds: That each stage took.
        number: Expressions that are shown of each split. Defaults to 12.
    """
    minutes = [(name, f'{value / 60:.1f}') for name, value in seconds.items()]
    sections = [
        '<h2>Scores</h2>' + html_table(('', 'split', *MEASURES), _rows(scores)),
        f'<h2>Learned from {dataset.split}</h2><p>Columns: image, response map, pseudo mask, '
        'prediction of stage 2, and the annotated mask, which nothing has learned from. '
        f'{_missing(masks)} references have no pseudo mask.</p>'
        + picture_tag(_learned(dataset, maps, masks, stage2, number), 'learned from'),
        f'<h2>Predictions on {tested.split}</h2><p>Columns: image, {", ".join(results)}, annotated '
        'mask.</p>' + picture_tag(_predicted(results, tested, number), 'predictions'),
        '<h2>Minutes</h2>' + html_table(('stage', 'minutes'), minutes),
    ]
    write_page(path, f'TRIS on {dataset.metainfo["dataset_name"]}', '\n'.join(sections))


def print_scores(*runs: Scores) -> None:
    """Print a line for each thing scored and split; of several runs, mean and deviation."""
    table = PrettyTable(['', 'split', *MEASURES])
    table.add_rows(_rows(*runs))
    print(table, flush=True)


def _rows(*runs: Scores) -> list[list[str]]:
    return [
        [name, split, *(_numbers([run[name][split].get(m) for run in runs]) for m in MEASURES)]
        for name, by_split in runs[0].items()
        for split in by_split
    ]


def _numbers(values: Sequence[float | None]) -> str:
    if values[0] is None:
        return ''
    if len(values) == 1:
        return f'{values[0]:.2f}'
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}'


def draw_response(image: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Lay a response map over an image, from blue (0) to red (1).

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        response: ``(H, W)``, 0..1.
    """
    levels = np.rint(255 * response.clip(0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]
    return np.rint(0.45 * image + 0.55 * colours).astype(np.uint8)


def _missing(masks: Path) -> int:
    info = load_json(masks)['info']
    return len(info['without_map']) + len(info['without_mask'])


def _learned(
    dataset: BaseReferringDataset,
    maps: ResponseMaps,
    masks: Path,
    stage2: tuple[Config, Path],
    number: int,
) -> np.ndarray:
    """One row for an expression: what the stages made of it, in their order."""
    segmentations = {one['id']: one['segmentation'] for one in load_json(masks)['annotations']}
    cfg, checkpoint = stage2
    network = ReferringInferencer(cfg, str(checkpoint))
    tiles = []
    for index in _spread(len(dataset), number):
        item = dataset.get_data_info(index)
        place = index % len(item['expressions'])
        expression, shape = item['expressions'][place], (item['height'], item['width'])
        image = _rgb(item['img_path'])
        response = np.zeros(shape, np.float32)
        if item['ref_ids'][place] in maps:
            response = maps.response(item['ref_ids'][place], shape)
        (target,) = item['targets'][place]
        known = segmentations.get(item['instances'][target]['ann_id'])
        pseudo = np.zeros(shape) if known is None else decode_segmentation(known, *shape)
        prediction = network(item['img_path'], expression, draw=False)['masks'][0]
        gt_mask = referent_masks(item)[place]
        row = [
            (image, expression),
            (draw_response(image, response), 'response map'),
            (draw_mask(image, pseudo), f'pseudo mask, IoU {_iou(pseudo, gt_mask)}'),
            (draw_mask(image, prediction), f'stage 2, IoU {_iou(prediction, gt_mask)}'),
            (draw_mask(image, gt_mask, GT_COLOR), 'annotated'),
        ]
        tiles += [_tile(picture, text) for picture, text in row]
    return make_grid(tiles, 5)


def _predicted(
    results: Mapping[str, Path], tested: BaseReferringDataset, number: int
) -> np.ndarray:
    """One row for an expression: what was predicted for it."""
    folders = {name: folder / tested.split for name, folder in results.items()}
    by_name = {
        name: {one['sent_id']: one for one in load_json(file)['predictions']}
        for name, folder in folders.items()
        if (file := folder / 'predictions.json').is_file()
    }
    tiles = []
    for index in _spread(len(tested), number):
        item = tested.get_data_info(index)
        place = index % len(item['expressions'])
        picture, sent_id = _rgb(item['img_path']), item['sent_ids'][place]
        tiles.append(_tile(picture, item['expressions'][place]))
        for name, records in by_name.items():
            record = records[sent_id]
            mask = np.array(Image.open(folders[name] / record['mask']))
            tiles.append(_tile(draw_mask(picture, mask), f'{name}, IoU {100 * record["iou"]:.0f}'))
        gt_mask = referent_masks(item)[place]
        tiles.append(_tile(draw_mask(picture, gt_mask, GT_COLOR), 'annotated'))
    return make_grid(tiles, 2 + len(by_name))


def _spread(length: int, number: int) -> Sequence[int]:
    """Places all over a sequence."""
    return range(0, length, max(1, length // number))[:number]


def _rgb(path: str | Path) -> np.ndarray:
    return np.ascontiguousarray(read_image(str(path))[..., ::-1])


def _iou(mask: np.ndarray, gt_mask: np.ndarray) -> str:
    mask, gt_mask = mask > 0, gt_mask > 0
    return f'{100 * (mask & gt_mask).sum() / (mask | gt_mask).sum():.0f}'


def _tile(picture: np.ndarray, text: str) -> np.ndarray:
    return add_caption(fit_image(picture, LONGEST), text, num_lines=2)
