"""VPD's language side: a frozen CLIP, and an adapter that learns."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.clip_encoders import (
    build_text_encoder,
    copy_weights,
    encode_words,
    token_vocabulary,
)
from nemo_mmseg.models.utils.frozen import FrozenModule
from nemo_mmseg.models.utils.masking import TokenVocabulary
from nemo_mmseg.utils.clip import clip_config, load_clip_tokenizer


class FrozenCLIPText(FrozenModule):
    """Text transformer of a pretrained CLIP.

    Args:
        model: open_clip's name of the architecture, e.g. ``'ViT-L-14-quickgelu'``.
        pretrained: Tag or local file of the weights; None for random ones.

    Raises:
        ValueError: Unknown model.
    """

    def __init__(self, model: str, pretrained: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.pretrained = pretrained
        self.config = clip_config(model)['text_cfg']

    def load(self) -> nn.Module:
        """Make the text encoder of open_clip's model, without what makes sentence features."""
        tower = build_text_encoder(self.model, self.pretrained)
        tower.text_projection = None
        if self.pretrained is not None:
            copy_weights(tower, 'text', self.model, self.pretrained)
        return tower

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        """Return the last hidden states ``(E, T, Cw)`` of token ids ``(E, T)``."""
        return encode_words(self.network, ids.to(self._place.device))


@MODELS.register_module()
class VPDTextEncoder(BaseModule):
    """Word features of a frozen CLIP, and a small correction of them that is learnt.

    An expression becomes the start token, its pieces and the end token, and is filled up with
    **end** tokens, where CLIP's own tokenizer takes 0. Beyond ``context_length`` tokens it is cut,
    and keeps an end token. CLIP sees the padding, and VPD's UNet attends to it as to words: its
    features are part of the network.

    CLIP is no part of the model's checkpoints, as published. It is loaded when a training starts,
    or when it is used first.

    Zhao et al., *Unleashing text-to-image diffusion models for visual perception*, 2023.

    Args:
        clip: ``model``, open_clip's name of the architecture, and ``pretrained``, tag or local file
            of its weights. Stable Diffusion 1 was trained with
            ``dict(model='ViT-L-14-quickgelu', pretrained='openai')``.
        context_length: Number of tokens per expression, at most CLIP's own.
        init_cfg: As in MMEngine.

    Raises:
        ValueError: Unknown model, or ``context_length`` out of range.
    """

    def __init__(self, clip: dict, context_length: int = 40, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.clip = FrozenCLIPText(**clip)
        longest = self.clip.config['context_length']
        if not 3 <= context_length <= longest:
            raise ValueError(
                f'context_length must be 3 to {longest} for {self.clip.model!r}, '
                f'not {context_length}'
            )
        self.context_length = context_length
        self.tokenizer = load_clip_tokenizer(self.clip.model, context_length=context_length)
        channels = self.word_channels
        self.adapter = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )
        self.gamma = nn.Parameter(torch.full((channels,), 1e-4))

    @property
    def word_channels(self) -> int:
        """Size of a word feature, Cw."""
        return self.clip.config['width']

    def tokenize(self, expressions: list[str]) -> tuple[Tensor, Tensor]:
        """Turn E expressions into token ids.

        Returns:
            ``ids`` ``(E, T)`` long and ``mask`` ``(E, T)`` bool, True on tokens that are no
            padding; on the CPU.
        """
        ids = self.tokenizer(list(expressions))
        end = int(self.tokenizer.eot_token_id)
        ends = (ids == end).int()
        padding = (ends.cumsum(dim=1) - ends) > 0  # behind an end token
        return ids.masked_fill(padding, end), ~padding

    def token_vocabulary(self) -> TokenVocabulary:
        """What masks tokens of CLIP's vocabulary; not with padding, which is an end token here."""
        return token_vocabulary(self.tokenizer)

    def adapt(self, words: Tensor) -> Tensor:
        """Correct CLIP's features of words, ``(E, T, Cw)``."""
        return words + self.gamma * self.adapter(words)

    def encode(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Run CLIP and the adapter.

        Args:
            ids: Token ids ``(E, T)``.
            mask: ``(E, T)`` bool, True on real tokens; handed on, not used.

        Returns:
            Features whose ``words`` are ``(E, T, Cw)``, without ``sentence``.
        """
        words = self.adapt(self.clip(ids))
        index = torch.arange(ids.shape[0], device=words.device)
        return TextFeatures(words, mask.to(words.device), None, index, one_to_one=True)

    def forward(self, expressions: list[str]) -> TextFeatures:
        """Tokenize and encode E expressions."""
        return self.encode(*self.tokenize(expressions))
