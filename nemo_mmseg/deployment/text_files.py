"""The tokenizer of a network as a file of the tokenizers library, and the rules around it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from nemo_mmseg.models.segmentors.transformers_zero_shot import TransformersSegmentor
from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder
from nemo_mmseg.models.text_encoders.open_clip_text_encoder import OpenCLIPTextEncoder
from nemo_mmseg.models.text_encoders.vpd_text_encoder import VPDTextEncoder
from nemo_mmseg.utils.bert import load_bert_tokenizer

from .graphs import SplitSegmentor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# As open_clip cuts a text into words, after cleaning it and making it lower-case.
CLIP_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def write_tokenizer(model: SplitSegmentor, path: Path) -> dict:
    """Write the tokenizer of a network.

    Args:
        model: The network.
        path: File to write, JSON of the tokenizers library.

    Returns:
        What the runtime does around it, JSON values: ``template`` (the text, with ``{}`` for the
        expression), ``length`` (tokens of an expression), ``pad``
        (id), ``end`` (id that replaces the last token where an expression is cut to ``cut``, or
        None), ``mask_by_id`` (whether the mask is False wherever the id is ``pad``), ``clean``
        (whether the text is cleaned as CLIP's is).

    Raises:
        ValueError: The text encoder is of a class that is not known here.
    """
    encoder = getattr(model, 'text_encoder', None)
    length, template = getattr(encoder, 'context_length', None), '{}'
    if isinstance(model, TransformersSegmentor):
        tokenizer, rules = transformers_tokenizer(model)
        template = model.template
    elif isinstance(encoder, BERTTextEncoder):
        tokenizer = load_bert_tokenizer(encoder.model, encoder.bert.config.vocab_size)
        rules = dict(length=length, pad=0, end=None, cut=length, mask_by_id=False, clean=False)
    elif isinstance(encoder, (OpenCLIPTextEncoder, VPDTextEncoder)):
        tokenizer = clip_tokenizer(encoder.tokenizer)
        end, by_id = int(encoder.tokenizer.eot_token_id), isinstance(encoder, OpenCLIPTextEncoder)
        pad = encoder.pad_token_id if by_id else end
        cut = int(encoder.tokenizer.context_length)
        rules = dict(length=length, pad=pad, end=end, cut=cut, mask_by_id=by_id, clean=True)
    else:
        raise ValueError(f'{type(encoder).__name__} has no tokenizer that can be exported')
    tokenizer.save(str(path))
    return dict(rules, template=template)


def full_length(tokens: tuple[Tensor, Tensor], rules: dict) -> tuple[Tensor, Tensor]:
    """Fill token ids and mask, both ``(E, T)``, up to the length that the graphs take.

    Some tokenizers fill up to the longest expression alone.
    """
    ids, mask = tokens
    rest = (0, rules['length'] - ids.shape[1])
    return F.pad(ids, rest, value=rules['pad']), F.pad(mask, rest)


def transformers_tokenizer(model: TransformersSegmentor) -> tuple[Tokenizer, dict]:
    """Return the tokenizer, and the rules of :func:`write_tokenizer` without ``template``.

    Raises:
        ValueError: It is one of Python alone, which has no file of the tokenizers library.
    """
    from tokenizers import Tokenizer

    wrapped = model.frozen.tokenizer
    if not wrapped.is_fast:
        raise ValueError(f'{type(wrapped).__name__} of {model.frozen.model} cannot be exported')
    made = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    made.no_padding()  # the runtime does both
    made.no_truncation()
    length = model.frozen.network.config.text_config.max_position_embeddings
    pad, end = wrapped.pad_token_id, wrapped.eos_token_id
    rules = dict(length=length, pad=pad, end=end, cut=length, mask_by_id=False, clean=False)
    return made, rules


def clip_tokenizer(tokenizer: object) -> Tokenizer:
    """Make of open_clip's tokenizer one of the tokenizers library, for text that is clean."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    start, end = (_name_of(tokenizer, place) for place in ('sot_token_id', 'eot_token_id'))
    merges = [pair for pair in tokenizer.bpe_ranks if len(pair) == 2]
    made = Tokenizer(
        models.BPE(
            vocab={token: number for token, number in tokenizer.encoder.items() if token},
            merges=merges,
            end_of_word_suffix='</w>',
            continuing_subword_prefix='',
        )
    )
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior='removed', invert=True)
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, in_bytes])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single=f'{start} $A {end}',
        special_tokens=[(start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)],
    )
    return made


def _name_of(tokenizer: object, place: str) -> str:
    return tokenizer.decoder[int(getattr(tokenizer, place))]
