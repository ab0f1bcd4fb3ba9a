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


def try_it(path, say):
    try:
        with only_one(path, 0, 'work'):
            say.put('taken')
    except TimeoutError as error:
        say.put(str(error))


def test_a_thread_that_asks_does_not_take_the_lock_from_its_process(tmp_path):
    """A record lock ends when its process closes any handle of the file."""
    path, link, said = tmp_path / 'lock', tmp_path / 'link', FORK.SimpleQueue()
    link.symlink_to(tmp_path)
    us = f'process {os.getpid()} on '
    with only_one(path, 0, 'work'):
        for name in (path, link / 'lock'):
            match = f'another thread of {us}'
            with pytest.raises(TimeoutError, match=match), only_one(name, 0, 'work'):
                pass
            other = FORK.Process(target=try_it, args=(name, said))
            other.start()
            other.join(30)
            assert us in said.get()
    other = FORK.Process(target=try_it, args=(path, said))
    other.start()
    other.join(30)
    assert said.get() == 'taken'


@pytest.mark.parametrize('place', ['/proc/x', '/dev/null', 'fifo'])
def test_a_place_that_takes_no_files_is_named(tmp_path, place):
    os.mkfifo(tmp_path / 'fifo')
    path = tmp_path / place
    with pytest.raises(OSError, match=f'no lock can be made here.*{path}'), only_one(path, 0, ''):
        pass
    assert path.exists() or place == '/proc/x'


def test_a_lock_may_be_a_link_to_nothing(tmp_path):
    (tmp_path / 'lock').symlink_to(tmp_path / 'other')
    with only_one(tmp_path / 'lock', 0, 'work'):
        assert (tmp_path / 'other').is_file()


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
    dist.LOOK_EVERY = 0.0001
    for _ in range(300):
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
