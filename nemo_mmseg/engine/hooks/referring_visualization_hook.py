"""Draws some of the evaluated images while validating and testing."""

import os.path as osp
from collections.abc import Sequence

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample


@HOOKS.register_module()
class ReferringVisualizationHook(Hook):
    """Hands every `interval`-th data sample of a validation or test to the runner's visualizer.

    Unlike MMSegmentation's hook it draws the same images in every validation, so that they can be
    compared over the training, and it writes nothing into the visualizer's private fields. The
    picture's step is the iteration at which the evaluation took place. In a distributed run only
    rank 0's share is drawn.

    Args:
        draw: Whether to draw; False turns the hook off. Defaults to True.
        interval: Distance of two drawn data samples in the order of the data set. Defaults to 50.
        max_samples: Data samples drawn at most in one evaluation; None for no limit. Defaults
            to 16.
        show: Whether to open a window instead of storing the picture. Defaults to False.
        wait_time: Seconds that the window waits. Defaults to 0 (for ever).
        out_dir: Folder for the pictures of a *test* instead of the backends. Defaults to None.
        backend_args: Of MMEngine's file backend that reads the images. Defaults to None.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        draw: bool = True,
        interval: int = 50,
        max_samples: int | None = 16,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f'{type(self).__name__}: interval must be at least 1, got {interval}')
        self.draw = draw
        self.interval = interval
        self.max_samples = max_samples
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir
        self.backend_args = backend_args
        self._seen = 0
        self._drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts counting."""
        self._seen = self._drawn = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Starts counting."""
        self._seen = self._drawn = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draws what is due of a validation batch.

        Args:
            runner: Its visualizer draws.
            batch_idx: Not used: it depends on the batch size.
            data_batch: Not used.
            outputs: Evaluated data samples.
        """
        self._draw_batch(runner, outputs, 'val')

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Draws what is due of a test batch; arguments as in `after_val_iter`."""
        self._draw_batch(runner, outputs, 'test')

    def _draw_batch(
        self, runner: Runner, outputs: Sequence[SegDataSample] | None, mode: str
    ) -> None:
        """Counts the data samples and draws those that are due."""
        if not self.draw:
            return
        for sample in outputs or ():
            due = self._seen % self.interval == 0
            self._seen += 1
            if due and (self.max_samples is None or self._drawn < self.max_samples):
                self._drawn += 1
                self._draw(runner, sample, mode)

    def _draw(self, runner: Runner, sample: SegDataSample, mode: str) -> None:
        """Reads the image again, at its original size, and passes it on."""
        image = mmcv.imfrombytes(
            get(sample.img_path, backend_args=self.backend_args), channel_order='rgb'
        )
        # one image can be several data samples: the first sentence tells them apart
        name = f'{mode}_{osp.splitext(osp.basename(sample.img_path))[0]}'
        if sample.get('sent_ids'):
            name += f'_{sample.sent_ids[0]}'
        out_file = None
        if mode == 'test' and self.out_dir is not None:
            out_file = osp.join(self.out_dir, f'{name}.png')
        runner.visualizer.add_datasample(
            name=name,
            image=image,
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            out_file=out_file,
            step=runner.iter,
        )
