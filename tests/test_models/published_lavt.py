"""A LAVT of any size under its published names, and what a published LAVT computes from it.

Written from the description in the papers and the names in published checkpoints, for tests of the
converters: nothing here knows of the networks or the tables of this package.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = dict(embed=8, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), window=2)
BASE = dict(embed=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12)
TINY_BERT = dict(words=24, layers=2, vocabulary=40, positions=20)
BASE_BERT = dict(words=768, layers=12, vocabulary=30522, positions=512)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape) * 0.3


def shape_only(*shape: int) -> Tensor:
    return torch.empty(shape, device='meta')


def layer(name: str, out: int, *rest: int, make=noise, bias: bool = True) -> dict[str, Tensor]:
    """Weight (out, *rest), and bias."""
    tensors = {f'{name}.weight': make(out, *rest)}
    return {**tensors, f'{name}.bias': make(out)} if bias else tensors


def published_swin(embed, depths, heads, window, make=noise) -> dict[str, Tensor]:
    """What all of Swin's published checkpoints have in common."""
    state = {
        **layer('patch_embed.proj', embed, 3, 4, 4, make=make),
        **layer('patch_embed.norm', embed, make=make),
    }
    for i, (depth, num_heads) in enumerate(zip(depths, heads)):
        c = embed * 2**i
        for j in range(depth):
            block = f'layers.{i}.blocks.{j}'
            table = f'{block}.attn.relative_position_bias_table'
            index = f'{block}.attn.relative_position_index'
            state |= {
                **layer(f'{block}.norm1', c, make=make),
                table: make((2 * window - 1) ** 2, num_heads),
                index: torch.zeros(window**2, window**2, dtype=torch.long),
                **layer(f'{block}.attn.qkv', 3 * c, c, make=make),
                **layer(f'{block}.attn.proj', c, c, make=make),
                **layer(f'{block}.norm2', c, make=make),
                **layer(f'{block}.mlp.fc1', 4 * c, c, make=make),
                **layer(f'{block}.mlp.fc2', c, 4 * c, make=make),
            }
        if i < 3:
            state |= layer(f'layers.{i}.downsample.reduction', 2 * c, 4 * c, make=make, bias=False)
            state |= layer(f'layers.{i}.downsample.norm', 4 * c, make=make)
    return state


def published_bert(words, layers, vocabulary, positions, make=noise) -> dict[str, Tensor]:
    """BERT as transformers names it, without pooler."""
    state = {
        'embeddings.word_embeddings.weight': make(vocabulary, words),
        'embeddings.position_embeddings.weight': make(positions, words),
        'embeddings.token_type_embeddings.weight': make(2, words),
        **layer('embeddings.LayerNorm', words, make=make),
    }
    for i in range(layers):
        here = f'encoder.layer.{i}'
        for part in ('self.query', 'self.key', 'self.value', 'output.dense'):
            state |= layer(f'{here}.attention.{part}', words, words, make=make)
        state |= {
            **layer(f'{here}.attention.output.LayerNorm', words, make=make),
            **layer(f'{here}.intermediate.dense', 4 * words, words, make=make),
            **layer(f'{here}.output.dense', words, 4 * words, make=make),
            **layer(f'{here}.output.LayerNorm', words, make=make),
        }
    return state


def published_model(embed, depths, heads, window, words, make=noise) -> dict[str, Tensor]:
    """The entry `model` of a LAVT checkpoint whose BERT is apart."""
    swin = published_swin(embed, depths, heads, window, make)
    state = {f'backbone.{name}': tensor for name, tensor in swin.items()}
    for i in range(4):
        c = embed * 2**i
        fusion = f'backbone.layers.{i}.fusion'
        state |= {
            **layer(f'{fusion}.vis_project.0', c, c, 1, make=make),
            **layer(f'{fusion}.image_lang_att.f_key.0', c, words, 1, make=make),
            **layer(f'{fusion}.image_lang_att.f_query.0', c, c, 1, make=make),
            **layer(f'{fusion}.image_lang_att.f_value.0', c, words, 1, make=make),
            **layer(f'{fusion}.image_lang_att.W.0', c, c, 1, make=make),
            **layer(f'{fusion}.project_mm.0', c, c, 1, make=make),
            **layer(f'backbone.layers.{i}.res_gate.0', c, c, make=make, bias=False),
            **layer(f'backbone.layers.{i}.res_gate.2', c, c, make=make, bias=False),
            **layer(f'backbone.norm{i}', c, make=make),
        }
    hidden = coarse = 4 * embed
    coarse = 8 * embed
    for step, fine in ((4, 4 * embed), (3, 2 * embed), (2, embed)):
        for k, channels in ((1, coarse + fine), (2, hidden)):
            norm = f'classifier.bn{k}_{step}'
            name = f'classifier.conv{k}_{step}'
            state |= {
                **layer(name, hidden, channels, 3, 3, make=make, bias=False),
                **layer(norm, hidden, make=make),
                f'{norm}.running_mean': make(hidden),
                f'{norm}.running_var': make(hidden).abs() + 0.5,
                f'{norm}.num_batches_tracked': torch.tensor(7),
            }
        coarse = hidden
    return state | layer('classifier.conv1_1', 2, hidden, 1, 1, make=make)


def published_lavt(size=TINY, bert=TINY_BERT, make=noise) -> dict:
    """A checkpoint of `lavt` with what the training saved beside it, but for its arguments."""
    return dict(
        model=published_model(**size, words=bert['words'], make=make),
        bert_model=published_bert(**bert, make=make),
        optimizer=dict(state={0: dict(exp_avg=torch.zeros(2))}, param_groups=[dict(lr=5e-5)]),
        lr_scheduler=dict(last_epoch=3),
        epoch=3,
    )


def published_lavt_one(size=TINY, bert=TINY_BERT, make=noise) -> dict:
    """A checkpoint of `lavt_one`."""
    both = published_lavt(size, bert, make)
    text = both.pop('bert_model')
    both['model'] |= {f'text_encoder.{name}': tensor for name, tensor in text.items()}
    return both


def our_model(size=TINY, bert=TINY_BERT) -> dict:
    """Config of the network of this package that has this size."""
    channels = [size['embed'] * 2**i for i in range(4)]
    settings = dict(
        vocab_size=bert['vocabulary'],
        hidden_size=bert['words'],
        num_hidden_layers=bert['layers'],
        num_attention_heads=max(bert['words'] // 64, 1),
        intermediate_size=4 * bert['words'],
        max_position_embeddings=bert['positions'],
    )
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.0] * 3, std=[1.0] * 3),
        text_encoder=dict(type='BERTTextEncoder', config=settings, pretrained=False),
        backbone=dict(
            type='LAVTSwinTransformer',
            embed_dims=size['embed'],
            depths=size['depths'],
            num_heads=size['heads'],
            window_size=size['window'],
            word_channels=bert['words'],
        ),
        decode_head=dict(type='LAVTHead', in_channels=channels),
    )


def merge_patches(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """(B, H, W, C), H and W even -> (B, H/2, W/2, 2C)."""
    parts = [x[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
    x = torch.cat(parts, -1)
    x = F.layer_norm(x, x.shape[-1:], state[f'{name}.norm.weight'], state[f'{name}.norm.bias'])
    return F.linear(x, state[f'{name}.reduction.weight'])


def run_published(
    state: dict[str, Tensor], image: Tensor, words: Tensor, mask: Tensor, size: dict = TINY
) -> Tensor:
    """Logits (B, 2, H/4, W/4) of a published network in eval mode, one block a stage, unshifted.

    Args:
        state: What :func:`published_model` returned.
        image: (B, 3, H, W); every stage's map divides into windows.
        words: (B, T, Cw).
        mask: (B, T), 1 on words.
        size: Of the network.
    """

    def dense(x, name):
        weight = state[f'{name}.weight']
        return F.linear(x, weight.reshape(weight.shape[:2]), state.get(f'{name}.bias'))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'])

    def attend(x, name, heads):
        b, n, c = x.shape
        q, k, v = dense(x, f'{name}.qkv').reshape(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        table, w = state[f'{name}.relative_position_bias_table'], size['window']
        bias = x.new_empty(heads, n, n)
        for a in range(n):
            for z in range(n):
                down, right = a // w - z // w + w - 1, a % w - z % w + w - 1
                bias[:, a, z] = table[down * (2 * w - 1) + right]
        weights = (q @ k.transpose(-1, -2) * (c // heads) ** -0.5 + bias).softmax(-1)
        return dense((weights @ v).transpose(1, 2).reshape(b, n, c), f'{name}.proj')

    def standard(x):  # over the pixels
        return (x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def fuse(x, name):
        att = f'{name}.image_lang_att'
        query = standard(dense(x, f'{att}.f_query.0'))
        key, value = (dense(words, f'{att}.f_{p}.0') * mask[..., None] for p in ('key', 'value'))
        score = query @ key.transpose(1, 2) * x.shape[-1] ** -0.5
        weights = (score + 1e4 * mask[:, None] - 1e4).softmax(-1)
        out = standard(dense(weights @ value, f'{att}.W.0'))
        seen = F.gelu(dense(x, f'{name}.vis_project.0'))
        return F.gelu(dense(seen * out, f'{name}.project_mm.0'))

    weight, bias = (state[f'backbone.patch_embed.proj.{p}'] for p in ('weight', 'bias'))
    x = F.conv2d(image, weight, bias, stride=4).permute(0, 2, 3, 1)
    x = norm(x, 'backbone.patch_embed.norm')
    maps, w = [], size['window']
    for i, heads in enumerate(size['heads']):
        stage, (b, height, width, c) = f'backbone.layers.{i}', x.shape
        block = f'{stage}.blocks.0'
        y = norm(x, f'{block}.norm1').reshape(b, height // w, w, width // w, w, c)
        y = y.transpose(2, 3).reshape(-1, w * w, c)
        y = attend(y, f'{block}.attn', heads).reshape(b, height // w, width // w, w, w, c)
        x = x + y.transpose(2, 3).reshape(x.shape)
        y = F.gelu(dense(norm(x, f'{block}.norm2'), f'{block}.mlp.fc1'))
        x = x + dense(y, f'{block}.mlp.fc2')
        fused = fuse(x.reshape(b, -1, c), f'{stage}.fusion').reshape(x.shape)
        maps.append(norm(fused, f'backbone.norm{i}').permute(0, 3, 1, 2))
        gate = dense(dense(fused, f'{stage}.res_gate.0').relu(), f'{stage}.res_gate.2').tanh()
        x = x + gate * fused
        if i < 3:
            x = merge_patches(state, f'{stage}.downsample', x)

    x = maps[3]
    for step, fine in ((4, maps[2]), (3, maps[1]), (2, maps[0])):
        x = F.interpolate(x, fine.shape[2:], mode='bilinear', align_corners=True)
        x = torch.cat((x, fine), 1)
        for k in (1, 2):
            mean, var, weight, bias = (
                state[f'classifier.bn{k}_{step}.{part}']
                for part in ('running_mean', 'running_var', 'weight', 'bias')
            )
            x = F.conv2d(x, state[f'classifier.conv{k}_{step}.weight'], padding=1)
            x = F.batch_norm(x, mean, var, weight, bias).relu()
    return F.conv2d(x, state['classifier.conv1_1.weight'], state['classifier.conv1_1.bias'])
