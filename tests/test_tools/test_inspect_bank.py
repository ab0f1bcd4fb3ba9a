"""Numbers and pictures of a bank, of a data set's own images and of a folder."""

import dataclasses
import pickle
import sys
from types import SimpleNamespace

import inspect_bank
import numpy as np
import pytest
from bank_page import band_edges, rules_to_show, summarize_rules
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from nemo_mmseg.datasets.requirements import BankRequirement
from nemo_mmseg.mining import make, requirements_of
from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankSpec, NegativeBank
from nemo_mmseg.negatives.leak_guard import LeakGuard
from nemo_mmseg.utils.config import find_config

CONFIG = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'


@pytest.mark.parametrize('folder', [False, True])
def test_inspect_bank(refshapes, tmp_path, folder, monkeypatch, capsys):
    path, bank = tmp_path / 'bank.safetensors', 'train_dataloader.dataset.pipeline.1.bank.'
    options = {'train_dataloader.dataset.data_root': f'{refshapes}/', f'{bank}path': str(path)}
    if folder:
        images, rng = tmp_path / 'others', np.random.default_rng(0)
        images.mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(images / f'other_{i}.png')
        options[f'{bank}images'] = str(images)
    cfg = Config.fromfile(find_config(CONFIG))
    cfg.merge_from_dict(options)
    for requirement in requirements_of(DATASETS.build(cfg.train_dataloader.dataset)):
        make(requirement, num_workers=0, progress=False)
    arguments = ['--out', str(tmp_path), '--relative', '0.9', '--rank', '0', '2', '50']
    arguments += ['--top-k', '2', '--i2i', '0.5', '--expressions', '2', '--cfg-options']
    arguments += [f'{key}={value}' for key, value in options.items()]
    monkeypatch.setattr(sys, 'argv', ['inspect_bank.py', CONFIG, *arguments])
    inspect_bank.main()
    printed = capsys.readouterr().out
    assert NegativeBank(path).stored == (5 if folder else 11)  # all but the own image
    assert 'tau=2 (rank), top_k=2, i2i_sim_thres=0.5' in printed and 'tau=50' not in printed
    # The config's tau (0.8, top_k=30) is refined, too.
    own = [f'tau=0.8 (relative), top_k={k}' for k in ('30', '2', '2, i2i_sim_thres=0.5')]
    rows = [line.split('|') for line in printed.splitlines() if line.startswith('|')]
    cells = [row[1].strip() for row in rows if 'tau=0.8 ' in row[1]]
    assert cells == own
    page = (tmp_path / 'bank.html').read_text()
    # The own image, these 3, and 3 settings with and without the second threshold, twice; one plot.
    assert page.count('src="data:image/jpeg') == 2 * 10 and page.count('image/png') == 1
    assert 'http' not in page and not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('guarded', [False, True])
@pytest.mark.parametrize('most', [None, 0.2])
def test_numbers_and_edges_against_plain_loops(tmp_path, guarded, most):
    """A bank written by hand; with a leak guard that holds half of its images back."""
    size, expressions, start, rng = 60, 12, 7, np.random.default_rng(3)
    vectors = rng.normal(size=(size, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = rng.integers(0, size, expressions)
    order = np.array([rng.permutation(np.delete(np.arange(size), row)) for row in own])
    falling = np.linspace(0.9, 0.1, size - 1)
    names = [f'{i:012d}.jpg' for i in range(size)]
    path, every = tmp_path / 'bank.safetensors', np.arange(expressions)
    made = dict(fingerprint='f' * 64)
    with BankWriter(path, every, own, np.arange(size), names, vectors, size - 1, made) as writer:
        best = np.tile(falling, (expressions, 1))
        writer.write(every, order, best, np.ones(expressions))
    held_out = set(rng.permutation(size)[: size // 2].tolist()) if guarded else set()
    refs = [dict(split='val', file_name=names[i]) for i in held_out]
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps(refs))
    guard = LeakGuard(['refs(unc).p'], str(tmp_path), action='drop') if guarded else None
    dataset = SimpleNamespace(pool=SimpleNamespace(path_of=lambda name: name))
    requirement = BankRequirement(dataset, BankSpec(str(path)), (), 3, guard)
    bank = NegativeBank(path)
    exact = bank.image_vectors.astype(np.float64)
    for top_k in (3, 8, 50):
        rule = BandRule(start, 'rank', top_k, most)
        (summary,) = summarize_rules(requirement, bank, [rule])
        for number in range(expressions):
            rows, alike = order[number], exact @ exact[own[number]]
            free = [p for p in range(start, size - 1) if most is None or alike[rows[p]] <= most]
            left = [place for place in free if rows[place] not in held_out]
            used = left[:top_k]
            assert summary.remaining[number] == len(left) and summary.used[number] == len(used)
            end = used[-1] + 1 if len(used) == top_k else size - 1
            between = [p for p in range(start, end) if rows[p] in held_out]
            dropped = [p for p in range(start, end) if p not in free and p not in between]
            sizes, images = band_edges(requirement, bank, number, rule)
            text = f'{start} too close, {len(used)} used, {size - 1 - end} stored below'
            if guarded:
                text += f'; {len(between)} between them held out by the leak guard'
            if most is not None:
                text += f'; {len(dropped)} between them too alike'
            assert sizes == text
            expected = [('too close', p, falling[p]) for p in (4, 5, 6)]
            ends = used if len(used) <= 4 else [*used[:2], *used[-2:]]
            expected += [('used', p, falling[p]) for p in ends]
            expected += [('too far', p, falling[p]) for p in range(end, min(end + 2, size - 1))]
            if most is not None:

                def cosine(place, rows=rows, alike=alike):
                    return alike[rows[place]]

                expected += [('used', p, cosine(p)) for p in sorted(used, key=cosine)[:-3:-1]]
                near = sorted(dropped, key=cosine)[:2]
                expected += [('too alike', p, cosine(p)) for p in near]
            assert len(images) == (9 if most is None else 13)
            shown = [image for image in images if image is not None]
            for image, (name, place, value) in zip(shown, expected, strict=True):
                assert (image.group, image.rank) == (name, place + 1)
                assert image.path == names[rows[place]]
                score = float(np.float16(value)) if 'cosine' not in image.score else value
                assert float(image.score.split()[-1]) == pytest.approx(score, abs=6e-4)
        shares = (summary.used == 0).mean(), (summary.used < 3).mean()
        assert (summary.empty, summary.too_small, summary.truncated) == (*shares, 0)


def test_rules_to_show():
    config, alike = BandRule(0.97, 'relative', 60), BandRule(None, 'relative', 9, 0.8)
    bank = SimpleNamespace(stored=5)

    def change(rule, **changes):
        return dataclasses.replace(rule, **changes)

    taus = dict(rank=[0, 5], absolute=[0.2])
    assert rules_to_show([config, alike], bank, taus, i2i=[0.7]) == [
        config, alike, change(config, i2i_sim_thres=0.7), change(alike, i2i_sim_thres=0.7),
        BandRule(0, 'rank', 9), BandRule(0, 'rank', 9, 0.7),
        BandRule(0.2, 'absolute', 9), BandRule(0.2, 'absolute', 9, 0.7),
    ]  # fmt: skip
    assert rules_to_show([config], bank, dict(absolute=[0.2]), [5, 6]) == [
        config, change(config, top_k=5), change(config, top_k=6),
        BandRule(0.2, 'absolute', 5), BandRule(0.2, 'absolute', 6),
    ]  # fmt: skip
