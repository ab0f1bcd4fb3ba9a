"""What mining does to its process, and how it waits for other ones."""

import os
import random
import threading
import time
from multiprocessing import get_context

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from nemo_mmseg.utils.dist import end_with_parent, ordered_map, same_every_time, wait_for

FORK = get_context('fork')


def load(say):
    """A loader whose workers have put more into their queue than a pipe holds."""
    loader = DataLoader([bytes(500_000)] * 20, 1, num_workers=2, worker_init_fn=end_with_parent)
    batches = iter(loader)
    next(batches)
    say.put([child.pid for child in psutil.Process().children()])
    time.sleep(60)


def test_workers_end_with_their_parent():
    said = FORK.SimpleQueue()
    run = FORK.Process(target=load, args=(said,))
    run.start()
    workers = [psutil.Process(number) for number in said.get()]
    time.sleep(0.5)
    assert len(workers) == 2 and all(worker.is_running() for worker in workers)
    run.kill()
    run.join()
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_ordered_map_keeps_order_reads_ahead_little_and_passes_errors():
    read = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def items():
        for i in range(20):
            read.append(i)
            yield i

    results = ordered_map(lambda i: i * i, items(), 'cpu')
    assert next(results) == 0
    assert len(read) <= 5
    assert list(results) == [i * i for i in range(1, 20)]
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda i: 1 // i, [1, 0, 1], 'cpu'))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_mining_leaves_random_states_and_settings_alone():
    def state():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def seed():
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = state()
    seed()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium')
    with same_every_time('cpu'):
        assert torch.get_float32_matmul_precision() == 'highest'
        state()
    assert torch.get_float32_matmul_precision() == 'medium'
    torch.set_float32_matmul_precision(precision)
    assert state() == expected


def test_waits_as_long_as_others_get_on(tmp_path):
    sign, made = tmp_path / 'sign', []

    def work():
        for moment in range(8):
            time.sleep(0.2)
            os.utime(sign, (moment, moment))
        made.append('it')

    sign.touch()
    thread = threading.Thread(target=work)
    thread.start()
    missing = tmp_path / 'missing'
    assert wait_for(lambda: made or None, lambda: [sign, missing], 1.2, 'work') == ['it']
    thread.join()
    with pytest.raises(TimeoutError, match='waited for work, but nothing got on for 0.1 s'):
        wait_for(lambda: None, lambda: [sign, missing], 0.1, 'work')
