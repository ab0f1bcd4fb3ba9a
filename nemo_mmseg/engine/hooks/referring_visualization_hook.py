"""Draw some of the evaluated images while validating and testing."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from nemo_mmseg.utils.images import read_image


@HOOKS.register_module()
class ReferringVisualizationHook(Hook):
    """Hand every ``interval``-th data sample of a validation or test to the runner's visualizer.

    Unlike MMSegmentation's hook it draws the same images in every validation, so that they can be
    compared over the training. The picture's step is the iteration of the evaluation. A distributed
    run only draws rank 0's share.

    Args:
        draw: Whether to draw; False turns the hook off. Defaults to True.
        interval: Distance of two drawn data samples in the order of the data set. Defaults to 50.
        max_samples: Data samples drawn at most in one evaluation; None for no limit. Defaults
            to 16.
        out_dir: Folder for the pictures of a *test*; None for the backends. Defaults to None.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        draw: bool = True,
        interval: int = 50,
        max_samples: int | None = 16,
        out_dir: str | None = None,
    ) -> None:
        self.draw = draw
        self.interval = interval
        self.max_samples = max_samples
        self.out_dir = out_dir
        self._seen = 0
        self._drawn = 0

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Start to count."""
        self._seen = self._drawn = 0

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
        mode: str = 'train',
    ) -> None:
        """Count the data samples of a batch and draw those that are due.

        Args:
            runner: Its visualizer draws.
            batch_idx: Not used, as it depends on the batch size.
            data_batch: Not used.
            outputs: Evaluated data samples.
            mode: ``'val'`` or ``'test'``; nothing is drawn of ``'train'``.
        """
        if not self.draw or mode == 'train':
            return
        for sample in outputs or ():
            due = self._seen % self.interval == 0
            self._seen += 1
            if due and (self.max_samples is None or self._drawn < self.max_samples):
                self._drawn += 1
                self._draw(runner, sample, mode)

    def _draw(self, runner: Runner, sample: SegDataSample, mode: str) -> None:
        """Read the image again, at its original size, and hand it on."""
        image = np.ascontiguousarray(read_image(sample.img_path)[..., ::-1])
        # one image can be several data samples: the first expression tells them apart
        name = f'{mode}_{osp.splitext(osp.basename(sample.img_path))[0]}'
        if sample.get('sent_ids'):
            name += f'_{sample.sent_ids[0]}'
        out_file = None
        if mode == 'test' and self.out_dir is not None:
            out_file = osp.join(self.out_dir, f'{name}.png')
        # To say its iteration, a runner that only tests would build the training data.
        step = 0 if mode == 'test' else runner.iter
        runner.visualizer.add_datasample(
            name=name, image=image, data_sample=sample, out_file=out_file, step=step
        )
