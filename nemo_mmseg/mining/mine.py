"""The whole mining run: embed, search, write the bank; a killed run is continued."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from safetensors import SafetensorError
from tqdm import tqdm

from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.pool import MinedImages
from nemo_mmseg.utils.atomic_write import write_text
from nemo_mmseg.utils.dist import default_device, rank_and_world, same_every_time

from .bank_writer import BankWriter
from .clip_embedder import ClipEmbedder
from .embed import distinct_texts, embed_images, embed_texts
from .index_ranker import RECALL_OF, IndexRanker
from .made_with import asked_for, check_bank, digest_of_weights, open_cache
from .search import search
from .shards import ShardStore, busy, difference, listing

# File in a work folder that rank 0 of the job that mines holds locked; the kernel frees it.
LOCK = 'lock'
# Seconds between two looks at the files of other processes.
_LOOK_EVERY = 0.2


def mine_bank(
    dataset: Any,
    path: str | Path,
    model: str,
    pretrained: str | None,
    keep: int = 1000,
    batch_size: int = 64,
    num_workers: int = 2,
    device: str | None = None,
    shard_size: int = 512,
    timeout: float = 1800,
    progress: bool = True,
    images: str | None = None,
    cache: bool | str = True,
    index: str | None = None,
) -> NegativeBank:
    """Mine the bank of a data set, or find that it is there.

    All processes of a torchrun job embed (rank r every world-th shard); rank 0 searches, writes and
    renames, the others watch for the file, without a collective. A run that was killed continues
    from the shards in ``<path>.work/``, and its bank is byte for byte that of an unbroken run on
    the same machine, whatever the number of ranks, workers and threads.

    Args:
        dataset: A referring data set: ``expressions()``, ``pool``, ``fingerprint``, ``metainfo``,
            ``split``.
        path: The bank to write.
        model: open_clip's name of the miner, e.g. ``'ViT-B-32'``.
        pretrained: Its weights: tag or local file.
        keep: Images stored an expression. Defaults to 1000.
        batch_size: Images, or texts, a batch. Defaults to 64.
        num_workers: Processes that decode images. Defaults to 2.
        device: Where to compute; None for the process's GPU if there is one.
        shard_size: Images, or texts, a file of the work folder. Defaults to 512.
        timeout: Seconds to wait for other ranks while nothing changes in the work folder. Defaults
            to 1800.
        progress: Whether rank 0 shows a progress bar. Defaults to True.
        images: Folder whose images become the negatives, in place of the data set's own.
        cache: Whether vectors are kept and found again by other runs, see
            :mod:`nemo_mmseg.mining.embedding_cache`: True does so in the user's cache folder or in
            ``$NEMO_MMSEG_CACHE``, a string names another folder. The bank is the same, with or
            without; what cannot be read or written is done without. Defaults to True.
        index: A faiss index, e.g. ``'IVF4096,Flat;nprobe=64'``, for pools so large that exact
            search takes too long. It overlooks images; which share of the best ones it finds is
            printed and goes into the metadata. None searches exactly.

    Returns:
        The bank.

    Raises:
        ValueError: ``keep`` < 1, an unknown model, no weights, an image that cannot be read, or an
            index that faiss does not know.
        ImportError: ``index`` without faiss.
        FileNotFoundError: The weights are neither a known tag nor a file, or the folder of images
            is missing or empty.
        BankError: A file at ``path`` is damaged, or was made for other data or with other settings.
        TimeoutError: Another rank does not get on.
    """
    for name, value in dict(keep=keep, batch_size=batch_size, shard_size=shard_size).items():
        if value < 1:
            raise ValueError(f'{name} must be at least 1, not {value}')
    path = Path(path)
    run = _Run(path, rank_and_world(), timeout, progress)
    if path.is_file():
        bank = check_bank(dataset, path, model, pretrained, keep, images, index)
        run.clean_up()
        return bank
    if pretrained is None and ':' not in model:
        raise ValueError(f'mining with {model!r} needs weights: pretrained is a tag or a file')
    device = device or default_device()
    with same_every_time(device):
        run.mine(
            dataset, asked_for(dataset, model, pretrained, keep, images, index), model, pretrained,
            batch_size, num_workers, device, shard_size, images, cache,
        )  # fmt: skip
    return NegativeBank(path)


def _checked_expressions(dataset: Any) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The data set's expressions, after a look at what the bank's format needs."""
    sent_ids, texts, rows = dataset.expressions()
    if len(sent_ids) == 0:
        raise ValueError('the data set has no expressions to mine for')
    wrong = np.flatnonzero(np.diff(sent_ids) <= 0)
    if wrong.size:
        raise ValueError(
            f'sentence ids must rise, but {sent_ids[wrong[0] + 1]} follows {sent_ids[wrong[0]]}'
        )
    if rows.min() < 0 or rows.max() >= len(dataset.pool):
        raise ValueError(f'an expression has an image row outside the pool of {len(dataset.pool)}')
    return sent_ids, texts, rows


class _Run:
    """One process's part of a mining run.

    Args:
        path: The bank to write. The work folder lies beside it.
        rank_of: Rank and number of processes.
        timeout: Seconds to wait for other ranks while nothing changes.
        progress: Whether rank 0 shows a progress bar.
    """

    def __init__(
        self, path: Path, rank_of: tuple[int, int], timeout: float, progress: bool
    ) -> None:
        self.path = path
        self.rank, self.world = rank_of
        self.timeout = timeout
        self.progress = progress and self.rank == 0
        self.work = path.with_name(path.name + '.work')

    def clean_up(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.work, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second job from the same bank: its rank 0 waits until this one's has ended."""
        if self.rank != 0:
            yield
            return
        lock = self.work / LOCK
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            with open(lock, 'w') as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._say(f'another process mines {self.path}: waiting for it')
                    fcntl.flock(file, fcntl.LOCK_EX)
                yield
        finally:
            if self.work.is_dir() and list(self.work.iterdir()) == [lock]:
                self.clean_up()

    def mine(
        self,
        dataset: Any,
        wanted: dict[str, Any],
        model: str,
        pretrained: str | None,
        batch_size: int,
        num_workers: int,
        device: str,
        shard_size: int,
        folder_of_images: str | None,
        cache: bool | str,
    ) -> None:
        """Do it; see :func:`mine_bank`. ``wanted`` becomes the bank's metadata."""
        expressions = _checked_expressions(dataset)
        table = MinedImages(dataset.pool, folder_of_images)
        texts, text_index = distinct_texts(expressions[1])
        embedder = ClipEmbedder(model, pretrained, device, batch_size=batch_size)
        wanted.setdefault('weights_sha256', digest_of_weights(embedder.clip))
        wanted['versions'] = {
            name: version(name) for name in ('torch', 'open_clip_torch', 'numpy', 'pillow')
        }
        settings = {key: value for key, value in wanted.items() if key not in ('keep', 'index')}
        tower = embedder.tower()
        known = open_cache(cache, wanted, tower, device)
        settings |= dict(tower, shard_size=shard_size)
        with self.alone():
            if self.path.is_file():  # another job made it meanwhile
                check_bank(
                    dataset, self.path, model, pretrained, wanted['keep'], folder_of_images,
                    wanted.get('index'),
                )  # fmt: skip
                return
            folder, digest = self._folder(settings)
            images = ShardStore(folder, 'images', len(table), shard_size, digest)
            sentences = ShardStore(folder, 'texts', len(texts), shard_size, digest)
            own_images, own_texts = (
                store.missing(range(self.rank, len(store), self.world))
                for store in (images, sentences)
            )
            todo = sum(
                len(store.items(shard))
                for store, shards in ((images, own_images), (sentences, own_texts))
                for shard in shards
            )
            self._say(
                f'Mining {self.path}: {len(table)} images, {len(expressions[0])} '
                f'expressions ({len(texts)} distinct) with {model} ({pretrained}) on {device}'
            )
            try:
                with self._bar('embedding', todo) as bar:
                    embed_images(
                        embedder, table, images, own_images, num_workers, bar.update, known
                    )
                    embed_texts(embedder, texts, sentences, own_texts, bar.update, known)
            except (FileNotFoundError, SafetensorError):
                # Other ranks had these shards from a killed run and finished, folder removed,
                # before this one began.
                if not self.path.is_file():
                    raise
            if known is not None:
                known.trim()
            del embedder, known
            if torch.device(device).type == 'cuda':
                torch.cuda.empty_cache()
            if self.rank == 0:
                self._finish(table, expressions, text_index, images, sentences, wanted, device)
            else:
                self._wait(self.path.is_file, 'rank 0 to write the bank')
            self.clean_up()

    def _say(self, message: str) -> None:
        if self.rank == 0:
            print_log(message, 'current')

    def _bar(self, what: str, total: int) -> tqdm:
        # In a log file a line every half minute will do.
        often = 0.5 if sys.stderr.isatty() else 30
        return tqdm(total=total, desc=what, disable=not self.progress, mininterval=often)

    def _folder(self, settings: dict[str, Any]) -> tuple[Path, str]:
        """The folder of these settings in the work folder; rank 0 removes those of others."""
        text = json.dumps(settings, sort_keys=True, indent=1)
        digest = hashlib.sha256(text.encode()).hexdigest()
        folder = self.work / digest[:16]
        if self.rank == 0 and self.work.is_dir():
            for other in self.work.iterdir():
                if other not in (folder, self.work / LOCK):
                    self._say(
                        f'{self.work} holds a run with other settings '
                        f'({difference(other, settings)}): it is not continued, this starts anew'
                    )
                    shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            write_text(folder / 'settings.json', text)
        return folder, digest

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        """Look again and again, as long as something changes in the work folder."""
        seen, since = None, time.monotonic()
        while not ready():
            now = listing(self.work)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self.timeout:
                raise TimeoutError(
                    f'rank {self.rank} of {self.world} waited for {what}, but nothing changed in '
                    f'{self.work} for {self.timeout:g} s. Start the run again: it continues'
                )
            time.sleep(_LOOK_EVERY)

    def _finish(
        self,
        table: MinedImages,
        expressions: tuple[np.ndarray, list[str], np.ndarray],
        text_index: np.ndarray,
        images: ShardStore,
        sentences: ShardStore,
        metadata: dict[str, Any],
        device: str,
    ) -> None:
        """Search and write the bank under another name, and rename it (rank 0)."""
        for store in (images, sentences):
            for shard in range(len(store)):
                self._wait(lambda s=store, i=shard: s.read(i) is not None, f'{store.path(shard)}')
        sent_ids, _, rows = expressions
        own_rows = table.own_rows[rows]
        vectors = images.read_all()
        part = images.folder / 'bank.tmp'
        keep, index, ranker = metadata['keep'], metadata.get('index'), None
        if index is not None:
            with busy(images.folder):
                ranker = IndexRanker(
                    vectors, min(keep + 1, table.candidates), table.candidates, index
                )
                recall = ranker.recall(_some(sentences), table.candidates)
            metadata = dict(metadata, recall=round(recall, 4))
            self._say(f'{index} finds {recall:.2%} of the best {ranker.count} images of a text')
        with (
            self._bar('searching', len(sent_ids)) as bar,
            BankWriter(
                part, sent_ids, own_rows, table.ids, table.names, vectors,
                min(keep, table.candidates - 1), metadata,
            ) as writer,
        ):  # fmt: skip
            for found in search(
                sentences.blocks(), text_index, own_rows, vectors, keep, device, table.candidates,
                ranker,
            ):  # fmt: skip
                writer.write(*found)
                bar.update(len(found.expressions))
        os.replace(part, self.path)
        self._say(f'{self.path}: {self.path.stat().st_size / 2**20:.1f} MiB')


def _some(sentences: ShardStore) -> Iterator[np.ndarray]:
    """Some texts of all lengths."""
    shards = np.unique(np.linspace(0, len(sentences) - 1, 16).astype(int)).tolist()
    for shard in shards:
        vectors = sentences.read(shard)
        yield vectors[:: max(1, len(vectors) * len(shards) // RECALL_OF)]
