"""One encoder of a CLIP model, made of open_clip's own classes.

The encoders are built with random weights and filled when MMEngine initialises the network, so that
testing a trained checkpoint needs neither CLIP's file nor the encoder that is not used.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from nemo_mmseg.utils.clip import clip_config, load_clip

from .masking import TokenVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def build_image_encoder(model: str) -> nn.Module:
    """Build the image encoder of a CLIP model with a (modified) ResNet, with random weights.

    Args:
        model: open_clip's name of the architecture, e.g. ``'RN50-quickgelu'``.

    Raises:
        ValueError: The model is unknown, or its image encoder is no ResNet.
    """
    from open_clip.model import CLIPVisionCfg, ModifiedResNet

    config = clip_config(model)
    vision = CLIPVisionCfg(**config['vision_cfg'])
    if vision.timm_model_name or not isinstance(vision.layers, (list, tuple)):
        raise ValueError(f'the image encoder of CLIP model {model!r} is not a CLIP ResNet')
    return ModifiedResNet(
        layers=vision.layers,
        output_dim=config['embed_dim'],
        heads=vision.width * 32 // vision.head_width,
        image_size=vision.image_size,
        width=vision.width,
    )


def build_text_encoder(model: str, pretrained: str | None = None) -> nn.Module:
    """Build the text encoder of a CLIP model, with random weights.

    Args:
        model: open_clip's name of the architecture.
        pretrained: The weights it will get; OpenAI's were trained with QuickGELU.

    Raises:
        ValueError: The model is unknown, or its text encoder is not open_clip's own transformer.
    """
    from open_clip.model import CLIPTextCfg, TextTransformer
    from open_clip.transformer import QuickGELU

    config = clip_config(model)
    if config['text_cfg'].get('hf_model_name') or config['text_cfg'].get('embed_cls'):
        raise ValueError(f'the text encoder of CLIP model {model!r} is no plain transformer')
    settings = asdict(CLIPTextCfg(**config['text_cfg']))
    accepted = inspect.signature(TextTransformer).parameters
    settings = {name: value for name, value in settings.items() if name in accepted}
    if config.get('quick_gelu') or pretrained == 'openai':
        settings['act_layer'] = QuickGELU
    return TextTransformer(output_dim=config['embed_dim'], **settings)


def token_vocabulary(tokenizer: Callable) -> TokenVocabulary:
    """Say what masks tokens of a CLIP vocabulary, which has no [MASK].

    The filler is the id that CLIP's tokenizer puts where there is no text. In OpenAI's vocabulary
    it is also the piece "!", which tells nothing of an object. Random ids are those of pieces: an
    end token would end the expression there.

    Args:
        tokenizer: See :func:`~nemo_mmseg.utils.clip.load_clip_tokenizer`.
    """
    start, end = int(tokenizer.sot_token_id), int(tokenizer.eot_token_id)
    padding = int(tokenizer([''])[0, -1])  # what follows the end of an empty sentence
    return TokenVocabulary(padding, (start, end), min(start, end))


def encode_words(tower: nn.Module, ids: Tensor) -> Tensor:
    """Run a text encoder.

    Args:
        tower: What :func:`build_text_encoder` returned.
        ids: Token ids ``(E, T)`` on its device, T at most its number of positions.

    Returns:
        Its last hidden states ``(E, T, Cw)``, normalised and not projected.
    """
    length = ids.shape[1]
    x = tower.token_embedding(ids) + tower.positional_embedding[:length]
    causal = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
    return tower.ln_final(tower.transformer(x, attn_mask=causal))


def copy_weights(encoder: nn.Module, kind: str, model: str, pretrained: str) -> None:
    """Copy the weights of a pretrained CLIP into an encoder.

    Args:
        encoder: What :func:`build_image_encoder` or :func:`build_text_encoder` returned. It may
            have more parameters than CLIP's; those are named in the log and keep their values.
        kind: ``'image'`` or ``'text'``.
        model: open_clip's name of the architecture.
        pretrained: Tag or local file.

    Raises:
        FileNotFoundError: ``pretrained`` is neither a tag of the model nor a file.
        RuntimeError: The weights do not fit the architecture.
    """
    clip = load_clip(model, pretrained)
    # open_clip's plain CLIP spreads the text encoder on the model, others have it as a module.
    source = clip.visual if kind == 'image' else getattr(clip, 'text', clip)
    ours, theirs = encoder.state_dict(), source.state_dict()
    added = [name for name in ours if name not in theirs]
    encoder.load_state_dict({**ours, **{k: v for k, v in theirs.items() if k in ours}})
    print_log(
        f'{kind} encoder: {len(ours) - len(added)} tensors from {model} ({pretrained})'
        + (f'; not in CLIP, left as initialised: {", ".join(added)}' if added else ''),
        logger='current',
    )
