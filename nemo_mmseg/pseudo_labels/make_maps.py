"""Run a network over a data set and keep one response map of each reference.

The work is done in blocks of images. Each block becomes a file of its own in a folder beside the
result, so a run that was killed goes on where it was, and several ranks share the blocks. Rank 0
joins them. Blocks do not depend on the number of ranks, and so neither do the maps.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import TASK_UTILS
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.models.protocols.geometry import foreground_margin
from nemo_mmseg.models.protocols.prms import groups_of
from nemo_mmseg.utils.atomic_write import check_file_path
from nemo_mmseg.utils.dist import (
    default_device,
    end_with_parent,
    rank_and_world,
    same_every_time,
    wait_for,
)

from .response_maps import ResponseMap, ResponseMapError, ResponseMaps, write_response_maps

# Items in a block, and so what a killed process loses at most.
BLOCK_SIZE = 64
# Weights that no file of ours holds, e.g. of a network that is used as it was published.
NO_CHECKPOINT = dict(name='none', sha256='')


def make_response_maps(
    model: nn.Module,
    dataset: BaseReferringDataset,
    path: str | Path,
    selection: dict,
    checkpoint: dict[str, str] = NO_CHECKPOINT,
    config: str = '',
    batch_size: int = 16,
    num_workers: int = 2,
    device: str | None = None,
    timeout: float = 1800,
    progress: bool = True,
) -> ResponseMaps:
    """Make a file of response maps, or check the one that is there.

    Args:
        model: Segmentor with ``encode_decode``. It is moved to the device, in evaluation mode.
        dataset: Its items hold whole references, ``group_by='image'`` or ``'reference'``. Its
            pipeline stretches images to the network's input and needs no masks.
        path: The file. Parts of it lie in ``<path>.work-...`` until it is whole.
        selection: Config of what makes one map of those of a reference's expressions:
            ``dict(type='PRMS', ...)`` or ``dict(type='MeanOfMaps')``.
        checkpoint: ``name`` and ``sha256`` of the weights (:func:`name_and_digest`).
        config: What else the maps depend on, e.g. a digest of the network's config.
        batch_size: Images at once. Defaults to 16.
        num_workers: Processes that decode images. Defaults to 2.
        device: Where to compute; None takes this process's GPU if there is one.
        timeout: Seconds to wait for other ranks while nothing gets on. Defaults to 1800.
        progress: Whether rank 0 shows a progress bar.

    Returns:
        The reader of the file.

    Raises:
        ResponseMapError: There is such a file of other data, other weights, or another selection.
        ValueError: Items do not hold whole references, or images are not stretched.
        TimeoutError: Another rank does not get on.
    """
    if dataset.group_by == 'expression':
        raise ValueError(
            "response maps are chosen among the expressions of a reference: group_by='image' or "
            "'reference', not 'expression'"
        )
    made_with = dict(
        dataset=str(dataset.metainfo.get('dataset_name')),
        split=str(dataset.split),
        fingerprint=dataset.fingerprint,
        checkpoint=checkpoint,
        selection=_portable(selection),
        config=config,
    )
    maps = ResponseMaps(path)
    if not maps.path.is_file():
        check_file_path(maps.path)
        device = device or default_device()
        model = model.to(device).eval()
        chooser = TASK_UTILS.build(selection).to(device).eval()
        loading = dict(batch_size=batch_size, num_workers=num_workers)
        _make(model, chooser, dataset, maps.path, made_with, loading, device, timeout, progress)
    maps.check(dataset, checkpoint)
    for key in ('selection', 'config'):
        if maps.metadata[key] != made_with[key]:
            raise ResponseMapError(
                f'{maps.path} was made with {key}={maps.metadata[key]!r}, this run asks for '
                f'{made_with[key]!r}. Delete it, or name another file'
            )
    return maps


def _portable(selection: dict) -> dict:
    """A selection without the folders of files, which say nothing."""
    named = selection.get('pretrained')
    return dict(selection, pretrained=Path(named).name) if named else dict(selection)


def _make(
    model: nn.Module,
    chooser: nn.Module,
    dataset: BaseReferringDataset,
    path: Path,
    made_with: dict[str, Any],
    loading: dict[str, int],
    device: str,
    timeout: float,
    progress: bool,
) -> None:
    rank, world = rank_and_world()
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
    work = path.with_name(f'{path.name}.work-{digest[:12]}')
    starts = range(0, len(dataset), BLOCK_SIZE)
    parts = {start: work / f'part-{start:08d}.safetensors' for start in starts}
    todo = [start for start in starts[rank::world] if not parts[start].is_file()]
    blocks = [range(start, min(start + BLOCK_SIZE, len(dataset))) for start in todo]
    bar = tqdm(
        total=sum(map(len, blocks)),
        desc='response maps',
        unit='image',
        disable=not (progress and rank == 0),
    )
    with bar, same_every_time(device):
        found = _run(model, chooser, dataset, blocks, **loading)
        for start, records in zip(todo, found):
            write_response_maps(parts[start], records, made_with)
            bar.update(min(BLOCK_SIZE, len(dataset) - start))
    if rank == 0:
        everything = list(parts.values())
        wait_for(
            lambda: all(part.is_file() for part in everything) or None,
            lambda: [work, *everything],
            timeout,
            f'the response maps in {work}',
        )
        readers = [ResponseMaps(part) for part in everything]
        records = [one.record(ref_id) for one in readers for ref_id in one.ref_ids.tolist()]
        write_response_maps(path, records, made_with)
        shutil.rmtree(work, ignore_errors=True)
    else:
        wait_for(
            lambda: path.is_file() or None,
            lambda: [work, *parts.values()],
            timeout,
            f'{path}, which rank 0 writes',
        )


def _run(
    model: nn.Module,
    chooser: nn.Module,
    dataset: BaseReferringDataset,
    blocks: Sequence[range],
    batch_size: int,
    num_workers: int,
) -> Iterator[list[ResponseMap]]:
    """Yield the maps of each block."""
    batches = [
        block[start : start + batch_size]
        for block in blocks
        for start in range(0, len(block), batch_size)
    ]
    last = {block[-1] for block in blocks}
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        worker_init_fn=end_with_parent,
        # Its own generator: the loader would draw a seed from the global one.
        generator=torch.Generator(),
    )
    records: list[ResponseMap] = []
    for rows, data in zip(batches, loader):
        records += respond(model, chooser, data)
        if rows[-1] in last:
            yield records
            records = []


@torch.no_grad()
def respond(model: nn.Module, chooser: nn.Module, data: dict) -> list[ResponseMap]:
    """Return the maps of all references of a batch.

    Args:
        model: The segmentor.
        chooser: Makes one map of several, see :class:`~nemo_mmseg.models.protocols.prms.PRMS`.
        data: Collated items of a data set.

    Raises:
        ValueError: An image was not stretched to the network's input.
    """
    data = model.data_preprocessor(data, False)
    images, samples = data['inputs'], data['data_samples']
    for sample in samples:
        _refuse_geometry(sample.metainfo, images)
    scores = foreground_margin(model.encode_decode(images, samples)).float()
    metas = [sample.metainfo for sample in samples]
    counts = torch.tensor([len(meta['expressions']) for meta in metas])
    expressions = [one for meta in metas for one in meta['expressions']]
    sent_ids = [one for meta in metas for one in meta['sent_ids']]
    ref_ids = [one for meta in metas for one in meta['ref_ids']]
    groups = groups_of(ref_ids)
    index = torch.arange(len(samples)).repeat_interleave(counts).to(images.device)
    selected = chooser(scores, images, index, expressions, list(groups.values()))
    kept = selected.scores.cpu().numpy()
    shape = tuple(images.shape[-2:])
    return [
        ResponseMap(ref_id, sent_ids[chosen] if chosen >= 0 else -1, one, shape)
        for ref_id, chosen, one in zip(groups, selected.chosen, kept, strict=True)
    ]


def _refuse_geometry(meta: dict, images: Tensor) -> None:
    if meta.get('warp_matrix') is not None or tuple(meta['img_shape'][:2]) != images.shape[-2:]:
        raise ValueError(
            f'{meta["img_path"]}: response maps need images that are stretched to the input of the '
            "network: dict(type='Resize', scale=..., keep_ratio=False), without letterbox or "
            'padding'
        )
