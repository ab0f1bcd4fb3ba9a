"""RefCOCO-M by itself and laid over RefCOCO; reviewed expressions."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from check_data import check_data
from mini_refcoco import compressed, rectangle
from mmengine.config import Config
from mmseg.registry import DATASETS
from parquet_files import REFCOCO_M, refcoco_m_row, sample, write
from PIL import Image
from pycocotools import mask as coco_mask

from nemo_mmseg.datasets.clean_labels import load_reviewed
from nemo_mmseg.datasets.refcoco_m import read_samples
from nemo_mmseg.utils.faults import DataError

PIPELINE = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='PackReferringInputs'),
]
# Better masks for objects 101 and 201 of image 1 and 103 of image 3.
MASKS = {
    1001: rectangle(5, 4, 23, 17),
    1002: rectangle(41, 31, 59, 44),
    1003: rectangle(13, 10, 31, 23),
}


def picture(value):
    stream = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


def rows():
    one, two, three = (compressed(mask) for mask in MASKS.values())
    return [
        refcoco_m_row(
            picture(10),
            1,
            'image_1.jpg',
            [
                # 'box' belongs to object 101 alone; case and punctuation do not count
                sample(1001, 1, ['Left box!', 'box'], one, [5, 4, 18, 13]),
                sample(1002, 1, ['the other box'], two, [41, 31, 18, 13]),
            ],
        ),
        refcoco_m_row(
            picture(30), 3, 'image_3.jpg', [sample(1003, 3, ['right box'], three, [13, 10, 18, 13])]
        ),
    ]


def write_m(mini, content=None):
    path = mini.root / 'refcoco-m' / 'data' / 'validation-00000-of-00001.parquet'
    return str(write(path, content or rows(), REFCOCO_M))


def alone(mini, **kwargs):
    return dict(
        type='RefCOCOMDataset',
        data_root=str(mini.root),
        ann_file='refcoco-m',
        data_prefix=dict(img_path='refcoco-m/images'),
        pipeline=PIPELINE,
        **kwargs,
    )


@pytest.mark.filterwarnings('ignore:.*were published')
def test_expressions_masks_and_images_are_those_of_the_file(mini):
    write_m(mini)
    dataset = DATASETS.build(alone(mini, group_by='image'))
    assert len(dataset) == 2
    first, second = (dataset[index] for index in range(2))
    assert first['data_samples'].expressions == ['Left box!', 'box', 'the other box']
    assert first['data_samples'].sent_ids == [0, 1, 2]
    assert second['data_samples'].sent_ids == [3]
    expected = np.stack([MASKS[1001], MASKS[1001], MASKS[1002]])
    np.testing.assert_array_equal(first['data_samples'].gt_sem_seg.data, expected)
    assert first['inputs'].unique().tolist() == [10], 'the pixels that lie in the file'
    assert second['inputs'].unique().tolist() == [30]
    folder = mini.root / 'refcoco-m' / 'images'
    assert {path.name for path in folder.iterdir()} == {'image_1.jpg', 'image_3.jpg'}
    assert (folder / 'image_1.jpg').read_bytes() == picture(10)


@pytest.mark.filterwarnings('ignore:.*were published')
def test_images_that_are_there_are_not_written_again(mini):
    write_m(mini)
    before = (mini.root / 'images' / 'image_1.jpg').read_bytes()
    cfg = dict(alone(mini), data_prefix=dict(img_path='images'))
    dataset = DATASETS.build(cfg)
    assert dataset[0]['inputs'].float().mean().round() == 40, 'those of the data set'
    assert (mini.root / 'images' / 'image_1.jpg').read_bytes() == before


@pytest.mark.filterwarnings('ignore:.*were published')
def test_no_images_are_written_where_they_are_not_looked_for(mini):
    write_m(mini)
    folder = mini.root / 'refcoco-m' / 'images'
    assert len(DATASETS.build(alone(mini, check_images=False))) == 3 and not folder.exists()
    cfg = Config(dict(test_dataloader=dict(dataset=alone(mini))))
    (report,) = check_data(cfg, ['test'], decode=False, progress=False)
    assert not report.errors and not folder.exists(), 'they are in the Parquet file'
    (report,) = check_data(cfg, ['test'], progress=False)
    assert not report.errors and len(list(folder.glob('*.jpg'))) == 2


def test_counts_are_compared_with_the_published_ones(mini):
    write_m(mini)
    with pytest.warns(UserWarning, match='3 references, 4 expressions, 2 images, but 2080 refer'):
        DATASETS.build(alone(mini))
    with pytest.raises(ValueError, match="the split 'val' only, not 'testA'"):
        DATASETS.build(alone(mini, split='testA'))


def overlaid(mini, **kwargs):
    return DATASETS.build(mini.config(PIPELINE, test_mode=True, **kwargs))


@pytest.mark.parametrize('group_by', ['image', 'reference', 'expression'])
def test_clean_masks_lie_beside_the_published_ones(mini, group_by):
    write_m(mini)
    dataset = overlaid(mini, gt_overlay='refcoco-m', group_by=group_by)
    plain = overlaid(mini, group_by=group_by)
    found = {}
    for index in range(len(dataset)):
        ours, theirs = dataset[index]['data_samples'], plain[index]['data_samples']
        np.testing.assert_array_equal(ours.gt_sem_seg.data, theirs.gt_sem_seg.data)
        rows = zip(ours.expressions, ours.cleaned, ours.gt_clean_seg.data.numpy(), strict=True)
        found.update({text: (cleaned, mask) for text, cleaned, mask in rows})
    clean = {'left box': 1001, 'box': 1001, 'the other box': 1002, 'right box': 1003}
    assert {text for text, (cleaned, _) in found.items() if cleaned} == set(clean)
    for text, (_, mask) in found.items():
        expected = MASKS[clean[text]] if text in clean else np.zeros((48, 64))
        np.testing.assert_array_equal(mask, expected)


def test_equal_expressions_of_an_image_are_told_by_the_box(mini):
    mini.refs[0]['sentences'][1]['sent'] = 'the other box'  # as reference 5 says
    mini.instances['annotations'][0]['bbox'] = [4, 3, 20, 15]
    mini.instances['annotations'][5]['bbox'] = [40, 30, 20, 15]
    mini.write()
    content = rows()
    content[0]['samples'] = content[0]['samples'][1:]
    write_m(mini, content)
    dataset = overlaid(mini, gt_overlay='refcoco-m', group_by='reference')
    cleaned = {
        item.ref_ids[0]: item.cleaned for item in (dataset[i]['data_samples'] for i in (0, 4))
    }
    assert cleaned == {1: [False, False, False], 5: [True]}


def test_masks_of_no_expression_are_counted_and_named(mini):
    content = rows()
    content[1]['samples'][0]['sentences'] = ['nothing like it']
    write_m(mini, content)
    with pytest.warns(UserWarning, match=r"1 of 3 masks .* row 1: image 3: sample 1003, \['noth"):
        overlaid(mini, gt_overlay='refcoco-m')
    write_m(mini, content[1:])
    with pytest.raises(ValueError, match='none of its 1 masks belongs .* val of RefCOCO'):
        overlaid(mini, gt_overlay='refcoco-m')


def changed(**fields):
    def change(content):
        content[0]['samples'][1].update(fields)

    return change


def changed_row(**fields):
    def change(content):
        content[1].update(fields)

    return change


def small_mask():
    rle = coco_mask.encode(np.asfortranarray(np.ones((24, 32), np.uint8)))
    return dict(size=[24, 32], counts=rle['counts'].decode())


FAULTS = [
    (changed(id=1001), 'row 0: image 1: sample 1001: id is 1001; allowed: one that no'),
    (changed(id=None), 'row 0: image 1: sample at position 1: id is missing'),
    (changed(sentences=[]), 'image 1: sample 1002: sentences is []; allowed: a list of at least'),
    (changed(sentences=['left', ' ']), "image 1: sample 1002: sentences is ['left', ' ']"),
    (changed(bbox=[1.0, 2.0]), 'image 1: sample 1002: bbox is [1.0, 2.0]; allowed: four numbers'),
    (changed(mask=None), 'image 1: sample 1002: mask is missing; allowed: a dict'),
    (
        changed(mask=small_mask()),
        'sample 1002: size of segmentation is [24, 32]; allowed: [48, 64]',
    ),
    (changed(mask=dict(counts='00', size=[48, 64])), 'sample 1002: counts of segmentation is'),
    (changed(mask=dict(counts=None, size=[48, 64])), 'sample 1002: counts of segmentation is'),
    (changed_row(image_id=1), 'row 1: image_id is 1; allowed: one that no other entry has'),
    (changed_row(image_id=None), 'row 1: image_id is None; allowed: a whole number'),
    (changed_row(file_name='../x.jpg'), "row 1: file_name is the text '../x.jpg'; allowed: the pa"),
    (changed_row(samples=None), 'row 1: samples is None; allowed: a list'),
]


@pytest.mark.parametrize('change, part', FAULTS)
def test_a_fault_names_file_row_or_id_field_and_what_is_allowed(mini, change, part):
    content = rows()
    change(content)
    file = write_m(mini, content)
    with pytest.raises(DataError) as caught:
        DATASETS.build(alone(mini))
    assert str(caught.value).startswith(f'{file}: ') and part in str(caught.value)
    cfg = dict(test_dataloader=dict(dataset=alone(mini)))
    (report,) = check_data(Config(cfg), ['test'], progress=False)
    assert report.errors == [str(caught.value)]


def test_a_mask_of_another_size_than_the_image_of_refcoco_is_named(mini):
    content = rows()
    content[1]['samples'][0]['mask'] = small_mask()
    file = write_m(mini, content)
    with pytest.raises(DataError) as caught:
        overlaid(mini, gt_overlay='refcoco-m')
    expected = (
        f'{file}: row 1: image 3: sample 1003: size of segmentation is [24, 32]; allowed: [48'
    )
    assert str(caught.value).startswith(expected)


def test_a_row_without_image_and_a_missing_column_are_named(mini):
    content = rows()
    content[1]['image'] = None
    write_m(mini, content)
    with pytest.raises(DataError, match='row 1: image.bytes is missing; allowed: the bytes of an'):
        DATASETS.build(alone(mini))
    file = write(mini.root / 'val.parquet', [], REFCOCO_M.remove(3))
    with pytest.raises(DataError, match="val.parquet: column 'samples' is missing"):
        read_samples(str(file))


@pytest.mark.parametrize('kind, part', [
    (pa.struct(dict(path=pa.string())), "column 'image.bytes' is missing; allowed: .* image.path,"),
    (pa.binary(), "column 'image.bytes' is missing; allowed: .* has: image, "),
    (pa.null(), "column 'image.bytes' is missing; allowed: .* has: image, "),
    (pa.struct(dict(bytes=pa.string())), "row 0: image.bytes is the text 'x'; allowed: the bytes"),
])  # fmt: skip
def test_a_column_of_images_of_another_form_is_named(mini, kind, part):
    image = None if pa.types.is_null(kind) else b'x' if kind == pa.binary() else dict(bytes='x')
    content = [dict(row, image=image) for row in rows()]
    write(Path(write_m(mini)), content, REFCOCO_M.set(0, pa.field('image', kind)))
    with pytest.raises(DataError, match=part):
        DATASETS.build(alone(mini))


def write_reviewed(mini, content):
    (mini.root / 'reviewed.json').write_text(content)
    return overlaid(mini, reviewed='reviewed.json', group_by='image')


def test_reviewed_expressions_are_marked(mini):
    dataset = write_reviewed(mini, json.dumps({'10': True, '12': False, '50': True}))
    marks = {}
    for index in range(len(dataset)):
        item = dataset[index]['data_samples']
        marks.update(zip(item.sent_ids, item.reviewed, strict=True))
    expected = {10: True, 11: None, 12: False, 50: True}
    assert marks == {**dict.fromkeys((20, 30, 31, 40, 41)), **expected}


@pytest.mark.parametrize(
    'content, part',
    [
        ('[]', 'reviewed.json: the file is []; allowed: a dict, sentence id -> true or false'),
        ('{"ten": true}', "reviewed.json: a key is the text 'ten'; allowed: a sentence id"),
        ('{"010": true}', "reviewed.json: a key is the text '010'; allowed: a sentence id"),
        ('{"10": 1}', 'reviewed.json: sentence 10: the value is 1; allowed: true or false'),
        ('{"7": true}', 'reviewed.json: the keys is [7]; allowed: sentence ids of the data set'),
        ('{"10": tr', 'reviewed.json is not valid JSON'),
    ],
)
def test_a_faulty_list_of_reviewed_expressions_is_named(mini, content, part):
    with pytest.raises(ValueError) as caught:
        write_reviewed(mini, content)
    assert part in str(caught.value)


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_reviewed(str(tmp_path / 'none.json'))
