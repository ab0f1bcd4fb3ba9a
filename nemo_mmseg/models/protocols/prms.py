"""One response map for all expressions of a reference: the best of theirs, or their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import TASK_UTILS
from mmseg.structures import SegDataSample
from torch import Tensor

from nemo_mmseg.models.structures import HeadOutput
from nemo_mmseg.models.utils.frozen import FrozenCLIP

# Scores that differ by less are equal: equal maps get other last bits in another place of a batch.
TIE = 1e-5


@dataclass(frozen=True)
class Selected:
    """The response maps of G references.

    Attributes:
        scores: ``(G, h, w)``, at the resolution of the network.
        chosen: Position ``(G,)`` of the expression that each map is of, among all E expressions; -1
            for a mean.
    """

    scores: Tensor
    chosen: list[int]


def groups_of(ref_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return the positions of the expressions of each reference, in the order of the first ones."""
    groups: dict[int, list[int]] = {}
    for position, ref_id in enumerate(ref_ids):
        groups.setdefault(int(ref_id), []).append(position)
    return groups


@TASK_UTILS.register_module()
class MeanOfMaps(BaseModule):
    """The mean of the scores of a reference's expressions."""

    def forward(
        self,
        scores: Tensor,
        images: Tensor,
        image_index: Tensor,
        expressions: Sequence[str],
        groups: Sequence[Sequence[int]],
    ) -> Selected:
        """Average the maps of each group; the arguments are those of :class:`PRMS`."""
        means = torch.stack([scores[list(group)].mean(0) for group in groups])
        return Selected(means, [-1] * len(groups))


@TASK_UTILS.register_module()
class PRMS(BaseModule):
    """Positive response map selection of TRIS: the map that CLIP finds fits all expressions best.

    A map, resized to the network's input and cut at 0, is multiplied with the image. The cosines of
    what is left with *all* expressions of the reference are summed up, and the map with the largest
    sum is kept, the first of equal ones. CLIP sees each masked image and each expression once.

    Liu et al., *Referring Image Segmentation Using Text Supervision*, ICCV 2023 (its code).

    Args:
        model: open_clip's name of the frozen CLIP. Published: OpenAI's ViT-B/32, which is
            ``'ViT-B-32'`` with ``pretrained='openai'``.
        pretrained: Tag or local file of its weights; None for random ones.
        max_tokens: See :class:`~nemo_mmseg.models.utils.frozen.FrozenCLIP`. Published: 20.
        chunk_size: Images that go through CLIP at once. Defaults to 64.

    Raises:
        ValueError: Unknown model.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        max_tokens: int | None = None,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        self.clip = FrozenCLIP(model, pretrained, max_tokens)
        self.chunk_size = chunk_size

    def encode_text(self, expressions: Sequence[str]) -> Tensor:
        """Return unit vectors ``(E, D)`` of expressions."""
        return self.clip.encode_text(self.clip.tokenize(expressions))

    @torch.no_grad()
    def encode_masked(self, scores: Tensor, images: Tensor, image_index: Tensor) -> Tensor:
        """Return unit vectors ``(E, D)`` of what the maps leave of the images."""
        size = self.clip.image_size
        small = F.interpolate(images, size, mode='bilinear', align_corners=True)
        vectors = []
        for start in range(0, len(scores), self.chunk_size):
            rows = slice(start, start + self.chunk_size)
            maps = scores[rows, None]
            maps = F.interpolate(maps, images.shape[-2:], mode='bilinear', align_corners=False)
            maps = F.interpolate(maps.relu(), size, mode='bilinear', align_corners=True)
            vectors.append(self.clip.encode_image(maps * small[image_index[rows]]))
        return torch.cat(vectors)

    def forward(
        self,
        scores: Tensor,
        images: Tensor,
        image_index: Tensor,
        expressions: Sequence[str],
        groups: Sequence[Sequence[int]],
    ) -> Selected:
        """Keep one map of each reference.

        Args:
            scores: ``(E, h, w)``, at the resolution of the network.
            images: Normalised inputs of the network ``(B, 3, H, W)``.
            image_index: Row ``(E,)`` of each expression's image.
            expressions: The E expressions.
            groups: Positions of the expressions of each of the G references, at least one each.

        Returns:
            A map of each reference.
        """
        # Small differences decide: in full precision where the network is tested in half.
        exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
        with torch.autocast(scores.device.type, enabled=False):
            vectors = self.encode_masked(exact, images, image_index)
            texts = self.encode_text(expressions)
            fits = [(vectors[list(group)] @ texts[list(group)].T).sum(1) for group in groups]
        # One copy for the batch. NumPy's argmax is the first of equal ones, PyTorch's any.
        fits = torch.cat(fits).cpu().numpy()
        fits = np.split(fits, np.cumsum([len(group) for group in groups])[:-1])
        firsts = [int((fit >= fit.max() - TIE).argmax()) for fit in fits]
        chosen = [group[first] for group, first in zip(groups, firsts)]
        return Selected(scores[chosen], chosen)


@TASK_UTILS.register_module()
class SelectedMapProtocol(BaseModule):
    """Give all expressions of a reference the mask of one response map.

    This is how TRIS evaluates its response maps with PRMS; single maps are evaluated by the inner
    protocol alone. An item must hold all expressions of its references (``group_by='image'`` or
    ``'reference'``).

    Args:
        selection: Config of what makes one map of several, ``dict(type='PRMS', ...)`` or
            ``dict(type='MeanOfMaps')``.
        protocol: Config of the protocol that makes a mask of it.
    """

    def __init__(self, selection: dict, protocol: dict) -> None:
        super().__init__()
        self.selection = TASK_UTILS.build(selection)
        self.protocol = TASK_UTILS.build(protocol)

    def forward(self, output: HeadOutput, image: Tensor, sample: SegDataSample) -> None:
        """Store what the inner protocol makes of the selected maps."""
        meta, logits = sample.metainfo, output.logits
        groups = list(groups_of(meta['ref_ids']).values())
        index = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        selected = self.selection(logits[:, 0], image[None], index, meta['expressions'], groups)
        rows = torch.empty_like(index)
        for row, group in enumerate(groups):
            rows[group] = row
        self.protocol(HeadOutput(selected.scores[rows, None]), image, sample)
