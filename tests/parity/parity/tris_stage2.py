"""TRIS, stage 2 (Liu et al., 2023) against its published implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.structures import HeadOutput

from .common import Case, Comparison, Tap, compare_middle, first, relative, tapped
from .small import Small
from .tris_common import (
    CLIP_TAPS,
    Published,
    compare_gradients,
    compare_ids,
    compare_masks,
    image_of,
    stored_middle,
    summaries,
    unused_keys,
)

CASES = ('tris_stage2',)
BOTH = torch.float32, torch.float64
SIDES = (40, 20, 10)
UNUSED = {
    'visual_attnpool_global_unused': 'the pool, which nothing uses',
    'visual_attnpool_map_unused': 'the pool, which nothing uses',
    'text_state': 'the sentence feature, which nothing uses',
}
NOT_COMPARED = {
    'logits_samples': 'which samples are stored: all',
    'f64/rel_err_of_float32_logits': 'how well the published code keeps to itself',
}


def taps_of() -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    taps = dict(CLIP_TAPS)
    for i, side in enumerate(SIDES):

        def as_map(x: Tensor, side: int = side) -> Tensor:
            return first(x).transpose(1, 2).unflatten(2, (side, side))

        fusion = f'decode_head.fusions.{i}'
        taps[f'attention{i + 2}_query'] = Tap(f'{fusion}.query_norm', as_map)
        taps[f'attention{i + 2}_ins_w'] = Tap(f'{fusion}.out_norm', as_map)
        taps[f'attention{i + 2}_out'] = Tap(fusion, as_map)
    for i in range(4):
        taps[f'reduced_c{i + 1}'] = Tap(f'decode_head.reductions.{i}')
        taps[f'output{i + 1}'] = Tap(f'decode_head.steps.{i}')
        taps[f'final_seg{i + 1}_lowres'] = Tap(f'decode_head.outputs.{i}')
    return taps


def full(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """What the published network returns: its logits at the size of the image."""
    return F.interpolate(logits, size, mode='bilinear', align_corners=False)


@torch.no_grad()
def check_network(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """From the expressions to logits and masks."""
    case = Case(folder)
    published = Published(case, 'tris_stage2')
    for dtype in dtypes:
        model, image, bits = published.network(dtype), image_of(case, dtype), str(dtype)[-2:]
        yield from compare_ids(case, model)
        samples = [
            SegDataSample(metainfo=dict(expressions=[one])) for one in case['texts'].tolist()
        ]
        with tapped(model, taps_of()) as middle:
            low = model.encode_decode(image, samples)
        logits = full(low, image.shape[-2:])
        if dtype == torch.float64:
            yield from case.compare('f64/final_seg1_lowres', low, 1e-6)
        yield from case.compare('logits', logits, 1e-4, f'float{bits} logits')
        middle |= summaries(dict(logits=logits))
        wanted = stored_middle(case, 'mid')
        yield from compare_middle(f'float{bits}', middle, wanted, 2e-4, UNUSED)
    yield from compare_masks(case, logits)
    if len(dtypes) == 2:
        yield from case.all_read({**NOT_COMPARED, **unused_keys(case, 'mid', UNUSED)})


def check_training(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """A step of training: four outputs, their losses, gradients."""
    case = Case(folder, 'train.npz')
    published = Published(case, 'tris_stage2')
    for dtype in dtypes:
        yield from step(case, published, published.network(dtype).train(), dtype)
    if len(dtypes) == 2:
        yield from case.all_read({**NOT_COMPARED, **unused_keys(case, 'train_mid', UNUSED)})


def step(
    case: Case, published: Published, model: nn.Module, dtype: torch.dtype
) -> Iterator[Comparison]:
    """The comparisons of a step in one precision."""
    double = dtype == torch.float64
    prefix, tolerance = ('f64/', 1e-6) if double else ('', 1e-4)
    image, ids = image_of(case, dtype), case.tensor('token_ids').long()
    size = tuple(image.shape[-2:])
    samples = []
    for left, top, right, bottom in case['mask_boxes_xyxy'].tolist():
        mask = torch.zeros(1, *size, dtype=torch.uint8)
        mask[:, top:bottom, left:right] = 1
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=mask)))
    with tapped(model, taps_of()) as middle:
        text = model.text_encoder.encode(ids, ids != 0)
        output: HeadOutput = model.decode_head(*model.extract_feat(image, text))
    losses = model.decode_head.loss(output, text, samples)
    losses = torch.stack([value for name, value in losses.items() if 'loss' in name])
    losses.sum().backward()
    key = f'{prefix}loss/l1_l2_l3_l4'
    yield Comparison(key, relative(losses.detach(), case[key]), tolerance)
    key = f'{prefix}loss/total'
    yield Comparison(key, relative(losses.detach().sum(), case[key]), tolerance)
    gradients = 'f64/grad' if double else 'train/grad'
    yield from compare_gradients(case, gradients, published, model, 1e-6 if double else 1e-2)
    if not double:
        for i, low in enumerate((output.logits, *output.extras.values()), 1):
            logits = full(low.detach(), size)
            yield from case.compare(f'train/logits{i}', logits, 2e-4)
            yield from case.compare(f'logits{i}_stride4', logits[:, :, ::4, ::4], 2e-4)
    wanted = stored_middle(case, 'train_mid')
    yield from compare_middle(f'{prefix}train', middle, wanted, 5e-4, UNUSED)


SMALL = Small(
    names={'case.npz': 'names.json', 'train.npz': 'names.json'},
    summarized=('logits', 'f64/final_seg1_lowres', *(f'logits{i}_stride4' for i in range(1, 5))),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'case': check_network,
    'train': check_training,
}
