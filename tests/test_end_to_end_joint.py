"""Training on several data sets whose sentence ids collide, each with its bank, by config."""

import copy
import hashlib
import os
import pickle
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.leak_guard import split_images
from nemo_mmseg.refshapes.write import make_refshapes

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    ROOT / 'configs' / 'refshapes' / 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'
)
# RefCOCO's files, with RefShapes' content.
PARTS = {
    'refcoco': ('refshapes', 'refs(unc).p'),
    'refcoco+': ('refshapes+', 'refs(unc).p'),
    'refcocog': ('refshapesg', 'refs(umd).p'),
}
RULE = BandRule(tau=0, tau_mode='rank', top_k=4)

pytestmark = pytest.mark.slow


@HOOKS.register_module()
class RecordJointSamples(Hook):
    """Keeps every training sample's record, with a digest of what the network sees."""

    records: list[dict] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            self.records.append(record(runner.epoch, image, sample))


def record(epoch, image, sample):
    digest = hashlib.sha256(image.numpy().tobytes())
    digest.update(sample.gt_sem_seg.data.numpy().tobytes())
    meta = {key: sample.get(key) for key in ('dataset_name', 'img_path', 'expressions', 'sent_ids')}
    return dict(meta, epoch=epoch, mosaic=sample.get('mosaic'), digest=digest.hexdigest())


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Three data sets; one image that RefCOCO trains on is in RefCOCOg's val split, too."""
    root = tmp_path_factory.mktemp('joint') / 'data'
    for folder, (flavour, split_file) in PARTS.items():
        sizes = dict(train=9, val=2, testA=1, testB=1)
        make_refshapes(str(root), flavour, sizes, seed=5, workers=1)
        (root / flavour).rename(root / folder)
        (root / folder / 'refs(unc).p').rename(root / folder / split_file)
    (root / 'coco').mkdir()
    (root / 'train2014').rename(root / 'coco' / 'train2014')
    refs = {
        name: pickle.loads((root / name / file).read_bytes()) for name, (_, file) in PARTS.items()
    }
    leak = next(ref for ref in refs['refcoco'] if ref['split'] == 'train')
    held_out = dict(refs['refcocog'][-1], split='val', file_name=leak['file_name'], ref_id=10**6)
    held_out['sentences'] = [dict(s, sent_id=10**6 + i) for i, s in enumerate(leak['sentences'])]
    held_out['sent_ids'] = [s['sent_id'] for s in held_out['sentences']]
    path = root / 'refcocog' / 'refs(umd).p'
    path.write_bytes(pickle.dumps([*refs['refcocog'], held_out], protocol=2))
    (root / 'refcocog' / 'refs(google).p').write_bytes(path.read_bytes())
    split_images.cache_clear()
    ids = [{i for ref in of for i in ref['sent_ids']} for of in refs.values()]
    assert len(set.intersection(*ids)) > 40, 'sentence ids collide'
    return root, re.sub(r'_\d+(?=\.jpg)', '', leak['file_name'])


@pytest.fixture
def cfg(data, tmp_path, monkeypatch):
    """The config of docs/joint_training.md, with a network, images and a miner that are small."""
    monkeypatch.chdir(data[0].parent)
    text = (ROOT / 'docs' / 'joint_training.md').read_text()
    text = re.search(r'```python\n(.*?)```', text, re.DOTALL)[1]
    text = text.replace("'./", f"'{ROOT}/configs/cris/").replace("'../", f"'{ROOT}/configs/")
    (tmp_path / 'joint.py').write_text(text)
    cfg, small = Config.fromfile(tmp_path / 'joint.py'), Config.fromfile(SMALL)
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    assert cfg.model.text_encoder.context_length == 22
    for key in ('model', 'optim_wrapper', 'val_cfg', 'visualizer', 'default_hooks'):
        cfg[key] = small[key]
    resize = dict(type='Resize', scale=(64, 64), keep_ratio=False)
    for one in cfg.train_dataloader.dataset.datasets:
        mosaic = one.pipeline[1]
        mosaic.update(band=asdict(RULE), schedule=dict(mined=0.6), size=(64, 64))
        mosaic.transforms[-1] = resize
        path = tmp_path / Path(mosaic.bank.path).name
        mosaic.bank = dict(small.bank, path=str(path))
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=9)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.update(interval=9, save_best=None)
    cfg.custom_hooks = [
        dict(type='NegativeMiningHook', num_workers=0, device='cpu'),
        dict(type='MosaicStatisticsHook'),
        dict(type='RecordJointSamples'),
    ]
    for part in ('val', 'test'):
        for kind in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{part}_{kind}'] = None
    cfg.log_level = 'WARNING'
    return cfg


def build(cfg, name):
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(Path(cfg.train_dataloader.dataset.datasets[0].pipeline[1].bank.path).parent)
    cfg.experiment_name = cfg.visualizer.name = f'{Path(cfg.work_dir).name}_{name}'
    cfg.load_from = None
    RecordJointSamples.records = []
    DefaultScope._instance_dict.clear()
    return Runner.from_cfg(cfg)


def bank_paths(cfg):
    return [one.pipeline[1].bank.path for one in cfg.train_dataloader.dataset.datasets]


def test_each_data_set_draws_from_its_own_bank_whatever_the_workers(cfg, data, tmp_path):
    runner = build(cfg, 'first')
    runner.train()
    records = list(RecordJointSamples.records)
    concat = runner.train_dataloader.dataset
    assert len(records) == 2 * (len(concat) // 4) * 4  # the last batch of an epoch is dropped
    banks = {name: NegativeBank(path) for name, path in zip(PARTS, bank_paths(cfg))}
    for inner, (name, bank) in zip(concat.datasets, banks.items()):
        assert bank.metadata['dataset'] == name == inner.metainfo['dataset_name']
        assert bank.sent_ids.tolist() == inner.expressions()[0].tolist()
        assert bank.metadata['fingerprint'] == inner.fingerprint

    # Names are unique over the data sets, so they tell from where a negative comes.
    images = {name: set(bank.image_names) for name, bank in banks.items()}
    assert not set.intersection(*images.values())
    mined = Counter()
    for one in records:
        name, (sent_id,) = one['dataset_name'], one['sent_ids']
        assert Path(one['img_path']).name in images[name]
        if one['mosaic'] is None:
            continue
        mined[name] += 1
        assert one['mosaic']['kind'] == 'mined'
        band = banks[name].band(sent_id, RULE)
        assert set(one['mosaic']['names']) < {banks[name].image_names[row] for row in band.rows}
    assert min(mined[name] for name in PARTS) >= 3

    # The image that RefCOCOg is validated on is nowhere, though RefCOCO trains on it.
    leak = data[1]
    assert leak not in images['refcoco'] and (data[0] / 'coco' / 'train2014' / leak).is_file()

    # A sample is that of its epoch: seed, epoch and index say all of it.
    for epoch in (0, 1):
        every = {
            record(epoch, packed['inputs'], packed['data_samples'])['digest']
            for packed in (concat[SampleIndex(i, epoch, runner.seed)] for i in range(len(concat)))
        }
        seen = [one['digest'] for one in records if one['epoch'] == epoch]
        assert len(seen) == len(concat) // 4 * 4 and set(seen) <= every

    # Workers change nothing, and one bank that is missing is mined again, alone.
    lost, *left = bank_paths(cfg)[::-1]
    times = [os.stat(path).st_mtime_ns for path in left]
    content = Path(lost).read_bytes()
    os.remove(lost)
    cfg.train_dataloader.num_workers = 2
    build(cfg, 'workers').train()
    assert RecordJointSamples.records == records
    assert Path(lost).read_bytes() == content
    assert [os.stat(path).st_mtime_ns for path in left] == times

    # An endless sampler counts epochs over all data sets together.
    cfg.train_dataloader.sampler.type = 'InfiniteReferringSampler'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=len(concat) // 2, val_interval=999)
    cfg.log_processor.by_epoch = False
    endless = build(cfg, 'endless')
    endless.train()
    digests = [one['digest'] for one in RecordJointSamples.records]
    for epoch in (0, 1):
        every = {
            record(epoch, packed['inputs'], packed['data_samples'])['digest']
            for packed in (concat[SampleIndex(i, epoch, endless.seed)] for i in range(len(concat)))
        }
        part = digests[epoch * len(concat) : (epoch + 1) * len(concat)]
        assert set(part) <= every and len(set(part)) > len(part) // 2


def test_without_the_hook_the_missing_bank_is_named(cfg):
    cfg.custom_hooks = []
    paths = bank_paths(cfg)
    with pytest.raises(FileNotFoundError, match=r'no bank .*joint.*mine_negatives') as error:
        build(cfg, 'no_hook').train()
    assert any(path in str(error.value) for path in paths)


def test_two_data_sets_with_one_bank_are_refused(cfg):
    first, second, _ = cfg.train_dataloader.dataset.datasets
    second.pipeline[1].bank.path = first.pipeline[1].bank.path
    with pytest.raises(ValueError, match='two data sets, ask for different files .*refcoco_joint'):
        build(cfg, 'one_bank').train()
    assert not any(os.path.exists(path) for path in bank_paths(cfg))
