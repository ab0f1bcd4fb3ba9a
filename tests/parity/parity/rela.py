"""ReLA (Liu et al., 2023) against its published implementation.

The regions must not look where their masks are below a threshold, so that rounding can switch
entries of these attention masks, and a switched one changes all that follows. In float64 ours are
compared with the stored ones; in float32 the decoder is given the stored ones, and how many of ours
differ is a comparison of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.evaluation.iou import count_pixels
from nemo_mmseg.models.converters.rela import convert_rela
from nemo_mmseg.models.converters.rename import translate
from nemo_mmseg.models.decode_heads.rela_head import minimap_of
from nemo_mmseg.models.protocols.rela import ReLAProtocol
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.positions import relative_sine_position_2d

from .common import (
    Case,
    Comparison,
    Summary,
    Tap,
    compare_middle,
    load_converted,
    rows_first,
    summarize,
    tapped,
    tell_left_out,
    without_text,
)
from .lavt import backbone_taps, image_of, stored_middle
from .small import Small

# Case -> base model, for the check without BERT; the other finds it out.
CASES = {'rela_swin_t': 'rela_swin-tiny-w7', 'rela_swin_b': 'rela_swin-base-w12'}
LANG_WEIGHT = 'sem_seg_head.predictor.lang_weight'
NOT_COMPARED = {
    f'{run}_{key}': 'how well the published code keeps to itself'
    for run in ('feat', 'e2e')
    for key in (
        'attn_margin',
        'flips_f32_vs_f64',
        *(f'{x}_rel_f32_vs_f64' for x in ('pred_masks', 'minimap', 'nt_logits', 'all_masks')),
    )
}
# Gradients of these come through all layers of the decoder, whose rounding adds up. The first is a
# single number, a sum in which most terms cancel.
DEEP = {
    'predictor.lang_weight': 1e-2,
    'predictor.lang_proj': 3e-3,
    'predictor.RLA_lang_att': 3e-3,
    'predictor.RIA_layers.0.': 3e-3,
    'predictor.RLA_vision.0.': 3e-3,
    'predictor.transformer_ffn_layers.0.': 3e-3,
    'predictor.query_': 3e-3,
    'predictor.level_embed': 3e-3,
    'fusion.image_lang_att': 3e-3,
    # An instance norm takes this bias out: 1e-5 of rounding, of a largest gradient of 1469. CPUs
    # with AVX2 round it otherwise than those with AVX-512.
    'fusion.image_lang_att.f_value.0.bias': 2e-2,
}


def published_weights(case: Case, without: str | None = None) -> dict[str, Tensor]:
    """The weights of a case."""
    weights = case.weights('model', without)
    # The rule makes a vector of this single number. The network of the case kept its initial value:
    # with the drawn one, all after the first language attention differs.
    weights[LANG_WEIGHT] = torch.tensor(0.0)
    return weights


def taps_of(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    first = 'neck.layers.0.attention'
    taps = backbone_taps(model) | {
        'pixel.layer0.value': Tap(f'{first}.value_proj'),
        'pixel.layer0.offsets': Tap(f'{first}.sampling_offsets'),
        'pixel.layer0.attn_logits': Tap(f'{first}.attention_weights'),
        'pixel.adapter_1': Tap('neck.fpn.lateral'),
        'pixel.layer_1': Tap('neck.fpn.output'),
        'pixel.mask_features': Tap('neck.mask_features'),
        'dec.lang_proj': Tap('decode_head.layers.0.language.proj'),
        'dec.rla_lang': Tap('decode_head.layers.0.language.norm', rows_first),
    }
    for i in range(3):
        taps[f'pixel.input_proj{i}'] = Tap(f'neck.input_projs.{i}')
    for i in range(len(model.neck.layers)):
        taps[f'pixel.layer{i}.msda'] = Tap(f'neck.layers.{i}.attention')
        taps[f'pixel.layer{i}'] = Tap(f'neck.layers.{i}')
    for i in range(len(model.decode_head.layers)):
        layer = f'decode_head.layers.{i}'
        taps[f'dec.layer{i}.ria'] = Tap(f'{layer}.image_norm', rows_first)
        taps[f'dec.layer{i}.rla_vision'] = Tap(f'{layer}.region_norm', rows_first)
        taps[f'dec.layer{i}.ffn'] = Tap(layer, rows_first)
    return taps


@dataclass
class Run:
    """What a pass through our network computed.

    Args:
        output: Of the head.
        finest: Map (B, C, H/4, W/4) that the head was given.
        maps: The other maps, of stride 8, 16 and 32.
        regions: What each of the layers was given, and what the last returned, (B, 100, C).
        forbidden: Our attention masks, (B, 100, N) bool.
    """

    output: HeadOutput | None = None
    finest: Tensor | None = None
    maps: tuple[Tensor, ...] = ()
    regions: list[Tensor] = field(default_factory=list)
    forbidden: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(model: nn.Module, run: Run, given: list[Tensor] | None) -> Iterator[None]:
    """Notes regions and attention masks of a pass, and replaces the masks by given ones."""
    head = model.decode_head
    ours = head.forbidden

    def forbidden(regions: Tensor, finest: Tensor, size: tuple[int, int]) -> Tensor:
        run.regions.append(regions)
        run.forbidden.append(ours(regions, finest, size))
        return run.forbidden[-1] if given is None else given[len(run.forbidden) - 1]

    head.forbidden = forbidden
    handle = head.layers[-1].register_forward_hook(lambda *args: run.regions.append(args[2]))
    try:
        yield
    finally:
        handle.remove()
        del head.forbidden


def run_network(
    model: nn.Module, image: Tensor, text: TextFeatures, given: list[Tensor] | None = None
) -> Run:
    """Pass images through backbone, neck and head.

    Args:
        model: Our network.
        image: (B, 3, H, W).
        text: The expressions.
        given: Attention masks to use; None for our own.
    """
    run = Run()
    with recorded(model, run, given):
        run.finest, *maps = model.neck(model.backbone(model.backbone(image), text))
        run.maps = tuple(maps)
        run.output = model.decode_head((run.finest, *maps), text)
    return run


def stored_masks(case: Case, run: str) -> list[Tensor]:
    """The attention masks of the published code, (B, 100, N) bool."""
    batch, _, height, width = case['image_shape'].tolist()
    masks = []
    for i in range(9):
        stride = (32, 16, 8)[i % 3]
        shape = batch, 100, (height // stride) * (width // stride)
        bits = np.unpackbits(case[f'{run}_attn_mask{i}_bits'])[: np.prod(shape)]
        masks.append(torch.from_numpy(bits.reshape(shape)).bool())
    return masks


def samples_of(case: Case) -> list[SegDataSample]:
    """A data sample with the stored target for each image."""
    shape = case['target'].shape[1:]
    return [
        SegDataSample(
            metainfo=dict(expressions=['a'], ori_shape=shape, num_targets=[int(not empty)]),
            gt_sem_seg=PixelData(data=target[None]),
        )
        for target, empty in zip(case.tensor('target'), case['empty'].tolist(), strict=True)
    ]


def compare_outputs(
    case: Case, key: str, model: nn.Module, run: Run, tolerance: float
) -> Iterator[Comparison]:
    """Compares outputs of the head.

    Args:
        case: The case.
        key: What its keys begin with, e.g. ``'feat'`` or ``'e2e64'``.
        model: Our network.
        run: What it computed.
        tolerance: Relative difference.
    """
    output, head = run.output, model.decode_head
    minimap = output.extras['minimap'].flatten(2).transpose(1, 2)
    regions = [head.norm(regions) for regions in run.regions]
    nt_per_call = torch.stack([head.no_target_embed(x).mean(dim=1) for x in regions])
    stds = torch.tensor([head.minimap_embed(x).std().item() for x in regions])
    all_masks = torch.einsum('erc,echw->erhw', head.mask_embed(regions[-1]), run.finest)
    fine, middle, coarse = run.maps
    found = dict(
        pred_masks=output.logits,
        minimap=minimap,
        nt_logits=output.extras['no_target_logits'],
        queries=run.regions[-1],
        nt_per_call=nt_per_call,
        minimap_std_per_call=stds,
        pixel_32=coarse,
        pixel_16_sub=middle[:, ::4, ::2, ::2],
        pixel_8_sub=fine[:, ::4, ::4, ::4],
        mask_features_sub=run.finest[:, ::4, ::4, ::4],
        all_masks_sub=all_masks[:, ::2, ::4, ::4],
    )
    for name, ours in found.items():
        if f'{key}_{name}' in case or f'{key}_{name}/shape' in case:
            yield from case.compare(f'{key}_{name}', ours, tolerance)


def compare_masks(case: Case, key: str, output: HeadOutput) -> Iterator[Comparison]:
    """Compares the final map, the masks of the protocol, what is counted of them, and no-target."""
    samples = samples_of(case)
    size = tuple(case['target'].shape[1:])
    full = F.interpolate(output.logits, size, mode='bilinear', align_corners=False)
    yield from case.compare(f'{key}_logits_quarter', full[:, :, ::4, ::4], 1e-4)
    counts = []
    for one, sample in zip(output.split([1] * len(samples)), samples, strict=True):
        ReLAProtocol(size)(one, torch.empty(3, *size), sample)
        found = count_pixels(sample.pred_sem_seg.data, sample.gt_sem_seg.data)
        counts.append(torch.cat(found[:2]))
    masks = torch.cat([sample.pred_sem_seg.data for sample in samples]).numpy()
    theirs = np.unpackbits(case[f'{key}_mask_bits'])[: masks.size].reshape(masks.shape)
    wrong = float((masks != theirs).sum())
    # pixels whose two logits are closer than the rounding
    yield Comparison(f'{key} pixels of all masks that differ', wrong, 1e-4 * masks.size)
    for part, ours in zip(('inter', 'union'), torch.stack(counts).numpy().T):
        yield Comparison(f'{key}_{part}', float(np.abs(ours - case[f'{key}_{part}']).max()), wrong)
    said = (output.no_target > 0).numpy() != (case[f'{key}_pred_nt'] > 0)
    yield Comparison(f'{key}_pred_nt that differ', float(said.sum()), 0)


def compare_losses(
    case: Case, key: str, losses: dict[str, Tensor], tolerance: float
) -> Iterator[Comparison]:
    """Compares the weighted losses with the unweighted stored terms, and their sum."""
    ours = np.array([float(losses[f'loss_{name}']) for name in ('mask', 'minimap', 'no_target')])
    wanted = case[f'{key}_loss_terms'] * (5.0, 0.5, 0.5)
    for name, found, theirs in zip(('mask', 'minimap', 'no-target'), ours, wanted):
        yield Comparison(f'{key} loss of {name}', abs(found / theirs - 1), tolerance)
    if f'{key}_loss' in case:
        total = abs(ours.sum() / float(case[f'{key}_loss']) - 1)
        yield Comparison(f'{key}_loss', total, tolerance)


def compare_gradients(case: Case, model: nn.Module) -> Iterator[Comparison]:
    """Compares the norms of all gradients.

    Where a norm over the pixels or a softmax takes out what a bias adds, the gradient is 0 and what
    is stored is rounding.
    """
    ours = dict(model.named_parameters())
    stored = dict(zip(case['feat_grad_name'].tolist(), case['feat_grad_norm']))
    least = 1e-6 * max(stored.values())
    for name, theirs in stored.items():
        found = float(ours[translate(convert_rela.table, name)].grad.norm())
        difference = abs(found - theirs) / max(theirs, least)
        tolerance = max((most for part, most in DEEP.items() if part in name), default=1e-3)
        yield Comparison(f'feat gradient of {name}', difference, tolerance, middle=True)


def compare_switched(
    key: str, run: Run, stored: list[Tensor], allowed: int
) -> Iterator[Comparison]:
    """Compares our attention masks with the stored ones."""
    switched = sum(int((a != b).sum()) for a, b in zip(run.forbidden, stored, strict=True))
    entries = sum(mask.numel() for mask in stored)
    yield Comparison(f'{key} of {entries} entries of attention masks, switched', switched, allowed)


def positions_of(case: Case) -> dict[str, Summary]:
    """The position codes of both decoders, which no module of ours returns."""
    batch, _, height, width = case['image_shape'].tolist()
    codes = {}
    for i, stride in enumerate((32, 16, 8)):
        code = relative_sine_position_2d(height // stride, width // stride)
        codes[f'pixel.pos{i}'] = summarize(code.expand(batch, -1, -1, -1))
    return codes


def check_features(folder: Path) -> Iterator[Comparison]:
    """All but BERT, with stored features of the words; losses and gradients of a training step."""
    case = Case(folder)
    weights, left_out = convert_rela(dict(model=published_weights(case, 'text_encoder.')))
    tell_left_out(left_out)
    model = without_text('rela', CASES[folder.name])
    model.load_state_dict(weights)
    image, stored = image_of(case), stored_masks(case, 'feat')
    words, mask = case.tensor('lang_feats'), case.tensor('attention_mask').bool()
    samples = samples_of(case)
    index = torch.arange(len(words))

    text = TextFeatures(words, mask, None, index, one_to_one=True)
    with tapped(model, taps_of(model)) as middle:
        run = run_network(model, image, text, stored)
    losses = model.decode_head.loss(run.output, text, samples)
    sum(value for name, value in losses.items() if name.startswith('loss')).backward()
    losses = {name: value.detach() for name, value in losses.items()}
    # The published float32 and float64 runs agree in all; another CPU may round a close one over.
    yield from compare_switched('feat', run, stored, 2)
    middle |= positions_of(case)
    yield from compare_middle('feat', middle, stored_middle(case, 'feat'), 1e-4)
    yield from compare_gradients(case, model)
    with torch.no_grad():
        yield from compare_outputs(case, 'feat', model, run, 1e-4)
        yield from compare_masks(case, 'feat', run.output)
    yield from compare_losses(case, 'feat', losses, 1e-4)
    cells = minimap_of(case.tensor('target'), 10).flatten(1).numpy() != case['target_minimap']
    yield Comparison('cells of target_minimap that differ', float(cells.sum()), 0)

    model, image = model.double(), image.double()
    text = TextFeatures(words.double(), mask, None, index, one_to_one=True)
    with torch.no_grad():
        run = run_network(model, image, text)
        yield from compare_switched('feat64', run, stored, 0)
        logits = run.output.logits
        yield from case.compare('feat_pred_masks', logits, 1e-4, 'feat_pred_masks, ours in float64')
        losses = model.decode_head.loss(run.output, text, samples)
    yield from compare_losses(case, 'feat64', losses, 1e-6)
    yield from case.all_read(NOT_COMPARED, ('feat', 'lang', 'target', 'scale'))


@torch.no_grad()
def check_end_to_end(folder: Path) -> Iterator[Comparison]:
    """From token ids to masks."""
    case = Case(folder)
    model = load_converted('rela', dict(model=published_weights(case)))
    image, stored = image_of(case), stored_masks(case, 'e2e')
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()

    with tapped(model, taps_of(model)) as middle:
        text = model.text_encoder.encode(ids, mask)
        run = run_network(model, image, text, stored)
    yield from case.compare('bert_last_hidden', text.words, 1e-4)
    yield from compare_switched('e2e', run, stored, 2)
    yield from compare_outputs(case, 'e2e', model, run, 1e-4)
    yield from compare_masks(case, 'e2e', run.output)
    losses = model.decode_head.loss(run.output, text, samples_of(case))
    yield from compare_losses(case, 'e2e', losses, 1e-4)
    middle |= positions_of(case)
    yield from compare_middle('e2e', middle, stored_middle(case, 'e2e'), 1e-4)

    model, image = model.double(), image.double()
    text = model.text_encoder.encode(ids, mask)
    run = run_network(model, image, text)
    yield from compare_switched('e2e64', run, stored, 0)
    yield from compare_outputs(case, 'e2e64', model, run, 1e-6)
    losses = model.decode_head.loss(run.output, text, samples_of(case))
    yield from compare_losses(case, 'e2e64', losses, 1e-6)
    yield from case.all_read(NOT_COMPARED, ('e2e', 'bert'))


def check_metrics(folder: Path) -> Iterator[Comparison]:
    """From logits to scores, where the case has made-up samples for the published evaluator."""
    if not (folder / 'metrics.npz').is_file():
        return
    case = Case(folder, 'metrics.npz')
    published = json.loads((folder / 'metrics.json').read_text())
    logits, gt, nt = (case.tensor(key) for key in ('mask_logits', 'gt', 'nt_logits'))
    size = tuple(gt.shape[1:])
    for name, sources in sources_of(case).items():
        metric = METRICS.build(dict(type='GeneralizedReferringIoU'))
        wrong = 0
        for i, source in sources.items():
            sample = SegDataSample(
                metainfo=dict(
                    img_path=f'{i}.jpg',
                    expressions=['it'],
                    ori_shape=size,
                    num_targets=[int(not case['empty'][i])],
                    dataset_name=source,
                ),
                gt_sem_seg=PixelData(data=gt[i : i + 1].byte()),
            )
            output = HeadOutput(logits[i : i + 1], nt[i : i + 1, 1] - nt[i : i + 1, 0])
            ReLAProtocol(size)(output, torch.empty(3, *size), sample)
            sample.set_data(dict(no_target=output.no_target))
            wrong += int((sample.pred_sem_seg.data[0].numpy() != case['pred'][i]).sum())
            wrong += bool(output.no_target[0] > 0) != bool(case['pred_nt'][i])
            metric.process(None, [sample.to_dict()])
        yield Comparison(f'{name}: predicted pixels and no-targets that differ', float(wrong), 0)
        scores = metric.evaluate(len(sources))
        for source, wanted in published[name].items():
            for key, theirs in wanted.items():
                ours = scores.get(f'{source}/{key}'.replace('_acc', '-acc'))
                ours = scores[key.replace('_acc', '-acc')] if ours is None else ours
                yield Comparison(f'{name}: {source}/{key}', abs(ours - theirs), 1e-9)
    yield from case.all_read({})


def sources_of(case: Case) -> dict[str, dict[int, str]]:
    """Which samples each set of published results is of, and from which data set."""
    everyone = range(len(case['empty']))
    return dict(
        all_grefcoco=dict.fromkeys(everyone, 'grefcoco'),
        targets_only_refcoco={i: 'refcoco' for i in everyone if not case['empty'][i]},
        mixed_sources_first_1_5_refcoco={
            i: 'refcoco' if i in (0, 1, 5) else 'grefcoco' for i in everyone
        },
    )


SMALL = Small(
    names={'case.npz': 'names.json'},
    summarized=(
        'bert_last_hidden',
        *(
            f'{run}_{key}'
            for run in ('feat', 'e2e', 'e2e64')
            for key in ('pred_masks', 'minimap', 'queries', 'logits_quarter')
        ),
        *(f'feat_{key}' for key in ('pixel_16_sub', 'pixel_8_sub', 'mask_features_sub')),
        'feat_pixel_32',
        'feat_all_masks_sub',
    ),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'features': check_features,
    'end-to-end': check_end_to_end,
    'metrics': check_metrics,
}
