"""RefCOCO, RefCOCO+ and RefCOCOg as Parquet: `jxu124/refcoco`, `refcocoplus` and `refcocog`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmseg.registry import DATASETS

from nemo_mmseg.utils.annotation_schema import ID, LIST, MAX_ENTRIES
from nemo_mmseg.utils.faults import Faults, OnlyOnce, Rule, fault
from nemo_mmseg.utils.fileio import collector_paused, fast_loads
from nemo_mmseg.utils.parquet import find_shards, in_root, read_rows

from .fingerprint import PUBLISHED_SPLITS
from .refcoco import RefCOCODataset
from .refer import Layout, Reference, join_references

# Our name of a split -> its names in the files; the hub calls testA of RefCOCO and RefCOCO+ `test`.
NAMES = dict(
    train=('train',),
    val=('val', 'validation'),
    testA=('testA', 'test'),
    testB=('testB',),
    test=('test',),
)
# Data set -> key of the published counts.
PUBLISHED = {
    'refcoco': 'refcoco/refs(unc)',
    'refcoco+': 'refcoco+/refs(unc)',
    'refcocog': 'refcocog/refs(umd)',
}
_JSON = Rule('the text of a JSON object', (str,))
ROW = dict(
    ref_id=ID,
    image_id=ID,
    ann_id=ID,
    split=Rule('the name of a split, a text', (str,)),
    sentences=LIST,
    raw_anns=_JSON,
    raw_image_info=_JSON,
)
WHAT = 'ParquetRefCOCODataset'


@DATASETS.register_module()
class ParquetRefCOCODataset(RefCOCODataset):
    """RefCOCO, RefCOCO+ or RefCOCOg (umd) as the hub has them, with images from COCO.

    A row is a reference. ``raw_anns`` is its annotation and ``raw_image_info`` its image, as JSON
    text of COCO. Masks, expressions and ids are those of the published files. The other objects of
    an image are not in the files, so ``num_distractors`` is -1: unknown.

    Args:
        data_root: Folder that the other paths are relative to.
        ann_file: Folder of the Parquet files, one file, or the name of a data set that lies in the
            cache of the hub: ``'jxu124/refcoco'``, ``'jxu124/refcocoplus'``,
            ``'jxu124/refcocog'``.
        dataset: Which one it is, ``'refcoco'``, ``'refcoco+'`` or ``'refcocog'``: its counts are
            compared with the published ones.
        split: ``'train'``, ``'val'``, ``'testA'`` and ``'testB'``, or, of RefCOCOg, ``'test'``.
        data_prefix: ``dict(img_path=...)``, the folder of the images (COCO's ``train2014``).
        **kwargs: ``text_key``, ``gt_overlay`` and ``reviewed`` of :class:`RefCOCODataset`, and see
            :class:`BaseReferringDataset`.

    Raises:
        ValueError: ``dataset`` or ``split`` is unknown.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        dataset: str,
        split: str,
        data_prefix: dict,
        **kwargs: Any,
    ) -> None:
        if dataset not in PUBLISHED:
            raise ValueError(f'{WHAT}: dataset={dataset!r} is none of {list(PUBLISHED)}')
        splits = PUBLISHED_SPLITS[PUBLISHED[dataset]]
        if split not in splits:
            raise ValueError(f'{WHAT}: split={split!r} is none of {list(splits)} of {dataset}')
        self.dataset = dataset
        super().__init__(
            data_root=data_root,
            ann_file='',
            split_file=ann_file,
            split=split,
            data_prefix=data_prefix,
            **kwargs,
        )

    def locate(self, data_root: str, split_file: str) -> str:
        """Return the folder or the file, or the name of a data set in the hub's cache."""
        return in_root(data_root, split_file)

    @property
    def default_name(self) -> str:
        """Name of the data set, if ``metainfo`` gives none."""
        return self.dataset

    @property
    def published_name(self) -> str:
        """Key of ``PUBLISHED_SPLITS``."""
        return PUBLISHED[self.dataset]

    def load_reference_list(self, errors: list[str] | None = None) -> list[Reference]:
        """Read the split, and warn where it is not what it is called."""
        references = load_parquet_references(self.split_file, self.split, self.text_key, errors)
        self.compare_with_published(references, self.published_name)
        return references


@collector_paused()
def load_parquet_references(
    source: str, split: str, text_key: str = 'sent', errors: list[str] | None = None
) -> list[Reference]:
    """Read the references of one split.

    Args:
        source: See :func:`shards_by_split`.
        split: Key of :data:`NAMES`.
        text_key: ``'sent'`` or ``'raw'``.
        errors: Gets a line for each fault; the faulty entry is left out. Defaults to None: the
            first fault raises.

    Returns:
        The references in the order of the files.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such data set or split.
        DataError: A column is missing, or a field holds what it must not.
        ValueError: A file is damaged or cut short, or nothing of the split is left.
    """
    faults, refs = Faults(errors), []
    once = OnlyOnce(faults)
    tables: dict[str, list] = dict(images=[], annotations=[])
    files = find_shards(source, NAMES[split])
    for file in files:
        for row, record in read_rows(file, list(ROW), WHAT):
            parts = _parts_of(record, f'{file}: row {row}', split, faults, once)
            if parts is not None:
                tables['annotations'].append(parts[0])
                tables['images'].append(parts[1])
                refs.append(record)
        if len(refs) > MAX_ENTRIES:
            raise fault(file, 'the number of rows', len(refs), f'at most {MAX_ENTRIES}')
    name = files[0] if len(files) == 1 else f'{files[0]} ...'
    where = f'{name}, split {split}'
    references = join_references(refs, tables, where, name, Layout(text_key), errors)
    return [replace(reference, num_distractors=-1) for reference in references]


def _parts_of(
    record: dict, entry: str, split: str, faults: Faults, once: OnlyOnce
) -> tuple[dict, dict] | None:
    """Check a row and return its annotation and its image; None if it is faulty."""
    for name, rule in ROW.items():
        if not rule.holds(record[name]):
            faults.add(fault(entry, name, record[name], rule.allowed))
            return None
    if not once.is_new(entry, 'ref_id', record['ref_id']):
        return None
    if record['split'] not in NAMES[split]:
        allowed = ' or '.join(map(repr, NAMES[split]))
        faults.add(fault(entry, 'split', record['split'], f'{allowed}, as the file is called'))
        return None
    parts = []
    for name in ('raw_anns', 'raw_image_info'):
        try:
            part = fast_loads(record[name])
        except (ValueError, RecursionError):
            part = None
        if type(part) is not dict:
            faults.add(fault(entry, name, record[name], _JSON.allowed))
            return None
        parts.append(part)
    for part, name, key in zip(parts, ('raw_anns', 'raw_image_info'), ('ann_id', 'image_id')):
        if part.get('id') != record[key]:
            allowed = f'{record[key]}, the {key} of the row'
            faults.add(fault(f'{entry}: {name}', 'id', part.get('id'), allowed))
            return None
    return tuple(parts)
