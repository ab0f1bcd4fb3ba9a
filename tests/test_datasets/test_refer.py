"""Reading refs(*).p and instances.json, and what is said of bad ones."""

import pytest

from nemo_mmseg.datasets.refer import load_references


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


def test_files_cut_short_are_named(mini):
    for name in ('refs(unc).p', 'instances.json'):
        path = mini.root / 'mini' / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError) as error:
            load(mini)
        assert str(path) in str(error.value)
        path.write_bytes(whole)


def test_an_unknown_split_lists_the_known_ones(mini):
    with pytest.raises(ValueError, match="no split 'testC'; it has: train, val"):
        load(mini, 'testC')
