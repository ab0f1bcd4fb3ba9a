"""`tools/test.py --out --show-dir` and one run on two ranks write the same results."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmseg.registry import METRICS
from PIL import Image
from pycocotools import mask as coco_mask

from nemo_mmseg.apis.evaluate import add_results_writer
from nemo_mmseg.evaluation.dump_results import DumpReferringResults
from nemo_mmseg.evaluation.referring_iou import ReferringIoU
from nemo_mmseg.evaluation.scores import ExpressionScores
from nemo_mmseg.refshapes.write import make_refshapes

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'test.py'
PARTS = """
import torch
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS


@MODELS.register_module()
class BrightSegmentor(BaseSegmentor):
    '''Calls bright what is bright, shifted by the expression's place, at the original size.'''

    def __init__(self, data_preprocessor):
        super().__init__(data_preprocessor=data_preprocessor)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def extract_feat(self, inputs): ...
    def encode_decode(self, inputs, batch_data_samples): ...
    def loss(self, inputs, data_samples): ...
    def _forward(self, inputs, data_samples=None): ...

    def predict(self, inputs, data_samples):
        for image, sample in zip(inputs, data_samples):
            bright = image.mean(0) / 255
            logits = torch.stack([bright.roll(5 * i, 0) for i in range(len(sample.expressions))])
            sample.set_data(dict(
                seg_logits=PixelData(data=logits),
                pred_sem_seg=PixelData(data=(logits > 0.6).to(torch.uint8)),
            ))
        return data_samples
"""


@METRICS.register_module()
class _StricterIoU(ReferringIoU):
    def __init__(self, **kwargs):
        super().__init__(tie='>', empty_union=0.0, **kwargs)


def full_name(name: str) -> str:
    """As a dumped pure-Python config names a class."""
    found = METRICS.get(name)
    return f'{found.__module__}.{found.__name__}'


PLAIN = dict(empty_union=1.0, tie='>=', ignore_index=255, no_target_rule=None)
STRICT = dict(PLAIN, empty_union=0.0, tie='>')
AREA = dict(no_target='area', min_pixels=9, score_threshold=0.0)


@pytest.mark.parametrize(
    'name', [str, 'mmseg.{}'.format, METRICS.get], ids=['name', 'scope', 'class']
)
@pytest.mark.parametrize(
    'metric, rules',
    [
        (dict(type='ReferringIoU', empty_union=0.0, tie='>'), STRICT),
        (dict(type='_StricterIoU'), STRICT),
        (
            dict(type='GeneralizedReferringIoU', ignore_index=None, min_pixels=9, no_target='area'),
            dict(PLAIN, ignore_index=None, no_target_rule=AREA),
        ),
        (dict(type='IoUMetric'), PLAIN),
    ],
)
def test_results_are_written_by_the_rules_of_the_metric(name, metric, rules):
    """However the type is written."""
    evaluator = Evaluator(dict(metric, type=name(metric['type'])))
    add_results_writer(evaluator, 'out')
    writer = evaluator.metrics[-1]
    found = dict(rules, **{key: getattr(writer, key) for key in ('empty_union', 'tie')})
    found['ignore_index'] = writer.ignore_index
    found['no_target_rule'] = writer.rule and asdict(writer.rule)
    assert (type(writer), found) == (DumpReferringResults, rules)


def test_slices_of_the_metric_are_written_beside_the_masks():
    whole, sliced = dict(type='ReferringIoU'), dict(type='mmseg.ReferringIoU', by=['area'])
    evaluator = Evaluator([whole, sliced, dict(sliced, prefix='strict')])
    evaluator.dataset_meta = dict(dataset_name='refshapes')
    add_results_writer(evaluator, 'out')
    files = [metric.csv_file for metric in evaluator.metrics[:3]]
    assert files == [None, 'out/difficulty.csv', None]
    assert evaluator.metrics[3].dataset_meta == dict(dataset_name='refshapes')
    named = Evaluator(dict(sliced, csv_file='mine.csv'))
    add_results_writer(named, 'out')
    assert named.metrics[0].csv_file == 'mine.csv'


@pytest.mark.slow
def test_one_and_two_ranks_write_the_same(tmp_path: Path):
    (tmp_path / 'bright_parts.py').write_text(PARTS)
    make_refshapes(tmp_path / 'data', 'refshapes', dict(train=1, val=5), workers=1)
    cfg = Config(
        dict(
            default_scope='mmseg',
            custom_imports=dict(imports=['nemo_mmseg', 'bright_parts']),
            model=dict(type='BrightSegmentor', data_preprocessor=dict(type='SegDataPreProcessor')),
            test_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    type='RefCOCODataset',
                    data_root=str(tmp_path / 'data'),
                    ann_file='refshapes/instances.json',
                    split_file='refshapes/refs(unc).p',
                    split='val',
                    data_prefix=dict(img_path='train2014/'),
                    group_by='image',
                    test_mode=True,
                    pipeline=[
                        dict(type='LoadReferringImage'),
                        dict(type='LoadReferentMask'),
                        dict(type='PackReferringInputs'),
                    ],
                ),
            ),
            test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(type='ReferringIoU'),
            visualizer=dict(type='ReferringVisualizer', vis_backends=[]),
            env_cfg=dict(dist_cfg=dict(backend='gloo')),
        )
    )
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'weights.pth')
    two = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    for name, launch, more in (('one', [], []), ('two', two, ['--launcher', 'pytorch'])):
        path = os.pathsep.join([str(tmp_path), os.environ['PYTHONPATH']])
        done = subprocess.run(
            [sys.executable, *launch, TOOL, 'config.py', 'weights.pth', '--out', name,
             '--show-dir', f'{name}_shown', '--work-dir', f'{name}_work', *more],
            cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    contents = [
        json.loads((tmp_path / name / 'predictions.json').read_text()) for name in ('one', 'two')
    ]
    assert contents[0] == contents[1]
    records = contents[0]['predictions']
    assert contents[0]['dataset'] == 'refshapes' and len(records) == len(
        set(record['sent_id'] for record in records)
    )
    for record in records:
        mask = np.array(Image.open(tmp_path / 'one' / record['mask']))
        assert mask.shape == Image.open(record['image']).size[::-1]
        assert np.array_equal(coco_mask.decode(record['rle']), mask) and 0 <= record['iou'] <= 1
    # the written values add up to what was logged
    log = json.loads(next((tmp_path / 'one_work').glob('*/*.json')).read_text().splitlines()[-1])
    assert log['expressions'] == len(records) and log['images'] == 5
    ious = [record['iou'] for record in records]
    assert log['mIoU'] == pytest.approx(100 * np.mean(ious))
    summary = ExpressionScores.read(tmp_path / 'two').summary()
    assert summary == pytest.approx({key: log[key] for key in summary})
    assert len(list((tmp_path / 'one_shown').glob('test_*.png'))) == 5
