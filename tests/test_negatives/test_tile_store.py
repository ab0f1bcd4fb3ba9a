"""The tile store against resizing each image directly, how it is continued, what it refuses."""

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from safetensors import safe_open

from nemo_mmseg.mining import tile_writer
from nemo_mmseg.mining.tile_writer import HEADER_SIZE, RECORD, make_tile_store
from nemo_mmseg.negatives.pool import FolderPool, ImagePool
from nemo_mmseg.negatives.tile_store import TileSpec, TileStore, TileStoreError, open_store

FILTERS = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA)
ENCODINGS = pytest.mark.parametrize('encoding', ['raw', 'jpeg'])


def smooth(rng, height, width):
    """A picture with the smoothness of photographs, (height, width, 3) uint8."""
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)), (width, height)) for n in (3, 6, 12)]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


def make(images, path, workers=0, **settings):
    """The store of a pool, or of the present images of a folder."""
    pool = images if isinstance(images, ImagePool) else FolderPool(str(images))
    spec = TileSpec(str(path), 24, 32, **settings)
    return make_tile_store(pool, spec, workers, progress=False)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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


@pytest.fixture
def spec(tmp_path):
    return TileSpec(str(tmp_path / 'tiles'), 24, 32)


def data_pool(folder, names):
    return ImagePool(str(folder), [3 * i for i in range(len(names))], list(names), 'data')


@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('workers', [0, 2])
def test_raw_tiles_are_the_resized_images(pool, tmp_path, interpolation, workers):
    store = make(pool, tmp_path / 's' / 'tiles', workers, interpolation=interpolation)
    assert len(store) == len(pool) == 12
    for name in pool.names:
        image = cv2.imread(pool.path_of(name))
        row = store.row_of(str(name))
        assert store.names[row] == name and store.shape_of(row) == image.shape[:2]
        expected = cv2.resize(image, (32, 24), interpolation=FILTERS[interpolation])
        np.testing.assert_array_equal(store.read(row), expected)
    assert os.listdir(tmp_path / 's') == ['tiles']


def test_jpeg_tiles_are_near_the_resized_images(pool, tmp_path):
    store = make(pool, tmp_path / 'tiles', encoding='jpeg')
    for name in pool.names:
        tile = store.read(store.row_of(str(name)))
        expected = cv2.resize(cv2.imread(pool.path_of(name)), (32, 24))
        assert tile.shape == expected.shape and cv2.PSNR(tile, expected) > 33


@ENCODINGS
def test_the_file_is_what_the_safetensors_library_reads(pool, tmp_path, encoding):
    store = make(pool, tmp_path / 'tiles', encoding=encoding)
    with safe_open(tmp_path / 'tiles', 'numpy') as file:
        tables = 'ends', 'shapes', 'name_offsets', 'name_bytes', 'digests', 'checksums'
        assert set(file.keys()) == {'tiles', *tables}
        tiles, ends = file.get_tensor('tiles'), file.get_tensor('ends')
    first = tiles.reshape(-1)[: ends[0]]
    if encoding == 'jpeg':
        np.testing.assert_array_equal(cv2.imdecode(first, 1), store.read(0))
    else:
        np.testing.assert_array_equal(first.reshape(24, 32, 3), store.read(0))


def test_pools_of_a_data_set(folder, spec):
    names = ['c_1.png', 'a/2.jpg', 'a/11.jpg']
    pool = data_pool(folder, names)
    store = make(pool, spec.path)
    assert list(store.names) == sorted(names)
    # Another data set with the same images shares it, one with another image does not.
    store.check(ImagePool(str(folder), [1, 2, 3], names, 'other data'), spec)
    with pytest.raises(TileStoreError, match='the config asks for .* of the 2 images in'):
        store.check(data_pool(folder, names[:2]), spec)
    with pytest.raises(TileStoreError, match='has no image c_4.png'):
        store.row_of('c_4.png')
    # A part of the pool is still of that pool.
    store.check(pool.subset(np.array([0, 2])), spec)


def test_an_image_of_another_size_is_noticed(folder, tmp_path):
    make(folder, tmp_path / 'tiles')
    cv2.imwrite(str(folder / 'c_1.png'), smooth(np.random.default_rng(9), 50, 50))
    with pytest.raises(TileStoreError, match='was made with fingerprint='):
        make(folder, tmp_path / 'tiles')


@ENCODINGS
def test_a_changed_image_of_equal_size_is_noticed(tmp_path, encoding):
    rng = np.random.default_rng(0)
    for name in 'abc':
        cv2.imwrite(str(tmp_path / f'{name}.bmp'), smooth(rng, 50, 60))
    make(tmp_path, tmp_path / 'tiles', encoding=encoding)
    image = tmp_path / 'b.bmp'
    size, made = image.stat().st_size, (tmp_path / 'tiles').stat().st_mtime
    cv2.imwrite(str(image), smooth(rng, 50, 60))
    os.utime(image, (made + 1, made + 1))
    assert image.stat().st_size == size
    with pytest.raises(TileStoreError, match=r'has an old tile of .*/b.bmp: the image changed'):
        make(tmp_path, tmp_path / 'tiles', encoding=encoding)


def test_a_copied_data_set_is_compared_once(pool, spec, monkeypatch):
    read, digest_of = [], FolderPool.digest_of
    store = make(pool, spec.path)
    before = digest(spec.path)
    monkeypatch.setattr(FolderPool, 'digest_of', lambda *a: read.append(a[1]) or digest_of(*a))
    os.utime(spec.path, (1000, 1000))
    for name in pool.names:
        os.utime(pool.path_of(name), (900, 900))
    store.check(pool, spec)
    assert read == []
    os.utime(pool.path_of('c_4.png'), (1100, 1100))
    store.check(pool, spec)
    store.check(pool, spec)
    assert read == ['c_4.png'] and digest(spec.path) == before


def test_a_store_of_an_older_format_is_named(pool, spec):
    make(pool, spec.path)
    content = Path(spec.path).read_bytes()
    # As if the later arrays were not there.
    for new, old in ((rb'\"format\": 4', rb'\"format\": 1'), (b'"digests":{', b'"unknown":{')):
        assert content.count(new) == 1
        content = content.replace(new, old)
    Path(spec.path).write_bytes(content)
    with pytest.raises(TileStoreError, match='has format 1, this package reads 4. Delete it and'):
        make(pool, spec.path)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(height=32, width=24), r'was made with height=24, width=32; .*height=32, width=24'),
        (dict(interpolation='area'), "interpolation='bilinear'; .*interpolation='area'"),
        (dict(encoding='jpeg'), "encoding='raw'; .*encoding='jpeg'"),
    ],
)
def test_other_settings_are_refused(pool, spec, change, said):
    make(pool, spec.path)
    before = digest(spec.path)
    with pytest.raises(TileStoreError, match=said):
        make_tile_store(pool, replace(spec, **change), 0, progress=False)
    assert digest(spec.path) == before


def test_a_missing_cut_or_damaged_file_is_named(pool, tmp_path):
    path = tmp_path / 'tiles'
    with pytest.raises(FileNotFoundError, match='no tile store .*make_tile_store.py CONFIG'):
        len(TileStore(path))
    make(pool, path)
    whole = path.read_bytes()
    for content in (b'', whole[:100], whole[:-1], b'\0' * HEADER_SIZE + whole[HEADER_SIZE:]):
        path.write_bytes(content)
        with pytest.raises(TileStoreError, match='again with'):
            len(TileStore(path))


def test_a_damaged_jpeg_tile_is_named(pool, tmp_path):
    path = tmp_path / 'tiles'
    make(pool, path, encoding='jpeg')
    content = bytearray(path.read_bytes())
    content[HEADER_SIZE : HEADER_SIZE + 104] = bytes(104)
    path.write_bytes(content)
    with pytest.raises(
        TileStoreError, match=f'the tile of {sorted(pool.names)[0]} is not what was written'
    ):
        TileStore(path).read(0)


@ENCODINGS
def test_a_flipped_bit_anywhere_is_noticed(pool, tmp_path, encoding):
    make(pool, tmp_path / 'tiles', encoding=encoding)
    whole = (tmp_path / 'tiles').read_bytes()

    def read_all(path):
        store = TileStore(path)
        tiles = [store.read(row).tolist() for row in range(len(store))]
        return tiles, list(store.names), store.metadata, store.arrays['ends'].tolist()

    expected, rng = read_all(tmp_path / 'tiles'), np.random.default_rng(0)
    padding = int(TileStore(tmp_path / 'tiles').arrays['ends'][-1]) + HEADER_SIZE
    for place in np.linspace(0, len(whole) - 1, 400).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(0, 8)
        (tmp_path / 'bad').write_bytes(damaged)
        if padding <= place < padding + 8 and encoding == 'jpeg':  # nobody reads it
            continue
        with pytest.raises(TileStoreError, match='bad is damaged, or no tile store.*again with'):
            read_all(tmp_path / 'bad')
    assert read_all(tmp_path / 'tiles') == expected


def test_a_pickle_is_a_path_and_pages_are_shared(pool, spec):
    store = make(pool, spec.path)
    store.read(0)
    text = pickle.dumps(store)
    assert len(text) < 300
    np.testing.assert_array_equal(pickle.loads(text).read(3), store.read(3))
    assert not store.read(0).flags.writeable
    assert open_store(spec, pool) is open_store(spec, pool)


def test_files_that_are_not_local_are_known_by_their_names():
    pool = ImagePool('s3://bucket', [1, 2], ['a.jpg', 'b.jpg'], 'data')
    assert pool.time_of('a.jpg') == 0 and pool.missing() == []
    assert pool.digest_of('a.jpg') == hashlib.blake2b(b'a.jpg', digest_size=16).digest()


@pytest.fixture
def encoded(monkeypatch):
    """Tiles that are made in this process; they go to the disk three by three."""
    made, encode = [], tile_writer.encode
    monkeypatch.setattr(tile_writer, 'BATCH_SIZE', 3)
    monkeypatch.setattr(tile_writer, 'encode', lambda *args: made.append(encode(*args)) or made[-1])
    return made


@ENCODINGS
def test_an_image_that_cannot_be_read_is_named_and_mended(folder, tmp_path, encoded, encoding):
    make(folder, tmp_path / 'whole', encoding=encoding)
    image, path = folder / 'c_4.png', tmp_path / 'tiles'
    good = image.read_bytes()
    image.write_bytes(good[:50])  # a broken download
    for workers in (0, 2):
        with pytest.raises(ValueError, match='cannot read the image .*c_4.png'):
            make(folder, path, workers, encoding=encoding)
        assert not path.exists()
    image.write_bytes(good)
    encoded.clear()
    make(folder, path, encoding=encoding)
    # It is the eleventh of twelve: nine lie on the disk.
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
        make(folder, path, encoding='jpeg')
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
    assert len(make(folder, path, encoding='jpeg')) == len(encoded) + kept
    make(folder, tmp_path / 'whole', encoding='jpeg')
    assert digest(path) == digest(tmp_path / 'whole')


def test_a_missing_image_is_named_before_tiles_are_made(folder, tmp_path, encoded):
    names = sorted(FolderPool(str(folder)).names)
    for name in names[-2:]:
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'of 12 images 2 are missing, first .*{names[-2]}'):
        make(data_pool(folder, names), tmp_path / 'new' / 'tiles')
    assert encoded == []


def test_no_room_is_said_before_it_is_full(pool, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(OSError, match='needs 0.0 GB more'):
        make(pool, tmp_path / 'tiles')


@pytest.mark.parametrize('damage', ['torn record', 'lost tiles', 'lost records', 'other settings'])
def test_remains_of_a_crash(pool, tmp_path, damage, encoded):
    make(pool, tmp_path / 'whole')
    path, tile, record = tmp_path / 'tiles', 24 * 32 * 3, RECORD.itemsize
    part, index = tmp_path / 'tiles.part', tmp_path / 'tiles.part.index'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(pool, path, interpolation='area' if damage == 'other settings' else 'bilinear')
    whole, digest_size = part.stat().st_size, index.stat().st_size - 12 * record
    assert whole > HEADER_SIZE + 12 * tile and digest_size == 32
    if damage == 'torn record':
        os.truncate(index, digest_size + 5 * record + 7)
    elif damage == 'lost tiles':
        os.truncate(part, HEADER_SIZE + 7 * tile + 100)
    elif damage == 'lost records':
        content = index.read_bytes()
        index.write_bytes(content[: digest_size + 6 * record] + bytes(6 * record))
    encoded.clear()
    make(pool, path)
    assert len(encoded) == {'torn record': 7, 'lost tiles': 5, 'lost records': 6}.get(damage, 12)
    assert digest(path) == digest(tmp_path / 'whole')


@pytest.mark.parametrize('file', ['tiles.part', 'tiles.part.index'])
def test_a_flipped_bit_in_a_begun_store_is_made_anew(pool, tmp_path, file, encoded):
    make(pool, tmp_path / 'whole')
    part, index = tmp_path / 'tiles.part', tmp_path / 'tiles.part.index'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(pool, tmp_path / 'tiles')
    begun, rng = (part.read_bytes(), index.read_bytes()), np.random.default_rng(1)
    # Of the tile that the header's room is for nothing is read.
    first = HEADER_SIZE if file == 'tiles.part' else 0
    tables = len(begun[0]) - 12 * 24 * 32 * 3 - HEADER_SIZE if file == 'tiles.part' else 0
    last = (tmp_path / file).stat().st_size - tables
    for place in np.linspace(first, last - 1, 40).astype(int):
        for path, content in zip((part, index), begun):
            path.write_bytes(content)
        damaged = bytearray((tmp_path / file).read_bytes())
        damaged[place] ^= 1 << rng.integers(0, 8)
        (tmp_path / file).write_bytes(damaged)
        encoded.clear()
        make(pool, tmp_path / 'tiles')
        assert encoded and digest(tmp_path / 'tiles') == digest(tmp_path / 'whole')
        (tmp_path / 'tiles').unlink()
    assert sorted(os.listdir(tmp_path)) == ['images', 'whole']


@pytest.mark.parametrize('left', ['tiles.part.index', 'tiles.part', 'tiles.lock'])
def test_what_a_kill_at_the_very_end_left_is_removed(pool, tmp_path, left):
    make(pool, tmp_path / 'tiles')
    (tmp_path / left).write_bytes(b'left')
    make(pool, tmp_path / 'tiles')
    assert sorted(os.listdir(tmp_path)) == ['images', 'tiles']


def test_a_path_at_which_no_file_can_be_is_refused_first(pool, tmp_path, encoded):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(IsADirectoryError, match=f'this is a folder.*{tmp_path}/folder'):
        make(pool, tmp_path / 'folder')
    with pytest.raises(NotADirectoryError, match=f'this is a file.*{tmp_path}/file'):
        make(pool, tmp_path / 'file' / 'sub' / 'tiles')
    assert encoded == [] and sorted(os.listdir(tmp_path)) == ['file', 'folder', 'images']


def test_a_full_disk_names_the_store_and_the_run_is_continued(pool, tmp_path, file_size_limit):
    make(pool, tmp_path / 'whole')
    size = (tmp_path / 'whole').stat().st_size
    for limit in (HEADER_SIZE + 5000, size - 10):
        said = f'File too large, while writing {tmp_path}/tiles. What is done stays in .*tiles.part'
        with file_size_limit(limit), pytest.raises(OSError, match=said):
            make(pool, tmp_path / 'tiles')
        assert sorted(os.listdir(tmp_path)) == [
            'images', 'tiles.part', 'tiles.part.index', 'whole',
        ]  # fmt: skip
    make(pool, tmp_path / 'tiles')
    assert digest(tmp_path / 'tiles') == digest(tmp_path / 'whole')


# A writer that takes some time; before it puts anything on the disk for the n-th time it is killed.
WRITER = """
import os
import signal
import sys
import time
from nemo_mmseg.mining import tile_writer
from nemo_mmseg.negatives.pool import FolderPool
from nemo_mmseg.negatives.tile_store import TileSpec
folder, path, encoding, kill_at = sys.argv[1:]
encode, fsync, calls = tile_writer.encode, os.fsync, []
def slow(*args):
    time.sleep(0.05)
    return encode(*args)
def killed(file):
    calls.append(file)
    if len(calls) == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)
tile_writer.encode, tile_writer.BATCH_SIZE, os.fsync = slow, 2, killed
spec = TileSpec(path, 24, 32, encoding=encoding)
tile_writer.make_tile_store(FolderPool(folder), spec, 0, progress=False)
"""


def write(folder, path, encoding='raw', kill_at=0):
    arguments = folder, path, encoding, kill_at
    return subprocess.Popen([sys.executable, '-c', WRITER, *map(str, arguments)])


@pytest.mark.slow
def test_killed_runs_are_continued(folder, tmp_path):
    make(folder, tmp_path / 'whole', 2, encoding='jpeg')
    path, index = tmp_path / 'killed', tmp_path / 'killed.part.index'
    sizes = []
    for _ in range(2):
        # Each batch of two goes to the disk twice: its tiles, then its records.
        assert write(folder, path, 'jpeg', kill_at=5).wait() == -signal.SIGKILL
        assert not path.exists()
        sizes.append(index.stat().st_size)
    assert sizes == [32 + 4 * RECORD.itemsize, 32 + 8 * RECORD.itemsize]
    before = (tmp_path / 'killed.part').stat().st_ino
    make(folder, path, encoding='jpeg')
    assert path.stat().st_ino == before, 'what was there was thrown away'
    assert digest(path) == digest(tmp_path / 'whole')
    assert sorted(os.listdir(tmp_path)) == ['images', 'killed', 'whole']


def write_slowly(pool, spec):
    """A writer whose workers are ahead: they have put more into their queue than a pipe holds."""
    to_disk = tile_writer._to_disk
    tile_writer._to_disk = lambda file: time.sleep(0.5) or to_disk(file)
    tile_writer.BATCH_SIZE = 2
    make_tile_store(pool, spec, 2, progress=False)


def test_workers_of_a_killed_job_end_and_hold_nothing(pool, tmp_path):
    spec, whole = (TileSpec(str(tmp_path / name), 240, 320) for name in ('tiles', 'whole'))
    make_tile_store(pool, whole, 0, progress=False)
    index = tmp_path / 'tiles.part.index'
    run = get_context('fork').Process(target=write_slowly, args=(pool, spec))
    run.start()
    while not index.exists() or index.stat().st_size < 32 + 2 * RECORD.itemsize:
        assert run.is_alive()
        time.sleep(0.01)
    workers = psutil.Process(run.pid).children()
    said = (tmp_path / 'tiles.lock').read_text()
    assert len(workers) == 2 and said.startswith(f'process {run.pid} on ')
    run.kill()
    run.join()
    started = time.monotonic()
    make_tile_store(pool, spec, 2, timeout=30, progress=False)
    assert time.monotonic() - started < 20
    assert digest(spec.path) == digest(whole.path)
    assert sorted(os.listdir(tmp_path)) == ['images', 'tiles', 'whole']
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.mark.slow
def test_two_jobs_and_another_rank_at_once(folder, pool, spec, tmp_path, monkeypatch):
    runs = [write(folder, spec.path) for _ in range(2)]
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    make_tile_store(pool, spec, 0, timeout=120, progress=False)
    assert [run.wait() for run in runs] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ['images', 'tiles']
    never = replace(spec, path=str(tmp_path / 'never'))
    with pytest.raises(TimeoutError, match='1 of 2 waited for rank 0 .*never, .* for 0.5 s'):
        make_tile_store(pool, never, 0, timeout=0.5, progress=False)
