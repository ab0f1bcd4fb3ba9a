"""Compare our networks with what the published implementations returned for the same weights.

    python tools/check_parity.py ../shared/parity/cris_r50 ../shared/parity/cris_r101

A case folder holds the published names (names.json), what the published code returned (case.npz)
and, beside it, the rule that draws the weights (fill.py). Prints one line per comparison; exit code
1 if any is beyond its tolerance.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nemo_mmseg  # noqa: E402, F401
from nemo_mmseg.models.converters import convert_cris  # noqa: E402
from nemo_mmseg.models.decode_heads.truth import targets_like  # noqa: E402
from nemo_mmseg.models.protocols import cris as cris_protocol  # noqa: E402
from nemo_mmseg.models.utils import sine_position_1d, sine_position_2d  # noqa: E402

Check = tuple[str, float, float]  # what was compared, the difference, the tolerance


def relative(ours: Tensor | np.ndarray, theirs: np.ndarray) -> float:
    """||ours - theirs|| / ||theirs||."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def spread_sample(x: Tensor) -> np.ndarray:
    """Up to 512 values that are spread over a tensor, as the cases chose them."""
    flat = x.detach().reshape(-1)
    index = [(i * 1000003) % len(flat) for i in range(min(len(flat), 512))]
    return flat[index].numpy()


def compare_middle(case: dict, name: str, x: Tensor, tolerance: float) -> Iterator[Check]:
    """Shape, standard deviation and spread values of an intermediate result."""
    if list(x.shape) != case[f'{name}/shape'].tolist():
        yield f'{name} has shape {tuple(x.shape)}', float('inf'), 0.0
        return
    std, expected = float(x.double().std(correction=0)), float(case[f'{name}/std'])
    yield f'{name} std', abs(std / expected - 1), tolerance
    yield f'{name} sample', relative(spread_sample(x), case[f'{name}/sample']), tolerance


def published_weights(folder: Path, fill: ModuleType) -> dict[str, Tensor]:
    """The state dict under its published names, drawn by the rule of the cases."""
    names = json.loads((folder / 'names.json').read_text())
    empty = {
        name: torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in names.items()
    }
    seed = int(np.load(folder / 'case.npz')['seed'])
    return fill.fill_state_dict(empty, seed=seed)


def record(model: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Let the modules with our names store what they return, under the names of a case."""
    stored: dict[str, Tensor] = {}

    def hook(key: str) -> Callable:
        return lambda module, args, output: stored.update({key: output})

    for key, name in names.items():
        model.get_submodule(name).register_forward_hook(hook(key))
    return stored


def tokens_first(x: Tensor) -> Tensor:
    """(batch, tokens, channels) -> (tokens, batch, channels)."""
    return x.transpose(0, 1)


# Intermediate result of a case -> our module that returns it, and what makes its layout theirs.
CRIS_MIDDLE = {
    'visual_layer1': ('backbone.tower.layer1', None),
    'visual_c3': ('backbone.tower.layer2', None),
    'visual_c4': ('backbone.tower.layer3', None),
    'visual_layer4': ('backbone.tower.layer4', None),
    'visual_c5_attnpool': ('backbone.tower.attnpool', None),
    'text_token_embedding': ('text_encoder.tower.token_embedding', None),
    'text_block0_LND': ('text_encoder.tower.transformer.resblocks.0', tokens_first),
    'text_words': ('text_encoder.tower.ln_final', None),
    'neck_txt_proj': ('neck.sentence_proj', None),
    'neck_f1_v_proj': ('neck.image5', None),
    'neck_f5': ('neck.gate_norm', None),
    'neck_f4': ('neck.merge4', None),
    'neck_f3': ('neck.merge3', None),
    'neck_aggr': ('neck.merge', None),
    'neck_fq': ('neck', None),
    'decoder_layer0_LND': ('decode_head.decoder.layers.0', tokens_first),
    'decoder_layer1_LND': ('decode_head.decoder.layers.1', tokens_first),
    'decoder_layer2_LND': ('decode_head.decoder.layers.2', tokens_first),
    'decoder_out_BCL': ('decode_head.decoder', lambda x: x.flatten(2)),
    'proj_vis': ('decode_head.projector.conv3', None),
    'proj_txt': ('decode_head.projector.sentence_proj', None),
    'proj_out': ('decode_head.projector', None),
}


def check_cris_masks(case: dict) -> Iterator[Check]:
    """The worked example of CRIS's test procedure."""
    height, width = case['post/ori_hw'].tolist()
    meta = dict(
        expressions=['a', 'b'], ori_shape=(height, width), warp_matrix=case['post/mat'].tolist()
    )
    sample = SegDataSample(metainfo=meta)
    cris_protocol(torch.from_numpy(case['post/input_z']), sample, (416, 416))
    packed, shape = case['post/mask_packed'], case['post/mask_shape']
    expected = np.unpackbits(packed)[: np.prod(shape)].reshape(shape)
    wrong = (sample.pred_sem_seg.data.numpy() != expected).sum((1, 2)).max()
    yield 'post: pixels of a mask that differ', float(wrong), 20.0


def check_cris_loss(
    case: dict, logits: Tensor, model: nn.Module, name: str, tol: float
) -> Iterator[Check]:
    """The training loss on rectangles."""
    samples = []
    for x1, y1, x2, y2 in case['loss/mask_boxes_xyxy'].tolist():
        mask = torch.zeros(1, 416, 416, dtype=torch.uint8)
        mask[:, y1:y2, x1:x2] = 1
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=mask)))
    target = targets_like(logits, samples)
    yield 'loss: mask', float((target[:, None].numpy() != case['loss/mask_104']).sum()), 0.0
    loss = float(model.decode_head.loss_decode(logits, target, ignore_index=255))
    yield name, abs(loss / float(case[name]) - 1), tol


def check_cris(folder: Path, fill: ModuleType) -> Iterator[Check]:
    """Token ids, logits in both precisions, intermediate results, loss and masks of a CRIS case."""
    case = dict(np.load(folder / 'case.npz'))
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{folder.name}.py')
    model = MODELS.build(config.model).eval()
    weights, dropped = convert_cris(published_weights(folder, fill))
    model.load_state_dict(weights)
    for name, reason in dropped.items():
        print(f'    left out {name}: {reason}')

    ids, mask = model.text_encoder.tokenize(case['texts'].tolist())
    yield 'token ids', float((ids.numpy() != case['token_ids']).sum()), 0.0
    yield 'padding', float((mask.numpy() == case['pad_mask']).sum()), 0.0
    image = fill.make_image(int(case['batch']), *case['image_size'].tolist(), int(case['seed']))
    stored = record(model, {key: name for key, (name, _) in CRIS_MIDDLE.items()})

    def run() -> Tensor:
        text = model.text_encoder.encode(ids, mask)
        stored['text_state'] = text.sentence
        return model.decode_head.predict(*model.extract_feat(image, text))

    with torch.no_grad():
        logits = run()
        yield 'float32 logits', relative(logits, case['logits']), 1e-4
        for key, value in stored.items():
            layout = CRIS_MIDDLE[key][1] if key in CRIS_MIDDLE else None
            # The logits' own rounding is as large as their README says, larger than that of the
            # rest.
            tolerance = 1e-4 if key == 'proj_out' else 2e-5
            yield from compare_middle(
                case, f'mid/{key}', layout(value) if layout else value, tolerance
            )
        positions = {
            'const_vis_pos_L1C': sine_position_2d(26, 26, 512),
            'const_txt_pos_L1C': sine_position_1d(17, 512),
        }
        for key, value in positions.items():
            yield from compare_middle(case, f'mid/{key}', value[:, None], 2e-5)
        yield from check_cris_loss(case, logits, model, 'loss/bce', 1e-4)

        model, image = model.double(), image.double()
        logits = run()
        yield 'float64 logits', relative(logits, case['f64/logits']), 1e-6
        yield from check_cris_loss(case, logits, model, 'f64/loss_bce', 1e-6)
    yield from check_cris_masks(case)


CASES = {'cris': check_cris}


def load_fill(path: Path) -> ModuleType:
    """The module that draws the weights."""
    spec = importlib.util.spec_from_file_location('parity_fill', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Run the cases given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='+', type=Path, help='case folders, named METHOD_...')
    parser.add_argument('--verbose', action='store_true', help='also print what agrees')
    args = parser.parse_args()
    init_default_scope('mmseg')
    failed = 0
    for folder in (folder.resolve() for folder in args.folders):
        check = CASES.get(folder.name.split('_')[0])
        if check is None:
            parser.error(f'{folder}: no check for this method; known: {sorted(CASES)}')
        print(folder.name)
        worst = (-1.0, '')
        for what, difference, tolerance in check(folder, load_fill(folder.parent / 'fill.py')):
            good = difference <= tolerance
            failed += not good
            line = f'{what}: {difference:.2g} (<= {tolerance:g})'
            if args.verbose or not good or not what.startswith('mid/'):
                print(f'    {"ok  " if good else "FAIL"} {line}')
            elif difference >= worst[0]:
                worst = (difference, line)
        if worst[1]:
            print(f'    ok   intermediate results, worst: {worst[1]}')
    print(f'{failed} comparisons failed' if failed else 'all comparisons agree')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
