"""NeMo on multi-target and no-target expressions: what the mosaic's mask is."""

import numpy as np
import pytest
from mmseg.registry import DATASETS, TRANSFORMS
from nemo_helpers import mosaic_config, write_bank

from nemo_mmseg.datasets.samplers import SampleIndex

CELL = (48, 64)  # the images' size: a cell holds its image as it is
PACK = dict(type='PackReferringInputs')


def mosaic(path=None, **settings):
    if path is not None:
        settings = dict(bank=dict(path=str(path)), mined=1.0) | settings
    return mosaic_config(size=(2 * CELL[0], 2 * CELL[1]), **settings)


def expected(mini, sample, names):
    """The mask by hand: the union of the targets at the place of the own cell."""
    mask = np.zeros((2 * CELL[0], 2 * CELL[1]), np.uint8)
    row, column = divmod(sample.mosaic['cell'], 2)
    for ann_id in names[sample.expressions[0]]:
        top, left = row * CELL[0], column * CELL[1]
        mask[top : top + CELL[0], left : left + CELL[1]] |= mini.masks[ann_id]
    return mask


TARGETS = {
    'left box': [101],
    'both boxes': [101, 201],
    'all boxes': [101, 201],
    'the round thing': [],
    'green box': [102],
}


@pytest.fixture
def bank(gref_mini):
    """A bank in which each expression prefers the image that is not its own."""
    path = gref_mini.root / 'bank.safetensors'
    dataset = DATASETS.build(gref_mini.config())
    write_bank(dataset, path, [0.5, 0.5], own=np.full(5, 0.8), stored=1)
    return path


@pytest.mark.parametrize('kind', ['random', 'mined'])
def test_the_mask_is_the_union_in_the_own_cell_and_empty_for_no_target(gref_mini, bank, kind):
    one = mosaic(bank) if kind == 'mined' else mosaic(mined=0.0, random=1.0)
    pipeline = [dict(type='SampleExpressions'), one, PACK]
    dataset = DATASETS.build(gref_mini.config(pipeline, group_by='expression'))
    seen = set()
    for index in range(len(dataset)):
        for epoch in range(4):
            sample = dataset[SampleIndex(index, epoch=epoch)]['data_samples']
            mask = sample.gt_sem_seg.data.numpy()[0]
            assert sample.mosaic['kind'] == kind
            assert np.array_equal(mask, expected(gref_mini, sample, TARGETS))
            seen.add(sample.expressions[0])
    assert seen == set(TARGETS)


def test_the_band_of_a_no_target_expression_is_measured_by_its_own_image(gref_mini, bank):
    """The other image (0.5) is in the band while it is at most tau times the own image (0.8)."""
    dataset = DATASETS.build(gref_mini.config([], group_by='expression'))
    results = dataset.get_data_info(3)
    assert results['expressions'] == ['the round thing']
    results.update(pool=dataset.pool, epoch=0)
    for tau, short in ((0.7, 2), (0.6, 3)):
        built = TRANSFORMS.build(mosaic(bank, tau=tau, top_k=10))
        plan = built.plan('mined', results, np.random.default_rng(0))
        assert plan.num_filled == short, 'one mined negative of three, or none'
        assert plan.self_similarity == pytest.approx(0.8, abs=1e-3)
