"""The whole mining run: embed, search, write the bank. A killed run is continued."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.logging import print_log
from tqdm import tqdm

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.negatives.bank import BankError, BankSpec, NegativeBank
from nemo_mmseg.negatives.expression_bank import ExpressionBank
from nemo_mmseg.negatives.pool import BankImages, bank_fingerprint, folder_pool
from nemo_mmseg.utils.atomic_write import check_file_path, while_writing
from nemo_mmseg.utils.clip import SHIPPED
from nemo_mmseg.utils.digests import digest_of_file, digest_of_weights
from nemo_mmseg.utils.dist import default_device, rank_and_world, same_every_time, wait_for
from nemo_mmseg.utils.file_lock import only_one

from .bank_writer import BankWriter, ExpressionBankWriter
from .clip_embedder import LIBRARIES, ClipEmbedder
from .embed import blocks_of, distinct_texts, embed_images, embed_texts, image_keys
from .expressions import Said, mined_expressions
from .search import Found, FoundExpressions, search
from .vectors import VectorStore, text_keys, user_cache

T = TypeVar('T')
# A reader by what its bank ranks.
READERS = dict(images=NegativeBank, expressions=ExpressionBank)


def mine_bank(
    dataset: BaseReferringDataset,
    spec: BankSpec,
    batch_size: int = 64,
    num_workers: int = 2,
    device: str | None = None,
    timeout: float = 1800,
    progress: bool = True,
    cache: bool | str = True,
) -> NegativeBank | ExpressionBank:
    """Mine the bank of a data set, or find that it is there.

    In a torchrun job rank r embeds its share, and rank 0 searches, writes and renames. The others
    watch for the file, without a collective. A run that was killed continues with the vectors that
    it has stored. Its bank is byte for byte that of an unbroken run on the same machine, whatever
    the number of ranks, workers and threads.

    Args:
        dataset: A referring data set.
        spec: Where the bank lies and how it is mined. What a run needs meanwhile lies in
            ``<path>.work/``, which is removed at the end.
        batch_size: Images, or texts, per batch. Defaults to 64.
        num_workers: Processes that decode images. Defaults to 2.
        device: Where to compute; None for the process's GPU if there is one.
        timeout: Seconds to wait for other ranks, or for another job, while nothing gets on.
            Defaults to 1800.
        progress: Whether rank 0 shows a progress bar. Defaults to True.
        cache: Whether other runs find the vectors again, see :mod:`nemo_mmseg.mining.vectors`: True
            keeps them in ``$NEMO_MMSEG_CACHE`` or the user's cache folder, a string names another
            folder, False keeps them in ``<path>.work/``, as does a cache that cannot be written.
            The bank is the same. Defaults to True.

    Returns:
        The bank.

    Raises:
        ValueError: The spec does not say how to mine, an unknown model, or an image that cannot be
            read.
        FileNotFoundError: The weights are neither a known tag nor a file, or the folder of images
            is missing or empty.
        BankError: A file at the path is damaged, or was made for other data or with other settings.
        OSError: The path is a folder, or there is no room.
        TimeoutError: Another rank, or another job, does not get on.
    """
    check_file_path(spec.path)
    made_with = _made_with(dataset, spec)
    job = _Job(Path(spec.path), timeout, progress)
    if not job.path.is_file():
        device = device or default_device()
        with same_every_time(device):
            _mine(job, dataset, spec, made_with, batch_size, num_workers, device, cache)
    bank = _check(READERS[spec.kind](spec.path), spec, made_with)
    shutil.rmtree(job.work, ignore_errors=True)
    return bank


def check_bank(dataset: BaseReferringDataset, spec: BankSpec) -> NegativeBank | ExpressionBank:
    """Return the bank of a data set, if it was made with the settings.

    Args:
        dataset: A referring data set.
        spec: Where the bank lies and how it was to be mined.

    Raises:
        FileNotFoundError: There is no bank.
        BankError: It is damaged, or was made for other data or with other settings.
    """
    return _check(READERS[spec.kind](spec.path), spec, _made_with(dataset, spec))


def _made_with(dataset: BaseReferringDataset, spec: BankSpec) -> dict[str, Any]:
    """What the metadata of a bank must say, as far as it is known without loading the network."""
    if spec.model is None or (spec.pretrained is None and ':' not in spec.model) or spec.keep < 1:
        raise ValueError(
            f'the config does not say how to mine the bank {spec.path}: write bank=dict(path=..., '
            f'model=..., pretrained=..., keep=...), keep at least 1. It has {spec}'
        )
    made_with: dict[str, Any] = dict(
        dataset=str(dataset.metainfo.get('dataset_name')),
        split=str(dataset.split),
        fingerprint=bank_fingerprint(dataset.pool, spec.images),
        model=spec.model,
        # Of a file the name alone: where it lies says nothing, its content is compared.
        pretrained=spec.pretrained and Path(spec.pretrained).name,
        keep=int(spec.keep),
    )
    if spec.kind != 'images':  # banks of images from before there were others do not say it
        made_with['kind'] = spec.kind
    if spec.images is not None:
        candidates = len(folder_pool(spec.images))
        made_with.update(images=Path(spec.images).name, candidates=candidates)
    shipped = SHIPPED.get(spec.model)
    file = Path(spec.pretrained or '')
    if shipped and spec.pretrained == shipped['tag']:
        file = shipped['folder'] / 'weights.safetensors'
    if file.is_file():
        made_with['weights_sha256'] = digest_of_file(file)
    return made_with


def _check(
    bank: NegativeBank | ExpressionBank, spec: BankSpec, made_with: dict[str, Any]
) -> NegativeBank | ExpressionBank:
    name = f'{made_with["dataset"]!r}, split {made_with["split"]!r}'
    of_folder = f', with the images of {spec.images}' if spec.images else ''
    bank.check(made_with['fingerprint'], name + of_folder)
    if not bank.checked:
        print_log(
            f'{bank.path} is of format {bank.metadata["format"]}, from before there were '
            'checksums: damage in it is not noticed. Mined again it has them',
            'current',
        )
    for key in ('model', 'pretrained', 'weights_sha256', 'keep'):
        # A digest of weights is not always known.
        if key in made_with and bank.metadata.get(key) != made_with[key]:
            raise BankError(
                f'the bank {bank.path} was made with {key}={bank.metadata.get(key)!r}, this run '
                f'asks for {made_with[key]!r}. Delete it, or name another path'
            )
    return bank


class _Job:
    """What the processes that make a bank tell each other, by files in ``<path>.work/``."""

    def __init__(self, path: Path, timeout: float, progress: bool) -> None:
        self.path = path
        self.work = path.with_name(path.name + '.work')
        self.rank, self.world = rank_and_world()
        self.timeout = timeout
        # In a log file a line every half minute will do.
        self._bar = dict(
            disable=not progress or self.rank > 0, mininterval=0.5 if sys.stderr.isatty() else 30
        )

    def say(self, message: str) -> None:
        """Log a message of rank 0."""
        if self.rank == 0:
            print_log(message, 'current')

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second job from the same bank: its rank 0 waits until this one's has ended."""
        self.work.mkdir(parents=True, exist_ok=True)
        if self.rank != 0:
            yield
            return
        with only_one(
            self.work / 'lock',
            self.timeout,
            f'mine {self.path}',
            lambda: self.work.glob('rank-*'),
        ):
            yield

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar, and let other ranks see that this one gets on.

        Yields:
            A function that is called with the number of items done since its last call.
        """
        sign = self.work / f'rank-{self.rank}'
        with tqdm(total=total, desc=what, **self._bar) as bar:

            def advance(count: int) -> None:
                bar.update(count)
                with suppress(OSError):  # another job has made the bank and removed the folder
                    sign.touch()

            advance(0)
            yield advance

    def wait(self, ready: Callable[[], T | None], what: str) -> T:
        """Wait for what another rank makes; see :func:`wait_for`."""
        # There is nobody to wait for in a job of one process.
        timeout = self.timeout if self.world > 1 else 0
        return wait_for(ready, lambda: self.work.glob('rank-*'), timeout, what)


def _mine(
    job: _Job,
    dataset: BaseReferringDataset,
    spec: BankSpec,
    made_with: dict[str, Any],
    batch_size: int,
    num_workers: int,
    device: str,
    cache: bool | str,
) -> None:
    """Do this rank's part; see :func:`mine_bank`."""
    sent_ids, expressions, rows = dataset.expressions()
    if (repeated := np.flatnonzero(np.diff(sent_ids) <= 0)).size:
        raise ValueError(f'two expressions have the sentence id {sent_ids[repeated[0]]}')
    texts, text_index = distinct_texts(expressions)
    images = BankImages(dataset.pool, spec.images)
    embedder = ClipEmbedder(spec.model, spec.pretrained, device, batch_size)
    if 'weights_sha256' not in made_with:
        made_with['weights_sha256'] = digest_of_weights(embedder.clip)
    shared = user_cache() if cache is True else Path(cache) if cache else None
    with job.alone():
        if job.path.is_file():  # another job made it meanwhile
            return
        job.say(
            f'Mining {job.path}: {len(images)} images, {len(sent_ids)} expressions '
            f'({len(texts)} distinct) with {spec.model} ({spec.pretrained}) on {device}'
        )
        store = VectorStore(embedder.digest(made_with['weights_sha256']), job.work, shared)
        share = blocks_of(len(images))[job.rank :: job.world]
        share_of_texts = blocks_of(len(texts))[job.rank :: job.world]
        with job.progress('embedding', sum(map(len, share + share_of_texts))) as advance:
            keys = embed_images(embedder, images, share, store, num_workers, advance)
            embed_texts(embedder, texts, share_of_texts, store, advance)
        store.trim()
        del embedder
        if torch.device(device).type == 'cuda':
            torch.cuda.empty_cache()
        if job.rank > 0:
            job.wait(lambda: job.path.is_file() or None, 'rank 0 to write the bank')
            return

        def stored(block: range, keys: np.ndarray, what: str) -> np.ndarray:
            """Vectors of a block, which another rank may still be making."""
            where = f'the vectors of {what} {block.start} to {block.stop - 1}'
            vectors = job.wait(lambda: store.read(keys), where)
            advance(0)
            return vectors

        total = len(sent_ids if spec.kind == 'images' else images)
        with job.progress('searching', total) as advance:
            table = None
            for block in blocks_of(len(images)):
                of_images = keys[block] if block in share else image_keys(images, block)
                vectors = stored(block, of_images, 'images')
                if table is None:  # whole at once: never twice in memory
                    table = np.empty((len(images), vectors.shape[1]), np.float32)
                table[block.start : block.stop] = vectors
            text_blocks = (
                stored(block, text_keys(texts[row] for row in block), 'texts')
                for block in blocks_of(len(texts))
            )
            made_with['versions'] = {name: version(name) for name in LIBRARIES}
            if spec.kind == 'images':
                answers = search(
                    text_blocks, text_index, images.rows[rows], table, spec.keep, device,
                    images.num_candidates,
                )  # fmt: skip
                writer = partial(
                    BankWriter, sent_ids=sent_ids, image_row=images.rows[rows],
                    image_ids=images.ids, image_names=images.names, image_vectors=table,
                    stored=min(spec.keep, images.num_candidates - 1), metadata=made_with,
                )  # fmt: skip
            else:
                said = Said(sent_ids, texts, text_index, rows)
                answers, writer = mined_expressions(
                    said, text_blocks, table, spec.keep, device, made_with
                )
            _write(job, writer, answers, advance)
        job.say(f'{job.path}: {job.path.stat().st_size / 2**20:.1f} MiB')


def _write(
    job: _Job,
    open_writer: Callable[[Path], BankWriter | ExpressionBankWriter],
    answers: Iterable[Found | FoundExpressions],
    advance: Callable[[int], None],
) -> None:
    """Write the bank under another name while the answers come, and rename it.

    Args:
        job: The job.
        open_writer: Opens the bank's writer for a path.
        answers: What the search finds.
        advance: Called with the number of rankings written.
    """
    part, remark = job.work / 'bank.tmp', '. What is embedded stays: the same command continues'
    try:
        with while_writing(job.path, part, remark):
            with open_writer(part) as writer:
                for found in answers:
                    writer.write(*found)
                    advance(len(found.rows))
            os.replace(part, job.path)
    except OSError:
        part.unlink(missing_ok=True)  # room for others
        raise
