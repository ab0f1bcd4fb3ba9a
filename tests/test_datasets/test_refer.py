"""Reading refs(*).p and instances.json, and what is said of bad ones."""

import collections
import os
import pickle
import time

import pytest

from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.utils.fileio import load_plain_pickle


def load(mini, split='train'):
    folder = mini.root / 'mini'
    return load_references(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), split)


def test_references_join_images_annotations_and_expressions(mini):
    references = load(mini)
    assert [r.ref_id for r in references] == [1, 2, 3, 4, 5]
    first = references[0]
    assert first.expressions == ('left box', 'the box on top', 'box')
    assert first.sent_ids == (10, 11, 12)
    assert first.image['file_name'] == 'image_1.jpg'
    assert [r.num_distractors for r in references] == [1, 0, 0, 0, 1]
    assert [r.ref_id for r in load(mini, 'val')] == [6]


def test_crowds_are_no_distractors(mini):
    mini.instances['annotations'][-1]['iscrowd'] = 1
    mini.refs.pop(4)
    assert load(mini.write())[0].num_distractors == 0


class Harm:
    def __reduce__(self):
        return os.system, ('touch harmed',)


@pytest.mark.parametrize(
    'content', [Harm(), collections.OrderedDict(a=1), [load], {'a': pytest.approx(1)}]
)
def test_a_pickle_that_refers_to_code_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match='refs.*not a plain pickle.*asks for'):
        load_plain_pickle(str(path))
    assert not (tmp_path / 'harmed').exists()


def test_plain_containers_of_both_pythons_are_admitted(tmp_path):
    path = tmp_path / 'x.p'
    content = [{'a': (1, 2.5, None, True), 'b': {3}, 'c': 'ü'}]
    for protocol in range(5):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        assert load_plain_pickle(str(path)) == content
    # What Python 2 wrote for [b'caf\xe9', u'caf\xe9'] under protocol 0.
    path.write_bytes(b"(lp0\nS'caf\\xe9'\np1\naVcaf\xe9\np2\na.")
    assert load_plain_pickle(str(path)) == ['café', 'café']


def test_files_cut_short_are_named(mini):
    for name in ('refs(unc).p', 'instances.json'):
        path = mini.root / 'mini' / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError) as error:
            load(mini)
        assert str(path) in str(error.value)
        path.write_bytes(whole)


def test_a_reference_without_its_annotation_is_named(mini):
    mini.refs[2]['ann_id'] = 999
    with pytest.raises(ValueError, match='reference 3 has annotation 999'):
        load(mini.write())


def test_an_annotation_of_another_image_is_named(mini):
    mini.refs[2]['image_id'] = 1
    with pytest.raises(ValueError, match='reference 3 has image 1, annotation 103 has image 3'):
        load(mini.write())


def test_an_empty_expression_is_named(mini):
    for empty in ('  ', '', None, 7):
        mini.refs[0]['sentences'][1]['sent'] = empty
        with pytest.raises(ValueError, match='expression 11 of reference 1 is empty'):
            load(mini.write())


def test_an_expression_without_its_id_is_named(mini):
    del mini.refs[0]['sentences'][1]['sent_id']
    with pytest.raises(ValueError, match="an expression of reference 1 has no 'sent_id'"):
        load(mini.write())


@pytest.mark.parametrize(
    'empty', [[], [[1, 2, 3, 4]], None, dict(size=[48, 64], counts=[3072]), dict(counts='')]
)
def test_an_empty_segmentation_is_named(mini, empty):
    mini.instances['annotations'][1]['segmentation'] = empty
    with pytest.raises(ValueError, match='annotation 102 has an empty segmentation'):
        load(mini.write())


def test_an_unknown_split_lists_the_known_ones(mini):
    with pytest.raises(ValueError, match="no split 'testC'; it has: train, val"):
        load(mini, 'testC')


@pytest.mark.slow
def test_annotations_of_refcoco_size_load_in_seconds(mini):
    """142,209 expressions of 50,000 references in 19,994 images."""
    image, annotation = mini.instances['images'][0], mini.instances['annotations'][0]
    mini.instances['images'] = [
        dict(image, id=i, file_name=f'COCO_{i:012d}.jpg') for i in range(19994)
    ]
    mini.instances['annotations'] = [
        dict(annotation, id=a, image_id=a % 19994) for a in range(196771)
    ]
    texts = ['the woman in green', 'lady on the left', 'left']
    mini.refs = [
        dict(
            mini.refs[0],
            ref_id=r,
            ann_id=r,
            image_id=r % 19994,
            sentences=[
                dict(sent_id=3 * r + i, sent=t, raw=t, tokens=t.split())
                for i, t in enumerate(texts[: 3 if r < 42209 else 2])
            ],
        )
        for r in range(50000)
    ]
    folder = mini.root / 'mini'
    import json

    (folder / 'refs(unc).p').write_bytes(pickle.dumps(mini.refs, protocol=2))
    (folder / 'instances.json').write_text(json.dumps(mini.instances))
    start = time.process_time()
    references = load(mini)
    seconds = time.process_time() - start
    assert sum(len(r.expressions) for r in references) == 142209
    print(f'142,209 expressions in {seconds:.1f} s')
    assert (
        seconds < 60
    )  # "seconds" on an idle machine; the bound only catches another order of magnitude
