"""Measure the mean displacement of the affinity network when its training ends."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class MeanDisplacementHook(Hook):
    """Set ``mean_displacement`` of an :class:`EdgeDisplacementNet` when its training ends.

    The mean is over all cells of the training images. It is in the last checkpoint, as this hook
    runs before the one that saves.

    Args:
        dataloader: Config of the images; each is cropped or padded to one size.
        count_padding: Whether cells beside an image count, too, as published. Defaults to False.
    """

    def __init__(self, dataloader: dict, count_padding: bool = False) -> None:
        self.dataloader = dataloader
        self.count_padding = count_padding

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Measure the mean after the last step of a training by iterations."""
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if by_iteration and self.is_last_train_iter(runner):
            self._measure(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure the mean after the last epoch of a training by epochs."""
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if not by_iteration and self.is_last_train_epoch(runner):
            self._measure(runner)

    def _measure(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.eval()
        total, count = torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for batch in runner.build_dataloader(self.dataloader):
            inputs = model.data_preprocessor(batch)['inputs']
            with torch.no_grad():
                displacement = model(inputs)[1].double().cpu()
            for one, sample in zip(displacement, batch['data_samples']):
                if not self.count_padding:
                    # cells that begin in the image
                    stride = inputs.shape[-1] / one.shape[-1]
                    height, width = (round(length / stride) for length in sample.img_shape)
                    one = one[:, :height, :width]
                total += one.sum(dim=(1, 2))
                count += one[0].numel()
        sums = torch.cat([total, count[None]]).to(model.mean_displacement.device, torch.float64)
        all_reduce(sums)
        mean = sums[:2] / sums[2]
        model.mean_displacement.copy_(mean)
        runner.logger.info(f'mean displacement (rows, columns): {mean.tolist()}')
        model.train()
