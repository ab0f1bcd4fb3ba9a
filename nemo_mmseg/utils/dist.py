"""Ranks and devices, and what mining does to its process and undoes: threads, random state."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed.nn.functional

S = TypeVar('S')
T = TypeVar('T')
# Seconds between two looks at the files of other processes.
LOOK_EVERY = 0.2


def rank_and_world() -> tuple[int, int]:
    """Return rank and number of processes, of the process group or of torchrun's environment."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))


def gather_rows(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Join the rows of all ranks.

    Gradients come back to the rank of a row, as the sum over all ranks. Where each rank's loss is
    the mean over its own samples, and the ranks have equally many, DDP's mean of the gradients is
    then that of one process with the whole batch.

    Args:
        x: ``(E, ...)``, of as many rows as the rank has.

    Returns:
        The rows of rank 0, then those of rank 1, and so on, and where those of this rank begin.
    """
    rank, world = rank_and_world()
    if world == 1 or not torch.distributed.is_initialized():
        return x, 0
    own = torch.tensor([len(x)], device=x.device)
    found = [torch.empty_like(own) for _ in range(world)]
    torch.distributed.all_gather(found, own)
    counts = torch.cat(found).tolist()
    missing = max(counts) - len(x)
    padded = torch.cat((x, x.new_zeros(missing, *x.shape[1:]))) if missing else x
    parts = torch.distributed.nn.functional.all_gather(padded)
    rows = torch.cat([part[:count] for part, count in zip(parts, counts)])
    return rows, sum(counts[:rank])


def default_device() -> str:
    """Return this process's GPU (by ``LOCAL_RANK``), or ``'cpu'``."""
    if not torch.cuda.is_available():
        return 'cpu'
    local = int(os.environ.get('LOCAL_RANK', torch.cuda.current_device()))
    return f'cuda:{local % torch.cuda.device_count()}'


def wait_for(
    ready: Callable[[], T | None], signs: Callable[[], Iterable[Path]], timeout: float, what: str
) -> T:
    """Ask again and again for what another process makes, as long as it gets on.

    Args:
        ready: What is asked for; None while it is not there.
        signs: Files that others write, or touch, while they get on.
        timeout: Seconds to wait while these files stay as they are.
        what: What is waited for, for the message.

    Returns:
        What ``ready`` returns.

    Raises:
        TimeoutError: Nothing gets on.
    """

    def times() -> list[int]:
        found = []
        for sign in signs():
            with contextlib.suppress(OSError):  # not begun, or just removed
                found.append(os.stat(sign).st_mtime_ns)
        return found

    seen, since = times(), time.monotonic()
    while (made := ready()) is None:
        if (now := times()) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > timeout:
            rank, world = rank_and_world()
            raise TimeoutError(
                f'rank {rank} of {world} waited for {what}, but nothing got on for {timeout:g} s. '
                'Start the run again: it continues'
            )
        time.sleep(LOOK_EVERY)
    return made


def ordered_map(call: Callable[[S], T], items: Iterable[S], device: str) -> Iterator[T]:
    """Apply a function to items, several at a time on a CPU, and yield the results in order.

    The result of a matrix product depends on the number of threads that share it. So on a CPU one
    thread works off each item, and as many items run at once as PyTorch would use threads. The
    bytes are the same with any number of threads and ranks. On a GPU the items run one after the
    other.

    Args:
        call: Called with one item.
        items: Read a few items ahead, never as a whole.
        device: Where ``call`` computes.

    Yields:
        The results, in the order of the items.
    """
    lanes = torch.get_num_threads()
    if torch.device(device).type != 'cpu':
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future] = deque()
    torch.set_num_threads(1)
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(lanes)


def end_with_parent(worker_id: int = 0) -> None:
    """Let this process end within a second of its parent's end; a loader's ``worker_init_fn``.

    PyTorch's workers look for their parent only while they wait for indices. One that has put more
    than a pipe holds (64 KB) into its queue waits for a reader, and outlives a killed parent for
    ever.

    Args:
        worker_id: Not used.
    """
    parent, ancestor = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        # Either notices it: where a server forks the workers, their parent is not their ancestor;
        # and other workers hold the handle that tells of the parent's end.
        while os.getppid() == ancestor and not wait([parent.sentinel], 1):
            pass
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def same_every_time(device: str) -> Iterator[None]:
    """Compute reproducibly at full float32 precision, and leave no trace in the random states.

    A training run that mines its bank first must go on as one that finds the bank: same initial
    weights, same settings.
    """
    on_gpu = torch.device(device).type == 'cuda'
    python_state, numpy_state = random.getstate(), np.random.get_state()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    try:
        with (
            torch.random.fork_rng(devices=[device] if on_gpu else []),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def leave_process_group() -> None:
    """Leave the process group of a distributed run, if there is one; a tool's last act.

    Gloo's threads outlive a group that nobody destroys. One of them that asks for the interpreter
    while it shuts down aborts the process, and a finished run ends like a failed one. Do not call
    this after a failure: other ranks may still wait for this one, and its end tells them.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
