"""MaskRIS (Lee et al., 2024) against its published implementation: masks, and a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nemo_mmseg.models.converters.caris import TABLE
from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.segmentors.masked_training import MaskedTraining
from nemo_mmseg.models.utils.masking import (
    TokenVocabulary,
    hidden_patches,
    mask_images,
    mask_tokens,
)

from .common import Case, Comparison, load_converted
from .lavt import gt_of, image_of
from .small import Small

CASES = {'maskris': 'caris_swin-tiny-w7'}
# [MASK]; the ids that the published code never masks; the size of BERT's vocabulary
BERT = TokenVocabulary(filler=103, special=(0, 100, 101, 102, 103), size=30522)
CASE_TEXT = 0.5, (0.6, 0.3)  # ratio and shares of the case
UNUSED = 'backbone.vis_encoder.mask_token'
FLOAT32, FLOAT64, LOSS, GRADIENT = 1e-4, 1e-6, 1e-5, 1e-3


def unequal(what: str, ours: Tensor, theirs: np.ndarray) -> Comparison:
    """How many numbers of an array differ; none may."""
    wrong = float('inf')
    if tuple(ours.shape) == theirs.shape:
        wrong = int((ours.numpy() != theirs).sum())
    return Comparison(f'{what} {theirs.shape}', wrong, 0)


def settings(case: Case, name: str) -> list[str]:
    """What the keys ``name_SETTING_in`` or ``name_SETTING_noise`` have in the middle."""
    ends = '_in', '_noise'
    return [
        key[: -len(end)]
        for key in case.keys()
        for end in ends
        if key.startswith(name) and key.endswith(end)
    ]


def check_masking(folder: Path) -> Iterator[Comparison]:
    """Patches and tokens alone, for several settings."""
    case = Case(folder, 'masking.npz')
    for key in settings(case, 'image'):
        side, size, ratio = case[f'{key}_setting'].tolist()
        theirs = case[f'{key}_mask']
        noise = case.tensor(f'{key}_noise')
        hidden = hidden_patches(noise, ratio)
        name = f'{key}, {int(hidden[0].sum())} of {noise.shape[1]} hidden'
        yield unequal(name, hidden.int().unflatten(1, theirs.shape[1:]), theirs)
        image = torch.randn(len(noise), 3, int(side), int(side))
        enlarged = np.kron(theirs, np.ones((1, int(size), int(size))))[:, None]
        masked = mask_images(image, hidden, int(size))
        yield unequal(f'{key}, pixels', masked, image.numpy() * (1 - enlarged))
    for key in settings(case, 'text'):
        ratio, *shares = case[f'{key}_ratio'].tolist()
        case[f'{key}_seed']  # of Python's generator, whose numbers are stored
        ids, noise = case.tensor(f'{key}_in'), case.tensor(f'{key}_u')
        found = mask_tokens(
            ids, ids != 0, BERT, ratio, shares, noise, case.tensor(f'{key}_random_id')
        )
        yield unequal(key, found, case[f'{key}_out'])
    yield from case.all_read({})


def check_step(folder: Path) -> Iterator[Comparison]:
    """One step of training with given noise: masks, logits, losses and gradients."""
    case = Case(folder)
    model = load_converted('caris', dict(model=case.weights('model')))
    model.masked = MaskedTraining(patch_size=int(case['patch_size']))
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()
    noise = case.tensor('text_u'), case.tensor('text_random_id')
    masked_ids = mask_tokens(ids, mask, BERT, *CASE_TEXT, *noise)
    yield unequal('masked_ids', masked_ids, case['masked_ids'])
    image = image_of(case)
    hidden = hidden_patches(case.tensor('noise'), float(case['ratio']))
    yield unequal('patch_mask', hidden.int(), case['patch_mask'].reshape(hidden.shape))
    masked_image = mask_images(image, hidden, model.masked.patch_size)
    yield unequal('masked_image_sub', masked_image[:, :, ::8, ::8], case['masked_image_sub'])
    for name, value in (('norm', masked_image.norm()), ('sum', masked_image.double().sum())):
        error = abs(float(value) / float(case[f'masked_image_{name}']) - 1)
        yield Comparison(f'masked_image_{name}', error, 1e-6)

    samples = gt_of(case)
    logits: list[Tensor] = []
    model.decode_head.register_forward_hook(lambda m, args, out: logits.append(out.logits))

    def losses_of(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        logits.clear()
        pair = (image.to(dtype), ids), (masked_image.to(dtype), masked_ids)
        losses = model.losses_of_both(*pair, mask, samples)
        return losses[model.decode_head.loss_decode.loss_name], losses['loss_masked']

    clean, masked = losses_of(torch.float32)
    yield from compare_results(case, '', logits, (clean, masked), FLOAT32, LOSS)
    error = abs(float(clean + masked) / float(case['loss_total']) - 1)
    yield Comparison('loss_total', error, LOSS)
    clean.backward(retain_graph=True)
    yield from compare_gradients(case, model, '_pass1')
    masked.backward()
    yield from compare_gradients(case, model, '')
    with torch.no_grad():
        model.double()
        yield from compare_results(case, '64', logits, losses_of(torch.float64), FLOAT64, FLOAT64)
    own = 'how well the published code keeps to itself'
    yield from case.all_read({f'{run}_rel_f32_vs_f64': own for run in ('clean', 'masked')})


def compare_results(
    case: Case,
    bits: str,
    logits: list[Tensor],
    losses: tuple[Tensor, Tensor],
    tolerance: float,
    loss_tolerance: float,
) -> Iterator[Comparison]:
    """Logits and losses of both passes; the losses come with their weight of a half."""
    for name, low, half in zip(('clean', 'masked'), logits, losses, strict=True):
        yield from case.compare(f'{name}{bits}_logits_low', low.detach(), tolerance)
        key = f'loss{bits}_{name}'
        yield Comparison(key, abs(2 * float(half) / float(case[key]) - 1), loss_tolerance)


def compare_gradients(case: Case, model: nn.Module, passes: str) -> Iterator[Comparison]:
    """The norm of every gradient, and of all together."""
    back = inverse(TABLE)
    found = {translate(back, name): p.grad for name, p in model.named_parameters()}
    names = [str(name) for name in case['grad_name']]
    theirs = dict(zip(names, case[f'grad_norm{passes}'], strict=True))
    dead = [name for name, norm in theirs.items() if np.isnan(norm)]
    yield Comparison(f'without gradient {dead}', float(dead != [UNUSED]), 0)
    only = found.keys() ^ (set(names) - set(dead))
    yield Comparison('parameters that only one of both has', len(only), 0)
    ours = {name: float(grad.double().norm()) for name, grad in found.items()}
    total = float(case[f'grad_total_norm{passes}'])
    error = abs(np.linalg.norm(list(ours.values())) / total - 1)
    yield Comparison(f'grad_total_norm{passes}', error, GRADIENT)
    # A bias of keys moves all scores alike: its gradient is rounding, here and there.
    for name, norm in ours.items():
        error = abs(norm - theirs[name]) / max(theirs[name], 1e-6 * total)
        yield Comparison(f'gradient{passes} of {name}', error, GRADIENT, middle=True)


SMALL = Small(names={'case.npz': 'names.json', 'masking.npz': None})
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'masking': check_masking,
    'step': check_step,
}
