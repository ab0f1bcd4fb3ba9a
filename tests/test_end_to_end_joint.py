"""Training on several data sets whose sentence ids collide, each with its bank, by config."""

import os
import pickle
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from mmengine.config import Config
from small_runs import NEMO, ROOT, SIZE, RecordSamples, record, runner_of, small_config

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank

# RefCOCO's files, with RefShapes' content.
PARTS = {
    'refcoco': ('refshapes', 'refs(unc).p'),
    'refcoco+': ('refshapes+', 'refs(unc).p'),
    'refcocog': ('refshapesg', 'refs(umd).p'),
}
JOINT = 'cris_r50_nemo_8xb8-50e_refcoco-joint-416x416'
RULE = BandRule(tau=0, tau_mode='rank', top_k=4)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(make_once, refshapes):
    """Root of three data sets, and an image on which RefCOCO trains and RefCOCOg is validated."""

    def make(folder):
        refs, root = {}, folder / 'data'
        for name, (variant, split_file) in PARTS.items():
            (root / name).mkdir(parents=True)
            (root / name / 'instances.json').symlink_to(refshapes / variant / 'instances.json')
            refs[name] = pickle.loads((refshapes / variant / 'refs(unc).p').read_bytes())
            (root / name / split_file).write_bytes(pickle.dumps(refs[name], protocol=2))
        (root / 'coco').mkdir()
        (root / 'coco' / 'train2014').symlink_to(refshapes / 'train2014')
        leak = next(ref for ref in refs['refcoco'] if ref['split'] == 'train')
        held_out = dict(refs['refcocog'][-1], split='val', ref_id=10**6)
        held_out['file_name'] = leak['file_name']
        held_out['sentences'] = [
            dict(s, sent_id=10**6 + i) for i, s in enumerate(leak['sentences'])
        ]
        held_out['sent_ids'] = [s['sent_id'] for s in held_out['sentences']]
        content = pickle.dumps([*refs['refcocog'], held_out], protocol=2)
        (root / 'refcocog' / 'refs(umd).p').write_bytes(content)
        ids = [{i for ref in of for i in ref['sent_ids']} for of in refs.values()]
        assert len(set.intersection(*ids)) > 40, 'sentence ids collide'
        (folder / 'leak').write_text(re.sub(r'_\d+(?=\.jpg)', '', leak['file_name']))

    folder = make_once('joint', make)
    return folder / 'data', (folder / 'leak').read_text()


@pytest.fixture
def cfg(data, tmp_path, monkeypatch):
    """The shipped config, with a network, images and a miner that are small."""
    monkeypatch.chdir(data[0].parent)
    cfg = Config.fromfile(ROOT / 'configs' / 'cris' / f'{JOINT}.py')
    small = small_config(NEMO, data[0], tmp_path / 'bank.safetensors')
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    assert cfg.model.text_encoder.context_length == 22
    for key in ('model', 'optim_wrapper', 'val_cfg', 'visualizer', 'default_hooks', 'log_level'):
        cfg[key] = small[key]
    small = small.train_dataloader.dataset.pipeline[1]
    for one in cfg.train_dataloader.dataset.datasets:
        mosaic = one.pipeline[1]
        path = tmp_path / Path(mosaic.bank.path).name
        mosaic.update(size=SIZE, transforms=small.transforms, bank=dict(small.bank, path=str(path)))
        mosaic.band.update(asdict(RULE))
        mosaic.schedule.mined = 0.6
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=9)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.update(interval=9, save_best=None)
    cfg.custom_hooks = [
        dict(type='NegativeMiningHook', num_workers=0, device='cpu'),
        dict(type='MosaicStatisticsHook'),
        dict(type='RecordSamples'),
    ]
    for part in ('val', 'test'):
        for kind in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{part}_{kind}'] = None
    return cfg


def bank_paths(cfg):
    return [one.pipeline[1].bank.path for one in cfg.train_dataloader.dataset.datasets]


def digests_of(dataset, epoch, seed):
    """The digests of all samples of an epoch, made one by one."""
    packed = [dataset[SampleIndex(index, epoch, seed)] for index in range(len(dataset))]
    return {record(epoch, 0, one['inputs'], one['data_samples'])['digest'] for one in packed}


def test_each_data_set_draws_from_its_own_bank_whatever_the_workers(cfg, data, tmp_path):
    runner = runner_of(cfg, tmp_path / 'first')
    runner.train()
    records = list(RecordSamples.records)
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
    every = [digests_of(concat, epoch, runner.seed) for epoch in (0, 1)]
    for epoch in (0, 1):
        seen = {one['digest'] for one in records if one['epoch'] == epoch}
        assert len(seen) > len(concat) // 2 and seen <= every[epoch]

    # Workers change nothing, and one bank that is missing is mined again, alone.
    lost, *left = bank_paths(cfg)[::-1]
    times = [os.stat(path).st_mtime_ns for path in left]
    content = Path(lost).read_bytes()
    os.remove(lost)
    cfg.train_dataloader.num_workers = 2
    cfg.train_cfg.max_epochs = 1
    runner_of(cfg, tmp_path / 'workers').train()
    again = [one['digest'] for one in RecordSamples.records]
    assert again == [one['digest'] for one in records[: len(again)]] and again
    assert Path(lost).read_bytes() == content
    assert [os.stat(path).st_mtime_ns for path in left] == times

    # An endless sampler counts epochs over all data sets together.
    cfg.train_dataloader.sampler.type = 'InfiniteReferringSampler'
    iterations = len(concat) // 4 + 5
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=999)
    cfg.log_processor.by_epoch = False
    runner_of(cfg, tmp_path / 'endless').train()
    digests = [one['digest'] for one in RecordSamples.records]
    first, second = digests[: len(concat)], digests[len(concat) :]
    assert set(first) == every[0]
    assert len(second) >= 16 and set(second) <= every[1]


def test_without_the_hook_the_missing_bank_is_named(cfg, tmp_path):
    cfg.custom_hooks = []
    with pytest.raises(FileNotFoundError, match=r'no bank .*joint.*mine_negatives') as error:
        runner_of(cfg, tmp_path / 'no_hook').train()
    assert any(path in str(error.value) for path in bank_paths(cfg))


def test_two_data_sets_with_one_bank_are_refused(cfg, tmp_path):
    first, second, _ = cfg.train_dataloader.dataset.datasets
    second.pipeline[1].bank.path = first.pipeline[1].bank.path
    with pytest.raises(ValueError, match='two data sets, .*refcoco_joint'):
        runner_of(cfg, tmp_path / 'one_bank').train()
    assert not any(os.path.exists(path) for path in bank_paths(cfg))
