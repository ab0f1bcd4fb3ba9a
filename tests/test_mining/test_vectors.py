import os
import shutil
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_mmseg.mining import embed as embed_module
from nemo_mmseg.mining import vectors as cache_module
from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.mining.made_with import open_cache
from nemo_mmseg.mining.shards import ShardStore
from nemo_mmseg.mining.vectors import EmbeddingCache, image_key, text_key


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


def test_an_image_is_its_content():
    key = image_key(b'a' * 3_000_000)
    assert key == image_key(b'a' * 3_000_000) != text_key('a' * 3_000_000)
    assert key != image_key(b'b' + b'a' * 2_999_999)


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
    dead, living = (packs[0].with_name(f'.{packs[0].name}.{n}.tmp') for n in range(2))
    foreign = [tmp_path / 'tiles' / 'train.safetensors', tmp_path / 'banks' / 'old.tmp']
    for path in foreign:
        path.parent.mkdir()
    for path in (dead, living, *foreign):
        path.write_bytes(b'0' * size)
    for path in (dead, *foreign):
        os.utime(path, (0, 0))
    EmbeddingCache(tmp_path, 'b', limit=3 * size + 1).trim()
    assert {path for path in packs if path.exists()} == {packs[0], *packs[4:]}
    assert living.exists() and not dead.exists() and all(path.exists() for path in foreign)
    # A run that adds more than the limit is trimmed on the way.
    cache = EmbeddingCache(tmp_path, 'c', limit=2 * size)
    for start in range(100, 200, 10):
        cache.add(keys_of(range(start, start + 10)), vectors_of(range(10), 1000))
        packs = tmp_path.glob('tower-*/*.safetensors')
        assert sum(path.stat().st_size for path in packs) <= 3 * size


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


def test_a_folder_that_disappears_while_it_is_listed_stops_nothing(tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path, 't')

    def gone(*args):
        raise FileNotFoundError

    monkeypatch.setattr(Path, 'glob', gone)
    cache.trim()


def test_a_folder_that_can_only_be_read_serves(tmp_path, monkeypatch):
    EmbeddingCache(tmp_path, 't').add(keys_of(range(3)), vectors_of(range(3)))

    def refuse(*args, **kwargs):
        raise PermissionError('read-only')

    monkeypatch.setattr(os, 'utime', refuse)
    monkeypatch.setattr(Path, 'unlink', refuse)
    cache = EmbeddingCache(tmp_path, 't', limit=1)
    assert sorted(cache.find(keys_of(range(3)))) == [0, 1, 2]
    cache.trim()
    assert len(EmbeddingCache(tmp_path, 't')) == 3


def test_each_kind_of_machine_has_its_own(tmp_path, monkeypatch):
    made = dict(model='m', weights_sha256='w', versions={})
    one, same = (open_cache(str(tmp_path), made, {}, 'cpu').folder for _ in range(2))
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'another')
    assert one == same != open_cache(str(tmp_path), made, {}, 'cpu').folder


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    for name in ('NEMO_MMSEG_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', homeless)
    made = dict(model='m', weights_sha256='w', versions={})
    assert open_cache(True, made, {}, 'cpu') is None


def test_a_file_that_changes_meanwhile_is_cached_as_what_was_embedded(
    tiny, shared_folder, tmp_path
):
    tiny.register_clip(shared_folder)
    embedder = ClipEmbedder(tiny.MODEL, shared_folder + '/weights.pt')
    real = tiny.TinyData(shared_folder).pool

    class Changing:
        """Every file is another one when it is looked at again."""

        seen = Counter()

        def __len__(self):
            return 6

        def path(self, row):
            self.seen[row] += 1
            return real.path(row + 6 * (self.seen[row] - 1))

    store = ShardStore(tmp_path / 'shards', 'images', 6, 4, 'd')
    cache = EmbeddingCache(tmp_path / 'cache', 't')
    embed_module.embed_images(embedder, Changing(), store, range(2), 0, cache=cache)
    keys = [image_key(Path(real.path(row)).read_bytes()) for row in range(12)]
    found = EmbeddingCache(tmp_path / 'cache', 't').find(keys)
    assert sorted(found) == list(range(6, 12))
    for row, vector in enumerate(store.read_all()):
        np.testing.assert_array_equal(found[row + 6], vector)


@pytest.fixture
def counted(monkeypatch):
    """What is embedded, as [images, texts]."""
    counts = [0, 0]
    for place, name in enumerate(('images', 'encode')):
        real = getattr(ClipEmbedder, name)

        def call(self, batch, real=real, place=place):
            counts[place] += len(batch)
            return real(self, batch)

        monkeypatch.setattr(ClipEmbedder, name, call)
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
