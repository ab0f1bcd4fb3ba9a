"""Counting intersections and unions, and what the literature makes of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

TIES = ('>=', '>')


def intersection_and_union(
    prediction: Tensor, truth: Tensor, ignore_index: int | None = 255
) -> tuple[Tensor, Tensor]:
    """Counts the common and the joint pixels of N pairs of masks, on the device of the prediction.

    Args:
        prediction: (N, H, W), any type; every value above 0 is foreground.
        truth: (N, H, W), any type; every value above 0, except `ignore_index`, is foreground.
        ignore_index: Value of the truth whose pixels are not counted at all; None counts every
            pixel. Defaults to 255.

    Returns:
        Intersections and unions in pixels, both (N,) int64.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """
    return _counts(prediction, truth, ignore_index)[:2]


def _above_zero(mask: Tensor) -> Tensor:
    """(N, H, W) bool; bytes are converted, which takes PyTorch a 16th of a comparison."""
    return mask.bool() if mask.dtype in (torch.uint8, torch.bool) else mask > 0


def _counts(
    prediction: Tensor, truth: Tensor, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Intersections, unions and pixels of the truth; see :func:`intersection_and_union`."""
    if prediction.ndim != 3 or prediction.shape != truth.shape:
        raise ValueError(
            f'masks must be two (N, H, W) of the same shape, got prediction '
            f'{tuple(prediction.shape)} and truth {tuple(truth.shape)}'
        )
    truth = truth.to(prediction.device)
    predicted, true = _above_zero(prediction), _above_zero(truth)
    if ignore_index is not None:
        counted = truth != ignore_index
        predicted, true = predicted & counted, true & counted
    # int32 holds any image, and is summed twice as fast as int64
    both, said, area = (
        mask.flatten(1).sum(1, dtype=torch.int32).long()
        for mask in (predicted & true, predicted, true)
    )
    return both, said + area - both, area


def iou_values(intersection: np.ndarray, union: np.ndarray, empty_union: float = 1.0) -> np.ndarray:
    """Divides, and says what an empty union counts.

    Args:
        intersection: Pixels, any shape of integers.
        union: Pixels, the same shape.
        empty_union: IoU where truth and prediction are both empty. Defaults to 1.0.

    Returns:
        IoU in 0..1, float64, the same shape.
    """
    intersection = np.asarray(intersection, dtype=np.float64)
    union = np.asarray(union, dtype=np.float64)
    iou = np.full(union.shape, float(empty_union))
    return np.divide(intersection, union, out=iou, where=union > 0)


def summarize(
    intersection: np.ndarray,
    union: np.ndarray,
    thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
    tie: str = '>=',
    empty_union: float = 1.0,
) -> dict[str, float]:
    """The field's three measures over a set of expressions, in per cent.

    Args:
        intersection: (E,) pixels.
        union: (E,) pixels.
        thresholds: IoU values X of Pr@X.
        tie: `'>='` or `'>'`: whether an IoU of exactly X is a hit.
        empty_union: IoU of an expression whose truth and prediction are both empty.

    Returns:
        `oIoU` (sum of intersections / sum of unions), `mIoU` (mean IoU over expressions) and
        `Pr@X` (share of expressions with IoU `tie` X), each 0..100; nan for no expression. When
        all unions are empty the oIoU is `empty_union` too.
    """
    if tie not in TIES:
        raise ValueError(f'tie must be one of {TIES}, got {tie!r}')
    intersection, union = np.asarray(intersection), np.asarray(union)
    if union.size == 0:
        return {key: float('nan') for key in ('oIoU', 'mIoU', *map(precision_key, thresholds))}
    iou = iou_values(intersection, union, empty_union)
    overall = iou_values(intersection.sum(), union.sum(), empty_union)
    summary = dict(oIoU=100.0 * float(overall), mIoU=100.0 * float(iou.mean()))
    for threshold in thresholds:
        hits = iou >= threshold if tie == '>=' else iou > threshold
        summary[precision_key(threshold)] = 100.0 * float(hits.mean())
    return summary


def precision_key(threshold: float) -> str:
    """Name of the precision at a threshold, e.g. `Pr@0.5`."""
    return f'Pr@{threshold:g}'


def masks_of(sample: dict, key: str) -> Tensor:
    """Takes the masks out of an evaluated data sample.

    Args:
        sample: A `SegDataSample` as a dict (`to_dict()`, which is what MMEngine hands to metrics).
        key: `'pred_sem_seg'`, `'gt_sem_seg'` or `'seg_logits'`.

    Returns:
        (N, H, W) tensor.

    Raises:
        KeyError: If the sample has no such field; names the image.
    """
    field = sample.get(key)
    data = None if field is None else field['data'] if isinstance(field, dict) else field.data
    if data is None:
        hint = {
            'gt_sem_seg': 'does the test pipeline contain LoadReferentMask?',
            'pred_sem_seg': 'did the segmentor predict?',
        }.get(key, 'what made it?')
        raise KeyError(f'{image_name(sample)}: the data sample has no `{key}`; {hint}')
    data = torch.as_tensor(data)
    return data[None] if data.ndim == 2 else data


def image_name(sample: dict) -> str:
    """What to call the image of a data sample in a message."""
    return str(sample.get('img_path') or f'image {sample.get("image_id", "without a name")}')


def count_sample(sample: dict, ignore_index: int | None = 255, who: str = 'ReferringIoU') -> Tensor:
    """Intersections and unions of one data sample.

    Args:
        sample: Data sample as a dict.
        ignore_index: See `ReferringIoU`.
        who: Named in an error.

    Returns:
        (N, 4) int64 on the device of the prediction, in pixels: intersection, union, true mask,
        whole image.

    Raises:
        ValueError: If prediction, truth and metainfo do not fit together; names the image.
    """
    prediction, truth = masks_of(sample, 'pred_sem_seg'), masks_of(sample, 'gt_sem_seg')
    expressions = sample.get('expressions')
    if expressions is not None and len(expressions) != len(truth):
        raise ValueError(
            f'{who}: {image_name(sample)} has {len(expressions)} expressions, but '
            f'{len(truth)} true masks'
        )
    try:
        counts = _counts(prediction, truth, ignore_index)
    except ValueError as error:
        raise ValueError(f'{who}: {image_name(sample)}: {error}') from error
    pixels = torch.full_like(counts[0], truth.shape[1:].numel())
    return torch.stack([*counts, pixels], dim=1)


def count_samples(
    samples: Sequence[dict], ignore_index: int | None = 255, who: str = 'ReferringIoU'
) -> list[np.ndarray]:
    """:func:`count_sample` of each data sample of a batch, brought to the host in one transfer.

    Every copy from a GPU waits for all work that is queued on it.
    """
    counts = [count_sample(sample, ignore_index, who) for sample in samples]
    if not counts:
        return []
    flat = torch.cat(counts).cpu().numpy()
    return np.split(flat, np.cumsum([len(count) for count in counts])[:-1])
