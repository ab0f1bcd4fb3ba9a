import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_mmseg.mining import search as search_module
from nemo_mmseg.mining.search import Ranker, search, sort_keys, top_rows, unpack_keys


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(rng, count, dim):
    return unit(rng.normal(size=(count, dim)))


def clustered_vectors(rng, count, dim):
    centres = rng.normal(size=(7, dim))
    return unit(centres[rng.integers(0, 7, count)] + 0.01 * rng.normal(size=(count, dim)))


def collect(texts, text_index, own, images, keep, block):
    """All answers as tables; every expression must be answered once."""
    blocks = (texts[i : i + block] for i in range(0, len(texts), block))
    stored = min(keep, len(images) - 1)
    rows = np.full((len(text_index), stored), -1)
    sims = np.full((len(text_index), stored), np.nan)
    own_sims = np.full(len(text_index), np.nan)
    for found in search(blocks, text_index, own, images, keep):
        assert (rows[found.expressions] == -1).all()
        rows[found.expressions], sims[found.expressions] = found.rows, found.similarities
        own_sims[found.expressions] = found.own
    return rows, sims, own_sims


@pytest.mark.parametrize('vectors', [random_vectors, clustered_vectors])
@pytest.mark.parametrize('keep', [1, 20, 149, 150, 1000])
def test_equals_brute_force_in_float64(vectors, keep, monkeypatch):
    rng = np.random.default_rng(keep)
    images, texts = vectors(rng, 150, 24), vectors(rng, 60, 24)
    text_index = rng.integers(0, 60, 400)
    own = rng.integers(0, 150, 400)
    # Small enough that blocks are split, with more expressions a block than an answer holds.
    monkeypatch.setattr(search_module, 'SCORES_AT_A_TIME', 150 * 13)
    monkeypatch.setattr(search_module, 'EXPRESSIONS_AT_A_TIME', 17)
    rows, sims, own_sims = collect(texts, text_index, own, images, keep, block=25)

    expected = (texts.astype(np.float64) @ images.T.astype(np.float64))[text_index]
    np.testing.assert_allclose(own_sims, expected[np.arange(400), own], atol=1e-6)
    expected[np.arange(400), own] = -np.inf
    order = np.argsort(-expected, axis=1, kind='stable')[:, : rows.shape[1]]
    best = np.take_along_axis(expected, order, 1)
    np.testing.assert_allclose(sims, best, atol=1e-6)
    # Ties aside: another row than the expected one must have its similarity to float32's precision.
    other = rows != order
    assert np.abs(np.take_along_axis(expected, rows, 1) - best)[other].max(initial=0) < 1e-6
    assert other.mean() < 0.02
    assert (rows != own[:, None]).all()
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    assert (np.diff(sims, axis=1) <= 0).all()


def test_ties_go_to_the_smaller_row():
    # One-hot vectors: the products are exact, so equal scores are equal bits.
    images = np.eye(4, dtype=np.float32)[np.array([1, 0, 0, 1, 0, 2, 0, 1])]
    rows, sims, own = collect(
        np.eye(4, dtype=np.float32)[:2], np.array([0, 1, 0]), np.array([2, 5, 5]), images, 5, 2
    )
    assert rows.tolist() == [[1, 4, 6, 0, 3], [0, 3, 7, 1, 2], [1, 2, 4, 6, 0]]
    assert sims.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert own.tolist() == [1, 0, 0]


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(value):
    good, bad = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    bad[2, 1] = value
    zeros = np.zeros(4, int)
    with pytest.raises(ValueError, match='vector of image 2 is not finite'):
        list(search([good], zeros, zeros, bad, 2))
    with pytest.raises(ValueError, match='vector of text 6 is not finite'):
        list(search([good, bad], zeros, zeros, good, 2))


def test_a_pool_of_one_image_has_no_negatives():
    rows, sims, own = collect(
        np.eye(2, dtype=np.float32), np.array([1, 0]), np.zeros(2, int),
        np.eye(2, dtype=np.float32)[:1], 10, 1,
    )  # fmt: skip
    assert rows.shape == (2, 0)
    assert own.tolist() == [0, 1]


def test_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(0)
    images, texts = random_vectors(rng, 333, 40), random_vectors(rng, 90, 40)
    answers, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        answers.append(collect(texts, np.arange(90), np.arange(90), images, 50, 9))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    for one, three in zip(*answers):
        np.testing.assert_array_equal(one, three)


def whole_numbers(rng, count, dim, most):
    """Vectors whose products are exact, so that equal scores are equal bits."""
    return rng.integers(-most, most + 1, (count, dim)).astype(np.float32)


def brute_force(texts, images, count, candidates):
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    rows = np.argsort(-scores[:, :candidates], axis=1, kind='stable')[:, :count]
    return rows, np.take_along_axis(scores, rows, 1)


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


@pytest.mark.parametrize('by_cut', [True, False])  # as on a CPU, as on a GPU
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
def test_ranking_equals_brute_force(monkeypatch, by_cut, most, images, candidates, count, tile):
    monkeypatch.setattr(search_module, 'IMAGES_AT_A_TIME', tile)
    monkeypatch.setattr(search_module, 'SAMPLE', 100)
    rng = np.random.default_rng(count)
    table, texts = whole_numbers(rng, images, 5, most), whole_numbers(rng, 30, 5, most)
    ranker = Ranker(table, count, candidates, 'cpu')
    ranker.by_cut = by_cut
    rows, best = ranker.rank(texts)
    expected_rows, expected_best = brute_force(texts, table, count, candidates)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(best, expected_best)


def test_a_cut_that_leaves_too_few_costs_time_alone(monkeypatch):
    rng = np.random.default_rng(0)
    images, texts = whole_numbers(rng, 500, 6, 50), whole_numbers(rng, 12, 6, 50)
    ranker = Ranker(images, 40, 500, 'cpu')
    wrong = np.full((12, 1), -np.inf, np.float32)
    wrong[::2] = 1e9  # nothing, and
    wrong[1::4] = np.sort(texts[1::4] @ images.T, axis=1)[:, -39:-38]  # one less than is wanted
    monkeypatch.setattr(ranker, 'cut', lambda block: wrong)
    rows, best = ranker.rank(texts)
    expected_rows, expected_best = brute_force(texts, images, 40, 500)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(best, expected_best)


def test_the_cut_is_seldom_wrong_and_never_far_off():
    rng = np.random.default_rng(0)
    # Kinds of images that come in turns, as a sample of every n-th image would not see.
    images = rng.normal(size=(64, 8))[np.arange(12_000) % 64] + 0.3 * rng.normal(size=(12_000, 8))
    texts = rng.normal(size=(100, 8)).astype(np.float32)
    ranker = Ranker(images.astype(np.float32), 600, 12_000, 'cpu')
    above = texts @ ranker.table.numpy().T >= ranker.cut(torch.from_numpy(texts))
    assert (above.sum(axis=1) >= 600).all()
    assert above.sum(axis=1).mean() < 1300


PEAKS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from memory import Peak
from nemo_mmseg.mining.search import search
rng = np.random.default_rng(0)
unit = lambda v: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
for count, pool, kinds in np.reshape(np.int64(sys.argv[2:]), (-1, 3)).tolist():
    images = unit(rng.normal(size=(kinds, 64)))[np.arange(pool) % kinds]
    blocks = (unit(rng.normal(size=(500, 64))) for _ in range(count // 500))
    own, seen = rng.integers(0, pool, count), 0
    with Peak() as peak:
        for found in search(blocks, np.arange(count), own, images, 200):
            seen += len(found.rows)
    assert seen == count
    print(peak.mb)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='peaks are those of Linux')
def test_peak_memory_does_not_grow_with_expressions_or_images():
    # Expressions, images, kinds of images. Of one kind all scores are equal: all are among the
    # best, whatever few are wanted.
    sizes = [(2000, 3000, 3000), (20_000, 3000, 3000), (1000, 100_000, 100_000), (1000, 100_000, 1)]
    benchmarks = Path(__file__).resolve().parents[2] / 'benchmarks'
    # The allocator gives freed blocks back at once, so that the peak is what the search holds.
    printed = subprocess.check_output(
        [sys.executable, '-W', 'ignore', '-c', PEAKS, benchmarks, *map(str, np.ravel(sizes))],
        env=dict(os.environ, MALLOC_MMAP_THRESHOLD_='65536', OMP_NUM_THREADS='1'),
    )
    few, many, of_many_images, of_one_kind = map(float, printed.split())
    # The answers of 18,000 more expressions are 43 MB, their indices alone 1 MB.
    assert few > 10 and many - few < 8
    assert max(of_many_images, of_one_kind) - few < 12
