"""Response maps of a CLIP that nobody trained for it: Grad-CAM of how well an expression fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.structures import HeadOutput
from nemo_mmseg.models.utils.frozen import FrozenCLIP
from nemo_mmseg.models.utils.vision_towers import position_table, resized_positions

from .training_free import TrainingFreeSegmentor

# What pictures show beside things.
BACKGROUND = (
    'sky', 'cloud', 'grass', 'ground', 'road', 'street', 'floor', 'wall', 'ceiling', 'building',
    'tree', 'bush', 'mountain', 'rock', 'sand', 'snow', 'sea', 'river', 'lake', 'bridge', 'fence',
    'table', 'carpet',
)  # fmt: skip


@MODELS.register_module()
class CLIPGradCAM(TrainingFreeSegmentor):
    """Grad-CAM of a frozen open_clip model, as a response map of an expression.

    After Lin et al., *CLIP is Also an Efficient Segmenter* (CLIP-ES, CVPR 2023), which has class
    names where this has expressions: the probability of the expression in a softmax with words for
    the background is derived by the features of the last stage. (Of a ViT these are the patches
    behind the first norm of the last block, of a ResNet the map before the attention pool.) A map
    is the sum of the feature channels, each times its mean derivative, divided by its maximum.
    CLIP-ES's refinement by attention and by a CRF is not here.

    An input of another size than CLIP's own is possible: the position table is resized to it.

    Args:
        model: open_clip's name of the architecture: a ViT or a CLIP ResNet.
        pretrained: Tag or local file of the weights; None for random ones.
        template: What CLIP is told, with ``{}`` for the expression. Defaults to the expression.
        background: Words that compete with the expression; without any the cosine itself is
            derived. Defaults to what is often seen behind things.
        data_preprocessor: See :class:`BaseReferringSegmentor`. Mean and deviation are CLIP's.
        train_cfg: Unused.
        test_cfg: See :class:`BaseReferringSegmentor`.

    Raises:
        ValueError: The model is unknown, or has another image encoder.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        template: str = '{}',
        background: Sequence[str] = BACKGROUND,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, test_cfg)
        self.clip = FrozenCLIP(model, pretrained)
        self.template = template
        self.background = tuple(background)
        # Once for each device and type: they cost more than an image.
        self._encoded_background: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def encode_text(self, expressions: Sequence[str]) -> Tensor:
        """Return unit vectors ``(E, D)`` of expressions."""
        texts = [self.template.format(expression) for expression in expressions]
        return self.clip.encode_text(self.clip.tokenize(texts))

    def output(self, inputs: Tensor, data_samples: list[SegDataSample] | None) -> HeadOutput:
        """Compute the maps ``(E, 1, h, w)`` of all expressions; the largest value of each is 1."""
        expressions = self.expressions_of(data_samples)
        texts = self.encode_text([one for several in expressions for one in several])
        owner = [i for i, several in enumerate(expressions) for _ in several]
        turn = [n for several in expressions for n in range(len(several))]
        owner, turn = (torch.tensor(x, device=inputs.device) for x in (owner, turn))
        with torch.enable_grad():
            images, features = self._encode(inputs)
            fit = self._fit(images[owner], texts)
            maps = inputs.new_empty(len(texts), *features.shape[-2:])
            # One derivative for the first expressions of all images, one for the second ones, ...
            for n in range(max(map(len, expressions))):
                rows = (turn == n).nonzero()[:, 0]
                (slopes,) = torch.autograd.grad(fit[rows].sum(), features, retain_graph=True)
                weights = slopes.mean((2, 3), keepdim=True)
                maps[rows] = (weights * features).sum(1).detach()[owner[rows]]
        largest = maps.amax((1, 2), keepdim=True)
        return HeadOutput((maps / torch.where(largest > 0, largest, 1))[:, None])

    def _encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors ``(B, D)`` of images, as functions of the last features ``(B, C, h, w)``."""
        visual = self.clip.network.visual
        name, table, stride = position_table(visual, self.clip.model)
        grid = tuple(side // stride for side in inputs.shape[-2:])
        positions = {name: resized_positions(table, grid)}
        # Nothing before the last features has a gradient: the graph begins there.
        with _last_features(visual, grid) as features:
            images = torch.func.functional_call(visual, positions, (inputs,))
        return F.normalize(images, dim=-1), features[0]

    def _fit(self, images: Tensor, texts: Tensor) -> Tensor:
        """How well each image fits its expression, ``(E,)``, of unit vectors ``(E, D)`` of both."""
        cosine = (images * texts).sum(1, keepdim=True)
        if not self.background:
            return cosine[:, 0]
        place = images.device, images.dtype
        if place not in self._encoded_background:
            self._encoded_background = {place: self.encode_text(self.background)}
        others = images @ self._encoded_background[place].T
        scale = self.clip.network.logit_scale.exp()
        return (scale * torch.cat([cosine, others], dim=1)).softmax(1)[:, 0]


@contextmanager
def _last_features(visual: nn.Module, grid: tuple[int, int]) -> Iterator[list[Tensor]]:
    """Replace the last features by maps that derivatives can be taken of.

    Args:
        visual: open_clip's image encoder.
        grid: Height and width of the maps.

    Yields:
        A list that gets the maps ``(B, C, *grid)`` of the next forward pass.
    """
    found: list[Tensor] = []

    def of_resnet(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_())
        return found[-1]

    def of_vit(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        output = output.detach()
        patches = output[:, 1:].transpose(1, 2).unflatten(2, grid)
        found.append(patches.contiguous().requires_grad_())
        return torch.cat([output[:, :1], found[-1].flatten(2).transpose(1, 2)], dim=1)

    if hasattr(visual, 'layer4'):
        handle = visual.layer4.register_forward_hook(of_resnet)
    else:
        handle = visual.transformer.resblocks[-1].ln_1.register_forward_hook(of_vit)
    try:
        yield found
    finally:
        handle.remove()
