"""BERT that reads an expression together with prompts from the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmseg.registry import MODELS
from torch import Tensor

from nemo_mmseg.models.structures import TextFeatures

from .bert_text_encoder import BERTTextEncoder

# What is added to the score of padding, as BERT's first implementation did.
FORBIDDEN = -10000.0


@MODELS.register_module()
class PromptedBERTTextEncoder(BERTTextEncoder):
    """BERT whose layers see, behind the words, prompts that a neck made of the image.

    ``encode`` looks words up; BERT's layers run in ``condition``, once the image is there. Prompts
    have no position and no type, and are attended to in every expression of their image. What BERT
    makes of them is thrown away. Liu et al., *CARIS: context-aware referring image segmentation*,
    2023.

    The arguments are those of :class:`BERTTextEncoder`.
    """

    takes_image = True

    def encode(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Look up the embeddings of tokens.

        Args:
            ids: Token ids ``(E, T)``, T at most the number of BERT's positions.
            mask: ``(E, T)`` bool, True on real tokens.

        Returns:
            Features whose ``words`` ``(E, T, Cw)`` are the input of BERT's first layer.
        """
        device = self.bert.device
        index = torch.arange(ids.shape[0], device=device)
        words = self.bert.embeddings(input_ids=ids.to(device))
        return TextFeatures(words, mask.to(device), None, index, one_to_one=True)

    def condition(self, text: TextFeatures, x: Sequence[Tensor]) -> TextFeatures:
        """Run BERT's layers on words and prompts.

        Args:
            text: What :meth:`encode` returned, and the images of the expressions.
            x: What the neck returned; its last item is the prompts ``(B, P, Cw)``.

        Returns:
            The text, its ``words`` ``(E, T, Cw)`` being BERT's last hidden states.
        """
        prompts = text.rows(x[-1])
        tokens = torch.cat((text.words, prompts), dim=1)
        seen = torch.cat((text.mask, text.mask.new_ones(prompts.shape[:2])), dim=1)
        forbidden = tokens.new_zeros(seen.shape).masked_fill(~seen, FORBIDDEN)
        hidden = self.bert.encoder(tokens, attention_mask=forbidden[:, None, None])[0]
        return replace(text, words=hidden[:, : text.words.shape[1]])
