"""The store of vectors: what was put in is found, whatever happens to its files."""

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from nemo_mmseg.mining import vectors as vectors_module
from nemo_mmseg.mining.vectors import VectorStore, image_key, text_keys


def keys_of(names):
    return text_keys(map(str, names))


def vectors_of(names, dim=6):
    return np.stack([np.full(dim, int(name), np.float32) for name in names])


def put(store, names, dim=6):
    """Store vectors in a pack of their own."""
    with store:
        store.add(keys_of(names), vectors_of(names, dim))


def found(store, names):
    """The names whose vectors are there; each must be the right one."""
    vectors = store.find(keys_of(names))
    assert all((vector == names[index]).all() for index, vector in vectors.items())
    return [names[index] for index in sorted(vectors)]


def packs_in(folder):
    return sorted(folder.glob('*/pack-*'))


def test_what_was_added_is_found(tmp_path):
    store = VectorStore('encoder', tmp_path)
    assert len(store) == 0 and store.find(keys_of([1])) == {}
    put(store, range(5))
    put(store, range(10, 13))
    assert found(VectorStore('encoder', tmp_path), [11, 7, 0, 4, 10]) == [11, 0, 4, 10]
    # By a store that is open, after another look.
    assert len(store) == 0
    np.testing.assert_array_equal(store.read(keys_of([12, 3])), vectors_of([12, 3]))
    assert store.read(keys_of([12, 7])) is None and len(store) == 8
    assert found(VectorStore('another encoder', tmp_path), [1]) == []
    assert not list(tmp_path.glob('*/*.tmp'))


def test_a_pack_is_written_as_soon_as_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors_module, 'PACK_SIZE', 4)
    with VectorStore('encoder', tmp_path) as store:
        for name in range(10):
            store.add(keys_of([name]), vectors_of([name]))
            assert len(packs_in(tmp_path)) == (name + 1) // 4
    assert found(VectorStore('encoder', tmp_path), range(10)) == list(range(10))


def test_an_image_is_its_content():
    key = image_key(b'a' * 3_000_000)
    assert (key == image_key(b'a' * 3_000_000)).all()
    assert (key != image_key(b'b' + b'a' * 2_999_999)).any()
    assert (key != text_keys(['a' * 3_000_000])[0]).any()


def test_keys_that_differ_in_their_second_half_are_told_apart(tmp_path):
    keys = np.frombuffer(b''.join(b'12345678' + bytes([n]) * 8 for n in range(3)), np.uint8)
    keys = keys.reshape(3, 16)
    with VectorStore('encoder', tmp_path) as store:
        store.add(keys[:1], vectors_of([0]))
    assert list(VectorStore('encoder', tmp_path).find(keys)) == [0]


def test_a_damaged_pack_is_removed_and_its_vectors_are_unknown(tmp_path):
    put(VectorStore('encoder', tmp_path), range(4, 6))
    (other,) = packs_in(tmp_path)
    put(VectorStore('encoder', tmp_path), range(4))
    (pack,) = set(packs_in(tmp_path)) - {other}
    whole = pack.read_bytes()
    place = whole.index(np.float32([2, 2]).tobytes())
    damaged = whole[:place] + b'\x01' + whole[place + 1 :]
    for content in (damaged, whole[:-1], whole[:30], b'', b'x' * 100):
        pack.write_bytes(content)
        store = VectorStore('encoder', tmp_path)
        assert found(store, range(6)) == [4, 5]
        put(store, range(4))  # they are made again
        assert store.read(keys_of(range(6))) is not None
    store = VectorStore('encoder', tmp_path)
    pack.unlink()  # by another process
    assert found(store, range(6)) == [4, 5]


def test_a_flipped_bit_anywhere_gives_no_wrong_vector(tmp_path):
    put(VectorStore('encoder', tmp_path), range(8))
    (pack,) = packs_in(tmp_path)
    whole, rng = pack.read_bytes(), np.random.default_rng(0)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(0, 8)
        pack.write_bytes(damaged)
        store = VectorStore('encoder', tmp_path)
        names = found(store, range(8))
        put(store, sorted(set(range(8)) - set(names)) or [0])
        assert store.read(keys_of(range(8))) is not None
        for file in packs_in(tmp_path):
            file.unlink()


def test_the_cache_is_bounded_and_keeps_what_is_used(tmp_path):
    cache, work = tmp_path / 'cache', tmp_path / 'work'
    for start in range(0, 60, 10):
        store = VectorStore(f'encoder {start % 20}', work, cache)
        put(store, range(start, start + 10), 1000)
    packs = sorted(packs_in(cache), key=lambda path: path.stat().st_mtime_ns)
    size = packs[0].stat().st_size
    assert len(packs) == 6 and not work.exists()
    for age, path in enumerate(reversed(packs)):
        os.utime(path, (1000 - age, 1000 - age))
    found(VectorStore('encoder 0', work, cache), [0])  # the oldest pack is used
    dead, living = (packs[0].with_name(f'.{packs[0].name}.{n}.tmp') for n in range(2))
    foreign = [cache / 'tiles' / 'pack-train.safetensors', cache / 'banks' / 'old.tmp']
    for path in foreign:
        path.parent.mkdir()
    for path in (dead, living, *foreign):
        path.write_bytes(b'0' * size)
    for path in (dead, *foreign):
        os.utime(path, (0, 0))
    VectorStore('b', work, cache, limit=4 * size + 1).trim()
    assert {path for path in packs if path.exists()} == {packs[0], *packs[4:]}
    assert living.exists() and not dead.exists() and all(path.exists() for path in foreign)


def test_what_is_in_use_stays_and_the_rest_goes_beside_the_bank(tmp_path):
    cache, work = tmp_path / 'cache', tmp_path / 'work'
    put(VectorStore('old', work, cache), range(10), 1000)
    (old,) = packs_in(cache)
    os.utime(old, (1000, 1000))
    size = old.stat().st_size
    store = VectorStore('encoder', work, cache, limit=2 * size)
    for start in range(100, 200, 10):
        put(store, range(start, start + 10), 1000)
    assert not old.exists() and len(packs_in(cache)) == 3 and len(packs_in(work)) == 7
    names = list(range(100, 200))
    assert found(VectorStore('encoder', work, cache), names) == names
    assert found(store, names) == [] and store.read(keys_of(names)) is not None


def add_many(folder, seed):
    for names in np.random.default_rng(seed).integers(0, 50, (30, 20)):
        store = VectorStore('encoder', folder / 'work', folder / 'cache', limit=200_000)
        found(store, names.tolist())
        put(store, names, 100)


def test_several_processes_share_it(tmp_path):
    workers = [
        get_context('fork').Process(target=add_many, args=(tmp_path, s % 2)) for s in (0, 1, 2)
    ]
    [worker.start() for worker in workers]
    [worker.join(120) for worker in workers]
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert found(VectorStore('encoder', tmp_path / 'work', tmp_path / 'cache'), range(50))


def test_a_cache_that_cannot_be_written_gives_way_to_the_work_folder(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(vectors_module, 'print_log', lambda text, *args: said.append(text))
    (tmp_path / 'file').touch()
    store = VectorStore('encoder', tmp_path / 'work', tmp_path / 'file')
    put(store, [1])
    put(store, [2])
    store.trim()
    assert found(VectorStore('encoder', tmp_path / 'work'), [1, 2]) == [1, 2]
    assert len(said) == 1 and 'beside the bank' in said[0]
    with pytest.raises(OSError):  # there is no other place
        put(VectorStore('encoder', tmp_path / 'file'), [1])


def test_a_cache_that_can_only_be_read_serves(tmp_path, monkeypatch):
    put(VectorStore('encoder', tmp_path / 'work', tmp_path / 'cache'), range(3))
    (pack,) = packs_in(tmp_path / 'cache')
    os.utime(pack, (1000, 1000))

    def refuse(*args, **kwargs):
        raise PermissionError('read-only')

    monkeypatch.setattr(os, 'utime', refuse)
    monkeypatch.setattr(Path, 'unlink', refuse)
    store = VectorStore('encoder', tmp_path / 'work', tmp_path / 'cache', limit=1)
    assert found(store, range(3)) == [0, 1, 2]
    store.trim()
    assert found(store, range(3)) == [0, 1, 2]
    # A damaged pack in it is not looked at again.
    pack.write_bytes(pack.read_bytes()[:-1] + b'x')
    store = VectorStore('encoder', tmp_path / 'work', tmp_path / 'cache')
    assert found(store, range(3)) == []
    monkeypatch.undo()
    put(VectorStore('encoder', tmp_path / 'work'), range(3))
    assert store.read(keys_of(range(3))) is not None


def test_a_folder_that_disappears_while_it_is_listed_stops_nothing(tmp_path, monkeypatch):
    def gone(*args):
        raise FileNotFoundError

    monkeypatch.setattr(Path, 'glob', gone)
    store = VectorStore('encoder', tmp_path / 'work', tmp_path / 'cache')
    store.trim()
    assert len(store) == 0
