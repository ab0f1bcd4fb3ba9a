"""Bank, tile stores and stored vectors: mutated, they give the same answers or a named error."""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from .annotations import NUM_IMAGES, config, lay_out, tables
from .judge import Case, Kind
from .mutate import change_structure, dumps, other_bytes
from .truth import digest

TILE = (20, 30)
STORES = ('bank', 'tiles.raw', 'tiles.jpeg')


def mosaics(split_file: Path, bank: Path | None, tiles: Path | None, encoding: str = 'raw') -> Any:
    """Build the data set whose samples are mosaics of a bank or of a tile store."""
    from mmseg.registry import DATASETS

    transform = dict(
        type='NeMoMosaic', size=(2 * TILE[0], 2 * TILE[1]),
        transforms=[dict(type='LoadReferringImage'), dict(type='LoadReferentMask')],
        schedule=dict(mined=1.0) if bank else dict(mined=0.0, random=1.0),
    )  # fmt: skip
    if bank:
        transform.update(bank=dict(path=str(bank)), band=dict(top_k=3))
    if tiles:
        transform['tiles'] = dict(path=str(tiles), encoding=encoding)
    pipeline = [dict(type='SampleExpressions'), transform, dict(type='PackReferringInputs')]
    return DATASETS.build(config(split_file, pipeline=pipeline, test_mode=False))


def samples(dataset: Any) -> list[tuple[str, str]]:
    """Return digests of images and masks of all samples of three epochs."""
    from nemo_mmseg.datasets.samplers import SampleIndex

    found = []
    for epoch in range(3):
        for index in range(len(dataset)):
            packed = dataset[SampleIndex(index, epoch, 5)]
            mask = packed['data_samples'].gt_sem_seg.data.numpy()
            found.append((digest(packed['inputs'].numpy()), digest(mask)))
    return found


def _requirements(dataset: Any) -> list:
    from nemo_mmseg.mining.requirements import requirements_of

    return requirements_of(dataset)


@cache
def bases() -> tuple[Path, dict[str, bytes], dict[str, Any]]:
    """Make the stores once: their folder, their contents, and what they answer."""
    from nemo_mmseg.mining import tile_writer
    from nemo_mmseg.mining.bank_writer import BankWriter

    folder, process = Path(tempfile.mkdtemp(prefix='fuzz-stores-')), os.getpid()
    atexit.register(lambda: os.getpid() == process and shutil.rmtree(folder))
    refs, instances = tables()
    split_file = lay_out(folder / 'data', False, _pickled(refs), dumps(instances))
    dataset = mosaics(split_file, None, None)
    sent_ids, _, rows = dataset.expressions()
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM_IMAGES, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    others = rng.uniform(0.1, 0.3, (len(rows), NUM_IMAGES))
    own = others.max(axis=1) + 0.05
    others[np.arange(len(rows)), rows] = -1
    order = np.argsort(-others, axis=1)[:, : NUM_IMAGES - 1]
    pool = dataset.pool
    made = dict(fingerprint=pool.fingerprint, dataset='mini', split='train')
    with BankWriter(folder / 'bank', sent_ids, rows, pool.ids, list(pool.names), vectors,
                    NUM_IMAGES - 1, made) as writer:  # fmt: skip
        writer.write(np.arange(len(rows)), order, np.take_along_axis(others, order, 1), own)
    for encoding in ('raw', 'jpeg'):
        (need,) = _requirements(mosaics(split_file, None, folder / f'tiles.{encoding}', encoding))
        tile_writer.make_tile_store(need.pool, need.spec, 0, progress=False)
    contents = {name: (folder / name).read_bytes() for name in STORES}
    answers = {name: read(split_file, folder / name) for name in STORES}
    return split_file, contents, answers


def _pickled(refs: list) -> bytes:
    import pickle

    return pickle.dumps(refs, protocol=2)


def read(split_file: Path, path: Path) -> dict[str, Any]:
    """Return all answers of a bank or a tile store, those of mosaics among them."""
    if path.name.startswith('tiles'):
        return _read_tiles(split_file, path)
    from nemo_mmseg.negatives.band import BandRule
    from nemo_mmseg.negatives.bank import open_bank

    dataset = mosaics(split_file, path, None)
    bank = open_bank(str(path), dataset.pool.fingerprint)
    sent_ids, _, _ = dataset.expressions()
    rules = [BandRule(0.95, top_k=2), BandRule(0.9, top_k=3, i2i_sim_thres=0.5)]
    answers: dict[str, Any] = dict(length=len(bank), stored=bank.stored, count=bank.num_candidates)
    for sent_id in sent_ids.tolist():
        rows, similarities, own = bank.row(sent_id)
        answers[f'row {sent_id}'] = rows.tolist(), similarities.tolist(), own
        for number, rule in enumerate(rules):
            band = bank.band(sent_id, rule)
            answers[f'band {sent_id} {number}'] = list(map(str, vars(band).values()))
    answers['sizes'] = bank.num_remaining(rules).tolist()
    answers['names'] = [bank.image_names[row] for row in range(len(bank.image_names))]
    for name in ('image_ids', 'image_row', 'image_vectors', 'sent_ids'):
        answers[name] = np.asarray(getattr(bank, name)).tolist()
    answers['samples'] = samples(dataset)
    return answers


def _read_tiles(split_file: Path, path: Path) -> dict[str, Any]:
    from nemo_mmseg.mining.tile_writer import make_tile_store

    dataset = mosaics(split_file, None, path, path.suffix[1:])
    (need,) = _requirements(dataset)
    store = make_tile_store(need.pool, need.spec, 0, progress=False)  # checks the one that is there
    answers: dict[str, Any] = dict(samples=samples(dataset), length=len(store))
    for name in map(str, need.pool.names):
        row = store.row_of(name)
        answers[name] = store.shape_of(row), digest(np.asarray(store.read(row)))
    return answers


def differs(found: dict, wanted: dict) -> str | None:
    """Compare answers."""
    for key in wanted:
        if found.get(key) != wanted[key]:
            text = str(found.get(key)), str(wanted[key])
            return f'another answer to {key!r}: {text[0][:100]}, not {text[1][:100]}'
    return None


def _store(folder: Path, rng: random.Random, seed: int, name: str) -> Case:
    split_file, contents, answers = bases()
    others = (*contents.values(), b'')
    if rng.random() < 0.25:
        content, what = other_header(contents[name], rng)
    else:
        content, what = other_bytes(contents[name], rng, others)
    path = folder / name
    path.write_bytes(content)
    return Case(
        what, partial(read, split_file, path), partial(differs, wanted=answers[name]), (str(path),)
    )


def other_header(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change a value in the header of a safetensors file, or in the metadata inside it."""
    length = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + length])
    (key, inner), *_ = header['__metadata__'].items()
    if rng.random() < 0.3 and inner.startswith('{'):
        changed, what, _ = change_structure(json.loads(inner), rng, True)
        header['__metadata__'][key] = dumps(changed).decode()
    else:
        header, what, _ = change_structure(header, rng, True)
    text = dumps(header)
    if rng.random() < 0.7 and len(text) <= length:  # the arrays stay in their places
        text = text.ljust(length)
    return len(text).to_bytes(8, 'little') + text + content[8 + length :], f'header: {what}'


@cache
def begun() -> tuple[dict[str, bytes], bytes]:
    """Return the files of a begun tile store, and the finished one; nothing where none is kept."""
    from nemo_mmseg.mining import tile_writer

    split_file, contents, _ = bases()
    path = split_file.parent / 'begun.raw'
    (need,) = _requirements(mosaics(split_file, None, path))
    read_image, count = tile_writer.read_image, 0

    def stop(*args: Any, **kwargs: Any) -> np.ndarray:
        nonlocal count
        count += 1
        if count > NUM_IMAGES - 1:
            raise ValueError('stop')
        return read_image(*args, **kwargs)

    with patch.object(tile_writer, 'BATCH_SIZE', 2), patch.object(tile_writer, 'read_image', stop):
        try:
            tile_writer.make_tile_store(need.pool, need.spec, 0, progress=False)
        except ValueError:
            pass
    names = ('begun.raw.part', 'begun.raw.part.index')
    parts = {name: path.with_name(name) for name in names}
    return {n: p.read_bytes() for n, p in parts.items() if p.exists()}, contents['tiles.raw']


def _begun(folder: Path, rng: random.Random, seed: int) -> Case:
    from nemo_mmseg.mining.tile_writer import make_tile_store

    parts, whole = begun()
    split_file, _, _ = bases()
    (folder / 'made').mkdir()
    path, what = folder / 'made' / 'begun.raw', 'no begun store is kept'
    changed = rng.choice(sorted(parts)) if parts else ''
    for name, content in parts.items():
        if name == changed:
            content, what = other_bytes(content, rng, tuple(parts.values()))
        path.with_name(name).write_bytes(content)

    def use() -> bytes:
        (need,) = _requirements(mosaics(split_file, None, path))
        make_tile_store(need.pool, need.spec, 0, progress=False)
        return path.read_bytes()

    def wrong(found: bytes) -> str | None:
        if found != whole:
            return 'the finished store has other bytes than an unbroken one'
        left = sorted(one.name for one in path.parent.iterdir() if one != path)
        return f'files are left: {left}' if left else None

    return Case(f'{changed}: {what}', use, wrong, (str(path),))


@cache
def _vectors() -> tuple[np.ndarray, np.ndarray]:
    from nemo_mmseg.mining.vectors import text_keys

    vectors = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    return text_keys(f'text {i}' for i in range(20)), vectors


def _packs(folder: Path, rng: random.Random, seed: int) -> Case:
    """Stored vectors: what is damaged is as if it were not there, and is made anew."""
    from nemo_mmseg.mining.vectors import VectorStore

    keys, vectors = _vectors()
    made = folder / 'made'
    for part in (slice(0, 9), slice(9, 20)):
        with VectorStore('0' * 64, made / 'work', made / 'cache') as store:
            store.add(keys[part], vectors[part])
    packs = sorted(made.rglob('pack-*'))
    contents = [pack.read_bytes() for pack in packs]
    pack = rng.choice(packs)
    if rng.random() < 0.25:
        content, what = other_header(pack.read_bytes(), rng)
    else:
        content, what = other_bytes(pack.read_bytes(), rng, tuple(contents))
    pack.write_bytes(content)

    def use() -> tuple[dict, Any]:
        with VectorStore('0' * 64, made / 'work', made / 'cache') as store:
            found = store.find(keys)
            missing = [row for row in range(len(keys)) if row not in found]
            if missing:
                store.add(keys[missing], vectors[missing])
        return found, VectorStore('0' * 64, made / 'work', made / 'cache').read(keys)

    def wrong(answer: tuple[dict, Any]) -> str | None:
        found, again = answer
        for row, vector in found.items():
            if vector.dtype != np.float32 or not np.array_equal(vector, vectors[row]):
                return f'vector {row} is another one: {vector[:3]}'
        if again is None or not np.array_equal(again, vectors):
            return 'after they were made anew, vectors are missing or others'
        return None

    return Case(what, use, wrong, (pack.name,))


KINDS = [
    Kind('bank', 110, partial(_store, name='bank'), lambda: bases()),
    Kind('tiles-raw', 50, partial(_store, name='tiles.raw'), lambda: bases()),
    Kind('tiles-jpeg', 50, partial(_store, name='tiles.jpeg'), lambda: bases()),
    Kind('tiles-begun', 50, _begun, lambda: begun()),
    Kind('vectors', 70, _packs, lambda: _vectors()),
]
