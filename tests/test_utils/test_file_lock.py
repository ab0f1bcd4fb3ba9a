"""One process at a time, whatever becomes of the one that holds the lock."""

import os
import signal
import threading
import time
from multiprocessing import get_context

import psutil
import pytest

from nemo_mmseg.utils import dist, file_lock
from nemo_mmseg.utils.file_lock import only_one

FORK = get_context('fork')


def hold_it(path, say):
    """Take the lock, fork a child that lives on, and say its process id."""
    with only_one(path, 60, 'work'):
        child = os.fork()
        if child:
            say.put(child)
        time.sleep(60)


@pytest.fixture
def hold(tmp_path):
    """Start a process that holds the lock, and its child; both are killed in the end."""
    started = []

    def start():
        said = FORK.SimpleQueue()
        holder = FORK.Process(target=hold_it, args=(tmp_path / 'lock', said))
        holder.start()
        started.append((holder, said.get()))
        return started[-1]

    yield start
    for holder, child in started:
        holder.kill()
        holder.join()
        os.kill(child, signal.SIGKILL)


def test_the_block_runs_alone_and_the_file_goes(tmp_path):
    path, inside, most = tmp_path / 'sub' / 'lock', [], []

    def work():
        with only_one(path, 30, 'work'):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most == [1, 1, 1, 1] and os.listdir(path.parent) == []
    with pytest.raises(KeyError), only_one(path, 0, 'work'):
        raise KeyError
    assert os.listdir(path.parent) == []


def test_a_child_of_a_killed_holder_does_not_hold_it(hold, tmp_path):
    holder, child = hold()
    assert (tmp_path / 'lock').read_text().startswith(f'process {holder.pid} on ')
    holder.kill()
    holder.join()
    assert psutil.pid_exists(child)
    started = time.monotonic()
    with only_one(tmp_path / 'lock', 20, 'work'):
        assert time.monotonic() - started < 1
        assert (tmp_path / 'lock').read_text().startswith(f'process {os.getpid()} on ')
    assert os.listdir(tmp_path) == []


def test_a_wait_names_the_holder_and_ends(hold, tmp_path, monkeypatch):
    notes, holder = [], hold()[0].pid
    monkeypatch.setattr(file_lock, 'print_log', lambda text, *args: notes.append(text))
    said = f'waited to make it: process {holder} on .* holds .*lock, but nothing got on for 0.5 s'
    with pytest.raises(TimeoutError, match=said), only_one(tmp_path / 'lock', 0.5, 'make it'):
        pass
    assert len(notes) == 1 and notes[0].startswith(f'waiting to make it: process {holder} on ')


def test_it_waits_as_long_as_the_holder_gets_on(hold, tmp_path):
    holder, _ = hold()
    sign = tmp_path / 'sign'

    def get_on():
        for moment in range(6):
            time.sleep(0.25)
            sign.touch()
            os.utime(sign, (moment, moment))
        holder.kill()

    thread = threading.Thread(target=get_on)
    thread.start()
    with only_one(tmp_path / 'lock', 1, 'work', lambda: [sign]):
        pass
    thread.join()


def come_and_go(folder):
    dist.LOOK_EVERY = 0.001
    for _ in range(50):
        with only_one(folder / 'lock', 60, 'work'):
            (folder / 'alone').mkdir()
            (folder / 'alone').rmdir()


def test_many_processes_that_come_and_go_never_meet(tmp_path):
    """The file is removed at each end, while others wait for it."""
    runs = [FORK.Process(target=come_and_go, args=(tmp_path,)) for _ in range(3)]
    [run.start() for run in runs]
    [run.join(120) for run in runs]
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert os.listdir(tmp_path) == []
