"""A network as the graphs that are exported: what needs the image alone, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from mmseg.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nemo_mmseg.models.protocols.geometry import foreground_margin
from nemo_mmseg.models.segmentors.referring_segmentor import ReferringSegmentor
from nemo_mmseg.models.segmentors.transformers_zero_shot import TransformersSegmentor
from nemo_mmseg.models.utils.frozen import FrozenModule

# They compute what needs no text (`encode_image`) apart from the rest (`respond`).
SplitSegmentor = ReferringSegmentor | TransformersSegmentor


class ImageGraph(nn.Module):
    """What a network computes without the text.

    Args:
        model: The network, in eval mode.
    """

    def __init__(self, model: SplitSegmentor) -> None:
        super().__init__()
        self.model = model
        split = isinstance(model, TransformersSegmentor)  # the others hide text encoders alone
        self.frozen = frozen_networks(model) if split else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode a picture.

        Args:
            image: ``(1, 3, H, W)`` uint8, RGB, at the size of the network's input.

        Returns:
            The maps that :class:`ExpressionGraph` takes, one after the other.
        """
        maps = self.model.encode_image(normalise(self.model.data_preprocessor, image))
        return tuple(pytree.tree_leaves(maps))


class ExpressionGraph(nn.Module):
    """What is left of a network once the picture is encoded.

    Args:
        model: The network, in eval mode.
        structure: How the maps of :class:`ImageGraph` are nested, of ``tree_structure``.
        size: Height and width of the network's input.
    """

    def __init__(
        self, model: SplitSegmentor, structure: pytree.TreeSpec, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.model = model
        self.frozen = frozen_networks(model)
        self.structure = structure
        self.size = size

    def forward(self, maps: Sequence[Tensor], ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Segment what E expressions describe.

        Args:
            maps: Of one picture, as :class:`ImageGraph` returns them.
            ids: Tokens ``(E, T)`` int64.
            mask: ``(E, T)`` bool, True on real tokens.

        Returns:
            Logits ``(E, H, W)``, above 0 where the foreground is likelier, and, of a network that
            has them, no-target scores ``(E,)``, above 0 where nothing is there.
        """
        visual = pytree.tree_unflatten(list(maps), self.structure)
        output = self.model.respond(visual, ids, mask)
        logits = foreground_margin(output.logits)[:, None]
        logits = F.interpolate(logits, self.size, mode='bilinear', align_corners=False)[:, 0]
        return (logits,) if output.no_target is None else (logits, output.no_target)


def frozen_networks(model: SplitSegmentor) -> nn.ModuleList:
    """Return the networks that a model has hidden from PyTorch, which an export has to see."""
    # Those of losses and protocols are not in the graphs.
    part = model.frozen if isinstance(model, TransformersSegmentor) else model.text_encoder
    holders = [module for module in part.modules() if isinstance(module, FrozenModule)]
    return nn.ModuleList(holder.network for holder in holders)


def normalise(preprocessor: nn.Module, image: Tensor) -> Tensor:
    """Do what a network's ``SegDataPreProcessor`` does to a picture, ``(1, 3, H, W)`` in RGB."""
    if not preprocessor._channel_conversion:  # the network takes BGR, as mmcv reads it
        image = image.flip(1)
    image = image.float()
    if preprocessor._enable_normalize:
        image = (image - preprocessor.mean) / preprocessor.std
    return image


@contextmanager
def exportable(model: nn.Module) -> Iterator[None]:
    """Let a network run by operators that ONNX has, for a number of expressions left open.

    MMSegmentation's Swin computes the number of its maps by a division of floats, which fixes it in
    a graph. ONNX has no attention of three dimensions.
    """
    parts = [part for part in model.modules() if isinstance(part, ShiftWindowMSA)]
    try:
        for part in parts:
            part.window_reverse = _Windows(part.window_size)
        F.scaled_dot_product_attention = _attention
        yield
    finally:
        F.scaled_dot_product_attention = _pytorchs_attention
        for part in parts:
            del part.window_reverse


_pytorchs_attention = F.scaled_dot_product_attention


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args, **options
) -> Tensor:
    """Give attention of three dimensions a fourth, of one head."""
    if query.ndim != 3:
        return _pytorchs_attention(query, key, value, attn_mask, *args, **options)
    if attn_mask is not None:
        attn_mask = attn_mask[:, None]
    heads = [x[:, None] for x in (query, key, value)]
    return _pytorchs_attention(*heads, attn_mask, *args, **options)[:, 0]


class _Windows:
    """Put windows ``(E * n, side, side, C)`` together to maps ``(E, H, W, C)``."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, windows: Tensor, height: int, width: int) -> Tensor:
        side = self.side
        x = windows.reshape(-1, height // side, width // side, side, side, windows.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])
