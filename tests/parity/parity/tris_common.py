"""What the cases of TRIS's two stages (Liu et al., 2023) share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.models.converters.rename import translate
from nemo_mmseg.models.protocols.tris import TRISProtocol
from nemo_mmseg.models.structures import HeadOutput

from .common import Case, Comparison, Tap, load_converted, relative, rows_first, summarize

# Intermediate result of a case -> where it is in our network, for both stages.
CLIP_TAPS = {
    'text_block0_LND': Tap('text_encoder.tower.transformer.resblocks.0', rows_first),
    'text_words': Tap('text_encoder.tower.ln_final'),
    'visual_c1': Tap('backbone.tower.layer1'),
    'visual_c2': Tap('backbone.tower.layer2'),
    'visual_c3': Tap('backbone.tower.layer3'),
    'visual_c4': Tap('backbone.tower.layer4'),
}


class Published:
    """A published checkpoint: our networks with its weights, and its names for ours."""

    def __init__(self, case: Case, method: str, changes: Mapping[str, Any] | None = None) -> None:
        self.case = case
        self.method = method
        self.changes = {'model.text_encoder.keep_end': False, **(changes or {})}

    def network(self, dtype: torch.dtype) -> nn.Module:
        """Our network, in evaluation mode, without trace of any training."""
        published = dict(model=self.case.weights())
        return load_converted(self.method, published, self.changes).to(dtype)

    def ours(self, model: nn.Module, name: str) -> Tensor:
        """Our parameter or buffer of a published name."""
        table = CONVERTERS[self.method].table
        found = translate(table, name)
        owner, _, leaf = found.rpartition('.')
        return getattr(model.get_submodule(owner), leaf)


def stored_middle(case: Case, prefix: str) -> dict[str, dict]:
    """The intermediate results under a prefix."""
    names = dict.fromkeys(key.split('/')[1] for key in case.keys() if key.startswith(f'{prefix}/'))
    return {name: case.summary(f'{prefix}/{name}') for name in names}


def compare_ids(case: Case, model: nn.Module) -> Iterator[Comparison]:
    """Token ids of the expressions."""
    ids, _ = model.text_encoder.tokenize(case['texts'].tolist())
    yield Comparison('token ids', float((ids.numpy() != case['token_ids']).sum()), 0)


def image_of(case: Case, dtype: torch.dtype) -> Tensor:
    """The images of a case, (B, 3, H, W)."""
    seed = int(case['image_seed' if 'image_seed' in case else 'seed'])
    size = case['image_size'].tolist() if 'image_size' in case else (320, 320)
    return case.fill.make_image(int(case['batch']), *size, seed).to(dtype)


def compare_gradients(
    case: Case, prefix: str, published: Published, model: nn.Module, tolerance: float
) -> Iterator[Comparison]:
    """Norms of the gradients that are stored."""
    for key in [key for key in case.keys() if key.startswith(f'{prefix}/')]:
        ours = float(published.ours(model, key.removeprefix(f'{prefix}/')).grad.norm())
        yield Comparison(key, relative(ours, case[key]), tolerance)


@contextmanager
def norms_moved(
    case: Case, published: Published, model: nn.Module, found: list[Comparison]
) -> Iterator[None]:
    """Compares running statistics of batch normalisations around a step of training.

    What is stored of them are those before the step. That they move by a tenth towards the batch is
    told by the inputs of the norms.

    Args:
        case: The case.
        published: Knows the names.
        model: The network, before the step.
        found: Gets the comparisons when the step is made.
    """
    prefix = 'train/bn_after/'
    wanted, handles = {}, []
    for key in [key for key in case.keys() if key.startswith(prefix)]:
        name = key.removeprefix(prefix).removesuffix('_first64')
        before = published.ours(model, name).clone()
        difference = relative(before[: len(case[key])], case[key])
        found.append(Comparison(f'{key}, before the step', difference, 1e-6))

        def look(module: nn.Module, args: tuple, name: str = name, before: Tensor = before) -> None:
            variance, mean = torch.var_mean(args[0].detach(), dim=(0, 2, 3))
            wanted[name] = 0.9 * before + 0.1 * (mean if name.endswith('mean') else variance)

        norm = translate(CONVERTERS[published.method].table, name).rpartition('.')[0]
        handles.append(model.get_submodule(norm).register_forward_pre_hook(look))
    yield
    for handle in handles:
        handle.remove()
    for name, expected in wanted.items():
        difference = relative(published.ours(model, name), expected)
        found.append(Comparison(f'{name} after the step', difference, 1e-6))


def compare_masks(case: Case, logits: Tensor) -> Iterator[Comparison]:
    """The worked example of the test procedure.

    It starts from what is above the median of each map, so that there is something to cut.
    """
    shape = tuple(case['post/ori_hw'].tolist())
    logits = logits.float()
    response = (logits - logits.flatten(1).median(dim=1).values[:, None, None, None]).relu()
    sample = SegDataSample(metainfo=dict(ori_shape=shape))
    TRISProtocol()(HeadOutput(response), torch.empty(3, *logits.shape[-2:]), sample)
    maps = sample.seg_logits.data
    for i, one in enumerate(maps):
        yield from case.compare(f'post/map{i}', one, 5e-4)
        y, x = case['post/argmax_yx'][i].tolist()
        # the largest value, and the first of equal ones: maxima can differ by rounding
        yield Comparison(f'post/argmax_yx of map {i}', float(one.max() - one[y, x]), 1e-4)
    masks = sample.pred_sem_seg.data.numpy()
    theirs = case['post/mask_packed']
    theirs = np.stack([np.unpackbits(one)[: shape[0] * shape[1]].reshape(shape) for one in theirs])
    # pixels at the median, to whose sides rounding brings them
    yield Comparison('pixels of a mask that differ', float((masks != theirs).sum((1, 2)).max()), 60)
    area = np.abs(masks.sum((1, 2)) - case['post/mask_area']).max()
    yield Comparison('post/mask_area', float(area), 60)


def summaries(tensors: Mapping[str, Tensor]) -> dict[str, dict]:
    """Summaries of several tensors."""
    return {name: summarize(tensor) for name, tensor in tensors.items()}


def unused_keys(case: Case, prefix: str, unused: Mapping[str, str]) -> dict[str, str]:
    """Keys of the intermediate results that our network does not compute, and why."""
    return {
        key: reason
        for name, reason in unused.items()
        for key in case.keys()
        if key.startswith(f'{prefix}/{name}/')
    }
