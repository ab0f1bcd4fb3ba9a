"""Draw a data sample: ground truth beside prediction, one panel an expression."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample

from nemo_mmseg.evaluation.iou import count_pixels, iou_values
from nemo_mmseg.evaluation.predictions import resize_mask, write_image

from .drawing import GT_COLOR, PREDICTION_COLOR, add_caption, draw_mask, fit_image, make_grid


@VISUALIZERS.register_module()
class ReferringVisualizer(Visualizer):
    """Draw images with N expressions, for MMSegmentation's hook and for ours.

    A panel shows the expression, the ground truth (green) beside the prediction (orange), and the
    IoU; N expressions give a grid of N panels. The backends store the picture:
    ``vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]``.

    Args:
        name: Name of the instance, for MMEngine. Defaults to ``'visualizer'``.
        alpha: Share of colour inside a mask, 0..1. Defaults to 0.45.
        max_expressions: Panels drawn at most for one image. The last caption counts the rest.
            Defaults to 8.
        max_side: Longer side in pixels of the images in a panel. Defaults to 640.
        **kwargs: ``vis_backends``, ``save_dir`` ... of MMEngine's ``Visualizer``.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        alpha: float = 0.45,
        max_expressions: int = 8,
        max_side: int = 640,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha = alpha
        self.max_expressions = max_expressions
        self.max_side = max_side

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Draw a data sample and hand the picture to the backends, a file or a window.

        Args:
            name: Name of the picture for the backends.
            image: ``(H, W, 3)`` uint8 RGB.
            data_sample: With ``pred_sem_seg`` and/or ``gt_sem_seg``, each ``(N, h, w)``. Masks of
                another size are stretched to the image's.
            draw_gt: Whether to draw the ground truth. Defaults to True.
            draw_pred: Whether to draw the prediction. Defaults to True.
            show: Whether to open a window instead of storing the picture. Defaults to False.
            wait_time: Seconds that the window waits; 0 for ever. Defaults to 0.
            out_file: PNG to write instead of giving the picture to the backends.
            step: Step for the backends. Defaults to 0.
            **kwargs: Options of MMSegmentation's visualizer that have no meaning here.
        """
        drawn = self.draw(image, data_sample, draw_gt, draw_pred)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            write_image(out_file, drawn)
        elif not show:
            self.add_image(name, drawn, step=step)

    def draw(
        self,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
    ) -> np.ndarray:
        """Return the picture of :meth:`add_datasample`.

        Returns:
            ``(H', W', 3)`` uint8 RGB; the image alone where there is nothing to draw.
        """
        gt = _masks(data_sample, 'gt_sem_seg') if draw_gt else None
        prediction = _masks(data_sample, 'pred_sem_seg') if draw_pred else None
        if gt is None and prediction is None:
            return image
        num = len(prediction if gt is None else gt)
        expressions = data_sample.get('expressions') or [''] * num
        ious = _ious(prediction, gt)
        shown = fit_image(image, self.max_side)
        panels = []
        for index in range(min(num, self.max_expressions)):
            tiles = []
            for masks, color, title in (
                (gt, GT_COLOR, 'ground truth'),
                (prediction, PREDICTION_COLOR, 'prediction'),
            ):
                if masks is None:
                    continue
                if title == 'prediction' and ious is not None:
                    title = f'prediction, IoU {100 * ious[index]:.1f} %'
                mask = resize_mask(_foreground(masks[index]), shown.shape[:2])
                tile = draw_mask(shown, mask, color, self.alpha)
                tiles.append(add_caption(tile, title, background=color, num_lines=1))
            title = str(expressions[index])
            if index == self.max_expressions - 1 and num > self.max_expressions:
                title += f'\n(and {num - self.max_expressions} more expressions)'
            panels.append(add_caption(make_grid(tiles, 2), title))
        return make_grid(panels, 1 if len(panels) < 3 else 2, gap=12)


def _masks(data_sample: SegDataSample | None, key: str) -> torch.Tensor | None:
    """Return ``(N, h, w)`` on the CPU, or None."""
    field = None if data_sample is None else data_sample.get(key)
    if field is None:
        return None
    data = torch.as_tensor(field.data).detach().cpu()
    return data[None] if data.ndim == 2 else data


def _foreground(mask: torch.Tensor) -> np.ndarray:
    """Return ``(h, w)`` bool, without pixels to ignore (255)."""
    return ((mask > 0) & (mask != 255)).numpy()


def _ious(prediction: torch.Tensor | None, gt: torch.Tensor | None) -> np.ndarray | None:
    """Return the IoU of each expression, or None if the masks cannot be compared."""
    if prediction is None or gt is None or prediction.shape != gt.shape:
        return None
    intersection, union, _ = count_pixels(prediction, gt)
    return iou_values(intersection.numpy(), union.numpy())
