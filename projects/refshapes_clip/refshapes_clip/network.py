"""The small CLIP: its size, its files, and its encoders as training runs them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F

from nemo_mmseg.utils.atomic_write import atomic_write, write_bytes, write_text
from refshapes_clip import words as vocab

CONFIG = {
    'embed_dim': 128,
    'quick_gelu': True,
    'vision_cfg': {'image_size': 256, 'layers': [1, 1, 2, 1], 'width': 16, 'head_width': 64},
    'text_cfg': {'context_length': 32, 'width': 128, 'heads': 4, 'layers': 3},
}
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1) * 255


def write_config(folder: Path) -> None:
    """Write the model's config and vocabulary into a folder."""
    packed, size = vocab.bpe_file(vocab.all_words())
    config = json.loads(json.dumps(CONFIG))
    config['text_cfg']['vocab_size'] = size
    write_bytes(folder / 'bpe.txt.gz', packed)
    write_text(folder / 'RefShapes-CLIP.json', json.dumps(config, indent=4) + '\n')


def build(folder: Path):
    """Build model and tokenizer from the config and vocabulary of a folder."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    open_clip.add_model_config(folder / 'RefShapes-CLIP.json')
    length = CONFIG['text_cfg']['context_length']
    tokenizer = SimpleTokenizer(str(folder / 'bpe.txt.gz'), context_length=length)
    return open_clip.create_model('RefShapes-CLIP', precision='fp32'), tokenizer


def start_from(model, tokenizer, folder: Path) -> None:
    """Give a model the weights of an earlier one, whose vocabulary may be another.

    A word that the earlier one lacks starts as the longest one of its words with which it begins
    ("larger" as "large").

    Args:
        model: The model that gets the weights.
        tokenizer: Its tokenizer.
        folder: Folder of the earlier model: ``weights.safetensors`` and ``bpe.txt.gz``.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from safetensors.torch import load_file

    state = load_file(folder / 'weights.safetensors')
    earlier = SimpleTokenizer(str(folder / 'bpe.txt.gz'))
    rows = state['token_embedding.weight'].float()
    table = model.token_embedding.weight.detach().clone()
    table[:512] = rows[:512]  # single bytes, and bytes that end a word
    table[-2:] = rows[-2:]  # start and end
    for word in vocab.all_words():
        parts = (earlier.encode(word[:end]) for end in range(len(word), 0, -1))
        table[tokenizer.encode(word)[0]] = rows[next(p[0] for p in parts if len(p) == 1)]
    state['token_embedding.weight'] = table
    model.load_state_dict(state, strict=False)  # the causal mask is not saved


def save(model, path: Path) -> None:
    """Write the weights as float16 safetensors."""
    from safetensors.torch import save_file

    state = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
        if not k.endswith('attn_mask')
    }
    with atomic_write(path) as part:
        save_file(state, part)


def encode_text(model, tokens: torch.Tensor) -> torch.Tensor:
    """Encode sentences that are cut to the longest one, which a causal mask allows."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    x = x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def encode_image(model, aux, images: torch.Tensor):
    """Return pooled vector, dense output of the pool and projected layer 3, all of unit length."""
    visual = model.visual
    x = visual.layer2(visual.layer1(visual.stem(images)))
    mid = visual.layer3(x)
    x = visual.layer4(mid)
    pool = visual.attnpool
    n, c, h, w = x.shape
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1)
    position = pool.positional_embedding
    side = int((len(position) - 1) ** 0.5)
    if (h, w) != (side, side):  # a window: the positions of a random place of that size
        top = int(torch.randint(side - h + 1, ()))
        left = int(torch.randint(side - w + 1, ()))
        grid = position[1:].view(side, side, c)[top : top + h, left : left + w]
        position = torch.cat([position[:1], grid.reshape(-1, c)])
    x = x + position
    heads = pool.num_heads

    def split(t):
        return t.view(n, -1, heads, c // heads).transpose(1, 2)

    x = F.scaled_dot_product_attention(
        split(pool.q_proj(x)), split(pool.k_proj(x)), split(pool.v_proj(x))
    )
    x = F.normalize(pool.c_proj(x.transpose(1, 2).reshape(n, -1, c)).float(), dim=-1)
    local = F.normalize(aux(mid).flatten(2).transpose(1, 2).float(), dim=-1)
    return x[:, 0], x[:, 1:], local
