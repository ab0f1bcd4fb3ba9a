"""Look at everything a config would read: ``python tools/misc/check_data.py CONFIG``.

Decodes every image and mask once, names every error, and counts what each data set holds. The exit
code is 1 if there are errors.
"""

import argparse
import os.path as osp
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from pycocotools import mask as coco_mask
from tqdm import tqdm

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.fingerprint import Fingerprint
from nemo_mmseg.datasets.refer import Reference
from nemo_mmseg.datasets.segmentation import MaskFile, encode_segmentation
from nemo_mmseg.utils.config import LOADERS, add_config_arguments, load_config, loaded_datasets
from nemo_mmseg.utils.faults import shown
from nemo_mmseg.utils.images import decode_image, orientation_of, read_content

MOST_REMARKS = 10  # of one kind
MOST_ERRORS = 1000  # printed of one data set
COUNTS = ('references', 'expressions', 'images', 'objects')
GENERALIZED_COUNTS = ('multi_target', 'no_target')  # expressions, where a data set has such


@dataclass
class DataReport:
    """What was found in one data set.

    Attributes:
        loaders: The data loaders of the config that read it, e.g. ``['val', 'test']``.
        name: Annotation or split file that says which data set it is.
        split: The split.
        counts: Numbers of ``references``, ``expressions``, ``images`` and ``objects``; of a
            generalised data set also of ``multi_target`` and ``no_target`` expressions.
        errors: One line each, naming file and id.
        remarks: One line each of what is no error, but may surprise.
        fingerprint: What the split is: its counts, a digest of its sentence ids, and which
            published split has these counts.
    """

    loaders: list[str]
    name: str
    split: str
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    fingerprint: str = ''


def check_data(
    cfg: Config,
    loaders: Sequence[str] = LOADERS,
    decode: bool = True,
    num_workers: int = 4,
    progress: bool = True,
) -> list[DataReport]:
    """Look at every data set that the data loaders of a config read; at each one once.

    Args:
        cfg: Config with ``train_dataloader``, ``val_dataloader``, ``test_dataloader``, or some.
        loaders: Which of ``'train'``, ``'val'``, ``'test'``. Defaults to all.
        decode: Whether to decode images and masks, or only look whether the files are there.
        num_workers: Threads that decode. Defaults to 4.
        progress: Whether to show a progress bar.

    Returns:
        A report per data set.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    found: dict[str, tuple[dict, list[str]]] = {}
    for loader, leaf in loaded_datasets(cfg, loaders):
        # Grouping and transforms change nothing of what is read.
        settings = {k: leaf[k] for k in leaf if k not in ('pipeline', 'group_by', 'test_mode')}
        found.setdefault(repr(sorted(settings.items())), (settings, []))[1].append(loader)
    return [
        check_dataset(settings, names, decode, num_workers, progress)
        for settings, names in found.values()
    ]


def check_dataset(
    settings: dict, loaders: list[str], decode: bool, num_workers: int, progress: bool
) -> DataReport:
    """Look at one data set; ``settings`` is its config without pipeline."""
    name = str(settings.get('split_file') or settings.get('ann_file'))
    report = DataReport(loaders, name, str(settings.get('split', '')))
    # Images are looked for one by one below: the data set's own check ends at the first.
    settings = dict(settings, pipeline=[], group_by='image', check_images=False, lazy_init=True)
    found = _read(settings, report, decode)
    if found is None:
        return report
    references, items, inside = found
    report.fingerprint = str(Fingerprint.of(references))
    report.counts = _counts(items)
    sent_ids = (sent_id for item in items for sent_id in item['sent_ids'])
    ref_ids = (reference.ref_id for reference in references)
    report.errors += _repeated(sent_ids, f'{name}: sent_id', 'expressions')
    report.errors += _repeated(ref_ids, f'{name}: ref_id', 'references')
    records = Counter(item['img_path'] for item in items)  # an item is an image here
    report.remarks += [
        f'{path} is the file of {count} images: they can become negatives of each other'
        for path, count in records.items()
        if count > 1
    ][:MOST_REMARKS]
    bar = partial(tqdm, desc=f'{name} {report.split}', unit='image', disable=not progress)
    look = _look_inside if decode else partial(_look_for, inside=inside)
    with ThreadPoolExecutor(num_workers) as pool:
        seen = list(bar(pool.map(look, items), total=len(items)))
    report.errors += [error for errors, _ in seen for error in errors]
    report.remarks += _turned_images(items, [orientation for _, orientation in seen])
    objects = [one for item in items for one in _objects(item).values()]
    if boxes := sum(one['segmentation'] is None for one in objects):
        report.remarks.append(f'{boxes} objects have a box alone, which LoadReferentMask refuses')
    return report


def _read(
    settings: dict, report: DataReport, decode: bool
) -> tuple[list[Reference], list[dict], set[str]] | None:
    """Read references, items and which images other files hold, with every fault of the files.

    To be decoded, such images are written. None where nothing can be read.
    """
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter('always')
        try:
            dataset = DATASETS.build(settings)
            # A training stops at the first fault. Here each one is noted and passed over.
            references = dataset.load_reference_list(report.errors)
            dataset.load_reference_list = lambda: references
            dataset.full_init()
            if decode:
                dataset.write_images()
            items = [dataset.get_data_info(index) for index in range(len(dataset))]
            return references, items, dataset.images_inside()
        except Exception as error:  # whatever the files hold, the other data sets are looked at
            report.errors.append(f'{type(error).__name__}: {error} (nothing further was checked)')
            return None
        finally:
            report.remarks += [str(remark.message) for remark in remarks]


def _counts(items: Sequence[dict]) -> dict[str, int]:
    """Count what a data set holds; an item is an image."""
    counts = dict(
        references=len({ref for item in items for ref in item['ref_ids']}),
        expressions=sum(len(item['expressions']) for item in items),
        images=len(items),
        objects=sum(len(_objects(item)) for item in items),
    )
    targets = [number for item in items for number in item['num_targets']]
    if set(targets) - {1}:
        counts.update(multi_target=sum(n > 1 for n in targets), no_target=targets.count(0))
    return counts


def _repeated(ids: Iterable[int], which: str, what: str) -> list[str]:
    """Name the ids that several entries have."""
    repeated = [(number, count) for number, count in Counter(ids).items() if count > 1]
    return [f'{which} {number} is given to {count} {what}' for number, count in repeated]


def format_reports(reports: Sequence[DataReport]) -> str:
    """Return errors, remarks and fingerprints, then a table of counts, as text."""
    extra = [key for key in GENERALIZED_COUNTS if any(key in report.counts for report in reports)]
    table = PrettyTable(['used in', 'file', 'split', *COUNTS, *extra, 'errors'], align='r')
    table.align['file'] = 'l'
    lines = []
    for report in reports:
        counts = [report.counts.get(key, '-') for key in (*COUNTS, *extra)]
        table.add_row(
            [', '.join(report.loaders), report.name, report.split, *counts, len(report.errors)]
        )
        lines += [f'error: {report.split} {error}' for error in report.errors[:MOST_ERRORS]]
        if (more := len(report.errors) - MOST_ERRORS) > 0:
            lines.append(f'error: {report.split} {more} more errors')
        lines += [f'remark: {report.split} {remark}' for remark in report.remarks]
        if report.fingerprint:
            lines.append(f'fingerprint: {report.name} {report.split}: {report.fingerprint}')
    return '\n'.join([*lines, table.get_string()])


def _objects(item: dict) -> dict[int, dict]:
    """Return the annotated objects of an item by annotation id; references can share one."""
    return {instance['ann_id']: instance for instance in item['instances']}


def _look_for(item: dict, inside: set[str]) -> tuple[list[str], int]:
    """Find the errors that can be told without decoding; no image counts as turned."""
    masks = [one['segmentation'] for one in _objects(item).values()]
    files = [item['img_path'], *(one.path for one in masks if isinstance(one, MaskFile))]
    missing = [shown(path, 300) for path in files if not osp.isfile(path) and path not in inside]
    names = [path.removeprefix('the text ') for path in missing]
    return [f'image {item["img_id"]}: {name} is missing' for name in names], 1


def _turned_images(items: Sequence[dict], orientations: Iterable[int]) -> list[str]:
    """Say which images viewers show turned; training takes the stored pixels."""
    turned = [
        f'image {item["img_id"]}: {item["img_path"]} has EXIF orientation {orientation}. Its masks '
        'belong to the stored pixels, and viewers show them turned'
        for item, orientation in zip(items, orientations)
        if orientation != 1
    ]
    more = len(turned) - MOST_REMARKS
    return turned[:MOST_REMARKS] + ([f'{more} more images like these'] if more > 0 else [])


def _look_inside(item: dict) -> tuple[list[str], int]:
    """Decode the image and draw all its masks: the errors, and the image's EXIF orientation."""
    height, width, errors, content = item['height'], item['width'], [], b''
    try:
        content = read_content(item['img_path'])
        decode_image(content, item['img_path'], height, width)
    except (OSError, ValueError) as error:
        # Its masks are not drawn: where the annotated size is wrong, they make no sense.
        return [f'image {item["img_id"]}: {error}'], orientation_of(content)
    for ann_id, instance in _objects(item).items():
        where = f'image {item["img_id"]} ({item["img_path"]}), annotation {ann_id}'
        if instance['segmentation'] is None:
            continue
        try:
            # The area needs no mask of the annotated size, which can be a wrong one.
            rle = encode_segmentation(instance['segmentation'], height, width)
            if not coco_mask.area(rle):
                errors.append(f'{where}: the mask is empty')
        except (OSError, ValueError) as error:
            errors.append(f'{where}: the mask cannot be decoded: {error}')
    return errors, orientation_of(content)


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
    """Look, print, and say by the exit code whether all is well."""
    args = parse_args()
    reports = check_data(load_config(args), args.split, not args.fast, args.workers)
    print(format_reports(reports))
    return int(not reports or any(report.errors for report in reports))


if __name__ == '__main__':
    sys.exit(main())
