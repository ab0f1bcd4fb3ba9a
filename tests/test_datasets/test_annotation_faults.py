"""Every field of the annotation files with every kind of wrong value: one named error each."""

import copy
import json
import math
import pickle
import sys

import pytest
from check_data import check_data
from check_data import main as check_data_main
from mmengine.config import Config
from mmseg.registry import DATASETS

from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.utils.faults import DataError

# What JSON or a pickle can hold where a whole number belongs.
NO_NUMBERS = [
    None,
    '1',
    'one',
    '',
    1.0,
    1.5,
    True,
    [],
    [1],
    {},
    {'a': 1},
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -2.5,
    2**63,
    10**400,
]
NO_TEXTS = [None, 7, 1.5, True, [], ['left'], {}, '', '  ', '\ud800', math.nan]
NO_LISTS = [None, 7, 'left', {}, {'a': 1}, math.inf, True]
NO_SIZES = [*NO_NUMBERS, 0, 2**31, 32_768]
ENTRY = ['a', 7, None, [], 1.5]  # instead of a dict

# The part of the data, the field, what it must not hold, and what the message calls the entry.
FIELDS = [
    ('reference', 'ref_id', NO_NUMBERS, 'reference at position 1'),
    ('reference', 'image_id', NO_NUMBERS, 'reference 2'),
    ('reference', 'ann_id', NO_NUMBERS, 'reference 2'),
    ('reference', 'split', [None, 7, 1.5, True, [], ['train'], {}], 'reference 2'),
    ('reference', 'sentences', [*NO_LISTS, []], 'reference 2'),
    ('expression', 'sent_id', NO_NUMBERS, 'reference 2: expression at position 0'),
    ('expression', 'sent', NO_TEXTS, 'reference 2: expression 20'),
    ('image', 'id', NO_NUMBERS, 'image at position 1'),
    ('image', 'height', NO_SIZES, 'image 2'),
    ('image', 'width', NO_SIZES, 'image 2'),
    ('image', 'file_name', [*NO_TEXTS, 'a\0.jpg'], 'image 2'),
    ('annotation', 'id', NO_NUMBERS, 'annotation at position 1'),
    ('annotation', 'image_id', NO_NUMBERS, 'annotation 102'),
    ('annotation', 'category_id', NO_NUMBERS, 'annotation 102'),
    ('annotation', 'area', ['1', None, [], {}, math.nan, math.inf, -1, 2**63], 'annotation 102'),
    ('annotation', 'iscrowd', ['0', None, [], 0.0, 2, -1, math.nan], 'annotation 102'),
    ('annotation', 'bbox', [None, 'box', [1, 2, 3], [1, 2, 3, '4'], [1, 2, 3, math.nan], {}, 7,
                            [1, 2, 3, True], [[1], 2, 3, 4]], 'annotation 102'),
]  # fmt: skip
CASES = [
    pytest.param(part, key, value, entry, id=f'{part}-{key}-{str(value)[:9]!a}')
    for part, key, values, entry in FIELDS
    for value in values
]


def load(mini, errors=None):
    folder = mini.root / 'mini'
    return load_references(
        str(folder / 'refs(unc).p'), str(folder / 'instances.json'), 'train', errors=errors
    )


def part_of(mini, part):
    """The second entry of its kind; none but annotation 102 is used by it."""
    return dict(
        reference=mini.refs[1],
        expression=mini.refs[1]['sentences'][0],
        image=mini.instances['images'][1],
        annotation=mini.instances['annotations'][1],
    )[part]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """One folder for all cases, so that the images are written once."""
    from mini_refcoco import MiniRefCOCO

    return MiniRefCOCO(tmp_path_factory.mktemp('mini')).write()


def rewrite(mini):
    folder = mini.root / 'mini'
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(mini.refs, protocol=2))
    (folder / 'instances.json').write_text(json.dumps(mini.instances))


@pytest.fixture
def data(written):
    sound = copy.deepcopy((written.refs, written.instances))
    yield written
    written.refs, written.instances = sound


@pytest.mark.parametrize('part, key, value, entry', CASES)
def test_a_wrong_value_is_named(data, part, key, value, entry):
    part_of(data, part)[key] = value
    rewrite(data)
    with pytest.raises(DataError) as raised:
        load(data)
    message = str(raised.value)
    file = 'refs(unc).p' if part in ('reference', 'expression') else 'instances.json'
    assert file in message and entry in message and f'{key} is ' in message
    assert 'allowed: ' in message and len(message) < 500
    errors = []
    left = load(data, errors)
    # The faulty entry and what needs it are left out; a lost id or split is missed elsewhere.
    assert [reference.ref_id for reference in left] == [1, 3, 4, 5] and message in errors
    assert len(errors) <= 2


@pytest.mark.parametrize('part, key', [(part, key) for part, key, *_ in FIELDS])
def test_a_missing_field_is_named_but_those_that_nobody_needs(data, part, key):
    del part_of(data, part)[key]
    rewrite(data)
    if key in ('area', 'iscrowd', 'bbox'):
        assert len(load(data)) == 5
    else:
        with pytest.raises(DataError, match=f'{key} is missing'):
            load(data)


@pytest.mark.parametrize('part', ['reference', 'expression', 'image', 'annotation'])
@pytest.mark.parametrize('value', ENTRY, ids=str)
def test_an_entry_that_is_no_dict_is_named(data, part, value):
    tables = dict(
        reference=data.refs,
        expression=data.refs[1]['sentences'],
        image=data.instances['images'],
        annotation=data.instances['annotations'],
    )
    tables[part].insert(1, value)
    rewrite(data)
    with pytest.raises(DataError, match=f'{part} at position 1 is .*allowed: a dict'):
        load(data)


@pytest.mark.parametrize('value', NO_LISTS, ids=str)
@pytest.mark.parametrize('key', ['images', 'annotations'])
def test_a_table_that_is_no_list_is_named(data, key, value):
    data.instances[key] = value
    rewrite(data)
    with pytest.raises(DataError, match=f'instances.json: {key} is .*; allowed: a list'):
        load(data)


@pytest.mark.parametrize('value', [None, 7, 'a', {}, {'refs': []}], ids=str)
def test_a_file_that_is_no_table_is_named(data, value):
    rewrite(data)
    (data.root / 'mini' / 'refs(unc).p').write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=r'refs\(unc\).p: the file is .*a list of references'):
        load(data)
    rewrite(data)
    (data.root / 'mini' / 'instances.json').write_text(json.dumps([value]))
    with pytest.raises(DataError, match='instances.json: the file is .*a dict of images'):
        load(data)


def test_ids_that_are_text_in_one_file_are_told_from_numbers(data):
    for ref in data.refs:
        ref['image_id'] = str(ref['image_id'])
    rewrite(data)
    with pytest.raises(DataError, match="image_id is the text '1'; allowed: a whole number"):
        load(data)


def test_what_a_reference_names_must_be_there(data):
    def message(**change):
        data.refs[2].update(change)
        rewrite(data)
        with pytest.raises(DataError) as error:
            load(data)
        return str(error.value)

    assert 'reference 3: ann_id is 999; allowed: the id of an annotation of' in message(ann_id=999)
    assert 'reference 3: image_id is 1; allowed: 3, the image of annotation 103' in message(
        ann_id=103, image_id=1
    )
    assert 'reference 3: image_id is 77; allowed: the id of an image of' in message(image_id=77)


def test_every_fault_is_listed(data, monkeypatch, capsys):
    data.refs[0]['ann_id'] = None
    data.refs[1]['ref_id'] = 'two'
    data.refs[1]['image_id'] = math.inf
    data.refs[2]['sentences'][1]['sent_id'] = 31.5
    data.refs[3]['sentences'][0].update(sent=None, sent_id='40')
    data.instances['annotations'][5].update(category_id=[], area=math.nan)
    data.instances['images'].append(dict(id=9, file_name='', height=0, width=None))
    data.instances['annotations'].append('no annotation')
    data.refs.append(dict(copy.deepcopy(data.refs[-1]), ref_id=7, split='train'))
    rewrite(data)
    config = Config(dict(train_dataloader=dict(dataset=data.config())))
    found = check_data(config, progress=False)[0]
    words = [
        'image 9: file_name',
        'image 9: height',
        'image 9: width',
        'annotation 201: category_id',
        'annotation 201: area',
        'annotation at position 6 is',
        'reference 1: ann_id',
        'reference at position 1: ref_id',
        'reference at position 1: image_id',
        'reference 3: expression at position 1: sent_id',
        'reference 4: expression at position 0: sent_id',
        'reference 4: expression at position 0: sent is missing',
    ]
    words[-1] = words[-1].replace('is missing', 'is None')
    assert sorted(word for word in words if any(word in error for error in found.errors)) == sorted(
        words
    )
    assert len(found.errors) == len(words) and found.counts['references'] == 1
    config.dump(data.root / 'config.py')
    monkeypatch.setattr(sys, 'argv', ['check_data.py', str(data.root / 'config.py')])
    assert check_data_main() == 1 and 'annotation 201: area is nan' in capsys.readouterr().out


def test_a_data_set_of_which_nothing_is_left_is_an_error(data):
    data.refs = [dict(ref, sentences=7) for ref in data.refs]
    rewrite(data)
    config = Config(dict(train_dataloader=dict(dataset=data.config())))
    errors = check_data(config, progress=False)[0].errors
    assert len(errors) == 6 and 'no reference is left' in errors[-1]


def test_ids_that_are_given_twice_are_errors_of_check_data(data):
    data.refs[1] = dict(data.refs[0])
    rewrite(data)
    config = Config(dict(train_dataloader=dict(dataset=data.config())))
    errors = check_data(config, progress=False)[0].errors
    assert len(errors) == 4 and 'ref_id 1 is given to 2 references' in errors[-1]
    assert 'sent_id 10 is given to 2 expressions' in errors[0]


# gRefCOCO


@pytest.mark.parametrize(
    'value', [*(one for one in NO_NUMBERS if one not in (-1, [1])), [None], ['101'], [101.0],
              [[101]], [101, -1], [-1, -1], [True], [-1.0], [2**63], [-2], [math.nan]], ids=str
)  # fmt: skip
def test_targets_that_are_no_ids_are_named(gref_mini, value):
    gref_mini.refs[1]['ann_id'] = value
    gref_mini.write()
    with pytest.raises(DataError, match=r'reference 2: ann_id is .*only \[-1\] stands for no'):
        DATASETS.build(gref_mini.config())


def test_references_without_expression_are_left_out_with_a_remark(gref_mini):
    # The release has some, and ReLA's loader passes them over.
    for ref in (gref_mini.refs[0], gref_mini.refs[2]):
        ref['sentences'] = []
    config = gref_mini.write().config()
    with pytest.warns(UserWarning, match='split train: 2 references without an expression'):
        dataset = DATASETS.build(config)
    assert [dataset.get_data_info(i)['ref_ids'][0] for i in range(len(dataset))] == [2, 4]
    report = check_data(Config(dict(train_dataloader=dict(dataset=config))), progress=False)[0]
    assert report.errors == [] and report.counts['references'] == 2
    assert len(report.remarks) == 1 and '2 references without' in report.remarks[0]


def test_what_only_other_splits_need_is_not_looked_at(data):
    data.refs[5]['ann_id'] = 'no number'
    data.instances['annotations'][4]['segmentation'] = 'none'
    rewrite(data)
    assert len(load(data)) == 5
