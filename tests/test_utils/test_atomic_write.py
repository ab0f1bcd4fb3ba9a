"""Files are there whole or not at all."""

import multiprocessing
import os
import signal
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nemo_mmseg.evaluation.predictions import write_csv, write_image, write_json
from nemo_mmseg.utils.atomic_write import atomic_write, check_folder_path, write_bytes, write_text


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'file.txt'
    with atomic_write(path) as part:
        part.write_text('whole')
        assert not path.exists() and part.parent == path.parent
    assert path.read_text() == 'whole'
    assert os.listdir(path.parent) == ['file.txt']


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'file.txt'
    write_text(path, 'old: é')
    with pytest.raises(KeyError), atomic_write(path) as part:
        part.write_text('half')
        raise KeyError
    assert path.read_bytes() == 'old: é'.encode()
    assert os.listdir(tmp_path) == ['file.txt']


def test_writers_at_the_same_time_have_files_of_their_own(tmp_path):
    path = tmp_path / 'file'
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second
        first.write_bytes(b'first')
        second.write_bytes(b'second')
    assert path.read_bytes() == b'first'  # the outer block ends last


def test_rights_are_those_of_any_new_file(tmp_path):
    """safetensors itself makes files that only their owner reads."""
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / 'tensors') as part:
            save_file({'a': np.arange(3)}, part)
        write_bytes(tmp_path / 'bytes', b'')
    finally:
        os.umask(before)
    for name in ('tensors', 'bytes'):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    assert load_file(tmp_path / 'tensors')['a'].tolist() == [0, 1, 2]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / 'file'
    child = os.fork()
    if not child:
        with atomic_write(path) as part:
            part.write_text('half')
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith('.tmp') and left.read_text() == 'half'
    # Of another program, of another host, and of a process that lives.
    others = [tmp_path / '.file.tmp', tmp_path / '.file.000000-1-00000000.tmp']
    for other in others:
        other.touch()
    with atomic_write(path) as living:
        living.write_text('whole')
        write_text(path, 'first')
        assert living.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, path]) and path.read_text() == 'whole'


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, file_size_limit):
    path = tmp_path / 'sub' / 'file'
    with file_size_limit(100_000), pytest.raises(OSError, match=f'while writing {path}'):
        write_bytes(path, bytes(200_000))
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    'write',
    [
        lambda path, noise: write_image(path, noise),
        lambda path, noise: write_json(path, noise.tolist()),
        lambda path, noise: write_csv(path, [dict(value=value) for value in noise.ravel()]),
    ],
    ids=['image', 'json', 'csv'],
)
def test_so_do_the_writers_of_results(tmp_path, file_size_limit, write):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    with (
        file_size_limit(60_000),
        pytest.raises(OSError, match=f'File too large, while writing {tmp_path}/file'),
    ):
        write(tmp_path / 'file', noise)
    assert os.listdir(tmp_path) == []


def test_paths_at_which_no_file_can_be(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(IsADirectoryError, match=f'this is a folder: .*{tmp_path}/folder'):
        write_text(tmp_path / 'folder', '')
    with pytest.raises(NotADirectoryError, match=f'this is a file: .*{tmp_path}/file'):
        write_text(tmp_path / 'file' / 'a' / 'b', '')
    check_folder_path(tmp_path / 'new' / 'folder')
    with pytest.raises(NotADirectoryError):
        check_folder_path(tmp_path / 'file')
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_what_a_file_would_replace_or_links_to_nothing_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to(tmp_path / 'nothing')
    for path in (tmp_path / 'pipe', '/dev/null'):
        with pytest.raises(OSError, match=f'this is a device, a pipe or a socket: .*{path}'):
            write_text(path, '')
        assert not os.path.isfile(path)
    for path in (tmp_path / 'link', tmp_path / 'link' / 'a'):
        with pytest.raises(NotADirectoryError, match=f'this is a link to nothing: .*{tmp_path}/'):
            check_folder_path(path)
    with pytest.raises(NotADirectoryError, match=f'link/a cannot be a folder.*{tmp_path}/link'):
        write_text(tmp_path / 'link' / 'a' / 'b', '')


def test_errors_of_other_files_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / 'file'):
        (tmp_path / 'missing').read_text()
    assert caught.value.filename == str(tmp_path / 'missing')


def write_into_new_folders(folder, name, together):
    for number in range(200):
        together.wait()
        write_text(folder / str(number) / 'inner' / name, 'whole')


def test_processes_that_make_one_folder_at_once_do_not_disturb_each_other(tmp_path):
    fork = multiprocessing.get_context('fork')
    names = ['a', 'b', 'c']
    together = fork.Barrier(len(names), timeout=60)
    runs = [
        fork.Process(target=write_into_new_folders, args=(tmp_path, name, together))
        for name in names
    ]
    [run.start() for run in runs]
    [run.join(60) for run in runs]
    assert [run.exitcode for run in runs] == [0, 0, 0]
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*/*/*'))
    assert written == sorted(f'{i}/inner/{name}' for i in range(200) for name in names)
