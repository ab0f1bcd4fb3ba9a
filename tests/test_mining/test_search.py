import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_mmseg.mining import search as search_module
from nemo_mmseg.mining.search import search


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

    truth = (texts.astype(np.float64) @ images.T.astype(np.float64))[text_index]
    np.testing.assert_allclose(own_sims, truth[np.arange(400), own], atol=1e-6)
    truth[np.arange(400), own] = -np.inf
    order = np.argsort(-truth, axis=1, kind='stable')[:, : rows.shape[1]]
    best = np.take_along_axis(truth, order, 1)
    np.testing.assert_allclose(sims, best, atol=1e-6)
    # Ties aside: another row than the true one must have its similarity to float32's precision.
    other = rows != order
    assert np.abs(np.take_along_axis(truth, rows, 1) - best)[other].max(initial=0) < 1e-6
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


PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from memory import Peak
from nemo_mmseg.mining.search import search
count, pool, kinds = map(int, sys.argv[2:5])
leaks = sys.argv[5:] == ['leaks']
rng = np.random.default_rng(0)
unit = lambda v: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
images = unit(rng.normal(size=(kinds, 64)))[np.arange(pool) % kinds]
blocks = (unit(rng.normal(size=(500, 64))) for _ in range(count // 500))
own, seen, kept = rng.integers(0, pool, count), 0, []
with Peak() as peak:
    for found in search(blocks, np.arange(count), own, images, 200):
        seen += len(found.rows)
        if leaks:
            kept.append(found)
assert seen == count
print(peak.mb)
"""


def peak_of(count, pool=3000, kinds=3000, *more):
    """MB that a search of so many texts in so many images, of so many kinds, takes."""
    if not Path('/proc/self/clear_refs').exists():
        pytest.skip('peaks are measured by /proc/self/clear_refs')
    benchmarks = Path(__file__).resolve().parents[2] / 'benchmarks'
    # The allocator gives freed blocks back at once, so that the peak is what the search holds; and
    # every thread has a room for scores, but few texts do not keep all threads busy.
    printed = subprocess.check_output(
        [sys.executable, '-W', 'ignore', '-c', PEAK, benchmarks, *map(str, [count, pool, kinds]),
         *more],
        env=dict(os.environ, MALLOC_MMAP_THRESHOLD_='65536', OMP_NUM_THREADS='1'),
    )  # fmt: skip
    return float(printed)


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_expressions():
    few, many = peak_of(2_000), peak_of(20_000)
    # The answers of 18,000 more expressions are 43 MB, their indices alone 1 MB.
    assert few > 10 and many - few < 8, (few, many)


@pytest.mark.slow
def test_a_search_that_keeps_its_answers_is_seen():
    large = np.ones(2**27)  # 1 GB: a child's ru_maxrss would begin there
    few, many = (peak_of(count, 3000, 3000, 'leaks') for count in (2_000, 20_000))
    assert large.nbytes == 2**30 and 35 < many - few < 60, (few, many)


@pytest.mark.slow
@pytest.mark.parametrize('kinds', [100_000, 1])
def test_peak_memory_does_not_grow_with_the_images(kinds):
    # Of one kind all scores are equal: all are among the best, whatever few are wanted.
    few, many = peak_of(1_000), peak_of(1_000, 100_000, kinds)
    assert many - few < 12, (few, many)
