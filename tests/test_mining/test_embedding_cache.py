import os
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from nemo_mmseg.mining import embed as embed_module
from nemo_mmseg.mining import embedding_cache as cache_module
from nemo_mmseg.mining.embedding_cache import EmbeddingCache, image_key, text_key


def keys_of(names):
    return [text_key(str(name)) for name in names]


def vectors_of(names, dim=6):
    return np.stack([np.full(dim, int(name), np.float32) for name in names])


def test_what_was_added_is_found_by_the_next(tmp_path):
    cache = EmbeddingCache(tmp_path, 'tower')
    assert len(cache) == 0 and cache.find(keys_of([1])) == {}
    cache.add(keys_of(range(5)), vectors_of(range(5)))
    cache.add(keys_of(range(10, 13)), vectors_of(range(10, 13)))
    cache.add([], vectors_of([0])[:0])
    cache = EmbeddingCache(tmp_path, 'tower')
    assert len(cache) == 8
    found = cache.find(keys_of([11, 7, 0, 4, 10]))
    assert {index: vector.tolist() for index, vector in found.items()} == {
        0: [11.0] * 6, 2: [0.0] * 6, 3: [4.0] * 6, 4: [10.0] * 6,
    }  # fmt: skip
    assert EmbeddingCache(tmp_path, 'another tower').find(keys_of([1])) == {}
    assert not list(tmp_path.glob('*/*.tmp'))


def test_an_image_is_its_content(tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    one.write_bytes(b'a' * 3_000_000)
    shutil.copy(one, other)
    assert image_key(one) == image_key(other) != text_key('a' * 3_000_000)
    before, stat = image_key(one), one.stat()
    one.write_bytes(b'b' + b'a' * 2_999_999)
    os.utime(one, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same name, size and time
    assert image_key(one) != before


def test_keys_that_differ_in_their_second_half_are_told_apart(tmp_path):
    keys = [b'12345678' + bytes([n]) * 8 for n in range(3)]
    EmbeddingCache(tmp_path, 't').add(keys[:1], vectors_of([0]))
    assert list(EmbeddingCache(tmp_path, 't').find(keys)) == [0]


def test_damage_is_a_vector_that_is_not_known(tmp_path):
    EmbeddingCache(tmp_path, 't').add(keys_of(range(4)), vectors_of(range(4)))
    (pack,) = tmp_path.glob('*/*.safetensors')
    whole = pack.read_bytes()
    place = whole.index(np.float32([2, 2]).tobytes())
    pack.write_bytes(whole[:place] + b'\x01' + whole[place + 1 :])
    assert list(EmbeddingCache(tmp_path, 't').find(keys_of(range(4)))) == [0, 1, 3]
    for content in (b'', whole[:30], whole[:-1], b'x' * 100):
        pack.write_bytes(content)
        assert EmbeddingCache(tmp_path, 't').find(keys_of(range(4))) == {}
    pack.write_bytes(whole)
    cache = EmbeddingCache(tmp_path, 't')
    pack.unlink()  # by another process
    assert cache.find(keys_of(range(4))) == {}


def test_it_is_bounded_and_keeps_what_is_used(tmp_path):
    cache = EmbeddingCache(tmp_path, 'a')
    for start in range(0, 60, 10):
        part = range(start, start + 10)
        EmbeddingCache(tmp_path, f'tower {start % 20}').add(keys_of(part), vectors_of(part, 1000))
    packs = sorted(tmp_path.glob('*/*'), key=lambda path: path.stat().st_mtime_ns)
    size = packs[0].stat().st_size
    for age, path in enumerate(reversed(packs)):
        os.utime(path, (1000 - age, 1000 - age))
    assert len(packs) == 6
    EmbeddingCache(tmp_path, 'tower 0').find(keys_of([0]))  # the oldest pack is used
    dead, living = packs[0].with_suffix('.tmp'), packs[0].with_suffix('.x.tmp')
    dead.touch(), living.touch()
    os.utime(dead, (0, 0))
    EmbeddingCache(tmp_path, 'b', limit=3 * size + 1).trim()
    assert {path for path in packs if path.exists()} == {packs[0], *packs[4:]}
    assert living.exists() and not dead.exists()
    # A run that adds more than the limit is trimmed on the way.
    cache = EmbeddingCache(tmp_path, 'c', limit=2 * size)
    for start in range(100, 200, 10):
        cache.add(keys_of(range(start, start + 10)), vectors_of(range(10), 1000))
        assert sum(path.stat().st_size for path in tmp_path.glob('*/*.safetensors')) <= 3 * size


def add_many(folder, seed):
    cache = EmbeddingCache(folder, 't', limit=200_000)
    for names in np.random.default_rng(seed).integers(0, 50, (30, 20)):
        found = cache.find(keys_of(names))
        assert all((vector == names[index]).all() for index, vector in found.items())
        cache.add(keys_of(names), vectors_of(names, 100))
        cache = EmbeddingCache(folder, 't', limit=200_000)


def test_several_processes_share_it(tmp_path):
    workers = [
        get_context('fork').Process(target=add_many, args=(tmp_path, s % 2)) for s in (0, 1, 2)
    ]
    [worker.start() for worker in workers]
    [worker.join(120) for worker in workers]
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    found = EmbeddingCache(tmp_path, 't').find(keys_of(range(50)))
    assert found and all((vector == name).all() for name, vector in found.items())


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cache_module, 'print_log', lambda text, *args: said.append(text))
    (tmp_path / 'file').touch()
    cache = EmbeddingCache(tmp_path / 'file', 't')
    for _ in range(2):
        cache.add(keys_of([1]), vectors_of([1]))
    cache.trim()
    assert len(said) == 1 and 'not cached' in said[0]


@pytest.fixture
def counted(monkeypatch):
    """What is embedded, as [images, texts]."""
    counts = [0, 0]
    for place, name in enumerate(('images', 'encode')):
        real = getattr(embed_module.ClipEmbedder, name)

        def call(self, batch, real=real, place=place):
            counts[place] += len(batch)
            return real(self, batch)

        monkeypatch.setattr(embed_module.ClipEmbedder, name, call)
    return counts


def test_nothing_is_embedded_twice_and_the_bank_is_the_same(
    tiny, shared_folder, own_folder, mined, tmp_path, counted
):
    cache = str(tmp_path / 'cache')
    distinct = len(set(tiny.TinyData(shared_folder).expressions()[1]))
    tiny.mine(shared_folder, tmp_path / 'one', cache=cache)
    assert counted == [40, distinct]
    assert (tmp_path / 'one').read_bytes() == mined.read_bytes()
    # Another keep, shards of another size, another process' decoding.
    tiny.mine(shared_folder, tmp_path / 'two', cache=cache, keep=5, shard_size=7)
    assert counted == [40, distinct]
    tiny.mine(shared_folder, tmp_path / 'off', cache=False, keep=5)
    assert (tmp_path / 'two').read_bytes() == (tmp_path / 'off').read_bytes()
    assert counted == [80, 2 * distinct]

    # Another data set: a copy of the images, one of them changed, and two other texts.
    counted[:] = 0, 0
    image = own_folder / 'image_011.jpg'
    image.write_bytes((own_folder / 'image_012.jpg').read_bytes()[:-2] + b'\xff\xd9\x00')
    text = (own_folder / 'expressions.json').read_text()
    words = tiny.TinyData(str(own_folder)).expressions()[1]
    text = text.replace(f'"{words[0]}"', '"a blue cat"', 1).replace(f'"{words[20]}"', '"cats"')
    (own_folder / 'expressions.json').write_text(text)
    weights = dict(pretrained=shared_folder + '/weights.pt')
    tiny.mine(str(own_folder), tmp_path / 'other', cache=cache, **weights)
    assert counted == [1, 2]
    tiny.mine(str(own_folder), tmp_path / 'fresh', cache=False, **weights)
    assert (tmp_path / 'other').read_bytes() == (tmp_path / 'fresh').read_bytes()


def test_another_tower_has_its_own_vectors(tiny, shared_folder, tmp_path, counted):
    cache, folder = str(tmp_path / 'cache'), Path(tmp_path)
    tiny.mine(shared_folder, folder / 'one', cache=cache)
    counted[:] = 0, 0
    tiny.mine(shared_folder, folder / 'two', cache=cache, batch_size=3)
    assert counted[0] == 40 and len(os.listdir(cache)) == 2
    # Removed at any time.
    shutil.rmtree(cache)
    tiny.mine(shared_folder, folder / 'three', cache=cache)
    assert (folder / 'three').read_bytes() == (folder / 'one').read_bytes()
    assert time.time() - Path(cache).stat().st_mtime < 60
