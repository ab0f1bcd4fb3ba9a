import numpy as np
import pytest
import torch

from nemo_mmseg.mining import ranking
from nemo_mmseg.mining.ranking import Ranker, sort_keys, top_rows, unpack_keys


def whole_numbers(rng, count, dim, most):
    """Vectors whose products are exact, so that equal scores are equal bits."""
    return rng.integers(-most, most + 1, (count, dim)).astype(np.float32)


def brute_force(texts, images, count, candidates):
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    rows = np.argsort(-scores[:, :candidates], axis=1, kind='stable')[:, :count]
    return scores, rows, np.take_along_axis(scores, rows, 1)


def test_top_rows_equals_a_stable_sort():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (50, 40)).astype(np.float32)
    for k in (1, 7, 40):
        columns, best = top_rows(torch.from_numpy(scores), k)
        order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
        np.testing.assert_array_equal(columns, order)
        np.testing.assert_array_equal(best, np.take_along_axis(scores, order, 1))


def test_keys_sort_as_scores_and_rows():
    scores = np.float32([-np.inf, -3.5, -1e-40, -0.0, 0.0, 1e-45, 0.1, 0.1, 2, np.inf, -0.0, 3e38])
    rows = np.array([0, 2**32 - 1, 5, 9, 4, 6, 8, 7, 1, 3, 2, 2**31])
    keys = np.sort(sort_keys(scores, rows))
    order = np.lexsort([rows, -scores.astype(np.float64)])
    back, back_rows = unpack_keys(keys)
    np.testing.assert_array_equal(back, scores[order])
    np.testing.assert_array_equal(back_rows, rows[order])
    assert (rows[order][6:9] == [2, 4, 9]).all()  # 0 and -0 are equal


@pytest.mark.parametrize('way', ['_keys', '_merged'])
@pytest.mark.parametrize('most', [1, 1000])  # many ties, hardly any
@pytest.mark.parametrize(
    ('images', 'candidates', 'count', 'tile'),
    [
        (700, 700, 20, 1000),  # one tile
        (700, 700, 20, 64),  # several, the last one short
        (700, 650, 150, 100),  # tiles of less than is wanted, and images that none may find
        (700, 130, 130, 64),  # all of them
        (700, 700, 1, 128),
        (3, 3, 3, 2),
    ],
)
def test_equals_brute_force(monkeypatch, way, most, images, candidates, count, tile):
    monkeypatch.setattr(ranking, 'IMAGES_AT_A_TIME', tile)
    monkeypatch.setattr(ranking, 'SAMPLE', 100)
    rng = np.random.default_rng(count)
    table, texts = whole_numbers(rng, images, 5, most), whole_numbers(rng, 30, 5, most)
    text_of, own = rng.integers(0, 30, 80), rng.integers(0, images, 80)
    ranker = Ranker(table, count, candidates, 'cpu')
    if way == '_merged':  # what a GPU does
        asked = np.empty(80, np.float32)
        rows, best = ranker._merged(torch.from_numpy(texts), text_of, own, asked)
    else:
        rows, best, asked = ranker.rank(texts, text_of, own)
    scores, true_rows, true_best = brute_force(texts, table, count, candidates)
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_array_equal(best, true_best)
    np.testing.assert_array_equal(asked, scores[text_of, own])


def test_a_cut_that_leaves_too_few_costs_time_alone(monkeypatch):
    rng = np.random.default_rng(0)
    images, texts = whole_numbers(rng, 500, 6, 50), whole_numbers(rng, 12, 6, 50)
    ranker = Ranker(images, 40, 500, 'cpu')
    wrong = np.full((12, 1), -np.inf, np.float32)
    wrong[::2] = 1e9  # nothing, and
    wrong[1::4] = np.sort(texts[1::4] @ images.T, axis=1)[:, -39:-38]  # one less than is wanted
    monkeypatch.setattr(ranker, '_cut', lambda block: wrong)
    nothing = np.zeros(0, int)
    rows, best, _ = ranker.rank(texts, nothing, nothing)
    _, true_rows, true_best = brute_force(texts, images, 40, 500)
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_array_equal(best, true_best)


def test_the_cut_is_seldom_wrong_and_never_far_off():
    rng = np.random.default_rng(0)
    # Kinds of images that come in turns, as a sample of every n-th image would not see.
    images = rng.normal(size=(64, 8))[np.arange(12_000) % 64] + 0.3 * rng.normal(size=(12_000, 8))
    texts = rng.normal(size=(100, 8)).astype(np.float32)
    ranker = Ranker(images.astype(np.float32), 600, 12_000, 'cpu')
    above = texts @ ranker.table.numpy().T >= ranker._cut(torch.from_numpy(texts))
    assert (above.sum(axis=1) >= 600).all()
    assert above.sum(axis=1).mean() < 1300
