"""A step of VPD's training: loss, gradients, groups of the optimizer, and how far weights move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.models.converters.rename import look_up, translate

from .common import Case, Comparison, relative
from .lavt import gt_of, image_of

SCHEDULE = Path(__file__).parents[3] / 'configs' / '_base_' / 'schedules' / 'vpd_40e.py'
# Decay of the published groups. Nothing of group 2 learns, group 3 is empty.
DECAYS = (0.0, 0.01, None, None, 0.01)
# Gradients that are 0 but for rounding, in float64: Adam makes whole steps of that.
NOTHING = 1e-15


def ours_of(model: nn.Module, name: str) -> Tensor | None:
    """Our parameter or buffer of a published name; None where we have none."""
    converter = CONVERTERS['vpd']
    if look_up(converter.left_out, name) is not None:
        return None
    owner, _, leaf = translate(converter.table, name).rpartition('.')
    return getattr(model.get_submodule(owner), leaf)


def largest(differences: list[float]) -> float:
    """The largest difference; infinite if there are none."""
    return float(np.max(differences)) if differences else float('inf')


def check_training(
    case: Case, step: Case, model: nn.Module, dtype: torch.dtype
) -> Iterator[Comparison]:
    """Compare a step of training.

    Args:
        case: Has the inputs.
        step: Has the results.
        model: Our network with the weights of the case.
        dtype: Its precision.
    """
    bits, double = str(dtype)[-2:], dtype == torch.float64
    tolerance = 1e-6 if double else 2e-5
    model.train()
    ids, image = case.tensor('token_ids'), image_of(case).to(dtype)
    text = model.text_encoder.encode(ids, ids > 0)
    output = model.decode_head(*model.extract_feat(image, text))
    loss = model.decode_head.loss(output, text, gt_of(case))['loss_ce']
    loss.backward()
    difference = abs(float(loss) / float(step['train_loss']) - 1)
    yield Comparison(f'float{bits} train_loss', difference, tolerance)
    full = F.interpolate(output.logits, image.shape[-2:], mode='bilinear', align_corners=True)
    quarter = full[:, :, ::4, ::4].detach()
    yield from step.compare(
        'train_logits_quarter', quarter, 2e-5, f'float{bits} train_logits_quarter'
    )
    yield from compare_gradients(step, model, bits)
    differences = [
        relative(ours_of(model, name).norm(), norm)
        for name, norm in zip(step['bn_name'].tolist(), step['bn_norm'], strict=True)
    ]
    yield Comparison(
        f'float{bits} statistics of {len(differences)} norms', largest(differences), 2e-5
    )
    yield from compare_optimizer(step, model, bits)


def compare_gradients(step: Case, model: nn.Module, bits: str) -> Iterator[Comparison]:
    """Norms and first values of the gradients of all parameters."""
    norms, heads = [], []
    stored = step['grad_norm64'] if bits == '64' else step['grad_norm']
    for i, name in enumerate(step['grad_name'].tolist()):
        if step['grad_norm64'][i] < NOTHING:
            continue
        gradient = ours_of(model, name).grad
        norms.append(relative(gradient.norm(), stored[i]))
        head, theirs = gradient.flatten()[:4], step['grad_head'][i]
        # a first value may be small by chance: compared in units of all values
        usual = float(stored[i]) / gradient.numel() ** 0.5
        heads.append(float(np.abs(head.numpy() - theirs[: len(head)]).max()) / usual)
    tolerance = 1e-6 if bits == '64' else 1e-4
    yield Comparison(f'float{bits} gradients of {len(norms)} tensors', largest(norms), tolerance)
    yield Comparison(f'float{bits} first values of these', largest(heads), 1e-4)
    without = [ours_of(model, name) for name in step['no_grad_name'].tolist()]
    found = [one for one in without if one is not None and one.grad is not None]
    yield Comparison(f'float{bits} gradients where there must be none', len(found), 0)


def compare_optimizer(step: Case, model: nn.Module, bits: str) -> Iterator[Comparison]:
    """Groups of the optimizer, and how far it moves every tensor."""
    schedule = Config.fromfile(SCHEDULE)
    MMLogger.get_current_instance().setLevel('ERROR')  # a line for each tensor
    optimizer = build_optim_wrapper(model, schedule.optim_wrapper).optimizer
    decay = {
        id(parameter): group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    rates = {group['lr'] for group in optimizer.param_groups}
    yield Comparison('learning rates other than 5e-5', len(rates - {5e-5}), 0)
    nothing = set(step['grad_name'][step['grad_norm64'] < NOTHING].tolist())
    before = {id(parameter): parameter.detach().clone() for parameter in model.parameters()}
    optimizer.step()
    wrong, moved = [], []
    rows = zip(step['param_name'].tolist(), step['param_group'], step['step_delta_norm'])
    for name, group, distance in rows:
        parameter = ours_of(model, name)
        if parameter is None:
            continue
        wrong += [name] if decay.get(id(parameter)) != DECAYS[group] else []
        if name not in nothing and parameter.requires_grad:
            moved.append(relative((parameter.detach() - before[id(parameter)]).norm(), distance))
    yield Comparison(f'tensors in a wrong group {wrong[:3]}', len(wrong), 0)
    # a step is a millionth of a weight: float32 stores it to a thousandth
    yield Comparison(f'float{bits} first steps of {len(moved)} tensors', largest(moved), 1e-3)
