"""Looks at everything a config would read before hours are spent on it."""

import argparse
import os.path as osp
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from tqdm import tqdm

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.transforms.loading import decode_segmentation, read_image
from nemo_mmseg.utils.config import add_config_arguments, leaf_datasets, load_config

LOADERS = ('train', 'val', 'test')
COUNTS = ('references', 'expressions', 'images', 'objects')
GENERALIZED_COUNTS = ('multi_target', 'no_target')  # expressions, where a data set has such


@dataclass
class DataReport:
    """What was found in one data set.

    Args:
        loaders: The data loaders of the config that read it, e.g. `['val', 'test']`.
        name: Annotation or split file that says which data set it is.
        split: The split.
        counts: Numbers of `references`, `expressions`, `images` and `objects`; of a generalised
            data set also of `multi_target` and `no_target` expressions.
        faults: One line each, naming file and id.
    """

    loaders: list[str]
    name: str
    split: str
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def check_data(
    cfg: Config,
    loaders: Sequence[str] = LOADERS,
    decode: bool = True,
    num_workers: int = 4,
    progress: bool = True,
) -> list[DataReport]:
    """Checks every data set that the data loaders of a config read; each one once.

    Args:
        cfg: Config with `train_dataloader`, `val_dataloader`, `test_dataloader`; those that are
            missing are passed over.
        loaders: Which of `'train'`, `'val'`, `'test'`. Defaults to all.
        decode: Whether to decode images and masks; else only look whether the files are there.
        num_workers: Threads that decode. Defaults to 4.
        progress: Whether to show a progress bar.

    Returns:
        One report a data set.

    Raises:
        ValueError: If the config has none of the loaders.
    """
    found: dict[str, tuple[dict, list[str]]] = {}
    for loader in loaders:
        loader_cfg = cfg.get(f'{loader}_dataloader')
        if loader_cfg is None:
            continue
        for leaf in leaf_datasets(loader_cfg['dataset']):
            # how items are grouped and prepared makes no other files of them
            settings = {k: leaf[k] for k in leaf if k not in ('pipeline', 'group_by', 'test_mode')}
            found.setdefault(repr(sorted(settings.items())), (settings, []))[1].append(loader)
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    if not found:
        raise ValueError(f'the config has none of the data loaders {", ".join(loaders)}')
    return [
        check_dataset(settings, names, decode, num_workers, progress)
        for settings, names in found.values()
    ]


def check_dataset(
    settings: dict,
    loaders: Sequence[str] = (),
    decode: bool = True,
    num_workers: int = 4,
    progress: bool = True,
) -> DataReport:
    """Checks one data set.

    Args:
        settings: Config of a referring data set without pipeline.
        loaders: Put into the report.
        decode: See `check_data`.
        num_workers: See `check_data`.
        progress: See `check_data`.
    """
    report = DataReport(
        list(loaders),
        str(settings.get('split_file') or settings.get('ann_file')),
        str(settings.get('split', '')),
    )
    # images are looked for one by one below: the data set's own check ends at the first
    settings = dict(settings, pipeline=[], group_by='image', check_images=False, lazy_init=True)
    try:
        dataset = DATASETS.build(settings)
        # a training stops at the first faulty reference; here each one is noted and passed over
        dataset.load_reference_list = partial(dataset.load_reference_list, report.faults)
        dataset.full_init()
        items = [dataset.get_data_info(index) for index in range(len(dataset))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.faults.append(f'{type(error).__name__}: {error} (nothing further was checked)')
        return report
    report.counts = dict(
        references=len({ref for item in items for ref in item['ref_ids']}),
        expressions=sum(len(item['expressions']) for item in items),
        images=len(items),
        objects=sum(len(_objects(item)) for item in items),
    )
    targets = [number for item in items for number in item['num_targets']]
    if set(targets) - {1}:
        report.counts.update(multi_target=sum(n > 1 for n in targets), no_target=targets.count(0))
    sentences = Counter(sent_id for item in items for sent_id in item['sent_ids'])
    report.faults += [
        f'{report.name}: sent_id {sent_id} is given to {count} expressions'
        for sent_id, count in sentences.items()
        if count > 1
    ]
    check = _decoded_faults if decode else _listed_faults
    with ThreadPoolExecutor(num_workers) as pool:
        for faults in tqdm(
            pool.map(check, items),
            total=len(items),
            desc=f'{report.name} {report.split}',
            unit='image',
            disable=not progress,
        ):
            report.faults += faults
    return report


def format_reports(reports: Sequence[DataReport]) -> str:
    """The faults, then a table of counts, as text."""
    extra = [key for key in GENERALIZED_COUNTS if any(key in report.counts for report in reports)]
    table = PrettyTable(['used in', 'file', 'split', *COUNTS, *extra, 'faults'])
    table.align = 'r'
    table.align['file'] = 'l'
    lines = []
    for report in reports:
        counts = [report.counts.get(key, '-') for key in (*COUNTS, *extra)]
        table.add_row(
            [', '.join(report.loaders), report.name, report.split, *counts, len(report.faults)]
        )
        lines += [f'fault: {report.split} {fault}' for fault in report.faults]
    return '\n'.join([*lines, table.get_string()])


def _objects(item: dict) -> dict[int, dict]:
    """The annotated objects of an item by annotation id; references can share one."""
    return {instance['ann_id']: instance for instance in item['instances']}


def _listed_faults(item: dict) -> list[str]:
    """What can be told without decoding."""
    if osp.isfile(item['img_path']):
        return []
    return [f'image {item["img_id"]}: {item["img_path"]} is missing']


def _decoded_faults(item: dict) -> list[str]:
    """Decodes the image and all its masks."""
    height, width = item['height'], item['width']
    faults = []
    try:
        read_image(item['img_path'], height, width)
    except (OSError, ValueError) as error:
        faults.append(f'image {item["img_id"]}: {error}')
    for ann_id, instance in _objects(item).items():
        where = f'image {item["img_id"]} ({item["img_path"]}), annotation {ann_id}'
        try:
            if not decode_segmentation(instance['segmentation'], height, width).any():
                faults.append(f'{where}: the mask is empty')
        except Exception as error:  # pycocotools raises whatever its C code meets
            faults.append(f'{where}: the mask cannot be decoded: {error}')
    return faults


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Check the data sets of a config')
    add_config_arguments(parser)
    parser.add_argument(
        '--split', nargs='+', choices=LOADERS, default=LOADERS, help='data loaders (default: all)'
    )
    parser.add_argument(
        '--fast', action='store_true', help='only look whether the files are there, decode nothing'
    )
    parser.add_argument('--workers', type=int, default=4, help='threads that decode (default: 4)')
    return parser.parse_args()


def main() -> int:
    """Check, print, and say by the exit code whether all is well."""
    args = parse_args()
    reports = check_data(load_config(args), args.split, not args.fast, args.workers)
    print(format_reports(reports))
    return int(any(report.faults for report in reports))


if __name__ == '__main__':
    sys.exit(main())
