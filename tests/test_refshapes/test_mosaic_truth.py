"""What the scene graphs say of mosaics, on scenes and a bank made by hand."""

import json

import numpy as np
import pytest
from mmseg.registry import DATASETS
from refshapes_truth.mosaic_truth import mosaic_truth

from nemo_mmseg.mining.bank_writer import BankWriter


def thing(category, colour, ann_id=0):
    return dict(
        category=category,
        colour=colour,
        texture='plain',
        second=None,
        size='large',
        center=[10.0, 10.0],
        bbox=[0, 0, 9, 9],
        visible=1.0,
        covers={},
        ann_id=ann_id,
    )


def test_shares_of_a_hand_made_case(mini):
    """ "red star" in image 1; the band holds image 2 (a blue star) and 3 (a red one).

    Image 4 shows a circle. A grid of two cells draws one negative, each as often as the other: half
    of the mosaics hold a second red star, all negatives show a star, as do three of four images.
    """
    mini.refs = [dict(ref, sentences=ref['sentences'][:1]) for ref in mini.refs[:4]]
    for ref in mini.refs:
        ref['sentences'][0]['sent'] = 'red star'
    for image in mini.instances['images']:
        image['file_name'] = f'COCO_train2014_{image["id"]:012d}.jpg'
    mini.write()
    scenes = {
        1: [thing('star', 'red', 101)],
        2: [thing('star', 'blue', 102)],
        3: [thing('star', 'red', 103)],
        4: [thing('circle', 'red', 104)],
    }
    scenes = {str(k): dict(width=64, height=48, objects=v) for k, v in scenes.items()}
    (mini.root / 'mini' / 'scenes.json').write_text(json.dumps(dict(scenes=scenes)))
    path = str(mini.root / 'bank.safetensors')
    mosaic = dict(type='NeMoMosaic', size=(48, 64), transforms=[], mined_prob=1.0, grid=(1, 2))
    mosaic.update(bank=dict(path=path), tau=0.9, tau_mode='absolute', top_k=2)
    dataset = DATASETS.build(
        mini.config([dict(type='SampleExpressions'), mosaic], indices=[0], check_images=False)
    )
    full = DATASETS.build(mini.config(check_images=False))
    dataset._pool = full.pool
    with BankWriter(
        path,
        sent_ids=np.array([10]),
        image_row=np.array([0]),
        image_ids=full.pool.ids,
        image_names=list(full.pool.names),
        image_vectors=np.zeros((4, 2)),
        stored=3,
        metadata=dict(fingerprint=full.fingerprint, dataset='mini', split='train'),
    ) as writer:
        writer.write(
            np.array([0]), np.array([[1, 2, 3]]), np.array([[0.5, 0.4, 0.3]]), np.array([0.8])
        )
    truth = mosaic_truth(dataset, dataset.pipeline.transforms[1], num=400)
    assert truth['mined_share'] == 1
    assert truth['also_true'] == pytest.approx(0.5, abs=0.08)
    assert truth['category_mined'] == 1
    assert truth['category_random'] == pytest.approx(0.75)
    assert truth['category_ratio'] == pytest.approx(4 / 3)


def test_expressions_of_nothing_have_no_category(gref_mini):
    """ "blue star" of nothing in image 1, "red things" of both of its objects.

    The only negative, image 2, shows a blue star: it makes the first untrue, and the categories of
    the second (star, circle) are in it; of the pool's two images each shows one of them.
    """
    nothing, both = gref_mini.refs[2], gref_mini.refs[1]
    nothing['sentences'][0]['sent'] = 'blue star'
    both['sentences'] = [dict(both['sentences'][0], sent='red things')]
    gref_mini.refs = [nothing, both, gref_mini.refs[3]]
    for image in gref_mini.instances['images']:
        image['file_name'] = f'COCO_train2014_{image["id"]:012d}.jpg'
    gref_mini.write()
    scenes = {
        1: [thing('star', 'red', 101), thing('circle', 'red', 201)],
        2: [thing('star', 'blue', 102)],
    }
    scenes = {str(k): dict(width=64, height=48, objects=v) for k, v in scenes.items()}
    (gref_mini.root / 'mini' / 'scenes.json').write_text(json.dumps(dict(scenes=scenes)))
    full = DATASETS.build(gref_mini.config(check_images=False))
    path = str(gref_mini.root / 'bank.safetensors')
    with BankWriter(
        path,
        sent_ids=np.array([20, 30]),
        image_row=np.array([0, 0]),
        image_ids=full.pool.ids,
        image_names=list(full.pool.names),
        image_vectors=np.zeros((2, 2)),
        stored=1,
        metadata=dict(fingerprint=full.fingerprint, dataset='mini', split='train'),
    ) as writer:
        writer.write(np.arange(2), np.array([[1], [1]]), np.full((2, 1), 0.5), np.full(2, 0.8))
    mosaic = dict(type='NeMoMosaic', size=(48, 64), transforms=[], mined_prob=1.0, grid=(1, 2))
    mosaic.update(bank=dict(path=path), top_k=2)
    dataset = DATASETS.build(
        gref_mini.config(
            [dict(type='SampleExpressions'), mosaic], indices=[0, 1], check_images=False
        )
    )
    dataset._pool = full.pool
    truth = mosaic_truth(dataset, dataset.pipeline.transforms[1], num=20)
    assert truth['mined_share'] == 1
    assert truth['also_true'] == 0.5
    assert truth['category_mined'] == truth['category_random'] == 1
