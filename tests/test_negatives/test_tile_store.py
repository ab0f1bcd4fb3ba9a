"""The tile store against resizing each image directly, and what it refuses."""

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from nemo_mmseg.mining import tile_writer as tile_store_writer
from nemo_mmseg.mining.tile_writer import make_tile_store
from nemo_mmseg.negatives.pool import FolderPool, ImagePool
from nemo_mmseg.negatives.tile_store import TileSettings, TileStore, TileStoreError, open_store

FILTERS = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA)
RAW = TileSettings(24, 32)
JPEG = TileSettings(24, 32, encoding='jpeg', quality=92)


def smooth(rng, height, width):
    """A picture with the smoothness of photographs, (height, width, 3) uint8."""
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)), (width, height)) for n in (3, 6, 12)]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Pictures of several sizes and formats, in two folders; the names do not sort like numbers."""
    rng = np.random.default_rng(0)
    for i in range(12):
        name = ['b/é_{}.jpg', 'c_{}.png', 'a/{}.jpg'][i % 3].format(i)
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(40, 90, 2)
        assert cv2.imwrite(str(path), smooth(rng, height, width))
    return tmp_path / 'images'


@pytest.fixture
def pool(folder):
    return FolderPool(str(folder))


def own_pool(folder, names):
    return ImagePool(str(folder), [3 * i for i in range(len(names))], list(names), 'data')


@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('workers', [0, 2])
def test_raw_tiles_are_the_resized_images(pool, tmp_path, interpolation, workers):
    settings = TileSettings(24, 32, interpolation)
    store = make_tile_store(pool, tmp_path / 's' / 'tiles', settings, workers, progress=False)
    assert len(store) == len(pool) == 12
    for name in pool.names:
        image = cv2.imread(pool.path_of(name))
        row = store.row_of(str(name))
        assert store.names[row] == name and store.shape_of(row) == image.shape[:2]
        expected = cv2.resize(image, (32, 24), interpolation=FILTERS[interpolation])
        np.testing.assert_array_equal(store.read(row), expected)
    assert os.listdir(tmp_path / 's') == ['tiles']


def test_jpeg_tiles_are_near_the_resized_images(pool, tmp_path):
    store = make_tile_store(pool, tmp_path / 'tiles', JPEG, 0, progress=False)
    for name in pool.names:
        tile = store.read(store.row_of(str(name)))
        expected = cv2.resize(cv2.imread(pool.path_of(name)), (32, 24))
        assert tile.shape == expected.shape and cv2.PSNR(tile, expected) > 33
    better = TileSettings(24, 32, encoding='jpeg', quality=100)
    make_tile_store(pool, tmp_path / 'better', better, 0, progress=False)
    assert (tmp_path / 'better').stat().st_size > (tmp_path / 'tiles').stat().st_size


@pytest.mark.parametrize('settings', [RAW, JPEG])
def test_the_file_is_what_the_safetensors_library_reads(pool, tmp_path, settings):
    store = make_tile_store(pool, tmp_path / 'tiles', settings, 0, progress=False)
    with safe_open(tmp_path / 'tiles', 'numpy') as file:
        tables = 'ends', 'shapes', 'name_offsets', 'name_bytes', 'digests', 'times'
        assert set(file.keys()) == {'tiles', *tables}
        tiles, ends = file.get_tensor('tiles'), file.get_tensor('ends')
    first = tiles.reshape(-1)[: ends[0]]
    if settings.encoding == 'jpeg':
        np.testing.assert_array_equal(cv2.imdecode(first, 1), store.read(0))
    else:
        np.testing.assert_array_equal(first.reshape(24, 32, 3), store.read(0))


def test_pools_of_a_data_set(folder, tmp_path):
    names = ['c_1.png', 'a/2.jpg', 'a/11.jpg']
    pool = own_pool(folder, names)
    store = make_tile_store(pool, tmp_path / 'tiles', RAW, 0, progress=False)
    assert list(store.names) == sorted(names)
    # another data set with the same images shares it, one with another image does not
    store.check(ImagePool(str(folder), [1, 2, 3], names, 'other data'), RAW)
    with pytest.raises(TileStoreError, match='made of other images than the 2 in'):
        store.check(own_pool(folder, names[:2]), RAW)
    with pytest.raises(TileStoreError, match='has no image c_4.png'):
        store.row_of('c_4.png')
    # a part of the pool is still of that pool
    store.check(pool.subset(np.array([0, 2])), RAW)


def test_a_changed_image_is_noticed(folder, pool, tmp_path):
    make_tile_store(pool, tmp_path / 'tiles', RAW, 0, progress=False)
    cv2.imwrite(str(folder / 'c_1.png'), smooth(np.random.default_rng(9), 50, 50))
    with pytest.raises(TileStoreError, match='made of other images'):
        make_tile_store(FolderPool(str(folder)), tmp_path / 'tiles', RAW, 0, progress=False)


@pytest.mark.parametrize('settings', [RAW, JPEG])
@pytest.mark.parametrize('seconds', [-1000, 1000])
def test_a_changed_image_of_equal_size_is_noticed(tmp_path, settings, seconds):
    rng, path = np.random.default_rng(0), tmp_path / 'tiles'
    for name in 'abc':
        cv2.imwrite(str(tmp_path / f'{name}.bmp'), smooth(rng, 50, 60))
    made = make_tile_store(FolderPool(str(tmp_path)), path, settings, 0, progress=False)
    image, old = tmp_path / 'b.bmp', (tmp_path / 'b.bmp').stat()
    cv2.imwrite(str(image), smooth(rng, 50, 60))
    # also by an older file, which a copy may be
    os.utime(image, (0, old.st_mtime + seconds))
    assert image.stat().st_size == old.st_size
    for check in (
        lambda pool: make_tile_store(pool, path, settings, 0, progress=False),
        lambda pool: made.check(pool, settings),
    ):
        with pytest.raises(TileStoreError, match=r'has an old tile of .*/b.bmp: the image changed'):
            check(FolderPool(str(tmp_path)))


def test_a_file_is_read_again_once_if_its_time_alone_differs(pool, tmp_path, monkeypatch):
    path, read = tmp_path / 'tiles', []
    store = make_tile_store(pool, path, RAW, 0, progress=False)
    before = path.read_bytes()
    digest_of = FolderPool.digest_of
    monkeypatch.setattr(FolderPool, 'digest_of', lambda *a: read.append(a[1]) or digest_of(*a))
    store.check(pool, RAW)
    assert read == [], 'a file of the same time was read'
    os.utime(pool.path_of('c_4.png'), (0, 10**9))
    store.check(pool, RAW)
    TileStore(path).check(pool, RAW)
    assert read == ['c_4.png']
    times = [Path(pool.path_of(name)).stat().st_mtime_ns for name in store.names]
    names = ''.join(store.names).encode()
    assert path.read_bytes() == before[: -8 * 12 - len(names)] + np.array(times).tobytes() + names


def test_times_are_not_written_into_another_store(pool, tmp_path):
    path = tmp_path / 'tiles'
    store = make_tile_store(pool, path, RAW, 0, progress=False)
    assert len(store.names) == 12  # mapped before another process puts a store in its place
    other = tmp_path / 'other'
    other.mkdir()
    for i in range(7):
        cv2.imwrite(str(other / f'a_longer_name_{i}.png'), np.full((30, 40, 3), i, np.uint8))
    make_tile_store(FolderPool(str(other)), tmp_path / 'new', RAW, 0, progress=False)
    os.replace(tmp_path / 'new', path)
    before = path.read_bytes()
    os.utime(pool.path_of('c_4.png'), (0, 10**9))
    store.check(pool, RAW)
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_written_is_accepted(pool, tmp_path, monkeypatch):
    path = tmp_path / 'tiles'
    store = make_tile_store(pool, path, RAW, 0, progress=False)
    os.utime(pool.path_of('c_4.png'), (0, 10**9))
    before, opened = path.read_bytes(), open

    def read_only(name, mode='r', *args, **kwargs):
        if '+' in mode:
            raise PermissionError(name)
        return opened(name, mode, *args, **kwargs)

    monkeypatch.setattr('builtins.open', read_only)
    store.check(pool, RAW)
    assert path.read_bytes() == before


def test_a_store_of_an_older_format_is_named(pool, tmp_path):
    path = tmp_path / 'tiles'
    make_tile_store(pool, path, RAW, 0, progress=False)
    content = path.read_bytes()
    # as if the later arrays were not there
    for new, old in ((rb'\"format\": 2', rb'\"format\": 1'), (b'"digests"', b'"unknown"')):
        assert content.count(new) == 1
        content = content.replace(new, old)
    path.write_bytes(content)
    with pytest.raises(TileStoreError, match='has format 1, this package reads 2. Delete it and'):
        make_tile_store(pool, path, RAW, 0, progress=False)


def test_files_that_are_not_local_are_known_by_their_names():
    pool = ImagePool('s3://bucket', [1, 2], ['a.jpg', 'b.jpg'], 'data')
    assert pool.time_of('a.jpg') == 0
    assert pool.digest_of('a.jpg') == hashlib.blake2b(b'a.jpg', digest_size=16).digest()


@pytest.mark.parametrize(
    'settings, said',
    [
        (TileSettings(32, 24), 'made with height=24, width=32, the config asks for height=32'),
        (TileSettings(24, 32, 'area'), "interpolation='bilinear'.*interpolation='area'"),
        (JPEG, "encoding='raw', quality=None, .*encoding='jpeg', quality=92"),
    ],
)
def test_other_settings_are_refused(pool, tmp_path, settings, said):
    path = tmp_path / 'tiles'
    make_tile_store(pool, path, RAW, 0, progress=False)
    before = path.read_bytes()
    with pytest.raises(TileStoreError, match=said):
        make_tile_store(pool, path, settings, 0, progress=False)
    assert path.read_bytes() == before


def test_a_missing_cut_or_damaged_file_is_named(pool, tmp_path):
    path = tmp_path / 'tiles'
    with pytest.raises(FileNotFoundError, match='no tile store .*make_tile_store.py CONFIG'):
        len(TileStore(path))
    make_tile_store(pool, path, RAW, 0, progress=False)
    whole = path.read_bytes()
    for content in (b'', whole[:100], whole[:-1], b'\0' * 4096 + whole[4096:]):
        path.write_bytes(content)
        with pytest.raises(TileStoreError, match='again with'):
            len(TileStore(path))


def test_a_damaged_jpeg_tile_is_named(pool, tmp_path):
    path = tmp_path / 'tiles'
    make_tile_store(pool, path, JPEG, 0, progress=False)
    content = bytearray(path.read_bytes())
    content[4096:4200] = bytes(104)
    path.write_bytes(content)
    with pytest.raises(TileStoreError, match=f'the tile of {sorted(pool.names)[0]} in'):
        TileStore(path).read(0)


@pytest.fixture
def encoded(monkeypatch):
    """Tiles that are made in this process; they go to the disk three by three."""
    made, encode = [], tile_store_writer.encode
    monkeypatch.setattr(tile_store_writer, '_CHUNK', 3)
    monkeypatch.setattr(
        tile_store_writer, 'encode', lambda *args: made.append(encode(*args)) or made[-1]
    )
    return made


@pytest.mark.parametrize('settings', [RAW, JPEG])
def test_an_image_that_cannot_be_read_is_named_and_mended(folder, tmp_path, encoded, settings):
    make_tile_store(FolderPool(str(folder)), tmp_path / 'whole', settings, 0, progress=False)
    image, path = folder / 'c_4.png', tmp_path / 'tiles'
    good, time = image.read_bytes(), image.stat().st_mtime_ns
    image.write_bytes(good[:50])  # a broken download
    for workers in (0, 2):
        with pytest.raises(ValueError, match='cannot read the image .*c_4.png'):
            make_tile_store(FolderPool(str(folder)), path, settings, workers, progress=False)
        assert not path.exists()
    image.write_bytes(good)
    os.utime(image, ns=(time, time))
    encoded.clear()
    make_tile_store(FolderPool(str(folder)), path, settings, 0, progress=False)
    # it is the eleventh of twelve: nine lie on the disk
    assert len(encoded) == 3
    assert digest(path) == digest(tmp_path / 'whole')
    assert sorted(os.listdir(tmp_path)) == ['images', 'tiles', 'whole']


@pytest.mark.parametrize('change', ['other content', 'one more', 'one less', 'time alone'])
def test_a_begun_store_keeps_the_tiles_of_unchanged_images(folder, tmp_path, encoded, change):
    path = tmp_path / 'tiles'
    broken = folder / 'c_7.png'  # the last one by name
    good = broken.read_bytes()
    broken.write_bytes(b'')
    with pytest.raises(ValueError, match='c_7.png'):
        make_tile_store(FolderPool(str(folder)), path, JPEG, 0, progress=False)
    broken.write_bytes(good)
    names = list(FolderPool(str(folder)).names)
    image, kept = folder / names[4], 9 if change == 'time alone' else 4
    if change == 'other content':
        cv2.imwrite(str(image), smooth(np.random.default_rng(9), 50, 60))
    elif change == 'one more':
        shutil.copy(folder / names[0], folder / (names[3] + '.jpg'))
    elif change == 'one less':
        image.unlink()
    else:
        os.utime(image, (0, 10**9))
    encoded.clear()
    made = FolderPool(str(folder))
    make_tile_store(made, path, JPEG, 0, progress=False)
    assert len(encoded) == len(made) - kept
    make_tile_store(made, tmp_path / 'whole', JPEG, 0, progress=False)
    assert digest(path) == digest(tmp_path / 'whole')


def test_a_missing_image_is_named_before_tiles_are_made(folder, tmp_path):
    names = sorted(FolderPool(str(folder)).names)
    for name in names[-2:]:
        (folder / name).unlink()
    pool = own_pool(folder, names)
    with pytest.raises(FileNotFoundError, match=f'of 12 images 2 are missing, first .*{names[-2]}'):
        make_tile_store(pool, tmp_path / 'new' / 'tiles', RAW, 0, progress=False)
    assert os.listdir(tmp_path) == ['images']
    remote = ImagePool('s3://bucket', [1, 2], ['a.jpg', 'b.jpg'], 'data')
    assert remote.missing() == []


def test_a_pickle_is_a_path_and_pages_are_shared(pool, tmp_path):
    store = make_tile_store(pool, tmp_path / 'tiles', RAW, 0, progress=False)
    store.read(0)
    text = pickle.dumps(store)
    assert len(text) < 300
    np.testing.assert_array_equal(pickle.loads(text).read(3), store.read(3))
    assert not store.read(0).flags.writeable
    assert open_store(store.path, pool, RAW) is open_store(store.path, pool, RAW)


def test_no_room_is_said_before_it_is_full(pool, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(OSError, match='needs 0.0 GB more'):
        make_tile_store(pool, tmp_path / 'tiles', RAW, 0, progress=False)


def test_a_folder_is_refused_before_tiles_are_made(pool, tmp_path):
    with pytest.raises(IsADirectoryError, match='must be a file, but is a folder'):
        make_tile_store(pool, tmp_path / 'images', RAW, 0, progress=False)
    assert os.listdir(tmp_path) == ['images']


# A writer that takes some time; before it puts anything on the disk for the n-th time it is killed.
WRITER = """
import os
import signal
import sys
import time
from nemo_mmseg.datasets import tile_store_writer as writer
from nemo_mmseg.datasets.pool import FolderPool
from nemo_mmseg.datasets.tile_store import TileSettings
folder, path, encoding, quality, kill_at = sys.argv[1:]
encode, to_disk, calls = writer.encode, writer._to_disk, []
def slow(*args):
    time.sleep(0.05)
    return encode(*args)
def killed(file):
    calls.append(file)
    if len(calls) == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    to_disk(file)
writer.encode, writer._to_disk, writer._CHUNK = slow, killed, 2
settings = TileSettings(24, 32, encoding=encoding, quality=int(quality) or None)
writer.make_tile_store(FolderPool(folder), path, settings, 0, progress=False)
"""


def write(folder, path, settings, kill_at=0):
    arguments = folder, path, settings.encoding, settings.quality or 0, kill_at
    return subprocess.Popen([sys.executable, '-c', WRITER, *map(str, arguments)])


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize('settings', [RAW, JPEG])
def test_killed_runs_are_continued(folder, pool, tmp_path, settings):
    make_tile_store(pool, tmp_path / 'whole', settings, 2, progress=False)
    path, index = tmp_path / 'killed', tmp_path / 'killed.part.index'
    sizes = []
    for _ in range(2):
        # Each chunk of two goes to the disk twice: its tiles, then its records.
        assert write(folder, path, settings, kill_at=5).wait() == -signal.SIGKILL
        assert not path.exists()
        sizes.append(index.stat().st_size)
    assert sizes == [32 + 4 * 40, 32 + 8 * 40]
    before = (tmp_path / 'killed.part').stat().st_ino
    make_tile_store(pool, path, settings, 0, progress=False)
    assert path.stat().st_ino == before, 'what was there was thrown away'
    assert digest(path) == digest(tmp_path / 'whole')
    assert sorted(os.listdir(tmp_path)) == ['images', 'killed', 'whole']


@pytest.mark.parametrize('damage', ['torn record', 'lost tiles', 'lost records', 'other settings'])
def test_remains_of_a_crash(pool, tmp_path, damage, monkeypatch):
    make_tile_store(pool, tmp_path / 'whole', RAW, 0, progress=False)
    monkeypatch.setattr(tile_store_writer, '_CHUNK', 3)
    path, tile = tmp_path / 'tiles', 24 * 32 * 3
    part, index = tmp_path / 'tiles.part', tmp_path / 'tiles.part.index'
    monkeypatch.setattr(tile_store_writer._Writer, '_finish', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        settings = TileSettings(24, 32, 'area') if damage == 'other settings' else RAW
        make_tile_store(pool, path, settings, 0, progress=False)
    monkeypatch.undo()
    assert part.stat().st_size == 4096 + 12 * tile and index.stat().st_size == 32 + 12 * 40
    if damage == 'torn record':
        os.truncate(index, 32 + 5 * 40 + 7)
    elif damage == 'lost tiles':
        os.truncate(part, 4096 + 7 * tile + 100)
    elif damage == 'lost records':
        content = index.read_bytes()
        index.write_bytes(content[: 32 + 6 * 40] + bytes(6 * 40))
    make_tile_store(pool, path, RAW, 0, progress=False)
    assert digest(path) == digest(tmp_path / 'whole')


@pytest.mark.slow
def test_two_jobs_and_another_rank_at_once(folder, pool, tmp_path, monkeypatch):
    path = tmp_path / 'tiles'
    runs = [write(folder, path, RAW) for _ in range(2)]
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    make_tile_store(pool, path, RAW, 0, timeout=120, progress=False)
    assert [run.wait() for run in runs] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ['images', 'tiles']
    with pytest.raises(TimeoutError, match='did not grow for 0.5 s'):
        make_tile_store(pool, tmp_path / 'never', RAW, 0, timeout=0.5)
