"""The text transformer of a CLIP model as the language side of a segmentation network."""

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
from nemo_mmseg.models.utils.masking import TokenVocabulary
from nemo_mmseg.utils.clip import load_clip_tokenizer


@MODELS.register_module()
class OpenCLIPTextEncoder(BaseModule):
    """Word and sentence features from the text encoder of any plain open_clip model.

    Start, end and padding ids and the vocabulary come from the model's tokenizer. Expressions are
    cut to ``context_length`` tokens, the last of which is then the end token (but see
    ``keep_end``). Padding is told by its id, as CLIP-based networks publish it: with OpenAI's
    vocabulary the piece "!" inside a word shares it. The transformer is causal and sees the
    padding; ``mask`` is for those who attend to the words later.

    Radford et al., *Learning transferable visual models from natural language supervision*, 2021.

    Args:
        model: open_clip's name of the architecture, e.g. ``'RN50-quickgelu'``.
        pretrained: Tag or local file of the weights, loaded by ``init_weights``; None for random
            ones.
        context_length: Number of tokens per expression, at most the model's own; None takes that.
        keep_end: Whether the end token stays when an expression is cut. If not, as TRIS published
            it, the sentence feature of such an expression is that of the start token, which sees
            no word: all long expressions have the same one.
        sentence: Whether there are sentence features. A network that uses the words alone has no
            weights for them.
        init_cfg: As in MMEngine.

    Raises:
        ValueError: Unknown model, or ``context_length`` out of range.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        context_length: int | None = None,
        keep_end: bool = True,
        sentence: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.model = model
        self.pretrained = pretrained
        self.tower = build_text_encoder(model, pretrained)
        longest = self.tower.num_pos
        self.context_length = longest if context_length is None else context_length
        if not 3 <= self.context_length <= longest:
            raise ValueError(
                f'context_length must be 3 to {longest} for {model!r}, not {context_length}'
            )
        if not sentence:
            self.tower.text_projection = None
        self.sentence = sentence
        read = self.context_length if keep_end else longest
        self.tokenizer = load_clip_tokenizer(model, context_length=read)
        self.eot_token_id = int(self.tokenizer.eot_token_id)
        # The id after the end of an empty sentence is the one that pads.
        self.pad_token_id = int(self.tokenizer([''])[0, -1])

    @property
    def word_channels(self) -> int:
        """Size of a word feature, Cw."""
        return self.tower.width

    def init_weights(self) -> None:
        """Load the pretrained weights, if any."""
        super().init_weights()
        if self.pretrained is not None:
            copy_weights(self.tower, 'text', self.model, self.pretrained)

    def tokenize(self, expressions: list[str]) -> tuple[Tensor, Tensor]:
        """Turn E expressions into token ids.

        Returns:
            ``ids`` ``(E, T)`` long and ``mask`` ``(E, T)`` bool, True on tokens that are no
            padding; on the CPU.
        """
        ids = self.tokenizer(list(expressions))[:, : self.context_length]
        return ids, ids != self.pad_token_id

    def token_vocabulary(self) -> TokenVocabulary:
        """What masks tokens of CLIP's vocabulary, which has no [MASK]; the filler is padding."""
        return token_vocabulary(self.tokenizer)

    def encode(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Run the transformer.

        Args:
            ids: Token ids ``(E, T)``, T at most ``context_length`` of the CLIP model.
            mask: ``(E, T)`` bool, True on real tokens; handed on, not used.

        Returns:
            Features whose ``words`` are normalised and not projected ``(E, T, Cw)`` and whose
            ``sentence`` is the projected feature of the end token ``(E, Cs)``, or None.
        """
        tower = self.tower
        device = tower.positional_embedding.device
        ids, mask = ids.to(device), mask.to(device)
        words = encode_words(tower, ids)
        index = torch.arange(ids.shape[0], device=device)
        if not self.sentence:
            return TextFeatures(words, mask, None, index, one_to_one=True)
        # without an end token this is 0, the place of the start token
        end = (ids == self.eot_token_id).int().argmax(dim=-1)
        sentence = words[index, end]
        if isinstance(tower.text_projection, nn.Linear):
            sentence = tower.text_projection(sentence)
        elif tower.text_projection is not None:
            sentence = sentence @ tower.text_projection
        return TextFeatures(words, mask, sentence, index, one_to_one=True)

    def forward(self, expressions: list[str]) -> TextFeatures:
        """Tokenize and encode E expressions."""
        return self.encode(*self.tokenize(expressions))
