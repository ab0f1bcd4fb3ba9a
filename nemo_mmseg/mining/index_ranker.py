"""Ranks images by a faiss index: for pools so large that exact search takes too long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .ranking import Ranker, sort_keys, unpack_keys

# Texts of which the recall is measured.
RECALL_OF = 256


class IndexRanker:
    """The same as :class:`Ranker`, but for images that the index overlooks.

    Scores are exact, also where the index compresses; the order, and what equal scores do, are the
    same; results do not depend on threads.

    Args:
        images: Vectors (I, D) float32.
        count: Images to find a text, at most ``candidates``.
        candidates: How many of the images, from the first on, can be found.
        index: Description of a faiss index and, after a semicolon, of its search, e.g.
            ``'IVF4096,Flat;nprobe=64'``.

    Raises:
        ImportError: faiss is not installed.
        ValueError: faiss does not know such an index, or such a parameter of it.
    """

    def __init__(self, images: np.ndarray, count: int, candidates: int, index: str) -> None:
        try:
            import faiss
        except ImportError:
            raise ImportError(
                f'index={index!r} needs faiss: pip install faiss-cpu. Without an index the search '
                'is exact and needs nothing'
            ) from None
        self.faiss, self.description = faiss, index
        self.images, self.count = images, count
        built, _, parameters = index.partition(';')
        try:
            self.index = faiss.index_factory(images.shape[1], built, faiss.METRIC_INNER_PRODUCT)
            with _OneThread(faiss):
                self.index.train(images[:candidates])
                self.index.add(images[:candidates])
            if parameters:
                faiss.ParameterSpace().set_index_parameters(self.index, parameters)
        except RuntimeError as error:
            raise ValueError(f'faiss cannot make index={index!r}: {error}') from None

    def rank(
        self, texts: np.ndarray, text_of: np.ndarray, own: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rank the images for some texts; see :meth:`Ranker.rank`.

        Raises:
            ValueError: The index finds too few.
        """
        with _OneThread(self.faiss):
            best, rows = self.index.search(np.ascontiguousarray(texts), self.count)
        if (rows < 0).any():
            raise ValueError(
                f'index={self.description!r} finds fewer than {self.count} images for some texts: '
                'let it look at more of the pool (a larger nprobe), or keep fewer'
            )
        # An index may compress the images, but the bank's thresholds compare cosines.
        for text, found, scores in zip(texts, rows, best):
            scores[:] = np.einsum('cd,d->c', self.images[found], text)
        best, rows = unpack_keys(np.sort(sort_keys(best, rows), axis=1))
        return rows, best, np.einsum('nd,nd->n', texts[text_of], self.images[own])

    def recall(self, text_blocks: Iterable[np.ndarray], candidates: int) -> float:
        """Share of the best ``count`` images that the index finds, over some texts.

        Args:
            text_blocks: Vectors (b, D) float32.
            candidates: As when it was made.
        """
        exact, nothing = Ranker(self.images, self.count, candidates, 'cpu'), np.zeros(0, np.int64)
        shares = []
        for texts in text_blocks:
            truth, found = (r.rank(texts, nothing, nothing)[0] for r in (exact, self))
            shares += [len(np.intersect1d(*rows)) / self.count for rows in zip(truth, found)]
        return float(np.mean(shares))


class _OneThread:
    """Lets faiss work with one thread: sums over several come in any order."""

    def __init__(self, faiss: object) -> None:
        self.faiss = faiss

    def __enter__(self) -> None:
        self.before = self.faiss.omp_get_max_threads()
        self.faiss.omp_set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        self.faiss.omp_set_num_threads(self.before)
