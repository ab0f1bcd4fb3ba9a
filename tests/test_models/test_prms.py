"""The choice of a response map, against the published loop over all pairs of map and sentence."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample

from nemo_mmseg.models.protocols.prms import PRMS, MeanOfMaps, groups_of
from nemo_mmseg.models.structures import HeadOutput

CLIP = dict(model='RefShapes-CLIP', pretrained='refshapes')
EXPRESSIONS = ['the red circle', 'red circle on the left', 'blue square', 'the large blue square']
REF_IDS = [5, 3, 3, 5]


@pytest.fixture(scope='module')
def prms():
    return PRMS(**CLIP)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 8, 8), torch.randn(2, 3, 128, 128)


def published(clip, scores, images, owner, group):
    """The published loops; the position that is kept, and its score."""
    best, kept = -1.0, None
    for j in group:
        response = F.interpolate(scores[j][None, None], (128, 128), mode='bilinear').relu()
        response = F.interpolate(response, (256, 256), mode='bilinear', align_corners=True)
        image = images[owner[j]][None]
        image = F.interpolate(image, (256, 256), mode='bilinear', align_corners=True)
        total = 0.0
        for k in group:
            seen = clip.network.encode_image(image * response)
            said = clip.network.encode_text(clip.tokenizer([EXPRESSIONS[k]]))
            total += F.cosine_similarity(seen, said).item()
        if total > best:
            best, kept = total, j
    return kept


@torch.no_grad()
def test_the_choice_is_that_of_the_published_loops(prms, batch):
    _, images = batch
    chosen = set()
    for _ in range(6):
        moved = torch.randn(4, 8, 8)
        owner = torch.tensor([0, 1, 1, 0])
        groups = [[0, 3], [1, 2]]
        selected = prms(moved, images, owner, EXPRESSIONS, groups)
        expected = [published(prms.clip, moved, images, owner, group) for group in groups]
        assert selected.chosen == expected
        torch.testing.assert_close(selected.scores, moved[expected])
        chosen.update(expected)
    assert len(chosen) >= 3, 'not always the first'


def test_equal_maps_keep_the_first(prms, batch):
    scores, images = batch
    scores = scores[:1].expand(4, -1, -1)
    owner = torch.zeros(4, dtype=torch.long)
    assert prms(scores, images[:1], owner, EXPRESSIONS, [[2, 0, 1, 3]]).chosen == [2]
    nothing = prms(-scores.abs(), images[:1], owner, EXPRESSIONS, [[0, 1], [3, 2]])
    assert nothing.chosen == [0, 3]


def test_chunks_do_not_matter(batch):
    scores, images = batch
    owner = torch.tensor([0, 1, 1, 0])
    whole, cut = PRMS(**CLIP), PRMS(**CLIP, chunk_size=3)
    torch.testing.assert_close(
        whole.encode_masked(scores, images, owner), cut.encode_masked(scores, images, owner),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_long_expressions_lose_their_content_as_published():
    short, long = PRMS(**CLIP, max_tokens=6), PRMS(**CLIP)
    texts = ['the red circle', 'the large red circle above the blue square', 'a ring ' * 5]
    cut, whole = short.encode_text(texts), long.encode_text(texts)
    torch.testing.assert_close(cut[0], whole[0])
    torch.testing.assert_close(cut[1], cut[2])
    assert not torch.allclose(whole[1], whole[2], atol=1e-2)


def test_the_mean_is_the_mean(batch):
    scores, images = batch
    selected = MeanOfMaps()(scores, images, None, EXPRESSIONS, [[0, 3], [1, 2], [1]])
    assert selected.chosen == [-1] * 3
    torch.testing.assert_close(selected.scores[0], (scores[0] + scores[3]) / 2)
    torch.testing.assert_close(selected.scores[2], scores[1])


def test_groups_keep_the_order():
    assert groups_of([7, 3, 7, 5, 3]) == {7: [0, 2], 3: [1, 4], 5: [3]}


@pytest.mark.parametrize('selection', [dict(type='PRMS', **CLIP), dict(type='MeanOfMaps')])
def test_all_expressions_of_a_reference_get_its_mask(batch, selection):
    scores, images = batch
    inner = dict(type='TRISProtocol')
    protocol = TASK_UTILS.build(
        dict(type='SelectedMapProtocol', selection=selection, protocol=inner)
    )
    assert not protocol.state_dict()
    meta = dict(expressions=EXPRESSIONS, ref_ids=REF_IDS, ori_shape=(40, 60))
    sample = SegDataSample(metainfo=meta)
    protocol(HeadOutput(scores[:, None]), images[0], sample)
    masks = sample.pred_sem_seg.data
    assert torch.equal(masks[0], masks[3]) and torch.equal(masks[1], masks[2])
    assert not torch.equal(masks[0], masks[1])

    index = torch.zeros(4, dtype=torch.long)
    selected = protocol.selection(scores, images[:1], index, EXPRESSIONS, [[0, 3], [1, 2]])
    alone = SegDataSample(metainfo=dict(ori_shape=(40, 60)))
    TASK_UTILS.build(inner)(HeadOutput(selected.scores[:, None]), images[0], alone)
    torch.testing.assert_close(masks[:2], alone.pred_sem_seg.data)
    assert isinstance(sample.seg_logits, PixelData)


@torch.no_grad()
def test_the_choice_is_made_in_full_precision(prms, batch):
    """Under autocast the scores are rounded, and nothing after them."""
    scores, images = batch
    rounded, owner, groups = scores.bfloat16(), torch.tensor([0, 1, 1, 0]), [[0, 3], [1, 2]]
    expected = prms(rounded.float(), images, owner, EXPRESSIONS, groups)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = prms(rounded, images, owner, EXPRESSIONS, groups)
    assert found.chosen == expected.chosen
    torch.testing.assert_close(found.scores.float(), expected.scores)
