"""CARIS (Liu et al., 2023) against its published implementation: outputs, gradients, recipe."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import Tensor, nn

from nemo_mmseg.models.converters.caris import TABLE, convert_caris
from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.necks.caris_neck import GRIDS
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.positions import relative_sine_position_2d

from .common import (
    Case,
    Comparison,
    Tap,
    compare_middle,
    load_converted,
    summarize,
    tapped,
    tell_left_out,
    without_text,
)
from .lavt import as_map, compare_results, gt_of, image_of, loss_of, relative_each, stored_middle
from .small import Small

# Case -> base model, for the check without BERT; the others find it out.
CASES = {'caris_swin_t': 'caris_swin-tiny-w7', 'caris_swin_b': 'caris_swin-base-w7'}
CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
RECIPE = CONFIGS / 'caris' / 'caris_swin-base-w7_2xb8-50e_refcoco-448x448.py'
NOT_COMPARED = {
    f'{run}_rel_f32_vs_f64': 'how well the published code keeps to itself'
    for run in ('feat', 'e2e', 'odd')
}
FLOAT32, FLOAT64, LOSS = 1e-4, 1e-6, 1e-5


def pool(grid: int) -> Callable[[tuple[Tensor]], Tensor]:
    """What takes pooled cells (B, n * n, C) to the published layout (B, C, n, n)."""
    return lambda args: args[0].transpose(1, 2).unflatten(2, (grid, grid))


def taps_of(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    taps = {'patch_embed': Tap('backbone.patch_embed', as_map)}
    for i, stage in enumerate(model.backbone.stages):
        blocks = f'backbone.stages.{i}.blocks'
        taps |= {f'stage{i}.block{j}': Tap(f'{blocks}.{j}') for j in range(len(stage.blocks))}
        taps[f'stage{i}.out_norm'] = Tap(f'backbone.norm{i}')
        if i < 3:
            taps[f'stage{i}.downsample'] = Tap(f'backbone.stages.{i}.downsample')
    for k, grid in enumerate(GRIDS):
        taps[f'prompt.pool{k}'] = Tap(f'neck.prompts.mlps.{k}', pool(grid), of_input=True)
        taps[f'prompt.mlp{k}'] = Tap(f'neck.prompts.mlps.{k}')
    taps['prompt.out'] = Tap('neck.prompts')
    if hasattr(model, 'text_encoder'):
        taps['bert.embeddings'] = Tap('text_encoder.bert.embeddings')
        for k in (0, 1, 5, 11):
            taps[f'bert.layer{k}'] = Tap(f'text_encoder.bert.encoder.layer.{k}')
    taps |= {f'dec.input_conv{k}': Tap(f'neck.levels.{2 - k}') for k in range(3)}
    taps['dec.lang_in'] = Tap('decode_head.word_norm')
    for i in range(len(model.decode_head.layers)):
        layer, name = f'decode_head.layers.{i}', f'dec.layer{i}'
        taps |= {
            f'{name}.v2l': Tap(f'{layer}.token_pixel_attention'),
            f'{name}.lang1': Tap(f'{layer}.token_norms.0'),
            f'{name}.lsa': Tap(f'{layer}.token_attention'),
            f'{name}.lang2': Tap(f'{layer}.token_norms.1'),
            f'{name}.lmlp': Tap(f'{layer}.token_ffn'),
            f'{name}.lang': Tap(f'{layer}.token_norms.2'),
            f'{name}.l2v': Tap(f'{layer}.pixel_token_attention'),
            f'{name}.vis1': Tap(f'{layer}.pixel_norm'),
            f'{name}.msda_plus_identity': Tap(f'{layer}.pixel_layer.attention_norm', of_input=True),
            f'{name}.vis2': Tap(f'{layer}.pixel_layer.attention_norm'),
            f'{name}.vmlp': Tap(f'{layer}.pixel_layer.ffn'),
            f'{name}.vis': Tap(f'{layer}.pixel_layer.ffn_norm'),
        }
    return taps | {
        'dec.lateral': Tap('decode_head.fpn.lateral'),
        'dec.fpn': Tap('decode_head.fpn.output'),
        'dec.mask_feature': Tap('decode_head.pixel_mlp'),
        # the published code calls it once for each, for [CLS] first
        'dec.lang_embed': Tap('decode_head.class_mlp', lambda x: x[:, 1:]),
        'dec.lang_embed#1': Tap('decode_head.class_mlp', lambda x: x[:, :1]),
    }


def compare_all_middle(
    case: Case, run: str, seen: dict, tolerance: float, part: str | None = None
) -> Iterator[Comparison]:
    """Compares the intermediate results of a run, and the codes of the places."""
    stored = stored_middle(case, run)
    if part is not None:  # the float64 values of the same rows
        for key in ('mean', 'std', 'norm', 'head'):
            column = case[f'{part}_dbg_{key}']
            for summary, value in zip(stored.values(), column, strict=True):
                summary[key] = value[: len(summary['head'])] if key == 'head' else value
    for k, name in enumerate(('dec.sine', 'dec.sine#1', 'dec.sine#2')):
        batch, _, height, width = stored[f'dec.input_conv{k}']['shape']
        code = relative_sine_position_2d(height, width, 128)
        seen[name] = summarize(code.expand(batch, -1, -1, -1))
    yield from compare_middle(part or run, seen, stored, tolerance)


@torch.no_grad()
def check_decoder(folder: Path) -> Iterator[Comparison]:
    """All but BERT, with stored features of the words in its place."""
    case = Case(folder)
    weights, left_out = convert_caris(
        dict(model=case.weights('model', without='backbone.lang_encoder.'))
    )
    tell_left_out(left_out)
    model = without_text('caris', CASES[folder.name])
    model.load_state_dict(weights)
    image = image_of(case)
    words, mask = case.tensor('lang_feats'), case.tensor('attention_mask').bool()

    def run() -> Tensor:
        index = torch.arange(len(words))
        text = TextFeatures(words.to(image), mask, None, index, one_to_one=True)
        return model.decode_head(model.neck(model.backbone(image)), text).logits

    with tapped(model, taps_of(model)) as middle:
        logits = run()
    yield from compare_results(case, 'feat', model.decode_head, logits, FLOAT32, LOSS)
    yield from compare_all_middle(case, 'feat', middle, FLOAT32)
    model, image = model.double(), image.double()
    logits = run()
    loss = loss_of(model.decode_head, logits, gt_of(case))
    yield from case.compare('feat64_logits_low', logits, FLOAT64)
    yield Comparison('feat64_loss', abs(loss / float(case['feat64_loss']) - 1), FLOAT64)
    yield from case.all_read(NOT_COMPARED, ('feat', 'lang'))


@torch.no_grad()
def check_end_to_end(folder: Path) -> Iterator[Comparison]:
    """From token ids to masks, also of an image whose sides no patch divides."""
    case = Case(folder)
    model = load_converted('caris', dict(model=case.weights('model')))
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()
    image = image_of(case)
    hidden: list[Tensor] = []
    last = model.text_encoder.bert.encoder.layer[-1]
    last.register_forward_hook(lambda module, args, output: hidden.append(output))

    def run(image: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        text = model.text_encoder.encode(ids[rows], mask[rows])
        feats, text = model.extract_feat(image, text)
        found = hidden.pop()
        return feats[-1], found if isinstance(found, Tensor) else found[0], feats, text

    def logits_of(image: Tensor, rows: slice = slice(None)) -> Tensor:
        return model.decode_head(*run(image, rows)[2:]).logits

    with tapped(model, taps_of(model)) as middle:
        prompts, words, feats, text = run(image)
        logits = model.decode_head(feats, text).logits
    yield from case.compare('prompts', prompts, FLOAT32)
    yield from case.compare('bert_last_hidden', words, FLOAT32)
    yield from compare_results(case, 'e2e', model.decode_head, logits, FLOAT32, LOSS)
    yield from compare_all_middle(case, 'e2e', middle, FLOAT32)
    odd = None  # one image, with the first expression
    if 'odd_shape' in case:
        odd = case.fill.make_image(*case['odd_shape'][[0, 2, 3]].tolist(), int(case['image_seed']))
        low = logits_of(odd, slice(1))
        yield from case.compare('odd_logits_low', low, FLOAT32)
        if 'odd_logits_quarter' in case:
            full = F.interpolate(low, odd.shape[-2:], mode='bilinear', align_corners=True)
            yield from case.compare('odd_logits_quarter', full[:, :, ::4, ::4], FLOAT32)
    model = model.double()
    with tapped(model, taps_of(model)) as middle:
        logits = logits_of(image.double())
    samples = gt_of(case)
    losses = [loss_of(model.decode_head, logits[i : i + 1], [s]) for i, s in enumerate(samples)]
    loss = loss_of(model.decode_head, logits, samples)
    yield from case.compare('e2e64_logits_low', logits, FLOAT64)
    yield from compare_all_middle(case, 'e2e', middle, FLOAT64, 'e2e64')
    yield Comparison('e2e64_loss', abs(loss / float(case['e2e64_loss']) - 1), FLOAT64)
    each = relative_each(losses, case['e2e64_loss_per_sample'])
    yield Comparison('e2e64_loss_per_sample', each, FLOAT64)
    if odd is not None:
        yield from case.compare('odd64_logits_low', logits_of(odd.double(), slice(1)), FLOAT64)
    yield from case.all_read(NOT_COMPARED, ('e2e', 'odd', 'bert', 'prompts'))


def check_training(folder: Path) -> Iterator[Comparison]:
    """Loss and gradients of a training step without dropout, and who learns how fast."""
    case = Case(folder)
    model = load_converted('caris', dict(model=case.weights('model')))
    ids, mask = case.tensor('token_ids'), case.tensor('attention_mask').bool()
    feats, text = model.extract_feat(image_of(case), model.text_encoder.encode(ids, mask))
    head = model.decode_head
    losses = head.loss(HeadOutput(head(feats, text).logits), text, gt_of(case))
    loss = losses[head.loss_decode.loss_name]
    loss.backward()
    error = abs(loss.item() / float(case['train_loss']) - 1)
    yield Comparison('train_loss', error, LOSS)

    back = inverse(TABLE)
    found = {translate(back, name): p for name, p in model.named_parameters()}
    names = [str(name) for name in case['grad_name']]
    yield Comparison('parameters that only one of both has', len(found.keys() ^ set(names)), 0)
    ours = np.array([float(found[name].grad.double().norm()) for name in names])
    total = float(case['grad_total_norm'])
    yield Comparison('grad_total_norm', abs(np.linalg.norm(ours) / total - 1), 1e-3)
    # A bias of keys moves all scores alike: its gradient is rounding, here and there.
    floor = 1e-6 * total
    errors = np.abs(ours - case['grad_norm']) / np.maximum(case['grad_norm'], floor)
    for name, one in zip(names, errors):
        yield Comparison(f'gradient of {name}', float(one), 1e-3, middle=True)
    yield from check_groups(case, model, found, names, ours)
    yield from case.all_read({}, ('train', 'grad', 'group'))


def check_groups(
    case: Case, model: nn.Module, found: dict, names: list[str], gradients: np.ndarray
) -> Iterator[Comparison]:
    """Whether our recipe makes the six published groups.

    Args:
        case: The case.
        model: Our network.
        found: Published name -> our parameter.
        names: Published names, in the order of the case.
        gradients: The norm of each one's gradient.
    """
    init_default_scope('mmseg')
    wrapper = dict(Config.fromfile(RECIPE).optim_wrapper, type='OptimWrapper')
    logging.disable(logging.INFO)  # three lines a parameter
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    logging.disable(logging.NOTSET)
    learned = {
        id(p): (group['lr'], group['weight_decay'] == 0)
        for group in optimizer.param_groups
        for p in group['params']
    }
    of = case['group_of']
    rates, no_decay = case['group_lr'], case['group_no_decay']
    wrong = [
        name
        for name, group in zip(names, of)
        if not np.isclose(learned[id(found[name])][0], rates[group], rtol=1e-9)
        or learned[id(found[name])][1] != no_decay[group]
    ]
    yield Comparison(f'parameters in another group {wrong}', len(wrong), 0)
    sizes = np.array([found[name].numel() for name in names])
    counts = {'tensors': np.ones_like(sizes), 'params': sizes}
    for key, values in counts.items():
        theirs = case[f'group_{key}']
        each = [int(values[of == group].sum()) for group in range(len(theirs))]
        yield Comparison(f'group_{key} {each}', float(np.abs(each - theirs).max()), 0)
    theirs = case['group_grad_norm']
    each = [float(np.linalg.norm(gradients[of == group])) for group in range(len(theirs))]
    yield Comparison('group_grad_norm', relative_each(each, theirs), 1e-3)


def factors(total: int) -> np.ndarray:
    """Share of the learning rate in each of all iterations of our recipe."""
    cfg = Config.fromfile(RECIPE)
    epochs = cfg.train_cfg.max_epochs
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=optimizer, **more))
        for one in cfg.param_scheduler
        for more in [dict(epoch_length=total // epochs) if one.get('convert_to_iter_based') else {}]
    ]
    found = np.empty(total)
    for i in range(total):
        found[i] = optimizer.param_groups[0]['lr']
        for scheduler in schedulers:
            scheduler.step()
    return found


def check_schedule(folder: Path) -> Iterator[Comparison]:
    """The learning rates of a whole training; only in the warm-up ours also falls, by up to 1 %."""
    path = folder / 'schedule.json'
    if not path.is_file():
        return
    stored = json.loads(path.read_text())
    init_default_scope('mmseg')
    ours = factors(stored['total'])
    for i, theirs in zip(stored['iteration'], stored['factor']):
        if i == 0:  # a slip of the published code, which begins with the full rate
            yield Comparison('rate of iteration 0', abs(ours[0] - 0.001), 1e-9)
        else:
            allowed = 0.011 if i <= 1500 else 1e-4
            yield Comparison(f'rate of iteration {i}', abs(ours[i] - theirs), allowed)


SMALL = Small(
    names={'case.npz': 'names.json'},
    summarized=(
        'bert_last_hidden',
        'prompts',
        'feat_logits_low',
        'feat64_logits_low',
        'e2e_logits_low',
        'e2e64_logits_low',
    ),
    dropped=('e2e_logits_quarter', 'odd_logits_quarter'),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'decoder': check_decoder,
    'end-to-end': check_end_to_end,
    'training': check_training,
    'schedule': check_schedule,
}
