"""LAVT by config: its shipped configs, made small, run through the tools with and without NeMo."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools.coco import COCO

from nemo_mmseg.apis.inference import ReferringInferencer
from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 64)
WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] the a red blue green circle square triangle large small'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('refshapes')
    make_refshapes(str(root), 'refshapes+', dict(train=6, val=2, testA=1, testB=1), seed=7)
    return root


@pytest.fixture(scope='module')
def bert(tmp_path_factory):
    """A folder with the config and the vocabulary of a BERT, and no weights."""
    folder = tmp_path_factory.mktemp('bert')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS.split()) + '\n')
    config = dict(
        model_type='bert',
        vocab_size=len(WORDS.split()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    (folder / 'config.json').write_text(json.dumps(config))
    return folder


def small_config(name: str, data: Path, bert: Path, path: Path) -> Path:
    """Write a shipped config with a small network on small images; config options and no more."""
    cfg = Config.fromfile(ROOT / 'configs' / 'refshapes' / f'{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data}/'
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'Resize':
                transform['scale'] = SIZE
            elif transform['type'] == 'NeMoMosaic':
                # the whole sample is a mosaic
                transform.update(size=SIZE, mined_prob=1.0)
                transform['plain'][-1]['scale'] = SIZE
                transform['bank']['path'] = str(data / 'bank.safetensors')
    small = dict(embed_dims=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), word_channels=16)
    cfg.merge_from_dict(
        {
            'model.text_encoder': dict(model=str(bert), pretrained=False, dropout=True),
            'model.backbone': small,
            'model.decode_head.in_channels': (16, 32, 64, 128),
            'train_cfg': dict(max_iters=2, val_interval=2),
            'default_hooks.checkpoint': dict(interval=1, max_keep_ckpts=-1),
            'default_hooks.logger.interval': 1,
        }
    )
    cfg.dump(path)
    return path


def run_tool(name: str, *arguments, cwd: Path) -> str:
    """Run a tool in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path, allow=mmengine_globals())['state_dict']


def true_masks(data: Path) -> dict[int, np.ndarray]:
    """The val split's masks by sentence, read without the package."""
    coco = COCO(str(data / 'refshapes+' / 'instances.json'))
    with open(data / 'refshapes+' / 'refs(unc).p', 'rb') as file:
        refs = [ref for ref in pickle.load(file) if ref['split'] == 'val']
    return {
        sentence['sent_id']: coco.annToMask(coco.anns[ref['ann_id']]).astype(bool)
        for ref in refs
        for sentence in ref['sentences']
    }


def logged(work_dir: Path) -> list[dict]:
    file = next(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize('nemo', [False, True], ids=['plain', 'nemo'])
def test_lavt_trains_resumes_is_evaluated_and_segments(nemo, data, bert, tmp_path):
    name = f'lavt_swin-tiny-w7_{"nemo_" if nemo else ""}1xb4-300i_refshapes-plus-256x256'
    config = small_config(name, data, bert, tmp_path / 'small.py')
    run_tool('train.py', config, '--work-dir', tmp_path / 'run', cwd=tmp_path)
    steps = [line for line in logged(tmp_path / 'run') if 'loss' in line]
    assert len(steps) == 2 and all(0 < line['loss'] < 10 for line in steps)
    assert [line.get('mosaic/mined') for line in steps] == [1.0 if nemo else None] * 2
    start, end = (weights(tmp_path / 'run' / f'iter_{i}.pth') for i in (1, 2))
    # What is frozen stays, every other weight learns (BatchNorm's and BERT's, too).
    for key, value in end.items():
        learns = value.is_floating_point() and 'bert.embeddings' not in key
        assert torch.equal(value, start[key]) != learns or key.endswith('batches_tracked'), key

    # A resumed run ends where the unbroken one does, dropout and stochastic depth included.
    named = ['--work-dir', tmp_path / 'resumed', '--resume', tmp_path / 'run' / 'iter_1.pth']
    run_tool('train.py', config, *named, cwd=tmp_path)
    assert [line['step'] for line in logged(tmp_path / 'resumed') if 'loss' in line] == [2]
    resumed = weights(tmp_path / 'resumed' / 'iter_2.pth')
    assert resumed.keys() == end.keys()
    for key, value in end.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0, msg=key)

    # Scores of either protocol; what they should be follows from the written masks and the truth.
    truth = true_masks(data)
    checkpoint = tmp_path / 'run' / 'iter_2.pth'
    scores = {}
    for protocol in ('OriginalProtocol', 'LAVTProtocol'):
        out = tmp_path / protocol
        options = ['--out', out, '--cfg-options', f'model.test_cfg.protocol.type={protocol}']
        run_tool('test.py', config, checkpoint, *options, cwd=tmp_path)
        found = json.loads((out / 'predictions.json').read_text())['predictions']
        assert [one['sent_id'] for one in found] == sorted(truth)
        for one in found:
            mask = cv2.imread(str(out / one['mask']), cv2.IMREAD_UNCHANGED) > 0
            true = truth[one['sent_id']]
            assert mask.shape == true.shape
            if protocol == 'OriginalProtocol':
                union = (mask | true).sum()
                assert one['iou'] == pytest.approx((mask & true).sum() / union, abs=1e-6)
        metrics = json.loads((out / 'metrics.json').read_text())
        assert metrics['mIoU'] == pytest.approx(100 * np.mean([one['iou'] for one in found]))
        scores[protocol] = np.array([one['iou'] for one in found])
    # LAVT compares at 480 x 480: nearly the same, and not the same.
    np.testing.assert_allclose(scores['LAVTProtocol'], scores['OriginalProtocol'], atol=0.1)
    assert (scores['LAVTProtocol'] != scores['OriginalProtocol']).any()

    # The network by its Python interface.
    inferencer = ReferringInferencer(Config.fromfile(config), checkpoint, device='cpu')
    image = next((data / 'train2014').glob('*.jpg'))
    height, width = cv2.imread(str(image)).shape[:2]
    result = inferencer(str(image), ['the red circle', 'a small blue square 🟦'])
    assert result['masks'].shape == (2, height, width)
