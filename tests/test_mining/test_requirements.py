"""What transforms need from disk is found once, made and checked."""

import os
from dataclasses import replace

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmseg.registry import TRANSFORMS

from nemo_mmseg.datasets.requirements import BankRequirement, NeedsFiles, TileRequirement
from nemo_mmseg.mining import check, check_bands, make, requirements_of
from nemo_mmseg.mining import requirements as requirements_module
from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, BankSpec, NegativeBank
from nemo_mmseg.negatives.tile_store import TileSpec, TileStore, TileStoreError

OPTIONS = dict(num_workers=0, progress=False)
RULE = BandRule(1.0, 'absolute', 5)
MINING = dict(OPTIONS, batch_size=4, device='cpu', cache=False)


@TRANSFORMS.register_module()
class NeedsATestFile(NeedsFiles):
    """Needs a bank or a tile store, for data of the tiny kind."""

    def __init__(self, spec, rule=RULE):
        self.spec, self.rule = spec, rule

    def requirements(self, dataset, max_epochs=None):
        if isinstance(self.spec, TileSpec):
            return [TileRequirement(dataset.tiny.pool, self.spec)]
        rules = (self.rule,) if max_epochs is None else (self.rule,) * max_epochs
        return [BankRequirement(dataset.tiny, self.spec, rules, 3)]

    def __call__(self, results):
        return results


@pytest.fixture
def data(tiny, shared_folder):
    """Builds a data set of MMEngine's around the tiny one."""

    class Data(BaseDataset):
        def __init__(self, *pipeline, folder=shared_folder):
            self.tiny = tiny.TinyData(folder)
            super().__init__(pipeline=list(pipeline))

        def load_data_list(self):
            return [dict(i=i) for i in range(5)]

    return Data


@pytest.fixture
def bank_spec(tiny, shared_folder, tmp_path):
    tiny.register_clip(shared_folder)
    return BankSpec(str(tmp_path / 'bank'), tiny.MODEL, shared_folder + '/weights.pt', 12)


@pytest.fixture
def tile_spec(tmp_path):
    return TileSpec(str(tmp_path / 'tiles'), 8, 10)


def needs(spec, rule=RULE):
    return dict(type='NeedsATestFile', spec=spec, rule=rule)


def test_each_is_found_once_inside_all_wrappers(data, bank_spec, tile_spec):
    nested = dict(type='RandomApply', transforms=[needs(bank_spec), needs(tile_spec)])
    inner = data(needs(bank_spec), nested), data(needs(tile_spec))
    dataset = RepeatDataset(dict(type='ConcatDataset', datasets=list(inner)), 2)
    tiles, bank = requirements_of(dataset)
    assert tiles.spec == tile_spec and bank.spec == bank_spec
    assert bank.dataset is inner[0].tiny and len(bank.bands) == 1
    assert len(requirements_of(dataset, max_epochs=3)[1].bands) == 3
    # Another band of the same bank is looked at, too.
    other = BandRule(0.5, 'absolute', 5)
    found = requirements_of(data(needs(bank_spec), needs(bank_spec, other)))
    assert [needed.bands for needed in found] == [(RULE,), (other,)]
    assert requirements_of(data()) == []


def test_different_files_of_one_path_are_refused(data, own_folder, bank_spec, tile_spec):
    (own_folder / 'image_000.jpg').unlink()
    (own_folder / 'expressions.json').write_text('[[1], ["a dog"], [0]]')
    for one, other in (
        (data(needs(bank_spec)), data(needs(replace(bank_spec, keep=5)))),
        (data(needs(bank_spec)), data(needs(bank_spec), folder=own_folder)),
        (data(needs(tile_spec)), data(needs(replace(tile_spec, width=9)))),
        (data(needs(tile_spec)), data(needs(tile_spec), folder=own_folder)),
        (data(needs(tile_spec)), data(needs(replace(bank_spec, path=tile_spec.path)))),
    ):
        with pytest.raises(ValueError, match='ask for different files .*(bank|tiles)'):
            requirements_of(ConcatDataset([one, other]))


def test_what_is_missing_is_made_and_checked(data, bank_spec, tile_spec, tmp_path):
    needed = requirements_of(data(needs(bank_spec), needs(tile_spec)))
    for requirement in needed:
        with pytest.raises(FileNotFoundError, match=requirement.spec.path):
            check(requirement)
    store, bank = (make(requirement, **MINING) for requirement in needed)
    assert isinstance(store, TileStore) and len(store) == 40
    assert isinstance(bank, NegativeBank) and len(bank) == 130
    assert sorted(os.listdir(tmp_path)) == ['bank', 'tiles']
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    for requirement in needed:
        assert check(requirement).path == make(requirement, **MINING).path
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == before
    with pytest.raises(BankError, match='made with keep=12'):
        check(replace(needed[1], spec=replace(bank_spec, keep=5)))
    with pytest.raises(TileStoreError, match='width'):
        check(replace(needed[0], spec=replace(tile_spec, width=9)))


def test_a_config_that_does_not_say_how_to_mine(data, tmp_path):
    (needed,) = requirements_of(data(needs(BankSpec(str(tmp_path / 'bank')))))
    with pytest.raises(ValueError, match='does not say how to mine the bank'):
        make(needed, **MINING)


@pytest.fixture
def small_bank(tmp_path):
    """Four expressions, whose images are more similar than 0.5 to 0, 1, 2 and 3 of 6 images."""
    similarities = np.full((4, 3), 0.4)
    for expression in range(4):
        similarities[expression, :expression] = 0.6
    path = tmp_path / 'small'
    with BankWriter(
        path, np.arange(4), np.zeros(4, int), np.arange(6), list('abcdef'), np.eye(6), 3,
        dict(fingerprint='f'),
    ) as writer:  # fmt: skip
        writer.write(np.arange(4), np.array([[1, 2, 3]] * 4), similarities, np.full(4, 0.9))
    return NegativeBank(path)


class Guard:
    """A leak guard that holds out some rows."""

    def __init__(self, *rows):
        self.rows = rows

    def leaked_rows(self, bank):
        return np.isin(np.arange(6), self.rows)


def test_bands_that_are_too_small_are_counted(small_bank, monkeypatch):
    said = []
    monkeypatch.setattr(requirements_module, 'print_log', lambda text, *args: said.append(text))
    rules = BandRule(0.5, 'absolute', 3), BandRule(0.7, 'absolute', 2)
    needed = BankRequirement(None, BankSpec('small'), rules, 2)
    sizes = check_bands(needed, small_bank)
    assert [size.tolist() for size in sizes] == [[3, 2, 1, 0], [2, 2, 2, 2]]
    assert 'tau=0.5 (absolute), top_k=3: 2 of 4 expressions have fewer than the 2' in said[0]
    assert '1 have none; 3 bands reach below the 3 stored images' in said[0]
    assert ' 0 of 4 expressions have fewer than the 2' in said[1] and '0 have none' in said[1]
    # Images that are held out are no negatives.
    sizes = check_bands(replace(needed, leak_guard=Guard(3, 5)), small_bank)
    assert [size.tolist() for size in sizes] == [[2, 1, 0, 0], [2, 2, 2, 2]]


def test_a_band_that_is_empty_for_every_expression_is_refused(small_bank):
    rule = BandRule(0.1, 'absolute')
    needed = BankRequirement(None, BankSpec('small'), (BandRule(0.7, 'absolute'), rule), 2)
    with pytest.raises(BankError, match=r'every expression is empty: tau=0\.1 \(absolute\)'):
        check_bands(needed, small_bank)
    needed = replace(needed, bands=(BandRule(0.7, 'absolute'),), leak_guard=Guard(1, 2, 3))
    with pytest.raises(BankError, match='with the leak guard, drops all 3 stored images'):
        check_bands(needed, small_bank)
