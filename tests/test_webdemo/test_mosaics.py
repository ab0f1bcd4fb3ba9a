"""The band and the mosaic of an expression: against the bank's bare arrays and training samples."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from nemo_helpers import write_bank
from safetensors.numpy import load_file
from small_runs import NEMO, small_config

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.visualization.browse import draw_training_sample
from nemo_mmseg.webdemo import MosaicBrowser, small_refshapes_configs
from nemo_mmseg.webdemo.mosaics import at_the_edges, rank_candidates


@pytest.fixture(scope='module')
def cfg(refshapes: Path, refshapes_bank: Path) -> Config:
    cfg = small_config(NEMO, refshapes, refshapes_bank)
    cfg.randomness.seed = 4
    return cfg


@pytest.fixture(scope='module')
def browser(cfg: Config) -> MosaicBrowser:
    return MosaicBrowser(cfg)


def states_by_hand(bank, number, tau, top_k):
    """Ranks and states of the whole ranking of an expression, image by image."""
    own, states, used = float(bank['self_similarity'][number]), [], 0
    for similarity in bank['similarities'][number]:
        if float(similarity) > tau * own:
            states.append('above tau')
        elif used < top_k:
            states.append('in the band')
            used += 1
        else:
            states.append('below the band')
    return states


@pytest.mark.parametrize('tau, top_k', [(0.8, 30), (0.9, 3), (0.7, 4), (1.2, 5)])
def test_bands_by_hand(browser, refshapes_bank, tau, top_k):
    bank = load_file(refshapes_bank)
    offsets = bank['image_name_offsets']
    names = [
        bank['image_name_bytes'][begin:end].tobytes().decode()
        for begin, end in zip(offsets, offsets[1:])
    ]
    for text, number in browser.find(limit=6):
        sent_id = int(text.rsplit('(', 1)[1].rstrip(')'))
        row = int(np.flatnonzero(bank['sent_ids'] == sent_id)[0])
        view = browser.show(number, tau, top_k)
        expected = states_by_hand(bank, row, tau, top_k)
        assert [one.state for one in view.candidates] == expected[: len(view.candidates)]
        assert expected.count('in the band') == sum(
            one.state == 'in the band' for one in view.candidates
        )
        assert [one.rank for one in view.candidates] == list(range(1, len(view.candidates) + 1))
        for one, image, similarity in zip(
            view.candidates, bank['neighbors'][row], bank['similarities'][row]
        ):
            assert (one.name, one.similarity) == (names[image], float(similarity))
        chosen = {one.name for one in view.candidates if one.chosen}
        mined = zip(view.record['names'], view.record['similarities']) if view.record else ()
        assert chosen == {name for name, similarity in mined if similarity == similarity}
        band = {one.name for one in view.candidates if one.state == 'in the band'}
        assert chosen <= band


def test_the_mosaic_is_that_of_the_training(browser, cfg):
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    rule, seen = browser.rule, 0
    for text, number in browser.find(limit=5):
        view = browser.show(number, rule.tau, rule.top_k)
        sent_id = int(text.rsplit('(', 1)[1].rstrip(')'))
        # By hand: the first epoch whose sample is a mined mosaic of this very expression.
        for epoch in range(100):
            packed = dataset[SampleIndex(view.index, epoch=epoch, seed=4)]
            sample = packed['data_samples']
            mosaic = sample.get('mosaic')
            if mosaic and mosaic['kind'] == 'mined' and sample.sent_ids == [sent_id]:
                break
        assert view.epoch == epoch
        assert np.array_equal(view.mosaic, draw_training_sample(packed))
        assert view.record['names'] == mosaic['names'] and len(view.negatives) == 3
        seen += 1
        # The next one, with another seed.
        later = browser.show(number, rule.tau, rule.top_k, seed=9, from_epoch=epoch + 1)
        packed = dataset[SampleIndex(view.index, epoch=later.epoch, seed=9)]
        assert later.epoch > epoch
        assert np.array_equal(later.mosaic, draw_training_sample(packed))
    assert seen == 5


def test_other_bands_leave_the_own_data_set_alone(browser):
    before = browser.rule
    _, number = browser.find()[0]
    view = browser.show(number, 0.5, 4)
    assert (view.rule.tau, view.rule.top_k) == (0.5, 4) and browser.rule == before
    with pytest.raises(ValueError, match='top_k'):
        browser.show(number, 0.5, 0)
    with pytest.raises(ValueError, match='tau=3'):
        browser.show(number, 3, 10)
    with pytest.raises(ValueError, match='no expression'):
        browser.show(10**6, 0.5, 10)


def test_search(browser, cfg):
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    sent_ids, texts, _ = dataset.expressions()
    word = texts[0].split()[-1]
    expected = {f'{t} ({i})' for i, t in zip(sent_ids, texts) if word in t}
    assert {label for label, _ in browser.find(word.upper(), limit=10**6)} == expected
    assert browser.find('no such words here') == []
    assert len(browser.find('', limit=7)) == 7


def test_held_back_and_too_alike_images(mini, tmp_path):
    """A bank written by hand, with vectors that turn away from those of the first image."""
    dataset = DATASETS.build(mini.config())
    number = len(dataset.pool)
    path = tmp_path / 'bank.safetensors'
    angles = np.linspace(0, 1, number)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    similarities = np.linspace(0.9, 0.1, number)
    write_bank(dataset, path, similarities, vectors=vectors, stored=number - 1)
    bank, (sent_ids, _, rows) = NegativeBank(path), dataset.expressions()
    own = int(rows[0])
    others = [row for row in range(number) if row != own]
    held_out = np.zeros(number, bool)
    held_out[others[-1]] = True
    rule = BandRule(0, 'rank', number, 0.9)
    found = rank_candidates(bank, int(sent_ids[0]), rule, held_out)
    exact = bank.image_vectors.astype(np.float64)
    for one, row in zip(found, others, strict=True):
        alike = exact[row] @ exact[own] > 0.9
        expected = 'held back' if held_out[row] else 'too alike' if alike else 'in the band'
        assert one.state == expected and one.name == dataset.pool.names[row]
    states = {one.state for one in found}
    assert {'held back', 'too alike', 'in the band'} == states
    assert at_the_edges(found) == found[: len(found)]


def test_a_config_without_mosaics_says_so(refshapes):
    cfg, _ = small_refshapes_configs(refshapes)
    with pytest.raises(ValueError, match='no data set with a NeMoMosaic'):
        MosaicBrowser(cfg)


def test_a_missing_bank_names_the_command(refshapes, tmp_path):
    cfg = small_config(NEMO, refshapes, tmp_path / 'no.safetensors')
    with pytest.raises(FileNotFoundError, match=r'no\.safetensors.*tools/mine_negatives\.py'):
        MosaicBrowser(cfg)
