"""Work on the images of a data set in several processes, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch

from nemo_mmseg.utils.dist import end_with_parent

Job = TypeVar('Job')
Result = TypeVar('Result')


def in_processes(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[Result]:
    """Yield what a function returns for each job, in their order.

    Args:
        work: A function of a module, as other processes must find it.
        jobs: Drawn as they are needed: at most four for each process lie ready.
        workers: Number of processes; 0 works in this one.

    Yields:
        The results.
    """
    if workers == 0:
        yield from map(work, jobs)
        return
    # A process that is forked after threads have started, as those of a GPU, can hang.
    with ProcessPoolExecutor(workers, get_context('spawn'), _begin) as pool:
        waiting: deque = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _begin() -> None:
    """Prepare a process."""
    torch.set_num_threads(1)
    end_with_parent()
