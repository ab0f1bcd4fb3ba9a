"""Answers without language: counted by hand on two images."""

import json
import pickle

import pytest
from baselines import category_baseline, centre_guess, shuffle_expressions

from nemo_mmseg.datasets import RefCOCODataset
from nemo_mmseg.utils.fileio import load_plain_pickle

# Annotation id -> image and expressions; all are boxes of 300 pixels, those of image 1 apart.
REFERENCES = {
    101: (1, ['left box', 'the box on top', 'box']),
    102: (1, ['the other box']),
    103: (2, ['green box', 'big box', 'the low box', 'blue box', 'cyan box']),
}


@pytest.fixture
def files(tmp_path):
    """Paths of `refs(unc).p` and `instances.json`; one reference more is in val."""
    boxes = {101: (4, 3), 102: (40, 30), 103: (8, 6)}
    annotations = [
        dict(id=key, image_id=REFERENCES[key][0], category_id=1, iscrowd=0, area=300.0,
             bbox=[x, y, 20, 15],
             segmentation=[[x, y, x + 20, y, x + 20, y + 15, x, y + 15]])
        for key, (x, y) in boxes.items()
    ]  # fmt: skip
    images = [dict(id=i, file_name=f'{i}.jpg', height=48, width=64) for i in (1, 2)]
    refs = [
        dict(ref_id=key, ann_id=key, image_id=image, category_id=1, split='train',
             sent_ids=[10 * key + i for i in range(len(texts))],
             sentences=[dict(sent_id=10 * key + i, sent=text) for i, text in enumerate(texts)])
        for key, (image, texts) in REFERENCES.items()
    ]  # fmt: skip
    refs.append(dict(refs[0], split='val'))
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='box')])
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps(refs, protocol=2))
    return str(tmp_path / 'refs(unc).p'), str(tmp_path / 'instances.json')


def test_the_best_answer_that_knows_the_category(files):
    """The union scores I/U = 300/600 on the four expressions of image 1, and 1 on the others.

    The larger box (the first of equals) scores 1 on three of them and 0/600 on one, a random one
    1/2 on all four. So the second answer is best in both measures.
    """
    scores = category_baseline(*files, 'train')
    assert scores['oIoU'] == pytest.approx(100 * 8 * 300 / (8 * 300 + 600))
    assert scores['mIoU'] == pytest.approx(100 * 8 / 9)


def test_shuffling_deals_the_same_expressions_to_other_references(files, tmp_path):
    source, target = files[0], tmp_path / 'new' / 'refs(unc).p'
    shuffle_expressions(source, str(target), seed=0)
    before, after = load_plain_pickle(source), load_plain_pickle(str(target))
    assert before[-1] == after[-1]  # val

    def expressions(refs):
        return [[s['sent'] for s in ref['sentences']] for ref in refs if ref['split'] == 'train']

    assert expressions(before) != expressions(after)
    assert sorted(expressions(before)) == sorted(expressions(after))
    assert [r['ann_id'] for r in before] == [r['ann_id'] for r in after]
    assert all(r['sent_ids'] == [s['sent_id'] for s in r['sentences']] for r in after)
    shuffle_expressions(source, str(tmp_path / 'again' / 'refs(unc).p'), seed=0)
    assert (tmp_path / 'again' / 'refs(unc).p').read_bytes() == target.read_bytes()


def test_a_box_in_the_middle(files, tmp_path):
    """The middle, (32, 24), lies in no object; the whole image has an IoU of 300 / 3072."""
    split_file, ann_file = files
    (tmp_path / 'images').mkdir()
    for name in ('1.jpg', '2.jpg'):
        (tmp_path / 'images' / name).touch()  # no pixel is looked at
    dataset = RefCOCODataset(
        data_root=str(tmp_path),
        ann_file=ann_file,
        split_file=split_file,
        data_prefix=dict(img_path='images/'),
        split='train',
        group_by='image',
        pipeline=[],
    )
    found = centre_guess(dataset)
    assert found['PointM'] == 0 and found['Pr@0.5'] == 0
    assert found['oIoU'] >= 100 * 300 / 3072
    # the best size by brute force: boxes are 20 x 15 pixels at known places
    best = []
    for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
        top, left = round(48 * (1 - share) / 2), round(64 * (1 - share) / 2)
        ious = []
        for x, y, number in ((4, 3, 3), (40, 30, 1), (8, 6, 5)):
            width = max(0, min(x + 20, 64 - left) - max(x, left))
            height = max(0, min(y + 15, 48 - top) - max(y, top))
            area = (64 - 2 * left) * (48 - 2 * top)
            ious += [width * height / (area + 300 - width * height)] * number
        best.append(100 * sum(ious) / len(ious))
    assert found['mIoU'] == pytest.approx(max(best), rel=0.02)
