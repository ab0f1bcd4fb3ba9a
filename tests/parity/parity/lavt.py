"""LAVT (Yang et al., 2022) against its published implementation, in both checkpoint layouts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.evaluation.iou import count_pixels
from nemo_mmseg.models.converters.lavt import convert_lavt
from nemo_mmseg.models.protocols.lavt import LAVTProtocol
from nemo_mmseg.models.structures import HeadOutput, TextFeatures

from .common import (
    Case,
    Comparison,
    Summary,
    Tap,
    channels_first,
    compare_middle,
    load_converted,
    tapped,
    tell_left_out,
    without_text,
)
from .small import Small

# Case -> base model of backbone and head, for the check without BERT; the others find it out.
CASES = {'lavt_swin_t': 'lavt_swin-tiny-w7', 'lavt_swin_b': 'lavt_swin-base-w12'}
# Our network does not have these.
ABSENT = {
    'stage3.gate': 'nothing uses the gate of the last stage',
    'stage3.gated': 'nothing uses the gate of the last stage',
}
NOT_COMPARED = {
    'e2e_rel_f32_vs_f64': 'how well the published code keeps to itself',
    'feat_rel_f32_vs_f64': 'how well the published code keeps to itself',
}

# The words that BERT makes of random weights are nearly equal; their fusion removes what is common
# and so magnifies the rounding of the rest a thousand times, here and in the published code.
MAGNIFIED = re.compile(r'pwam$|pwam\.lang$|gate$|out_norm$|^decoder')


def activated(x: Tensor) -> Tensor:
    """The projection of the pixels after its GELU, (B, C, N)."""
    return channels_first(F.gelu(x))


def normalised(x: Tensor) -> Tensor:
    """Instance normalisation over the pixels, (B, C, N)."""
    return F.instance_norm(channels_first(x))


def as_map(output: tuple[Tensor, tuple[int, int]]) -> Tensor:
    """Pixels and their map's size -> (B, C, H, W)."""
    return channels_first(output[0]).unflatten(2, output[1])


def backbone_taps(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of Swin and its fusions -> where it is in our network."""
    taps = {'patch_embed': Tap('backbone.patch_embed', as_map)}
    for i, stage in enumerate(model.backbone.stages):
        blocks, fusion = f'backbone.stages.{i}.blocks', f'backbone.fusions.{i}'
        taps |= {
            f'stage{i}.block0': Tap(f'{blocks}.0'),
            f'stage{i}.block1': Tap(f'{blocks}.1'),
            f'stage{i}.swin': Tap(f'{blocks}.{len(stage.blocks) - 1}'),
            f'stage{i}.pwam.vis': Tap(f'{fusion}.visual', activated),
            f'stage{i}.pwam.query': Tap(f'{fusion}.query', normalised),
            f'stage{i}.pwam.key': Tap(f'{fusion}.key', channels_first),
            f'stage{i}.pwam.value': Tap(f'{fusion}.value', channels_first),
            f'stage{i}.pwam.lang_prenorm': Tap(f'{fusion}.out', channels_first),
            f'stage{i}.pwam.lang': Tap(f'{fusion}.out', lambda x: normalised(x).transpose(1, 2)),
            f'stage{i}.pwam': Tap(fusion),
            f'stage{i}.out_norm': Tap(f'backbone.norm{i}'),
        }
        if i < 3:
            taps |= {
                f'stage{i}.gate': Tap(f'backbone.gates.{i}'),
                f'stage{i}.gated': Tap(f'backbone.stages.{i}.downsample', of_input=True),
                f'stage{i}.downsample': Tap(f'backbone.stages.{i}.downsample'),
            }
    return taps


def text_taps(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of BERT, if the network has it -> where it is in our network."""
    if not hasattr(model, 'text_encoder'):
        return {}
    return {
        'bert.embeddings': Tap('text_encoder.bert.embeddings'),
        'bert.layer0': Tap('text_encoder.bert.encoder.layer.0'),
        'bert.layer5': Tap('text_encoder.bert.encoder.layer.5'),
        'bert.last_hidden': Tap('text_encoder.bert.encoder.layer.11'),
    }


def taps_of(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    taps = backbone_taps(model) | text_taps(model)
    for i in range(3):
        taps |= {
            f'decoder.step{4 - i}a': Tap(f'decode_head.steps.{i}.conv1'),
            f'decoder.step{4 - i}b': Tap(f'decode_head.steps.{i}.conv2'),
        }
    taps['decoder.logits'] = Tap('decode_head.conv_seg')
    return taps


def stored_middle(case: Case, run: str) -> dict[str, Summary]:
    """The intermediate results of a run of the published code."""
    columns = {part: case[f'{run}_dbg_{part}'] for part in ('shape', 'mean', 'std', 'norm', 'head')}
    return {
        str(name): {
            **{part: column[i] for part, column in columns.items()},
            # padded with zeros
            'shape': tuple(n for n in columns['shape'][i].tolist() if n),
            'head': columns['head'][i][: columns['shape'][i][columns['shape'][i] > 0].prod()],
        }
        for i, name in enumerate(case[f'{run}_dbg_name'])
    }


def gt_of(case: Case) -> list[SegDataSample]:
    """A data sample with the stored target for each image."""
    shape = case['target'].shape[1:]
    return [
        SegDataSample(
            metainfo=dict(expressions=['a'], ori_shape=shape),
            gt_sem_seg=PixelData(data=target[None]),
        )
        for target in case.tensor('target')
    ]


def loss_of(head: nn.Module, logits: Tensor, samples: list[SegDataSample]) -> float:
    """The head's loss for logits that it made before."""
    return float(head.loss(HeadOutput(logits), None, samples)[head.loss_decode.loss_name])


def compare_results(
    case: Case,
    run: str,
    head: nn.Module,
    logits: Tensor,
    tolerance: float,
    loss_tolerance: float | None = None,
) -> Iterator[Comparison]:
    """Logits of both sizes, losses, masks and what is counted of them.

    Args:
        case: The case.
        run: What its keys begin with.
        head: Our head.
        logits: Ours, (B, 2, H/4, W/4).
        tolerance: Relative difference that logits may have.
        loss_tolerance: The same of losses; None takes that of logits.
    """
    yield from case.compare(f'{run}_logits_low', logits, tolerance)
    samples = gt_of(case)
    size = tuple(case['target'].shape[1:])
    full = F.interpolate(logits, size, mode='bilinear', align_corners=True)
    for key, x in ((f'{run}_logits', full), (f'{run}_logits_quarter', full[:, :, ::4, ::4])):
        if key in case:
            yield from case.compare(key, x, tolerance)

    loss_tolerance = loss_tolerance or tolerance
    losses = [loss_of(head, logits[i : i + 1], [sample]) for i, sample in enumerate(samples)]
    each = case[f'{run}_loss_per_sample']
    loss = abs(loss_of(head, logits, samples) / float(case[f'{run}_loss']) - 1)
    yield Comparison(f'{run}_loss', loss, loss_tolerance)
    yield Comparison(f'{run}_loss_per_sample', relative_each(losses, each), loss_tolerance)

    counts = []
    for row, sample in zip(logits, samples, strict=True):
        LAVTProtocol(size)(HeadOutput(row[None]), torch.empty(3, *size), sample)
        mask = sample.pred_sem_seg.data
        counts.append(torch.cat(count_pixels(mask, sample.gt_sem_seg.data)[:2]))
    masks = torch.cat([sample.pred_sem_seg.data for sample in samples]).numpy()
    theirs = np.unpackbits(case[f'{run}_mask_bits'])[: masks.size].reshape(masks.shape)
    wrong = float((masks != theirs).sum())
    # pixels whose two logits are closer than the rounding
    yield Comparison(f'{run} pixels of all masks that differ', wrong, tolerance * masks.size)
    counts = torch.stack(counts).numpy()
    for part, ours in zip(('inter', 'union'), counts.T):
        error = float(np.abs(ours - case[f'{run}_{part}']).max())
        yield Comparison(f'{run}_{part}', error, wrong)


def relative_each(ours: list[float], theirs: np.ndarray) -> float:
    """The largest relative difference of single numbers."""
    return float(np.abs(np.array(ours) / theirs - 1).max())


@torch.no_grad()
def check_features(folder: Path) -> Iterator[Comparison]:
    """Backbone and head alone, with stored features of the words in place of BERT's."""
    case = Case(folder)
    weights, left_out = convert_lavt(dict(model=case.weights('model'), bert_model={}))
    tell_left_out(left_out)
    model = without_text('lavt', CASES[folder.name])
    model.load_state_dict(weights)
    image = image_of(case)
    words, mask = case.tensor('lang_feats'), case.tensor('attention_mask').bool()

    def run() -> Tensor:
        index = torch.arange(len(words))
        text = TextFeatures(words.to(image), mask, None, index, one_to_one=True)
        return model.decode_head(model.backbone(model.backbone(image), text), text).logits

    with tapped(model, taps_of(model)) as middle:
        logits = run()
    yield from compare_results(case, 'feat', model.decode_head, logits, 1e-4)
    yield from compare_middle('feat', middle, stored_middle(case, 'feat'), 1e-4, ABSENT)
    model, image = model.double(), image.double()
    logits = run()
    loss = loss_of(model.decode_head, logits, gt_of(case))
    # float32 results of the published code: as far off as its own rounding
    yield from case.compare('feat_logits_low', logits, 1e-5, 'feat_logits_low, ours in float64')
    yield Comparison('feat64_loss', abs(loss / float(case['feat64_loss']) - 1), 1e-6)
    yield from case.all_read(NOT_COMPARED, ('feat', 'lang'))


@torch.no_grad()
def check_end_to_end(folder: Path, method: str = 'lavt') -> Iterator[Comparison]:
    """From token ids to masks.

    Args:
        folder: The case folder.
        method: ``'lavt'`` or ``'lavt_one'``, the layout of the checkpoint.
    """
    if method == 'lavt':
        case = Case(folder)
        published = {part: case.weights(part) for part in ('model', 'bert_model')}
    else:
        case = Case(folder, f'case_{method}.npz', f'names_{method}.json')
        published = dict(model=case.weights('model'))
    model = load_converted(method, published)
    image = image_of(case)
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()

    def run() -> tuple[Tensor, Tensor]:
        text = model.text_encoder.encode(ids, mask)
        return text.words, model.decode_head(*model.extract_feat(image, text)).logits

    with tapped(model, taps_of(model)) as middle:
        words, logits = run()
    yield from case.compare('bert_last_hidden', words, 1e-4)
    yield from compare_results(case, 'e2e', model.decode_head, logits, 1e-2)
    stored = stored_middle(case, 'e2e')
    tolerance = {key: 1e-2 if MAGNIFIED.search(key) else 1e-4 for key in stored}
    yield from compare_middle(f'{method} e2e', middle, stored, tolerance, ABSENT)
    model, image = model.double(), image.double()
    words, logits = run()
    loss = loss_of(model.decode_head, logits, gt_of(case))
    yield from case.compare('bert_last_hidden', words, 1e-5, 'bert_last_hidden, ours in float64')
    yield from case.compare('e2e64_logits_low', logits, 1e-6)
    yield Comparison('e2e64_loss', abs(loss / float(case['e2e64_loss']) - 1), 1e-6)
    yield from case.all_read(NOT_COMPARED, ('e2e', 'bert'))


def check_one_module(folder: Path) -> Iterator[Comparison]:
    """From token ids to masks, for the layout with BERT inside, whose weights differ."""
    yield from check_end_to_end(folder, 'lavt_one')


def image_of(case: Case) -> Tensor:
    """The images of a case, (B, 3, H, W)."""
    batch, _, height, width = case['image_shape'].tolist()
    return case.fill.make_image(batch, height, width, int(case['image_seed']))


SMALL = Small(
    names={'case.npz': 'names.json', 'case_lavt_one.npz': 'names_lavt_one.json'},
    summarized=('bert_last_hidden', 'feat_logits_low', 'e2e_logits_low', 'e2e64_logits_low'),
    dropped=('feat_logits', 'feat_logits_quarter', 'e2e_logits_quarter'),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'features': check_features,
    'end-to-end': check_end_to_end,
    'lavt_one': check_one_module,
}
