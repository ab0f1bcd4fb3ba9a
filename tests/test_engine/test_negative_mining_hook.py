import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, RepeatDataset
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmseg.registry import HOOKS
from nemo_helpers import mosaic_config

import nemo_mmseg  # noqa: F401  (registers the mosaic and the hook)
from nemo_mmseg.engine.hooks import negative_mining_hook
from nemo_mmseg.mining.requirements import requirements_of
from nemo_mmseg.negatives.bank import BankError, NegativeBank

TINY = Path(__file__).parents[1] / 'test_mining' / 'tiny_mining.py'


@pytest.fixture(scope='module')
def tiny():
    return SimpleNamespace(**runpy.run_path(str(TINY)))


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('tiny'))
    tiny.make(folder, num_images=12, num_expressions=20)
    return folder


def mosaic(folder, path, **settings):
    bank = dict(path=str(path), model='NeMo-Test-CLIP', pretrained=folder + '/weights.pt', keep=8)
    band = dict(tau=1.0, tau_mode='absolute', top_k=5)
    return mosaic_config(size=(32, 32), min_cell=8, bank=bank, **(band | settings))


@pytest.fixture
def data(tiny, folder):
    """Builds a data set of MMEngine's around the tiny one."""

    class Data(BaseDataset):
        def __init__(self, pipeline, **kwargs):
            self.tiny = tiny.TinyData(folder, **kwargs)
            self.pool, self.split = self.tiny.pool, self.tiny.split
            self.fingerprint, self.expressions = self.tiny.fingerprint, self.tiny.expressions
            super().__init__(pipeline=pipeline, metainfo=self.tiny.metainfo)

        def load_data_list(self):
            return [dict(i=i) for i in range(5)]

    from mmengine.registry import init_default_scope

    init_default_scope('mmseg')
    return Data


class Loop(BaseLoop):
    def __init__(self, dataset):
        self._dataloader = SimpleNamespace(dataset=dataset)

    @property
    def dataloader(self):
        return self._dataloader

    def run(self):
        """Not run."""


class Runner:
    """A runner whose training loop must not be built."""

    def __init__(self, loop):
        self._train_loop = loop

    @property
    def train_loop(self):
        raise AssertionError('the training loop was built')


def hook():
    return HOOKS.build(dict(type='NegativeMiningHook', batch_size=4, num_workers=0, device='cpu'))


def test_mines_what_is_missing_once(data, folder, tmp_path):
    path = tmp_path / 'banks' / 'tiny.safetensors'
    # One mosaic inside another transform, the data set inside two wrappers, twice.
    nested = dict(type='RandomApply', transforms=[mosaic(folder, path)])
    pair = [data([mosaic(folder, path), nested]), data([mosaic(folder, path)])]
    dataset = RepeatDataset(dict(type='ConcatDataset', datasets=pair), 2)
    assert [one.spec.path for one in requirements_of(dataset)] == [str(path)]
    runner = Runner(Loop(dataset))
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    hook().before_run(runner)
    # A run that mined starts from the same random state as one that did not have to.
    assert torch.rand(3).tolist() == expected.tolist()
    assert len(NegativeBank(path)) == 20
    before = path.stat().st_mtime_ns
    hook().before_run(runner)
    assert path.stat().st_mtime_ns == before
    assert os.listdir(path.parent) == ['tiny.safetensors']


def test_testing_never_mines(data, folder, tmp_path):
    path = tmp_path / 'bank'
    for loop in (None, dict(type='EpochBasedTrainLoop')):
        hook().before_run(Runner(loop))
    assert not path.exists()


def test_a_mosaic_that_draws_no_mined_negatives_needs_no_bank(data, folder, tmp_path):
    for options in (dict(mined=0.0), dict(mined=0.0, random=0.5)):
        dataset = data([mosaic(folder, tmp_path / 'bank', **options)])
        assert requirements_of(dataset) == []
    hook().before_run(Runner(Loop(dataset)))
    assert os.listdir(tmp_path) == []


def test_a_band_empty_for_every_expression_names_tau(data, folder, tmp_path):
    dataset = data([mosaic(folder, tmp_path / 'bank', tau=-1.0)])
    with pytest.raises(BankError, match=r'every expression is empty.*tau=-1\.0 \(absolute\)'):
        hook().before_run(Runner(Loop(dataset)))


def test_the_bank_of_another_data_set_is_refused(tiny, data, folder, tmp_path):
    path = tmp_path / 'bank'
    hook().before_run(Runner(Loop(data([mosaic(folder, path)]))))
    other = data([mosaic(folder, path)])
    other.pool.fingerprint = 'e' * 64
    with pytest.raises(BankError, match='eeee'):
        hook().before_run(Runner(Loop(other)))


def test_a_bank_that_nobody_can_mine(data, tmp_path):
    transform = mosaic_config(bank=dict(path=str(tmp_path / 'b')))
    with pytest.raises(ValueError, match='model'):
        hook().before_run(Runner(Loop(data([transform]))))


class Epochs(Loop):
    max_epochs = 5


def test_a_training_too_short_for_a_ramp_is_refused_before_anything_is_mined(
    data, folder, tmp_path
):
    ramp = dict(type='LinearRamp', begin=0, end=6, first=0.1, last=0.9)
    for options in (dict(mined=ramp), dict(mined=0.0, random=ramp)):
        nested = dict(type='RandomApply', transforms=[mosaic(folder, tmp_path / 'b', **options)])
        with pytest.raises(ValueError, match='does not run its course in the epochs 0 to 4'):
            hook().before_run(Runner(Epochs(data([nested]))))
    assert os.listdir(tmp_path) == []
    fits = mosaic(folder, tmp_path / 'b', mined={**ramp, 'end': 5}, tau=1.0)
    hook().before_run(Runner(Epochs(data([fits]))))


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('iterations', [4, 5, 6])
def test_epochs_of_an_iteration_loop_are_counted(infinite, iterations):
    """Ten samples, four a batch."""
    from mmengine.runner import IterBasedTrainLoop
    from torch.utils.data import DataLoader

    from nemo_mmseg.datasets.samplers import InfiniteReferringSampler, ReferringSampler

    items = [0] * 10
    sampler = (InfiniteReferringSampler if infinite else ReferringSampler)(items, seed=0)
    loader = DataLoader(items, batch_size=4, sampler=sampler)
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    loop.dataloader, loop._max_iters = loader, iterations
    # An epoch has three batches. The endless sampler cares for no batches.
    expected = {4: 2, 5: 2, 6: 3} if infinite else {4: 2, 5: 2, 6: 2}
    assert negative_mining_hook.epochs_of(loop) == expected[iterations]
    if infinite:
        indices = iter(sampler)
        assert [next(indices).epoch for _ in range(4 * iterations)][-1] + 1 == expected[iterations]


def test_runs_before_other_hooks():
    assert negative_mining_hook.NegativeMiningHook.priority == 'HIGHEST'
    assert Hook.priority != 'HIGHEST'
