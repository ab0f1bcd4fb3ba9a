import builtins

import numpy as np
import pytest

from nemo_mmseg.mining.index_ranker import IndexRanker
from nemo_mmseg.mining.ranking import Ranker
from nemo_mmseg.negatives.bank import BankError, NegativeBank


@pytest.fixture
def faiss():
    return pytest.importorskip('faiss')


def some_vectors(count, seed):
    """Whole numbers, so that products are exact and ties many."""
    return np.random.default_rng(seed).integers(-3, 4, (count, 6)).astype(np.float32)


def test_a_flat_index_is_the_exact_search(faiss):
    images, texts = some_vectors(300, 0), some_vectors(20, 1)
    # All of them: which of those that tie at the end a flat index returns is its own choice.
    indexed = IndexRanker(images, 250, 250, 'Flat')
    own = np.arange(20) * 15
    for one, two in zip(
        indexed.rank(texts, np.arange(20), own),
        Ranker(images, 250, 250, 'cpu').rank(texts, np.arange(20), own),
    ):
        np.testing.assert_array_equal(one, two)
    assert indexed.recall([texts[:10], texts[10:]], 250) == 1


def test_scores_are_exact_where_the_index_compresses(faiss):
    images, texts = some_vectors(300, 0), some_vectors(20, 1)
    rows, best, _ = IndexRanker(images, 250, 300, 'SQ4').rank(texts, np.arange(20), np.arange(20))
    np.testing.assert_array_equal(best, np.take_along_axis(texts @ images.T, rows, 1))
    assert (np.diff(best) <= 0).all()


def test_an_index_that_overlooks_says_how_much(faiss):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4000, 16)).astype(np.float32)
    texts = rng.normal(size=(40, 16)).astype(np.float32)
    recalls = []
    for probes in (4, 8, 32):
        ranker = IndexRanker(images, 50, 4000, f'IVF32,Flat;nprobe={probes}')
        recalls.append(ranker.recall([texts], 4000))
        rows, _, _ = ranker.rank(texts, np.zeros(0, int), np.zeros(0, int))
        best = np.argsort(-(texts @ images.T), axis=1)[:, :50]
        counted = np.mean([len(set(a) & set(b)) / 50 for a, b in zip(rows.tolist(), best.tolist())])
        assert abs(recalls[-1] - counted) < 1e-9
    assert 0.2 < recalls[0] < recalls[1] < recalls[2] == 1


def test_threads_change_nothing(faiss):
    images, texts = some_vectors(3000, 0), some_vectors(50, 1)
    answers = []
    for threads in (1, 3):
        faiss.omp_set_num_threads(threads)
        ranker = IndexRanker(images, 20, 3000, 'IVF16,Flat;nprobe=4')
        answers.append(ranker.rank(texts, np.arange(50), np.arange(50)))
        assert faiss.omp_get_max_threads() == threads
    for one, three in zip(*answers):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ('index', 'message'),
    [
        ('Foo', 'cannot make index=.Foo'),
        ('IVF4,Flat;nonsense=3', 'cannot make index=.IVF4,Flat;nonsense=3'),
        ('IVF200,Flat;nprobe=1', 'fewer than 20 images'),
    ],
)
def test_bad_indexes_are_refused(faiss, index, message):
    with pytest.raises(ValueError, match=message):
        ranker = IndexRanker(some_vectors(800, 0), 20, 800, index)
        ranker.rank(some_vectors(5, 1), np.zeros(0, int), np.zeros(0, int))


def test_without_faiss_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def no_faiss(name, *args, **kwargs):
        if name == 'faiss':
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', no_faiss)
    with pytest.raises(ImportError, match='pip install faiss-cpu'):
        IndexRanker(some_vectors(10, 0), 2, 10, 'Flat')


def test_a_bank_by_index_says_so_and_is_not_taken_for_an_exact_one(
    faiss, tiny, shared_folder, mined, tmp_path
):
    path = tmp_path / 'bank'
    bank = tiny.mine(shared_folder, path, index='Flat')
    assert (bank.metadata['index'], bank.metadata['recall']) == ('Flat', 1.0)
    exact = NegativeBank(mined)
    for sent_id in exact.sent_ids.tolist():
        np.testing.assert_allclose(bank.row(sent_id)[1], exact.row(sent_id)[1], atol=1e-3)
    with pytest.raises(BankError, match="made with index='Flat', this run asks for None"):
        tiny.mine(shared_folder, path)
    assert len(tiny.mine(shared_folder, path, index='Flat')) == len(bank)
    with pytest.raises(BankError, match="made with index=None, this run asks for 'Flat'"):
        tiny.mine(shared_folder, mined, index='Flat')
