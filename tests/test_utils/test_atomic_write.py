"""Files are there whole or not at all."""

import os
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nemo_mmseg.utils.atomic_write import atomic_write, write_bytes, write_text


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
