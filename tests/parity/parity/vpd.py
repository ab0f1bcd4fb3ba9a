"""VPD (Zhao et al., 2023) against its published implementation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from torch import Tensor, nn

from nemo_mmseg.models.converters.convert import build_without_memory, convert_checkpoint
from nemo_mmseg.models.converters.rename import translate
from nemo_mmseg.models.structures import TextFeatures

from .common import (
    Case,
    Comparison,
    Tap,
    base_model,
    compare_middle,
    summarize,
    tapped,
    tell_left_out,
)
from .lavt import compare_results, gt_of, image_of, loss_of, stored_middle
from .small import Small
from .vpd_training import check_training

CASES = ('vpd_small', 'vpd')
BOTH = torch.float32, torch.float64
# Where the small case's network differs from the published one.
SMALL_MODEL = {
    'text_encoder.context_length': 12,
    'backbone.block_channels': (32, 64, 128, 128),
    'neck.block_channels': (32, 64, 128, 128),
    'neck.word_channels': 64,
    'decode_head.in_channels': (32, 64 + 12, 128 + 12, 128),
}
SMALL_CLIP = dict(
    embed_dim=64,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=16, layers=1, width=64),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=4, layers=4),
)
# CLIP's names in transformers -> those in open_clip.
CLIP_TABLE = {
    'text_model.embeddings.token_embedding': 'token_embedding',
    'text_model.final_layer_norm': 'ln_final',
    **{
        f'text_model.encoder.layers.{{i}}.{theirs}': f'transformer.resblocks.{{i}}.{ours}'
        for theirs, ours in {
            'layer_norm1': 'ln_1',
            'self_attn.out_proj': 'attn.out_proj',
            'layer_norm2': 'ln_2',
            'mlp.fc1': 'mlp.c_fc',
            'mlp.fc2': 'mlp.c_proj',
        }.items()
    },
}
OF_ONE_LAYER = 'a layer keeps none of its own: their mean is compared'
ABSENT = {
    'attn.mid_cross.0': 'the network does not use it',
    **{f'attn.down_cross.{i}': OF_ONE_LAYER for i in range(4)},
    **{f'attn.up_cross.{i}': OF_ONE_LAYER for i in range(6)},
}
NOT_COMPARED = {
    'attention_mask': 'the network does not get it',
    **{
        f'{key}_rel_f32_vs_f64': 'how well the published code keeps to itself'
        for key in ('clip', 'e2e', 'feat', 'latents', 'e2e_attn16', 'e2e_attn32')
    },
    **{f'e2e_c{i}_rel_f32_vs_f64': 'how well it keeps to itself' for i in range(1, 5)},
}


@cache
def small_clip() -> str:
    """Tell open_clip of the small case's CLIP; returns its name."""
    import open_clip

    name = 'VPD-Small-CLIP'
    with TemporaryDirectory() as folder:
        path = Path(folder) / f'{name}.json'
        path.write_text(json.dumps(SMALL_CLIP))
        open_clip.add_model_config(path)
        open_clip.get_model_config(name)
    return name


def clip_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text transformer of transformers' CLIP under open_clip's names."""
    ours = {}
    for name, tensor in theirs.items():
        renamed = translate(CLIP_TABLE, name)
        if renamed is not None:
            ours[renamed] = tensor
        elif name.endswith('position_embedding.weight'):
            ours['positional_embedding'] = tensor
        elif '.q_proj.' in name:
            parts = [theirs[name.replace('.q_proj.', f'.{x}_proj.')] for x in 'qkv']
            layer = name.split('.')[3]
            kind = name.rpartition('.')[2]
            ours[f'transformer.resblocks.{layer}.attn.in_proj_{kind}'] = torch.cat(parts)
    return ours


def published(case: Case) -> dict[str, Tensor]:
    """The weights of a case. Those that read attention maps were made larger."""
    weights = case.weights('model')
    for name in ('classifier.conv1_4.weight', 'classifier.conv1_3.weight'):
        weights[name][:, -int(case['token_length']) :] *= float(case['attn_gain'])
    return weights


def load(case: Case) -> nn.Module:
    """The network of a case with its weights, in evaluation mode."""
    model = Config(dict(model=base_model('vpd', 'vpd_sd15')))
    model.model.text_encoder.clip.pretrained = None
    if case.folder.name == 'vpd_small':
        model.merge_from_dict({f'model.{key}': value for key, value in SMALL_MODEL.items()})
        model.model.text_encoder.clip.model = small_clip()
    converted = convert_checkpoint('vpd', dict(model=published(case)), model.model)
    print(f'    vpd: {len(converted.state_dict)} tensors')
    tell_left_out(converted.left_out)
    network = build_without_memory(model.model).eval()
    network.load_state_dict(converted.state_dict, assign=True)
    clip = network.text_encoder.clip.to_empty(device='cpu')
    clip.network.load_state_dict(clip_weights(case.weights('clip_model')))
    return network


def taps_of(model: nn.Module) -> dict[str, Tap]:
    """Intermediate result of a case -> where it is in our network."""
    encoder, unet = 'backbone.vae.encoder', 'neck.unet'
    taps = {
        'vae.conv_in': Tap(f'{encoder}.conv_in'),
        'vae.mid.block_1': Tap(f'{encoder}.mid_block.resnets.0'),
        'vae.mid.attn_1': Tap(f'{encoder}.mid_block.attentions.0'),
        'vae.mid.block_2': Tap(f'{encoder}.mid_block.resnets.1'),
        'vae.conv_out': Tap(f'{encoder}.conv_out'),
        'vae.moments': Tap('backbone.vae.quant_conv'),
        'text_adapter.fc': Tap('text_encoder.adapter'),
        'unet.time_embed': Tap(f'{unet}.time_embedding'),
        'unet.input_blocks.0': Tap(f'{unet}.conv_in'),
        'unet.middle_block': Tap(f'{unet}.mid_block'),
        'logits_low': Tap('decode_head.conv_seg'),
    }
    for level in range(4):
        kind = 'attentions' if level < 3 else 'resnets'
        for i in range(2):
            place = f'{encoder}.down_blocks.{level}.resnets.{i}'
            taps[f'vae.down{level}.block{i}'] = Tap(place)
            place = f'{unet}.down_blocks.{level}.{kind}.{i}'
            taps[f'unet.input_blocks.{3 * level + i + 1}'] = Tap(place)
        kind = 'attentions' if level > 0 else 'resnets'
        for i in range(3):
            place = f'{unet}.up_blocks.{level}.{kind}.{i}'
            taps[f'unet.output_blocks.{3 * level + i}'] = Tap(place)
        if level < 3:
            taps |= {
                f'vae.down{level}.downsample': Tap(f'{encoder}.down_blocks.{level}.downsamplers.0'),
                f'unet.input_blocks.{3 * level + 3}': Tap(
                    f'{unet}.down_blocks.{level}.downsamplers.0'
                ),
                f'unet.output_blocks.{3 * level + 2}': Tap(
                    f'{unet}.up_blocks.{level}.upsamplers.0'
                ),
                f'classifier.relu1_{4 - level}': Tap(f'decode_head.steps.{level}.conv1'),
                f'classifier.relu2_{4 - level}': Tap(f'decode_head.steps.{level}.conv2'),
            }
    return taps


def compare_features(
    case: Case, run: str, feats: tuple[Tensor, ...], tolerance: float
) -> Iterator[Comparison]:
    """Values of the four features, and the attention maps that are appended to two of them."""
    for i, feature in enumerate(feats, 1):
        flat = feature.flatten()
        ours = flat[:: len(flat) // 1024][:1024]
        yield from case.compare(f'{run}_c{i}_sample', ours, tolerance)
    if run == 'e2e':
        tokens = int(case['token_length'])
        attn32, attn16 = (feature[:, -tokens:] for feature in feats[1:3])
        yield from case.compare('e2e_attn16', attn16, tolerance)
        if case.folder.name == 'vpd':  # a part of it is stored
            attn32 = attn32[:1, :, ::2, ::2]
        yield from case.compare('e2e_attn32', attn32, tolerance)


def named(text: TextFeatures, feats: tuple[Tensor, ...], tokens: int) -> dict:
    """Summaries of what no module returns alone."""
    parts = {f'c{i}': feature for i, feature in enumerate(feats, 1)}
    parts |= {'attn32': feats[1][:, -tokens:], 'attn16': feats[2][:, -tokens:]}
    return {name: summarize(x) for name, x in dict(parts, context=text.words).items()}


@torch.no_grad()
def check_run(
    case: Case, model: nn.Module, run: str, latents: list[Tensor]
) -> Iterator[Comparison]:
    """From stored words (``feat``) or token ids (``e2e``) to masks, in float32.

    Args:
        case: The case.
        model: Our network.
        run: ``'feat'`` or ``'e2e'``.
        latents: Gets those of the images, or has them from the run before.
    """
    encoder, ids = model.text_encoder, case.tensor('token_ids')
    with tapped(model, taps_of(model)) as middle:
        if run == 'e2e':
            yield from case.compare('clip_last_hidden', encoder.clip(ids), 2e-5)
            text = encoder.encode(ids, ids > 0)
        else:
            words = case.tensor('lang_feats')
            index = torch.arange(len(words))
            text = TextFeatures(encoder.adapt(words), ids > 0, None, index, one_to_one=True)
        if not latents:
            latents.append(model.encode_image(image_of(case)))
        feats, text = model.fuse(latents[0], text)
        logits = model.decode_head(feats, text).logits
    middle |= named(text, feats, int(case['token_length']))
    if run == 'e2e':
        yield from case.compare('latents', latents[0], 2e-5)
        rows = model.neck.unet.time_embedding(
            model.neck.unet.time_proj(torch.ones(1, dtype=torch.long))
        )
        yield from case.compare('time_embed', rows, 2e-5)
    yield from compare_features(case, run, feats, 2e-5)
    yield from compare_results(case, run, model.decode_head, logits, 2e-5)
    yield from compare_middle(run, middle, stored_middle(case, run), 1e-4, ABSENT)


@torch.no_grad()
def check_float64(case: Case, model: nn.Module) -> Iterator[Comparison]:
    """From token ids to logits and loss, in float64."""
    # of the large case the first sample alone is stored
    rows = 1 if case.folder.name == 'vpd' else 2
    model, image = model.double(), image_of(case)[:rows].double()
    ids = case.tensor('token_ids')[:rows]
    text = model.text_encoder.encode(ids, ids > 0)
    logits = model.decode_head(*model.extract_feat(image, text)).logits
    yield from case.compare('e2e64_logits_low', logits, 1e-6)
    loss = loss_of(model.decode_head, logits, gt_of(case)[:rows])
    yield Comparison('e2e64_loss', abs(loss / float(case['e2e64_loss']) - 1), 1e-6)


def check_network(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """From token ids to masks, in both precisions, and from stored words to masks."""
    case = Case(folder)
    model = load(case)
    if torch.float32 in dtypes:
        latents: list[Tensor] = []
        yield from check_run(case, model, 'e2e', latents)
        yield from check_run(case, model, 'feat', latents)
    if torch.float64 in dtypes:
        yield from check_float64(case, model)
    if len(dtypes) == 2:
        yield from case.all_read(NOT_COMPARED)


def check_step(folder: Path, dtypes: tuple[torch.dtype, ...] = BOTH) -> Iterator[Comparison]:
    """A step of training, where the case has one."""
    if (folder / 'train.npz').is_file():
        case = Case(folder)
        for dtype in dtypes:
            model = load(case).to(dtype)
            yield from check_training(case, Case(folder, 'train.npz'), model, dtype)


SMALL = Small(
    names={'case.npz': 'names.json', 'train.npz': None},
    dropped=('e2e_logits_quarter', 'feat_logits_quarter'),
)
CHECKS: dict[str, Callable[..., Iterator[Comparison]]] = {
    'network': check_network,
    'training': check_step,
}
