"""Compare an exported network with the network it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate

from nemo_mmseg.apis.inputs import make_item
from nemo_mmseg.models.protocols.original import OriginalProtocol

from .graphs import SplitSegmentor, normalise
from .text_files import full_length

if TYPE_CHECKING:
    from .runtime import ReferringRuntime

# Also what a user may type: capitals, marks, other alphabets, more words than fit.
TEXTS = (
    'The LEFT one', "man's hat, 2nd row!", 'café &amp; 猫', '', '  two   spaces ', 'a ' * 90,
)  # fmt: skip


@dataclass(frozen=True)
class Differences:
    """How far an export is from PyTorch.

    Attributes:
        tokens: Texts whose tokens differ.
        picture: Largest difference of the prepared pictures, in levels of 255.
        logits: Largest difference of logits, for one expression and for several.
        largest_logit: Largest logit, without its sign.
        no_target: Largest difference of no-target scores, as a share of the largest, or of 1 where
            that is larger; 0 where the network has none.
        masks: Share of pixels of the masks that differ from ``OriginalProtocol``'s.
    """

    tokens: int
    picture: float
    logits: float
    largest_logit: float
    no_target: float
    masks: float

    def check(self, tolerance: float) -> None:
        """Refuse an export that computes something else.

        Raises:
            ValueError: Tokens differ, or the prepared picture by more than one level, or logits or
                no-target scores by more than ``tolerance`` times the largest.
        """
        if self.tokens:
            raise ValueError(f'the exported tokenizer differs for {self.tokens} of {len(TEXTS)}')
        if not self.picture <= 1:
            raise ValueError(
                f'the exported rules prepare a picture that differs by {self.picture:.3g} of 255; '
                'allowed is 1'
            )
        if not self.no_target <= tolerance:
            raise ValueError(
                f'onnxruntime and PyTorch differ by {self.no_target:.2g} of the largest no-target '
                f'score; allowed is {tolerance:g}'
            )
        if not self.logits <= tolerance * max(1.0, self.largest_logit):
            raise ValueError(
                f'onnxruntime and PyTorch differ by {self.logits:.2g} in logits of up to '
                f'{self.largest_logit:.3g}; allowed is {tolerance:g} of that'
            )

    def lines(self) -> list[str]:
        """Return what a tool prints."""
        return [
            f'tokens: {len(TEXTS) - self.tokens} of {len(TEXTS)} texts equal',
            f'picture: largest difference {self.picture:g} of 255',
            f'logits: largest difference {self.logits:.2e}, largest logit {self.largest_logit:.3g}',
            f'no-target scores: largest difference {self.no_target:.2e} of the largest',
            f'masks: {100 * self.masks:.4f} % of the pixels differ',
        ]


def compare(
    model: SplitSegmentor, pipeline: Compose, folder: Path, expressions: Sequence[str]
) -> Differences:
    """Run the runtime and the network on one picture.

    Args:
        model: The network, on the CPU and in eval mode.
        pipeline: Its test pipeline without loading.
        folder: The export.
        expressions: Several.

    Returns:
        The differences.
    """
    from .runtime import ReferringRuntime, resize_picture  # onnxruntime may not be installed

    runtime, expressions = ReferringRuntime(folder), list(expressions)
    image = _picture(runtime.rules['picture']['size'])
    item = make_item(np.ascontiguousarray(image[..., ::-1]), expressions)
    batch = model.data_preprocessor(pseudo_collate([pipeline(item)]), training=False)
    inputs, samples = batch['inputs'], batch['data_samples']
    resized = resize_picture(image, runtime.rules['picture'])[0]
    ours = normalise(model.data_preprocessor, torch.tensor(resized).permute(2, 0, 1)[None])
    std = getattr(model.data_preprocessor, 'std', torch.ones(1))
    with torch.no_grad():
        output = model.output(inputs, samples)
        OriginalProtocol(runtime.rules['threshold'])(output, inputs[0], samples[0])
    logits, largest, no_target = _outputs(model, runtime, inputs, samples, image)
    found = runtime(image, expressions)['masks']
    wanted = samples[0].pred_sem_seg.data.numpy() > 0
    if output.no_target is not None:
        wanted &= ~(output.no_target > 0).numpy()[:, None, None]
    return Differences(
        tokens=_different_tokens(model, runtime),
        picture=float(((ours - inputs) * std).abs().max()),
        logits=logits,
        largest_logit=largest,
        no_target=no_target,
        masks=float((found != wanted).mean()),
    )


def _outputs(
    model: SplitSegmentor,
    runtime: ReferringRuntime,
    inputs: torch.Tensor,
    samples: list,
    image: np.ndarray,
) -> tuple[float, float, float]:
    """Compare logits and no-target scores of one expression, and of as many as a call takes."""
    encoded = runtime.encode(image)
    expressions = samples[0].metainfo['expressions']
    difference, largest, no_target = 0.0, 0.0, 0.0
    for count in sorted({1, min(len(expressions), runtime.rules['chunk_size'])}):
        few = samples[0].clone()
        few.set_metainfo(dict(expressions=expressions[:count]))
        with torch.no_grad():
            output = model.output(inputs, [few])
        logits = output.logits
        margin = logits[:, :1] if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]
        size = inputs.shape[-2:]
        wanted = torch.nn.functional.interpolate(margin, size, mode='bilinear')[:, 0].numpy()
        found, scores = runtime.logits(encoded, expressions[:count])
        no_target = max(no_target, _score_difference(scores, output.no_target))
        difference = max(difference, float(np.abs(found - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
    return difference, largest, no_target


def _score_difference(found: np.ndarray, wanted: torch.Tensor | None) -> float:
    if wanted is None:
        return 0.0 if np.isneginf(found).all() else np.inf
    wanted = wanted.numpy()
    return float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))


def _different_tokens(model: SplitSegmentor, runtime: ReferringRuntime) -> int:
    ids, mask = runtime.tokenize(TEXTS)
    wanted = full_length(model.tokenize(list(TEXTS)), runtime.rules['text'])
    different = (ids != wanted[0].numpy()).any(1) | (mask != wanted[1].numpy()).any(1)
    return int(different.sum())


def _picture(size: tuple[int, int]) -> np.ndarray:
    """Return a picture ``(H, W, 3)`` uint8, always the same, of another shape than the input."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return coarse.repeat(size[0] // 12 + 1, axis=0).repeat(size[1] // 10 + 1, axis=1)
