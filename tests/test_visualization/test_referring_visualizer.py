"""The visualizer alone, and called by hooks in a real runner with TensorBoard."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import DATASETS, VISUALIZERS
from mmseg.structures import SegDataSample

import nemo_mmseg  # noqa: F401  (registers)
from nemo_mmseg.engine.hooks.referring_visualization_hook import ReferringVisualizationHook


def make_sample(num: int, path: str = 'x.jpg', ratio: int = 1) -> SegDataSample:
    masks = torch.zeros(num, 40 * ratio, 60 * ratio, dtype=torch.uint8)
    masks[:, 10 * ratio : 30 * ratio, 10 * ratio : 40 * ratio] = 1
    sample = SegDataSample(
        metainfo=dict(
            img_path=path,
            expressions=[f'object {i}' for i in range(num)],
            sent_ids=list(range(num)),
        )
    )
    sample.gt_sem_seg = PixelData(data=masks)
    sample.pred_sem_seg = PixelData(data=masks.clone())
    return sample


@pytest.fixture
def visualizer():
    return VISUALIZERS.build(dict(type='ReferringVisualizer', name='test', max_expressions=4))


def test_panels(visualizer):
    image = np.full((40, 60, 3), 128, np.uint8)
    assert visualizer.draw(image).shape == image.shape
    one = visualizer.draw(image, make_sample(1))
    assert one.shape[1] == 2 * 60 + 6 and one.shape[0] > 40
    assert visualizer.draw(image, make_sample(1), draw_gt=False).shape[1] == 60
    two, four = (visualizer.draw(image, make_sample(num)) for num in (2, 4))
    assert two.shape[0] == 2 * one.shape[0] + 12
    assert four.shape == (two.shape[0], 2 * one.shape[1] + 12, 3)
    many = visualizer.draw(image, make_sample(9))
    assert many.shape[1] == four.shape[1]


def test_masks_of_another_size_are_stretched(visualizer):
    image = np.full((40, 60, 3), 128, np.uint8)
    same = visualizer.draw(image, make_sample(1))
    assert np.array_equal(visualizer.draw(image, make_sample(1, ratio=3)), same)


def test_a_single_mask_without_leading_axis_and_ignored_pixels(visualizer):
    sample = make_sample(1)
    del sample.pred_sem_seg
    gt = sample.gt_sem_seg.data[0].clone()
    plain = visualizer.draw(np.zeros((40, 60, 3), np.uint8), sample)
    gt[35:] = 255
    flat = SegDataSample(gt_sem_seg=PixelData(data=gt))
    flat.set_metainfo(dict(expressions=['object 0']))
    assert np.array_equal(visualizer.draw(np.zeros((40, 60, 3), np.uint8), flat), plain)


def test_out_file(visualizer, tmp_path: Path):
    image = np.full((40, 60, 3), (10, 200, 30), np.uint8)
    visualizer.add_datasample('a', image, make_sample(3), out_file=tmp_path / 'sub' / 'a.png')
    written = cv2.cvtColor(cv2.imread(str(tmp_path / 'sub' / 'a.png')), cv2.COLOR_BGR2RGB)
    assert np.array_equal(written, visualizer.draw(image, make_sample(3)))


@DATASETS.register_module()
class StandInImages(BaseDataset):
    """Five images on disk; image i carries i + 1 expressions."""

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=f'{self.data_root}/{index}.png', num=index + 1) for index in range(5)]

    def prepare_data(self, idx: int) -> dict:
        info = self.get_data_info(idx)
        sample = make_sample(info['num'], info['img_path'])
        return dict(inputs=torch.zeros(3, 40, 60), data_samples=sample)


class Echo(BaseModel):
    """Return the data samples, whose prediction is their ground truth."""

    def forward(self, inputs, data_samples, mode='tensor'):
        return data_samples


@pytest.mark.parametrize('hook_type', ['ReferringVisualizationHook', 'SegVisualizationHook'])
def test_hooks_in_a_runner_with_tensorboard(tmp_path: Path, hook_type: str):
    for index in range(5):
        cv2.imwrite(str(tmp_path / f'{index}.png'), np.full((40, 60, 3), 50 * index, np.uint8))
    training = {}
    if hook_type == 'ReferringVisualizationHook':  # needs no training data
        training = dict(
            train_cfg=dict(by_epoch=True, max_epochs=1),
            train_dataloader=dict(dataset=dict(type='DataSetThatThereIsNot')),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    runner = Runner(
        model=Echo(),
        work_dir=str(tmp_path / 'work'),
        **training,
        test_dataloader=dict(
            batch_size=2,
            dataset=dict(type='StandInImages', data_root=str(tmp_path), serialize_data=False),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        test_cfg=dict(),
        test_evaluator=dict(type='ReferringIoU'),
        visualizer=dict(
            type='ReferringVisualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        default_scope='mmseg',
        experiment_name=hook_type + tmp_path.name,
    )
    if hook_type == 'SegVisualizationHook':
        hook = SegVisualizationHook(draw=True, interval=1)
        hook._visualizer = runner.visualizer
    else:
        hook = ReferringVisualizationHook(interval=2)
    runner.register_hook(hook)
    metrics = runner.test()
    assert metrics['expressions'] == 15 and metrics['images'] == 5 and metrics['mIoU'] == 100

    names = sorted(path.name for path in tmp_path.rglob('vis_image/*.png'))
    if hook_type == 'ReferringVisualizationHook':
        assert names == ['test_0_0_0.png', 'test_2_0_0.png', 'test_4_0_0.png']
    else:
        assert len(names) == 5
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = list(tmp_path.rglob('events.out*'))
    accumulator = EventAccumulator(str(events[0]), size_guidance=dict(images=0))
    accumulator.Reload()
    assert len(accumulator.Tags()['images']) == len(names)


class FakeRunner:
    """Counts what would be drawn."""

    iter = 7

    def __init__(self):
        self.visualizer, self.calls = self, []

    def add_datasample(self, **kwargs):
        self.calls.append(kwargs)


def test_same_images_at_every_validation_whatever_the_batch(tmp_path: Path):
    paths = [str(tmp_path / f'{index}.png') for index in range(10)]
    for path in paths:
        cv2.imwrite(path, np.zeros((4, 6, 3), np.uint8))
    samples = [make_sample(1, path) for path in paths]
    drawn = []
    for batch in (1, 3):
        runner, hook = FakeRunner(), ReferringVisualizationHook(interval=3, max_samples=3)
        for _ in range(2):
            hook.before_val_epoch(runner)
            for start in range(0, 10, batch):
                hook.after_val_iter(runner, start, {}, samples[start : start + batch])
        drawn.append([call['name'] for call in runner.calls])
        assert all(call['step'] == 7 and call['out_file'] is None for call in runner.calls)
    assert drawn[0] == drawn[1] == ['val_0_0', 'val_3_0', 'val_6_0'] * 2


def test_nothing_is_drawn_when_switched_off_or_training():
    runner = FakeRunner()
    hook = ReferringVisualizationHook(draw=False)
    hook.after_test_iter(runner, 0, {}, [make_sample(1)])
    ReferringVisualizationHook(interval=1).after_train_iter(runner, 0, {}, dict(loss=1))
    assert runner.calls == []
