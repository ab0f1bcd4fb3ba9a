"""TRIS, stage 1 (Liu et al., 2023) against its published implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.decode_heads.tris_head import image_scores
from nemo_mmseg.models.losses.clip_calibration_loss import (
    CLIPCalibrationLoss,
    negative_loss,
    positive_loss,
)
from nemo_mmseg.models.structures import HeadOutput, TextFeatures

from .common import Case, Comparison, Tap, compare_middle, relative, tapped
from .small import Small
from .tris_common import (
    CLIP_TAPS,
    Published,
    compare_gradients,
    compare_ids,
    compare_masks,
    image_of,
    norms_moved,
    stored_middle,
    summaries,
    unused_keys,
)

CASES = ('tris_stage1',)
BOTH = torch.float32, torch.float64
TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-6}
CALIBRATION = dict(
    type='CLIPCalibrationLoss', model='ViT-B-32-quickgelu', pretrained=None, max_tokens=20
)
# The gradient of the temperature is stored, though no optimizer had it.
CHANGES = {'model.decode_head.learn_temperature': True, 'model.aux_losses': [CALIBRATION]}
UNUSED = {
    'visual_attnpool_global_unused': 'the pool, which nothing uses',
    'visual_attnpool_map_unused': 'the pool, which nothing uses',
}
NOT_COMPARED = {
    'logits_samples': 'which samples are stored: all',
    'f64/rel_err_of_float32_logits': 'how well the published code keeps to itself',
    'f64/rel_err_of_float32_score': 'how well the published code keeps to itself',
    'loss/weights_w1_w4_w5': 'the weights are in loss/total',
}


def taps_of(images: int) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network.

    Args:
        images: Number of images, for each of which the published code projects the sentences.
    """

    def beside(x: Tensor) -> Tensor:
        return x.expand(images, -1, -1)

    prompt = 'decode_head.prompt'
    taps = {**CLIP_TAPS, 'vis_project': Tap('decode_head.pixel_proj')}
    taps['lan_project'] = Tap('decode_head.sentence_proj')
    for i, part in enumerate(('query', 'key', 'value'), 1):
        taps[f'fusion_v_proj{i}'] = Tap(f'{prompt}.pixel_{part}')
        taps[f'fusion_t_proj{i}'] = Tap(f'{prompt}.sentence_{part}', beside)
    taps['fusion_v_output'] = Tap(f'{prompt}.pixel_out')
    taps['fusion_t_output'] = Tap(f'{prompt}.sentence_out')
    return taps


def published_layout(scores: Tensor) -> Tensor:
    """(B, N, h, w) -> (B, h * w, N)."""
    return scores.flatten(2).transpose(1, 2)


def response(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """What the published network returns: its map at the size of the image, cut at 0."""
    return F.interpolate(logits, size, mode='bilinear', align_corners=False).relu()


@torch.no_grad()
def check_together(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """Two images and two expressions in one call: scores of all pairs, maps, masks."""
    case = Case(folder)
    for dtype in dtypes:
        model = Published(case, 'tris_stage1', {'model.decode_head.alone': False}).network(dtype)
        bits, image = str(dtype)[-2:], image_of(case, dtype)
        if dtype == dtypes[0]:
            yield from compare_ids(case, model)
            scale = model.decode_head.logit_scale.exp().item()
            yield Comparison('scale', relative(scale, case['logit_scale_exp']), 1e-6)
        with tapped(model, taps_of(len(image))) as middle:
            text = model.text_encoder(case['texts'].tolist())
            feats = model.encode_image(image)
            scores, _ = model.decode_head.scores(feats, text)
        logits = model.decode_head(feats, text).logits
        maps = response(logits, image.shape[-2:])
        scores = published_layout(scores)
        middle |= summaries(dict(text_state=text.sentence, score_B_HW_N=scores, logits=maps))
        key = 'f64/score_B_HW_N' if dtype == torch.float64 else 'score_B_HW_N'
        yield from case.compare(key, scores, TOLERANCE[dtype])
        yield from case.compare('logits', maps, 5e-4, f'float{bits} logits')
        yield from compare_middle(f'float{bits}', middle, stored_middle(case, 'mid'), 5e-4, UNUSED)
    yield from compare_masks(case, maps)
    if len(dtypes) == 2:
        yield from case.all_read({**NOT_COMPARED, **unused_keys(case, 'mid', UNUSED)})


@torch.no_grad()
def check_alone(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """Each image with its expression by itself, as the published test has it."""
    case = Case(folder, 'single.npz')
    texts = Case(folder)['texts'].tolist()
    for dtype in dtypes:
        model = Published(case, 'tris_stage1').network(dtype)
        bits, image = str(dtype)[-2:], image_of(case, dtype)
        ids, mask = model.text_encoder.tokenize(texts)
        yield Comparison('token ids', float((ids.numpy() != case['token_ids']).sum()), 0)
        text = model.text_encoder.encode(ids, mask)
        output = model.decode_head(model.encode_image(image), text)
        double = dtype == torch.float64
        tolerance = 1e-6 if double else 1e-4
        key = 'f64/score_B_HW_1' if double else 'score_B_HW_1'
        yield from case.compare(key, published_layout(output.logits), tolerance)
        maps = response(output.logits, image.shape[-2:])
        yield from case.compare('logits', maps, 1e-4, f'float{bits} logits')
        yield from case.compare('single/logits', maps, 1e-4, f'float{bits} single/logits')
        offset = model.decode_head.prompt.pixel_out[1].bias[None, :, None, None]
        for i in range(len(image)):
            name = f'single/fusion_v_output_{i}'
            yield from case.compare(name, offset.expand(1, -1, *output.logits.shape[-2:]), 1e-4)
    yield from compare_masks(case, maps)
    if len(dtypes) == 2:
        yield from case.all_read(NOT_COMPARED)


def samples_of(case: Case) -> list[SegDataSample]:
    """A data sample for each expression."""
    texts = case['texts'].tolist()
    negatives = case['neg_texts'].tolist() if 'neg_texts' in case else [[]] * len(texts)
    return [
        SegDataSample(metainfo=dict(expressions=[one], negative_expressions=[others]))
        for one, others in zip(texts, negatives)
    ]


def check_training(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """A step of training: scores, losses, gradients, batch statistics."""
    case = Case(folder, 'train.npz')
    published = Published(case, 'tris_stage1', CHANGES)
    yield from check_formulas(case)
    for dtype in dtypes:
        model = published.network(dtype)
        yield from compare_ids(case, model)
        aux = model.aux_losses[0]
        clip = aux.teacher.network
        clip.load_state_dict(case.fill.fill_state_dict(clip.state_dict(), int(case['seed'])))
        ids = torch.stack([aux.teacher.tokenize(said) for said in case['neg_texts'].tolist()])
        wrong = (ids[..., :20].numpy() != case['neg_token_ids']).sum()
        yield Comparison('token ids of negatives', float(wrong + ids[..., 20:].sum()), 0)
        yield from step(case, published, model.train(), dtype)
    if len(dtypes) == 2:
        yield from case.all_read({**NOT_COMPARED, **unused_keys(case, 'train_mid', UNUSED)})


def step(
    case: Case, published: Published, model: nn.Module, dtype: torch.dtype
) -> Iterator[Comparison]:
    """The comparisons of a step in one precision."""
    double = dtype == torch.float64
    prefix, tolerance = ('f64/', 1e-6) if double else ('', 5e-4)
    image, samples, aux = image_of(case, dtype), samples_of(case), model.aux_losses[0]
    seen: dict[str, HeadOutput] = {}
    handle = model.decode_head.register_forward_hook(
        lambda module, args, output: seen.update(output=output, text=args[1])
    )
    norms: list[Comparison] = []
    with (
        tapped(model, taps_of(len(image))) as middle,
        norms_moved(case, published, model, norms),
    ):
        losses = model.loss(image, samples)
    handle.remove()
    yield from norms
    parts = dict(
        l1_calibration_positive=losses['loss_calibration'],
        l4_classification=losses['loss_cls'] / 5,
        l5_calibration_negative=losses['loss_calibration_negative'] / 2,
        total=sum(value for name, value in losses.items() if 'loss' in name),
    )
    parts['total'].backward()
    output, text = seen['output'].apply(Tensor.detach), seen['text']
    scores = published_layout(output.extras['scores'])
    yield from case.compare(f'{prefix}score_B_HW_N', scores, tolerance)
    found, area = image_scores(output.extras['scores'])
    yield from case.compare(f'{prefix}cls_out', found, tolerance)
    yield from case.compare(f'{prefix}cls_fg', area.diagonal(), tolerance)
    for name, ours in cosines(aux, image, output, text, samples).items():
        error = float((ours - case.tensor(f'{prefix}{name}')).abs().max())
        yield Comparison(f'{prefix}{name}', error, 1e-6 if double else 1e-5)
    for name, loss in parts.items():
        yield Comparison(
            f'{prefix}loss/{name}',
            relative(loss.detach(), case[f'{prefix}loss/{name}']),
            tolerance,
        )
    grads = 'f64/grad' if double else 'train/grad'
    yield from compare_gradients(case, grads, published, model, 1e-6 if double else 1e-2)
    if not double:
        yield from compare_maps(case, output, tuple(image.shape[-2:]))
        scale = model.decode_head.logit_scale.exp().item()
        yield Comparison('scale', relative(scale, case['logit_scale_exp']), 1e-6)
    middle |= summaries(dict(text_state=text.sentence, score_B_HW_N=scores))
    wanted = stored_middle(case, 'train_mid')
    yield from compare_middle(f'{prefix}train', middle, wanted, 5e-4, UNUSED)


def compare_maps(case: Case, output: HeadOutput, size: tuple[int, int]) -> Iterator[Comparison]:
    """The two maps that the published network returns in training."""
    margin = F.interpolate(output.logits, size, mode='bilinear', align_corners=False)
    for name, ours in dict(relu_map=margin.relu(), sigmoid_map=margin.sigmoid()).items():
        yield from case.compare(f'train/{name}', ours, 5e-4)
        yield from case.compare(f'{name}_stride4', ours[:, :, ::4, ::4], 5e-4)


@torch.no_grad()
def cosines(
    aux: CLIPCalibrationLoss,
    image: Tensor,
    output: HeadOutput,
    text: TextFeatures,
    samples: list[SegDataSample],
) -> dict[str, Tensor]:
    """Cosines of the frozen CLIP with the own sentence and with the negatives."""
    images = aux.encode_masked(image, output, text)
    own = aux.encode_text([sample.metainfo['expressions'][0] for sample in samples])
    others = [aux.encode_text(sample.metainfo['negative_expressions'][0]) for sample in samples]
    return dict(
        aux_pos_cosine=(images * own).sum(1),
        aux_neg_cosine=torch.stack([texts @ one for texts, one in zip(others, images)]),
    )


def check_formulas(case: Case) -> Iterator[Comparison]:
    """The losses on fixed numbers."""
    logits = case.tensor('formula/cls_logits')
    loss = F.multilabel_soft_margin_loss(logits, torch.eye(len(logits)))
    yield Comparison('formula/cls_loss', relative(loss.detach(), case['formula/cls_loss']), 1e-6)
    positive, negative = case.tensor('formula/pos_cosine'), case.tensor('formula/neg_cosine')
    ours = positive_loss(positive)
    yield Comparison('formula/pos_loss', relative(float(ours), case['formula/pos_loss']), 1e-6)
    ours = negative_loss(negative)
    yield Comparison('formula/neg_loss', relative(float(ours), case['formula/neg_loss']), 1e-6)


SMALL = Small(
    names={'case.npz': 'names.json', 'single.npz': 'names.json', 'train.npz': 'names.json'},
    summarized=('logits', 'relu_map_stride4', 'sigmoid_map_stride4'),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'case': check_together,
    'single': check_alone,
    'train': check_training,
}
