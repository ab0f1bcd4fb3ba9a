"""Numbers and pictures of a bank, for a bank of a data set and one of a folder."""

import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bank_page
import numpy as np
import pytest
from bank_page import default_taus, make_rules, refine_rules, summarize_rules
from PIL import Image

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import Band, BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakGuard
from nemo_mmseg.refshapes.write import make_refshapes

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('bank_page')
    sizes = dict(train=12, val=2, testA=2, testB=2)
    make_refshapes(str(root), 'refshapes+', sizes, seed=5)
    rng = np.random.default_rng(0)
    (root / 'others').mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(root / 'others' / f'other_{i}.png')
    return root


def run(tool, data, *arguments, images=None):
    bank = 'train_dataloader.dataset.pipeline.1.bank.'
    path = data / ('folder.safetensors' if images else 'own.safetensors')
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / tool)]
    command += [str(ROOT / 'configs' / 'refshapes' / CONFIG), *arguments]
    command += [
        '--cfg-options',
        f'train_dataloader.dataset.data_root={data}/',
        f'{bank}path={path}',
    ]
    command += [f'{bank}images={images}'] if images else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout, path


@pytest.mark.slow
@pytest.mark.parametrize('folder', [False, True])
def test_inspect_bank(data, tmp_path, folder, monkeypatch):
    images = str(data / 'others') if folder else None
    run('mine_negatives.py', data, images=images)
    arguments = ['--out', str(tmp_path), '--relative', '0.9', '--rank', '0', '2', '50']
    arguments += ['--top-k', '2', '--i2i', '0.5', '--expressions', '2']
    printed, path = run('inspect_bank.py', data, *arguments, images=images)
    bank = NegativeBank(path)
    assert bank.stored == (5 if folder else 11)  # all but one: that place is the own image's
    assert 'tau=2 (rank), top_k=2, i2i_sim_thres=0.5' in printed and 'tau=50' not in printed
    page = (tmp_path / 'bank.html').read_text()
    # The config's tau (0.97, top_k=60) is refined, too.
    own = [f'tau=0.97 (relative), top_k={k}' for k in ('60', '2', '2, i2i_sim_thres=0.5')]
    assert [
        line.split('|')[1].strip() for line in printed.splitlines() if 'tau=0.97' in line
    ] == own
    # The own image, these 3, and 3 settings with and without the second threshold, twice; one plot.
    assert page.count('src="data:image/jpeg') == 2 * 10 and page.count('image/png') == 1
    assert 'http' not in page and not list(tmp_path.glob('.*'))

    monkeypatch.setattr('nemo_mmseg.mining.bank._ALIKE_BLOCK', 5)  # ends within an image's
    rules = make_rules(default_taus(bank), (1, 4), (None, 0.5), bank.stored)
    for summary in summarize_rules(bank, rules, needed=3):
        bands = [bank.band(int(s), *summary.rule) for s in bank.sent_ids]
        sizes = np.array([len(band.rows) for band in bands])
        assert summary.used.tolist() == sizes.tolist()
        assert summary.empty == (sizes == 0).mean() and summary.too_small == (sizes < 3).mean()
        assert summary.truncated == np.mean([band.truncated for band in bands])


def test_edges(tmp_path, monkeypatch):
    """The pictures at the edges, against a ranking written out by hand."""
    size, rng = 40, np.random.default_rng(1)
    vectors = rng.normal(size=(size, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bank = SimpleNamespace(
        image_names=[f'{i}.jpg' for i in range(size)], image_vectors=vectors.astype(np.float16),
        image_row=np.array([7, 3]), sent_ids=np.array([4, 9]),
    )  # fmt: skip
    ranking, similarities = rng.permutation(size), np.linspace(0.9, 0.1, size)
    bank.row = lambda sent_id: (ranking, similarities, 0.5)
    above, most, top_k = 10, 0.2, 8
    alike = bank.image_vectors.astype(np.float64) @ bank.image_vectors[3].astype(np.float64)
    free = [place for place in range(above, size) if alike[ranking[place]] <= most]
    end = free[top_k - 1] + 1
    used, dropped = free[:top_k], [p for p in range(above, end) if p not in free]
    assert len(dropped) > 2
    bank.band = lambda sent_id, *rule: Band(
        ranking[used], similarities[used], False, 0.5, above, ranking[dropped]
    )
    monkeypatch.setattr(bank_page, '_tile', lambda path, caption, color: (path, caption))
    pool = SimpleNamespace(path_of=lambda name: name)
    wanted = SimpleNamespace(dataset=SimpleNamespace(pool=pool), mosaic=SimpleNamespace())
    rule = BandRule(above, 'rank', top_k, most)
    sizes, pictures = bank_page.edge_tiles(wanted, bank, 9, rule)
    assert sizes == (
        f'10 too close, 8 used, {size - end} stored below; {len(dropped)} between them too alike'
    )

    def cosine(place):
        return alike[ranking[place]]

    expected = [('too close', p, similarities[p]) for p in (7, 8, 9)]
    expected += [('used', p, similarities[p]) for p in (*used[:2], *used[-2:])]
    expected += [('too far', p, similarities[p]) for p in (end, end + 1)]
    expected += [('used', p, cosine(p)) for p in sorted(used, key=cosine)[:-3:-1]]
    expected += [('too alike', p, cosine(p)) for p in sorted(dropped, key=cosine)[:2]]
    for number, ((path, caption), (name, place, value)) in enumerate(zip(pictures, expected)):
        word = 'cosine ' if number >= 9 else ''
        assert path == f'{ranking[place]}.jpg'
        assert caption == f'{name}, rank {place + 1}\n{word}{value:.3f}'
    assert len(pictures) == len(expected) == 13


@pytest.mark.parametrize('most', [None, 0.2])
def test_a_leak_guards_images_are_not_used(tmp_path, monkeypatch, most):
    """Numbers and pictures where a guard drops half of the pool, against plain loops."""
    size, expressions, rng = 60, 12, np.random.default_rng(3)
    vectors = rng.normal(size=(size, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = rng.integers(0, size, expressions)
    order = np.array([rng.permutation(np.delete(np.arange(size), row)) for row in own])
    falling = np.linspace(0.9, 0.1, size - 1)
    names = [f'{i:012d}.jpg' for i in range(size)]
    path = tmp_path / 'bank.safetensors'
    with BankWriter(
        path, np.arange(expressions), own, np.arange(size), names, vectors, size - 1,
        dict(fingerprint='f' * 64),
    ) as writer:  # fmt: skip
        best = np.tile(falling, (expressions, 1))
        writer.write(np.arange(expressions), order, best, np.ones(expressions))
    held_out = set(rng.permutation(size)[: size // 2].tolist())
    refs = [dict(split='val', file_name=names[i]) for i in held_out]
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps(refs))
    guard = LeakGuard(['refs(unc).p'], str(tmp_path), action='drop')
    pool = SimpleNamespace(path_of=lambda name: name)
    wanted = SimpleNamespace(
        dataset=SimpleNamespace(pool=pool), mosaic=SimpleNamespace(leak_guard=guard)
    )
    bank = NegativeBank(path)
    exact = bank.image_vectors.astype(np.float64)
    monkeypatch.setattr(bank_page, '_tile', lambda path, caption, color: (path, caption))
    for top_k in (5, size):  # of which the larger is never filled
        rule = BandRule(7, 'rank', top_k, most)
        (summary,) = summarize_rules(bank, [rule], 3, bank_page.held_out_images(wanted, bank))
        for number in range(expressions):
            alike = exact @ exact[own[number]]
            free = [
                p for p in range(7, size - 1) if most is None or alike[order[number][p]] <= most
            ]
            left = [place for place in free if order[number][place] not in held_out]
            assert summary.left[number] == len(left) < len(free)
            used = left[:top_k]
            assert summary.used[number] == len(used)
            end = used[-1] + 1 if len(used) == top_k else size - 1
            sizes, pictures = bank_page.edge_tiles(wanted, bank, number, rule)
            between = [p for p in range(7, end) if order[number][p] in held_out]
            dropped = [p for p in range(7, end) if p not in free and p not in between]
            text = f'7 too close, {len(used)} used, {size - 1 - end} stored below; '
            text += f'{len(between)} between them held out by the leak guard'
            text += '' if most is None else f'; {len(dropped)} between them too alike'
            assert sizes == text
            shown = [picture for picture in pictures if isinstance(picture, tuple)]
            groups = {
                name: [file for file, caption in shown if caption.startswith(name)]
                for name in ('used', 'too alike')
            }
            ends = used if len(used) <= 4 else [*used[:2], *used[-2:]]
            assert groups['used'][: len(ends)] == [names[order[number][p]] for p in ends]
            assert not {int(file[:12]) for of in groups.values() for file in of} & held_out
            assert len(groups['too alike']) == (0 if most is None else min(2, len(dropped)))


def test_rules():
    rules = make_rules(dict(rank=[0, 5], absolute=[0.2]), (3,), (None, 0.9), keep=5)
    assert rules == [
        BandRule(0, 'rank', 3), BandRule(0, 'rank', 3, 0.9),
        BandRule(0.2, 'absolute', 3), BandRule(0.2, 'absolute', 3, 0.9),
    ]  # fmt: skip
    with pytest.raises(ValueError, match='counts images'):
        make_rules(dict(rank=[0.5]))


def test_the_configs_own_settings_are_refined():
    plain, alike = BandRule(0.97, 'relative', 60), BandRule(None, 'relative', 9, 0.8)
    assert refine_rules([plain, alike]) == [plain, alike]
    assert refine_rules([plain, alike], i2i=[0.7, 0.8]) == [
        plain, alike,
        BandRule(0.97, 'relative', 60, 0.7), BandRule(0.97, 'relative', 60, 0.8),
        BandRule(None, 'relative', 9, 0.7),
    ]  # fmt: skip
    assert refine_rules([plain], [5, 6], [0.7]) == [
        plain,
        BandRule(0.97, 'relative', 5), BandRule(0.97, 'relative', 5, 0.7),
        BandRule(0.97, 'relative', 6), BandRule(0.97, 'relative', 6, 0.7),
    ]  # fmt: skip
    with pytest.raises(ValueError, match='between -1 and 1'):
        refine_rules([plain], i2i=[2.0])
