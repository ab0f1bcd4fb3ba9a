"""CRIS (Wang et al., 2022) against its published implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.losses.targets import gt_like
from nemo_mmseg.models.protocols.cris import CRISProtocol
from nemo_mmseg.models.structures import HeadOutput
from nemo_mmseg.models.utils.positions import sine_position_1d, sine_position_2d

from .common import (
    Case,
    Comparison,
    Tap,
    compare_middle,
    load_converted,
    rows_first,
    summarize,
    tapped,
)
from .small import Small

# Intermediate result of a case -> where it is in our network.
TAPS = {
    'visual_layer1': Tap('backbone.tower.layer1'),
    'visual_c3': Tap('backbone.tower.layer2'),
    'visual_c4': Tap('backbone.tower.layer3'),
    'visual_layer4': Tap('backbone.tower.layer4'),
    'visual_c5_attnpool': Tap('backbone.tower.attnpool'),
    'text_token_embedding': Tap('text_encoder.tower.token_embedding'),
    'text_block0_LND': Tap('text_encoder.tower.transformer.resblocks.0', rows_first),
    'text_words': Tap('text_encoder.tower.ln_final'),
    'neck_txt_proj': Tap('neck.sentence_proj'),
    'neck_f1_v_proj': Tap('neck.image5'),
    'neck_f5': Tap('neck.gate_norm'),
    'neck_f4': Tap('neck.merge4'),
    'neck_f3': Tap('neck.merge3'),
    'neck_aggr': Tap('neck.merge'),
    'neck_fq': Tap('neck'),
    'decoder_layer0_LND': Tap('decode_head.decoder.layers.0', rows_first),
    'decoder_layer1_LND': Tap('decode_head.decoder.layers.1', rows_first),
    'decoder_layer2_LND': Tap('decode_head.decoder.layers.2', rows_first),
    'decoder_out_BCL': Tap('decode_head.decoder', lambda x: x.flatten(2)),
    'proj_vis': Tap('decode_head.projector.conv3'),
    'proj_txt': Tap('decode_head.projector.sentence_proj'),
    'proj_out': Tap('decode_head.projector'),
}
# The logits' own rounding is larger than that of what they are made of.
MIDDLE_TOLERANCE = {'': 2e-5, 'proj_out': 1e-4}

NOT_COMPARED = {
    'logits_samples': 'which samples are stored: all',
    'f64/rel_err_of_float32_logits': 'how well the published code keeps to itself',
    'post/mat_inv': 'the inverse of post/mat',
    'post/mask_area': 'follows from the masks',
    **{
        f'post/prob416/{part}': 'lies between the logits and post/warped'
        for part in ('shape', 'mean', 'std', 'head', 'sample')
    },
    # cubic interpolation leaves 0 to 1; ours are clipped
    'post/warped/mean': 'of values beyond 0 and 1',
    'post/warped/std': 'of values beyond 0 and 1',
}


def check_masks(case: Case, input_z: Tensor) -> Iterator[Comparison]:
    """The worked example of CRIS's test procedure."""
    height, width = case['post/ori_hw'].tolist()
    meta = dict(
        expressions=['a', 'b'], ori_shape=(height, width), warp_matrix=case['post/mat'].tolist()
    )
    sample = SegDataSample(metainfo=meta)
    image = torch.empty(3, *case['image_size'].tolist())
    CRISProtocol()(HeadOutput(input_z), image, sample)
    ours = summarize(sample.seg_logits.data)
    theirs = case.summary('post/warped')
    # The stored case was warped by OpenCV 5; OpenCV 4 rounds places to 1/32 pixel.
    bound = 1e-3 if int(cv2.__version__.split('.')[0]) >= 5 else 1e-2
    for part in ('head', 'sample'):
        error = np.abs(ours[part] - theirs[part].clip(0, 1)).max()
        yield Comparison(f'probabilities of the test procedure, {part}', float(error), bound)
    packed, shape = case['post/mask_packed'], case['post/mask_shape']
    expected = np.unpackbits(packed)[: np.prod(shape)].reshape(shape)
    differs = sample.pred_sem_seg.data.numpy() != expected
    if 'post/input_z' not in case:
        # made of our logits, and so rounded in another way
        differs &= np.abs(sample.seg_logits.data.numpy() - 0.35) > 1e-4
    yield Comparison('pixels of a mask that differ', float(differs.sum((1, 2)).max()), 20.0)


def standardized(logits: Tensor) -> Tensor:
    """Logits as they went into the example of the test procedure: not saturated."""
    rows = logits.float().flatten(1)
    middle = rows.quantile(0.5, dim=1, keepdim=True)
    spread = rows.std(dim=1, correction=0, keepdim=True)
    return ((rows - middle) / spread - 0.62).reshape(logits.shape)


def check_loss(
    case: Case, logits: Tensor, head: nn.Module, key: str, tolerance: float
) -> Iterator[Comparison]:
    """The training loss on rectangles."""
    samples = []
    for left, top, right, bottom in case['loss/mask_boxes_xyxy'].tolist():
        mask = torch.zeros(1, *case['image_size'].tolist(), dtype=torch.uint8)
        mask[:, top:bottom, left:right] = 1
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=mask)))
    gt = gt_like(logits, samples)
    wrong = (gt[:, None].numpy() != case['loss/mask_104']).sum()
    yield Comparison('pixels of the ground truth that differ', float(wrong), 0.0)
    loss = float(head.loss_decode(logits, gt, ignore_index=255))
    yield Comparison(key, abs(loss / float(case[key]) - 1), tolerance)


def check_network(
    folder: Path, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
) -> Iterator[Comparison]:
    """Token ids, logits in both precisions, intermediate results, loss and masks."""
    case = Case(folder)
    model = load_converted('cris', case.weights())
    ids, mask = model.text_encoder.tokenize(case['texts'].tolist())
    yield Comparison('token ids', float((ids.numpy() != case['token_ids']).sum()), 0.0)
    yield Comparison('padding', float((mask.numpy() == case['pad_mask']).sum()), 0.0)
    size = case['image_size'].tolist()
    image = case.fill.make_image(int(case['batch']), *size, int(case['seed']))

    @torch.no_grad()
    def run() -> tuple[Tensor, dict]:
        with tapped(model, TAPS) as middle:
            text = model.text_encoder.encode(ids, mask)
            logits = model.decode_head(*model.extract_feat(image, text)).logits
        middle['text_state'] = summarize(text.sentence)
        middle['const_vis_pos_L1C'] = summarize(sine_position_2d(26, 26, 512)[:, None])
        middle['const_txt_pos_L1C'] = summarize(sine_position_1d(17, 512)[:, None])
        return logits, middle

    names = dict.fromkeys(key.split('/')[1] for key in case.keys() if key.startswith('mid/'))
    theirs = {name: case.summary(f'mid/{name}') for name in names}
    if torch.float32 in dtypes:
        logits, middle = run()
        yield from case.compare('logits', logits, 1e-4, 'float32 logits')
        yield from compare_middle('float32', middle, theirs, MIDDLE_TOLERANCE)
        yield from check_loss(case, logits, model.decode_head, 'loss/bce', 1e-4)
    if torch.float64 in dtypes:
        model, image = model.double(), image.double()
        logits, middle = run()
        yield from case.compare('f64/logits', logits, 1e-6, 'float64 logits')
        yield from compare_middle('float64', middle, theirs, MIDDLE_TOLERANCE)
        yield from check_loss(case, logits, model.decode_head, 'f64/loss_bce', 1e-6)
    stored = 'post/input_z' in case
    yield from check_masks(case, case.tensor('post/input_z') if stored else standardized(logits))
    if len(dtypes) == 2:
        yield from case.all_read(NOT_COMPARED)


CASES = ('cris_r50', 'cris_r101')
SMALL = Small(
    names={'case.npz': 'names.json'},
    summarized=('logits', 'f64/logits'),
    dropped=('post/input_z',),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {'network': check_network}
