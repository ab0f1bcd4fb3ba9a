"""CGFormer (Tang et al., 2023) against its published implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.evaluation.iou import count_pixels
from nemo_mmseg.models.converters.cgformer import convert_cgformer
from nemo_mmseg.models.decode_heads.cgformer_head import GROUP_WEIGHTS
from nemo_mmseg.models.protocols.cgformer import CGFormerProtocol
from nemo_mmseg.models.structures import HeadOutput, TextFeatures

from . import lavt
from .common import (
    Case,
    Comparison,
    Summary,
    Tap,
    compare_middle,
    load_converted,
    relative,
    summarize,
    tapped,
    tell_left_out,
    without_text,
)
from .small import Small

ROUNDS = range(3)
MODEL = 'cgformer_swin-base-w12'
KEPT_TO_ITSELF = 'how well the published code keeps to itself'
NOT_COMPARED = {
    f'{run}_{what}_f32_vs_f64': KEPT_TO_ITSELF
    for run in ('feat', 'feat0', 'e2e', 'e2e0')
    for what in ('rel', 'flips')
}
# One corner of the map that the mask is drawn on, so that the tests need not compute all of it. Its
# values do not see where it was cut.
CORNER, CORNER_SEEN = 34, 30


def taps_of(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    taps = lavt.backbone_taps(model) | lavt.text_taps(model)
    for k in ROUNDS:
        taps[f'decoder.fuse{k}'] = Tap(f'decode_head.fusions.{k}')
        if k > 0:
            taps[f'decoder.tokens_in{k}'] = Tap(f'decode_head.readers.{k - 1}')
            # before the feed-forward network, whose first layer is a norm of it
            taps[f'decoder.loadtoken{k}'] = Tap(f'decode_head.readers.{k - 1}.norm', of_input=True)
    third = model.decode_head.projector.conv3
    return {
        **taps,
        'decoder.proj_vis': Tap('decode_head.projector.conv2', third),
        'decoder.proj_txt': Tap('decode_head.projector.token_proj'),
        'decoder.logits482': Tap('decode_head.projector'),
    }


def watch_groupings(head: nn.Module, seen: dict[str, Summary]) -> list:
    """Summaries of what the groupings of each round get, compare and return.

    The last two rounds share a module, so that no :class:`Tap` can tell them apart.
    """
    rounds = iter(ROUNDS)
    now = {}

    def enter(module: nn.Module, args: tuple) -> None:
        now['k'] = next(rounds)
        if now['k'] == 0:
            seen['decoder.tokens_in0'] = summarize(args[0])

    def leave(module: nn.Module, args: tuple, output: tuple) -> None:
        seen[f'decoder.tokens_out{now["k"]}'] = summarize(output[0])
        query, key = (F.normalize(now[part], dim=-1) for part in ('query', 'key'))
        seen[f'decoder.group_logits{now["k"]}'] = summarize(query @ key.transpose(1, 2))

    def keep(part: str) -> Callable:
        return lambda module, args, output: now.update({part: output})

    handles = []
    for grouping in head.groupings:
        handles += [
            grouping.register_forward_pre_hook(enter),
            grouping.register_forward_hook(leave),
            *(getattr(grouping, p).register_forward_hook(keep(p)) for p in ('query', 'key')),
        ]
    return handles


def set_noise(head: nn.Module, case: Case, rows: int, on: bool) -> None:
    """Take the noise of evaluation from the case, or take none."""
    for k in ROUNDS:
        noise = case.tensor(f'gumbel{k}')[:rows]
        setattr(head, f'noise{k}', (noise if on else 0 * noise).to(head.tokens))


def run_head(head: nn.Module, feats: tuple, text: TextFeatures, model: nn.Module) -> tuple:
    """Output of the head and its intermediate results."""
    taps = {name: tap for name, tap in taps_of(model).items() if name.startswith('decoder')}
    with tapped(model, taps) as middle:
        handles = watch_groupings(head, middle)
        raw = []
        handles.append(head.projector.register_forward_hook(lambda m, a, x: raw.append(x)))
        output = head(feats, text)
        for handle in handles:
            handle.remove()
    return output, raw[0], middle


def compare_groups(
    case: Case, run: str, output: HeadOutput, allowed: Sequence[int]
) -> Iterator[Comparison]:
    """Pixels that went to the other token."""
    for k, most in zip(ROUNDS, allowed, strict=True):
        ours = output.extras[f'group{k}'].numpy() > 0.5
        theirs = np.unpackbits(case[f'{run}_hit{k}_bits'])[: ours.size].reshape(ours.shape)
        wrong = float((ours != theirs).sum())
        yield Comparison(f'{run} pixels of round {k} at the other token', wrong, most)
    case.unread.discard(f'{run}_group_gap_min')  # says how hard that is


def compare_losses(
    case: Case, run: str, head: nn.Module, output: HeadOutput, tolerance: float
) -> Iterator[Comparison]:
    """The losses of a training step, each and all together."""
    losses = head.loss(output, None, lavt.gt_of(case))
    ours = [float(losses[f'loss_group{k}']) / weight for k, weight in enumerate(GROUP_WEIGHTS)]
    ours += [float(losses['loss_dice']), float(losses['loss_ce'])]
    for name, one, other in zip(
        ('group0', 'group1', 'group2', 'dice', 'ce'), ours, case[f'{run}_loss_terms'], strict=True
    ):
        yield Comparison(f'{run}_loss_terms, {name}', abs(one / float(other) - 1), tolerance)
    total = sum(float(loss) for name, loss in losses.items() if name.startswith('loss'))
    yield Comparison(f'{run}_loss', abs(total / float(case[f'{run}_loss']) - 1), tolerance)


def compare_masks(
    case: Case, run: str, output: HeadOutput, tolerance: float
) -> Iterator[Comparison]:
    """Masks at the size of the input and, by the test procedure, at that of an image."""
    keys = [('_mask_bits', case['target'].shape[1:])]
    if f'{run}_orig_mask_bits' in case:
        keys.append(('_orig_mask_bits', tuple(case['orig_size'].tolist())))
    for key, shape in keys:
        sample = SegDataSample(metainfo=dict(ori_shape=shape))
        image = torch.empty(3, *case['target'].shape[1:])
        CGFormerProtocol()(output, image, sample)
        ours = sample.pred_sem_seg.data
        theirs = np.unpackbits(case[run + key])[: ours.numel()].reshape(ours.shape)
        wrong = float((ours.numpy() != theirs).sum())
        # pixels that are closer to 0.5 than the rounding
        yield Comparison(f'{run}{key} pixels that differ', wrong, tolerance * ours.numel())
        if 'orig' in key:
            gt = torch.stack([ellipse(i, shape) for i in range(len(ours))])
            for part, counts in zip(('inter', 'union'), count_pixels(ours, gt)):
                error = float(np.abs(counts.numpy() - case[f'{run}_orig_{part}']).max())
                yield Comparison(f'{run}_orig_{part}', error, wrong)


def ellipse(i: int, shape: tuple[int, int]) -> Tensor:
    """The target of image ``i`` of the case, drawn at any size, uint8."""
    height, width = shape
    # 0.55 - 0.1 is not 0.45 to the last bit, which decides on pixels of the border.
    x = (np.arange(width) - (0.55 - 0.1 * i) * width) / (0.2 * width)
    y = (np.arange(height)[:, None] - (0.4, 0.52)[i] * height) / (0.28 * height)
    return torch.from_numpy((x**2 + y**2 <= 1).astype(np.uint8))


def given_words(case: Case, rows: int) -> tuple[nn.Module, Tensor, TextFeatures]:
    """Backbone and head with their weights, images, and the stored features of their words."""
    published = case.weights('model_state_dict', without='text_encoder.')
    weights, left_out = convert_cgformer(dict(model_state_dict=published))
    tell_left_out(left_out)
    model = without_text('cgformer', MODEL)
    model.load_state_dict(weights)
    words, mask = (case.tensor(key)[:rows] for key in ('lang_feats', 'attention_mask'))
    text = TextFeatures(words, mask.bool(), None, torch.arange(rows), one_to_one=True)
    return model, lavt.image_of(case)[:rows], text


@torch.no_grad()
def check_features(folder: Path) -> Iterator[Comparison]:
    """Backbone and head alone, with stored features of the words in place of BERT's."""
    case = Case(folder)
    model, image, text = given_words(case, rows=2)
    head = model.decode_head
    targets = torch.stack([ellipse(i, tuple(image.shape[-2:])) for i in range(len(image))])
    wrong = float((targets.numpy() != case['target']).sum())
    yield Comparison('pixels of the target drawn anew', wrong, 0)
    swin = {name: tap for name, tap in taps_of(model).items() if name.startswith(('patch', 'st'))}
    with tapped(model, swin) as middle:
        feats = model.backbone(model.backbone(image), text)
    for run in ('feat', 'feat0'):
        set_noise(head, case, len(image), on=run == 'feat')
        output, raw, decoder = run_head(head, feats, text, model)
        # Without noise, cosines as close as 2e-6 decide.
        yield from compare_groups(case, run, output, [0 if run == 'feat' else 2] * 3)
        logits = output.logits[:, :, ::4, ::4]
        if run == 'feat':
            yield from case.compare('feat_logits_quarter', logits, 1e-4)
            yield from case.compare('feat_raw482_quarter', raw[:, :, ::4, ::4], 1e-4)
        else:
            yield from case.compare('feat0_logits_quarter', logits, 1e-4)
        border = [raw[:, 0, 0], raw[:, 0, -1], raw[:, 0, :, 0], raw[:, 0, :, -1]]
        yield from case.compare(f'{run}_raw482_border', torch.stack(border, 1), 1e-4)
        yield from compare_losses(case, run, head, output, 1e-4)
        yield from compare_masks(case, run, output, 1e-4)
        ours = {**middle, **decoder}
        yield from compare_middle(run, ours, lavt.stored_middle(case, run), 1e-4, lavt.ABSENT)
    yield from case.all_read(NOT_COMPARED, ('feat', 'lang', 'gumbel', 'orig'))


@torch.no_grad()
def check_end_to_end(folder: Path) -> Iterator[Comparison]:
    """From token ids to masks.

    BERT's random weights make all words nearly equal; what the fusions magnify of their differences
    is rounding (3e-3 in the published code itself), and some pixels then change their token.
    """
    case = Case(folder)
    model = load_converted('cgformer', dict(model_state_dict=case.weights('model_state_dict')))
    head, image = model.decode_head, lavt.image_of(case)
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()
    taps = {n: tap for n, tap in taps_of(model).items() if not n.startswith('decoder')}
    with tapped(model, taps) as middle:
        text = model.text_encoder.encode(ids, mask)
        feats = model.backbone(model.backbone(image), text)
    yield from case.compare('bert_last_hidden', text.words, 1e-4)
    for run in ('e2e', 'e2e0'):
        set_noise(head, case, len(image), on=run == 'e2e')
        output, _, decoder = run_head(head, feats, text, model)
        # twice what float32 and float64 of the published code differ by
        yield from compare_groups(case, run, output, dict(e2e=(2, 2, 2), e2e0=(10, 28, 34))[run])
        yield from case.compare(f'{run}_logits_quarter', output.logits[:, :, ::4, ::4], 3e-2)
        yield from compare_losses(case, run, head, output, 1e-3)
        yield from compare_masks(case, run, output, 4e-3)
        if run == 'e2e':
            stored = lavt.stored_middle(case, run)
            tolerance = {
                key: 1e-4 if key.startswith('bert') or not lavt.MAGNIFIED.search(key) else 3e-2
                for key in stored
            }
            ours = {**middle, **decoder}
            yield from compare_middle(run, ours, stored, tolerance, lavt.ABSENT)
    yield from case.all_read(NOT_COMPARED | {'e2e64_logits_quarter': 'see below'}, ('e2e', 'bert'))


@torch.no_grad()
def check_float64(folder: Path) -> Iterator[Comparison]:
    """From token ids to logits in float64, image by image."""
    case = Case(folder)
    published = dict(model_state_dict=case.weights('model_state_dict'))
    model = load_converted('cgformer', published).double()
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()
    image, found = lavt.image_of(case).double(), []
    for i in range(len(image)):
        for k in ROUNDS:
            noise = case.tensor(f'gumbel{k}')[i : i + 1].double()
            setattr(model.decode_head, f'noise{k}', noise)
        text = model.text_encoder.encode(ids[i : i + 1], mask[i : i + 1])
        output = model.decode_head(*model.extract_feat(image[i : i + 1], text))
        found.append(output.logits[:, :, ::4, ::4])
    yield from case.compare('e2e64_logits_quarter', torch.cat(found), 1e-6)


@torch.no_grad()
def check_corner(folder: Path) -> Iterator[Comparison]:
    """The first image as far as its groups, and one corner of its mask.

    A small case has one image only. All that came before decides on the kernel of the mask.
    """
    case = Case(folder)
    model, image, text = given_words(case, rows=1)
    head = model.decode_head
    set_noise(head, case, 1, on=True)
    swin = {name: tap for name, tap in taps_of(model).items() if name.startswith(('patch', 'st'))}
    with tapped(model, swin) as middle:
        feats = model.backbone(model.backbone(image), text)
    corner = head.projector.register_forward_pre_hook(
        lambda module, args: (args[0][..., :CORNER, :CORNER], *args[1:])
    )
    output, raw, decoder = run_head(head, feats, text, model)
    corner.remove()
    for k in ROUNDS:
        ours = output.extras[f'group{k}'][0].numpy() > 0.5
        theirs = np.unpackbits(case[f'feat_hit{k}_bits'])[: ours.size].reshape(ours.shape)
        wrong = float((ours != theirs).sum())
        yield Comparison(f'pixels of round {k} at the other token', wrong, 0)
    ours = raw[0, 0, ::4, ::4][:CORNER_SEEN, :CORNER_SEEN]
    theirs = case['feat_raw482_quarter'][0, 0, :CORNER_SEEN, :CORNER_SEEN]
    yield Comparison('corner of the map of the mask', relative(ours, theirs), 1e-4)
    # Of what is stored for two images, the first values are those of the first.
    stored = lavt.stored_middle(case, 'feat')
    for name, ours in {**middle, **decoder}.items():
        if name in stored and name not in ('decoder.proj_vis', 'decoder.logits482'):
            head_of = stored[name]['head'][: len(ours['head'])]
            difference = relative(ours['head'], head_of, float(stored[name]['std']))
            yield Comparison(f'{name} head', difference, 1e-4, middle=True)


SMALL = Small(
    names={'case.npz': 'names.json'},
    first=('lang_feats', 'attention_mask', 'gumbel0', 'gumbel1', 'gumbel2', 'feat_raw482_quarter'),
    dropped=(
        *('e2e*', 'feat0*', 'bert_last_hidden', 'token_ids', 'target', 'orig_size'),
        *('feat_logits_quarter', 'feat_raw482_border', 'feat_*mask_bits', 'feat_orig*'),
        *('feat_loss*', 'feat_*_vs_f64', 'feat_group_gap_min'),
    ),
)
CASES = ('cgformer',)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'features': check_features,
    'end-to-end': check_end_to_end,
    'float64': check_float64,
    'corner': check_corner,
}
