"""The band by every kind of threshold, against a loop over the ranking."""

import math

import numpy as np
import pytest

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank


def write(path, expressions=60, images=40, stored=25, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(images, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own_rows = rng.integers(0, images, expressions)
    rows = np.stack(
        [rng.permutation(np.delete(np.arange(images), own))[:stored] for own in own_rows]
    )
    tables = dict(
        sent_ids=np.arange(expressions) * 2 + 1,
        own_rows=own_rows,
        rows=rows,
        sims=-np.sort(-rng.uniform(0, 1, (expressions, stored)), axis=1).astype(np.float16),
        own=rng.uniform(0.4, 1, expressions).astype(np.float16),
        vectors=vectors.astype(np.float16),
    )
    with BankWriter(
        path, tables['sent_ids'], own_rows, np.arange(images), [str(i) for i in range(images)],
        vectors, stored, {},
    ) as writer:  # fmt: skip
        writer.write(np.arange(expressions), rows, tables['sims'], tables['own'])
    return tables


def slow_band(tables, i, tau, mode, top_k, most):
    """One image after the other; the band, whether it ends early, and what was passed over."""
    own, band, above, dropped = float(tables['own'][i]), [], 0, []
    for rank, (row, sim) in enumerate(zip(tables['rows'][i].tolist(), tables['sims'][i].tolist())):
        if len(band) == top_k:
            break
        if (
            tau is not None
            and {
                'absolute': sim > tau,
                'relative': sim > tau * own,
                'margin': sim > own - tau,
                'rank': rank < tau,
            }[mode]
        ):
            above += 1
            continue
        pairs = zip(tables['vectors'][row].tolist(), tables['vectors'][tables['own_rows'][i]])
        cosine = math.fsum(a * float(b) for a, b in pairs)
        if most is not None and cosine > most:
            dropped.append(row)
            continue
        band.append((row, sim))
    return band, above, dropped


@pytest.mark.parametrize(
    ('mode', 'tau'),
    [
        ('relative', 0.9), ('absolute', 0.6), ('absolute', 1.0), ('absolute', -1.0),
        ('margin', 0.0), ('margin', 0.2), ('rank', 0), ('rank', 7), ('rank', 99),
        ('relative', None),
    ],
)  # fmt: skip
@pytest.mark.parametrize('most', [None, -0.9, 0.1, 0.5])
@pytest.mark.parametrize('top_k', [1, 6, 100])
def test_band_equals_a_loop_over_the_ranking(tmp_path, mode, tau, most, top_k):
    tables = write(tmp_path / 'bank')
    bank = NegativeBank(tmp_path / 'bank')
    if tau is None:  # then another threshold must be there
        most = most or 0.9
    rule = BandRule(tau, mode, top_k, most)
    sizes = bank.band_sizes(rule)
    for i, sent_id in enumerate(tables['sent_ids'].tolist()):
        expected, above, dropped = slow_band(tables, i, tau, mode, top_k, most)
        band = bank.band(sent_id, rule)
        assert list(zip(band.rows.tolist(), band.similarities.tolist())) == expected
        assert (band.num_above, band.dropped.tolist()) == (above, dropped)
        assert band.truncated == (len(expected) < top_k)
        assert sizes[i] == len(expected)


def test_sizes_without_some_images_equal_a_loop_over_the_ranking(tmp_path):
    tables = write(tmp_path / 'bank')
    bank, without = NegativeBank(tmp_path / 'bank'), np.random.default_rng(1).random(40) < 0.4
    rules = [
        BandRule(tau, mode, 12, most)
        for tau, mode in ((0.9, 'relative'), (0.6, 'absolute'), (0.2, 'margin'), (7, 'rank'))
        for most in (None, 0.1)
    ]
    for chosen in (rules, rules[::2]):  # with and without comparing images
        for rule, left in zip(chosen, bank.num_remaining(chosen, without)):
            for i in range(60):
                band, *_ = slow_band(tables, i, rule.tau, rule.tau_mode, 100, rule.i2i_sim_thres)
                assert left[i] == sum(not without[row] for row, _ in band)
            sizes = bank.band_sizes(rule, without)
            assert sizes.tolist() == np.minimum(left, 12).tolist() and len(set(sizes)) > 2


def test_a_margin_and_a_share_that_mean_the_same_threshold_agree(tmp_path):
    tables = write(tmp_path / 'bank', expressions=1)
    bank, own = NegativeBank(tmp_path / 'bank'), float(tables['own'][0])
    bands = [
        bank.band(1, BandRule(0.75, 'relative')).rows,
        bank.band(1, BandRule(0.25 * own, 'margin')).rows,
        bank.band(1, BandRule(0.75 * own, 'absolute')).rows,
        bank.band(1, BandRule(bank.band(1, BandRule(0.75)).num_above, 'rank')).rows,
    ]
    assert len({tuple(rows.tolist()) for rows in bands}) == 1


@pytest.mark.parametrize('top_k', [1, 3, 10, 30])
@pytest.mark.parametrize('most', [None, 0.1])
@pytest.mark.parametrize('stored', [39, 25])
def test_the_band_goes_on_behind_what_is_held_out(tmp_path, top_k, most, stored):
    tables = write(tmp_path / 'bank', stored=stored)
    bank, without = NegativeBank(tmp_path / 'bank'), np.random.default_rng(1).random(40) < 0.5
    rule = BandRule(0.6, 'absolute', top_k, most)
    for i, sent_id in enumerate(tables['sent_ids'].tolist()):
        band = bank.band(sent_id, rule, without=without)
        whole, *_ = slow_band(tables, i, 0.6, 'absolute', 100, most)
        expected = [row for row, _ in whole if not without[row]]
        assert band.rows.tolist() == expected[:top_k]
        assert band.truncated == (stored < 39 and len(expected) < top_k)


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        (dict(tau_mode='ranks'), "tau_mode='ranks' is none of"),
        (dict(top_k=0), 'top_k=0'),
        (dict(top_k=2.5), 'whole number'),
        (dict(tau=60, tau_mode='absolute'), 'tau=60 must be a cosine, from -1 to 1'),
        (dict(tau=2.5, tau_mode='margin'), 'tau=2.5 must be a difference of cosines, from 0 to 2'),
        (dict(tau=-0.1, tau_mode='margin'), 'tau=-0.1'),
        (dict(tau=float('nan')), 'tau=nan must be a share'),
        (dict(tau=95), 'tau=95 must be a share .* from 0 to 2'),
        (dict(tau=0.9, tau_mode='rank'), 'whole number of images'),
        (dict(tau=-1, tau_mode='rank'), 'whole number of images'),
        (dict(tau=None), 'tau=None needs i2i_sim_thres'),
        (dict(i2i_sim_thres=1.0), 'i2i_sim_thres=1.0'),
        (dict(i2i_sim_thres=-1.0), 'i2i_sim_thres=-1.0'),
    ],
)
def test_rules_without_sense_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        BandRule(**rule)


def test_rules_with_sense():
    BandRule(49, 'rank').check(keep=50, needed=1)
    with pytest.raises(ValueError, match='keep=50 gives at most 1 .*needs 2'):
        BandRule(49, 'rank').check(keep=50, needed=2)
    with pytest.raises(ValueError, match='gives at most 2'):
        BandRule(top_k=2).check(keep=50, needed=3)
    BandRule(0.0, 'margin')
    BandRule(1.05)
    BandRule(np.float32(0.5), 'absolute', np.int64(9))
    BandRule(None, i2i_sim_thres=0.8)
    assert str(BandRule(0.9, i2i_sim_thres=0.8)) == (
        'tau=0.9 (relative), top_k=100, i2i_sim_thres=0.8'
    )
