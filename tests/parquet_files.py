"""Small Parquet files in the documented form of `jxu124/refcoco` and of `moondream/refcoco-m`."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SENTENCE = pa.struct(
    dict(raw=pa.string(), sent=pa.string(), sent_id=pa.int64(), tokens=pa.list_(pa.string()))
)
# As the card of the data set lists them.
REFCOCO = pa.schema(
    dict(
        sent_ids=pa.list_(pa.int64()),
        file_name=pa.string(),
        ann_id=pa.int64(),
        ref_id=pa.int64(),
        image_id=pa.int64(),
        split=pa.string(),
        sentences=pa.list_(SENTENCE),
        category_id=pa.int64(),
        raw_anns=pa.string(),
        raw_image_info=pa.string(),
        raw_sentences=pa.string(),
        image_path=pa.string(),
        bbox=pa.list_(pa.float64()),
        captions=pa.list_(pa.string()),
        global_image_id=pa.string(),
        anns_id=pa.string(),
    )
)
SAMPLE = pa.struct(
    dict(
        id=pa.int64(),
        image_id=pa.int64(),
        category=pa.string(),
        supercategory=pa.string(),
        label=pa.string(),
        sentences=pa.list_(pa.string()),
        bbox=pa.list_(pa.float32()),
        mask=pa.struct(dict(counts=pa.string(), size=pa.list_(pa.int32()))),
    )
)
REFCOCO_M = pa.schema(
    dict(
        image=pa.struct(dict(bytes=pa.binary(), path=pa.string())),
        image_id=pa.int64(),
        file_name=pa.string(),
        samples=pa.list_(SAMPLE),
    )
)


def write(path: Path, rows: list[dict], schema: pa.Schema) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=2)
    return path


def refcoco_rows(mini, split: str) -> list[dict]:
    """The references of a split of `MiniRefCOCO` as rows."""
    images = {one['id']: one for one in mini.instances['images']}
    annotations = {one['id']: one for one in mini.instances['annotations']}
    rows = []
    for ref in mini.refs:
        if ref['split'] == split:
            image, annotation = images[ref['image_id']], annotations[ref['ann_id']]
            x, y, width, height = annotation['bbox']
            rows.append(
                dict(
                    ref,
                    raw_anns=json.dumps(annotation),
                    raw_image_info=json.dumps(image),
                    raw_sentences=json.dumps(ref['sentences']),
                    image_path=f'coco/train2014/{image["file_name"]}',
                    bbox=[x, y, x + width, y + height],
                    captions=['a picture'],
                    global_image_id=f'coco.{image["id"]}',
                    anns_id=str(annotation['id']),
                )
            )
    return rows


def sample(number: int, image_id: int, sentences: list[str], rle: dict, bbox: list) -> dict:
    """An object of RefCOCO-M."""
    about = dict(category='box', supercategory='thing', label='box')
    return dict(id=number, image_id=image_id, sentences=sentences, mask=rle, bbox=bbox, **about)


def refcoco_m_row(image: bytes, image_id: int, file_name: str, samples: list[dict]) -> dict:
    """An image of RefCOCO-M."""
    inside = dict(bytes=image, path=file_name)
    return dict(image=inside, image_id=image_id, file_name=file_name, samples=samples)
