"""Pretrained networks that help a loss or a protocol and are no part of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_mmseg.utils.bert import import_transformers
from nemo_mmseg.utils.clip import clip_config, load_clip, load_clip_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FrozenModule(nn.Module, ABC):
    """Holder of a network that is used as it is.

    The network does not learn, stays in evaluation mode and moves with the model. Checkpoints,
    converters, optimizers and DDP do not see it. It is loaded when a training starts
    (``init_weights``, which MMEngine hands down through ``BaseModule``) or when it is used first:
    a model whose training needs it can be tested without its files.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loaded: tuple[nn.Module, ...] = ()  # in a tuple PyTorch does not register it
        self._place = torch.empty(0)  # on the device and of the type of the model

    @abstractmethod
    def load(self) -> nn.Module:
        """Make the network, with its weights, on the CPU."""

    @property
    def network(self) -> nn.Module:
        """The network, on the device of the model; gradients go through it to its inputs."""
        if not self._loaded:
            # Random numbers of the training stay as they are without it.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                network = self.load().requires_grad_(False).eval()
                self._loaded = (network.to(self._place.device, self._place.dtype),)
        return self._loaded[0]

    def init_weights(self) -> None:
        """Load the network, so that a missing file is noticed before the training."""
        self.network  # noqa: B018

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenModule:
        self._place = fn(self._place)
        for network in self._loaded:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)


class FrozenCLIP(FrozenModule):
    """Pretrained CLIP that compares images with sentences.

    Args:
        model: open_clip's name of the architecture, e.g. ``'ViT-B-32'``.
        pretrained: Tag or local file of the weights; None for random ones.
        max_tokens: Tokens after so many are thrown away, the end token among them, and CLIP then
            sees nothing but the start: all long expressions have the same feature (published by
            TRIS with 20). Defaults to None, which keeps as many as CLIP takes.

    Raises:
        ValueError: Unknown model.
    """

    def __init__(
        self, model: str, pretrained: str | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.pretrained = pretrained
        self.max_tokens = max_tokens
        self.tokenizer = load_clip_tokenizer(model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that CLIP was trained with."""
        size = clip_config(self.model)['vision_cfg']['image_size']
        return (size, size) if isinstance(size, int) else tuple(size)

    def load(self) -> nn.Module:
        """Read open_clip's model."""
        return load_clip(self.model, self.pretrained)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return unit vectors ``(B, D)`` of images ``(B, 3, H, W)``, prepared as CLIP's are."""
        return F.normalize(self.network.encode_image(images), dim=-1)

    def tokenize(self, expressions: Sequence[str]) -> Tensor:
        """Return token ids ``(E, T)`` on the device of the model."""
        ids = self.tokenizer(list(expressions))
        if self.max_tokens is not None:
            # CLIP's text encoder is causal: padding changes nothing before it.
            ids[:, self.max_tokens :] = self.tokenizer([''])[0, -1]
        return ids.to(self._place.device)

    @torch.no_grad()
    def encode_text(self, ids: Tensor) -> Tensor:
        """Return unit vectors ``(E, D)`` of what :meth:`tokenize` returned."""
        return F.normalize(self.network.encode_text(ids), dim=-1)


class FrozenTransformer(FrozenModule):
    """Pretrained network of the transformers library, with its tokenizer.

    Args:
        kind: Name of the class, e.g. ``'GroupViTModel'``.
        model: Local folder or name on the hub, as ``from_pretrained`` takes it.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(self, kind: str, model: str) -> None:
        super().__init__()
        self.kind = kind
        self.model = model
        self._tokenizer: PreTrainedTokenizerBase | None = None
        import_transformers(kind)

    def load(self) -> nn.Module:
        """Read the network and its tokenizer.

        Raises:
            OSError: There is no such folder, and no such name on a hub that can be reached.
            ValueError: The files are of another network.
        """
        transformers = import_transformers(self.kind)
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
            network, loaded = getattr(transformers, self.kind).from_pretrained(
                self.model, output_loading_info=True
            )
        except OSError as error:
            raise OSError(
                f'{self.kind}: {self.model!r} is neither a folder with config, weights and '
                f'tokenizer, nor the name of such on a hub that can be reached: {error}'
            ) from error
        except RuntimeError as error:  # tensors of another shape
            raise ValueError(f'{self.model!r} does not fit {self.kind}: {error}') from error
        if missing := sorted(loaded['missing_keys']):
            raise ValueError(
                f'{self.model!r} does not fit {self.kind}: it lacks {len(missing)} tensors, the '
                f'first is {missing[0]}'
            )
        return network

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of transformers that came with the network."""
        self.network  # noqa: B018  # reads both
        return self._tokenizer

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids ``(E, T)`` and a mask, True on real tokens."""
        positions = self.network.config.text_config.max_position_embeddings
        found = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=positions, return_tensors='pt'
        )
        place = self._place.device
        return found['input_ids'].to(place), found['attention_mask'].bool().to(place)
