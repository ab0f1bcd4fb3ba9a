import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_mmseg.mining import mine as mine_module
from nemo_mmseg.mining.shards import busy, listing
from nemo_mmseg.negatives.bank import BankError, NegativeBank


def start(tiny, folder, path, *options, **environment):
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', tiny.program, str(folder), str(path), *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_bank_equals_brute_force_with_open_clip(tiny, shared_folder, mined):
    """The truth: open_clip's own calls, one image and one full context at a time, in float64."""
    import open_clip

    data = tiny.TinyData(shared_folder)
    clip, _, preprocess = open_clip.create_model_and_transforms(
        tiny.MODEL, pretrained=shared_folder + '/weights.pt'
    )
    tokenizer = open_clip.get_tokenizer(tiny.MODEL)
    from PIL import Image

    sent_ids, texts, own = data.expressions()
    with torch.no_grad():
        clip.eval()
        images = torch.cat(
            [
                clip.encode_image(preprocess(Image.open(data.pool.path(i)))[None])
                for i in range(len(data.pool))
            ]
        )
        sentences = torch.cat([clip.encode_text(tokenizer([text])) for text in texts])
    images, sentences = (torch.nn.functional.normalize(v.double()) for v in (images, sentences))
    truth = (sentences @ images.T).numpy()

    bank = NegativeBank(mined)
    assert bank.sent_ids.tolist() == sent_ids.tolist()
    assert list(bank.image_names) == data.pool.names
    assert bank.image_ids.tolist() == data.pool.ids.tolist()
    assert bank.image_row.tolist() == own.tolist()
    np.testing.assert_allclose(bank.image_vectors, images, atol=1e-3)
    for i, sent_id in enumerate(sent_ids.tolist()):
        rows, sims, self_similarity = bank.row(sent_id)
        assert abs(self_similarity - truth[i, own[i]]) < 1e-3
        np.testing.assert_allclose(sims, truth[i, rows], atol=1e-3)
        others = np.sort(np.delete(truth[i], own[i]))[::-1][:12]
        np.testing.assert_allclose(truth[i, rows], others, atol=1e-5)
        assert own[i] not in rows


def test_metadata_says_what_made_it(tiny, shared_folder, mined):
    made = NegativeBank(mined).metadata
    assert made['fingerprint'] == tiny.TinyData(shared_folder).fingerprint
    assert (made['dataset'], made['split'], made['keep']) == ('tiny', 'train', 12)
    assert (made['model'], made['pretrained']) == (tiny.MODEL, 'weights.pt')
    weights = Path(shared_folder, 'weights.pt').read_bytes()
    assert made['weights_sha256'] == hashlib.sha256(weights).hexdigest()
    assert made['versions']['torch'] == torch.__version__.split('+')[0]
    assert not os.path.exists(f'{mined}.work')


def test_workers_threads_and_ranks_change_no_byte(tiny, shared_folder, mined, tmp_path):
    alone = start(tiny, shared_folder, tmp_path / 'alone', '--workers', '2', '--threads', '3')
    ranks = [
        start(tiny, shared_folder, tmp_path / 'ranks', RANK=str(rank), WORLD_SIZE='2')
        for rank in (1, 0)
    ]
    for process in (alone, *ranks):
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    expected = mined.read_bytes()
    assert (tmp_path / 'alone').read_bytes() == expected
    assert (tmp_path / 'ranks').read_bytes() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ['alone', 'ranks']


class Killed(BaseException):
    """Stands for a kill: no handler of the package may see to it."""


@pytest.mark.parametrize('moment', [1, 9, 20, 21])
def test_stopped_between_two_writes_it_continues(
    tiny, shared_folder, mined, tmp_path, monkeypatch, moment
):
    """Settings, 5 shards of images, 15 of texts, the bank: stopped before the n-th rename."""
    path, renamed = tmp_path / 'bank', []
    real = os.replace

    def replace(*names):
        if len(renamed) == moment:
            raise Killed
        renamed.append(names[1])
        real(*names)

    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(Killed):
        tiny.mine(shared_folder, path)
    assert not path.exists()
    first = [str(n) for n in renamed if 'settings' not in str(n)]
    renamed.clear()
    monkeypatch.setattr(os, 'replace', lambda *names: (renamed.append(names[1]), real(*names)))
    tiny.mine(shared_folder, path)
    # Nothing is done twice.
    second = [str(n) for n in renamed if 'settings' not in str(n)]
    assert not set(first) & set(second)
    assert path.read_bytes() == mined.read_bytes()
    assert os.listdir(tmp_path) == ['bank']


@pytest.mark.parametrize('times', [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_writes_the_same_bytes(
    tiny, shared_folder, mined, tmp_path, times
):
    """A real `kill -9`, then a run that finishes; again and again."""
    process = start(tiny, shared_folder, tmp_path / 'bank', '--kills', str(times))
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    runs = [json.loads(line) for line in output.splitlines() if line.startswith('[')]
    assert sum(killed for killed, _, _ in runs) == times
    assert {digest for _, _, digest in runs} == {hashlib.sha256(mined.read_bytes()).hexdigest()}
    assert os.listdir(tmp_path) == ['bank']


def test_a_damaged_shard_is_made_again(tiny, shared_folder, mined, tmp_path, monkeypatch):
    path = tmp_path / 'bank'
    with monkeypatch.context() as patch:
        patch.setattr(mine_module._Run, '_finish', lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            tiny.mine(shared_folder, path)
    (shard,) = tmp_path.glob('bank.work/*/texts-00002.safetensors')
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    tiny.mine(shared_folder, path)
    assert path.read_bytes() == mined.read_bytes()


def test_other_settings_start_anew_and_say_so(
    tiny, shared_folder, mined, tmp_path, monkeypatch, capsys
):
    path = tmp_path / 'bank'
    with monkeypatch.context() as patch:
        patch.setattr(mine_module._Run, '_finish', lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            tiny.mine(shared_folder, path, batch_size=2)
    messages = []
    monkeypatch.setattr(mine_module, 'print_log', lambda text, *args: messages.append(text))
    tiny.mine(shared_folder, path)
    assert any('other settings (batch_size=2)' in text for text in messages), messages
    assert path.read_bytes() == mined.read_bytes()
    assert os.listdir(tmp_path) == ['bank']


def test_nothing_is_done_twice_and_leftovers_go(tiny, shared_folder, mined, monkeypatch):
    monkeypatch.setattr(mine_module, 'ClipEmbedder', None)  # would fail if it were called
    work = Path(f'{mined}.work')
    work.mkdir()
    (work / 'left').touch()
    before = mined.stat().st_mtime_ns
    bank = tiny.mine(shared_folder, mined)
    assert len(bank) == 130 and mined.stat().st_mtime_ns == before
    assert not work.exists()


def test_another_bank_is_not_overwritten(tiny, shared_folder, own_folder, mined):
    content = mined.read_bytes()
    for options, message in (
        (dict(keep=5), 'made with keep=12.*asks for 5.*Delete it, or name another path'),
        (dict(model='RN50'), 'made with model='),
        (dict(pretrained='openai'), "made with pretrained='weights.pt'"),
    ):
        with pytest.raises(BankError, match=message):
            tiny.mine(shared_folder, mined, **options)
    other = own_folder / 'weights.pt'
    other.write_bytes(b'other weights of the same name')
    with pytest.raises(BankError, match='weights_sha256'):
        tiny.mine(shared_folder, mined, pretrained=str(other))
    expressions = json.loads((own_folder / 'expressions.json').read_text())
    expressions[1][0] = 'another sentence'
    (own_folder / 'expressions.json').write_text(json.dumps(expressions))
    with pytest.raises(BankError, match="made for 'tiny', split 'train'.*not for 'tiny'"):
        tiny.mine(str(own_folder), mined, pretrained=shared_folder + '/weights.pt')
    assert mined.read_bytes() == content


def test_a_bank_whose_weights_are_gone_still_serves(tiny, shared_folder, mined):
    assert len(tiny.mine(shared_folder, mined, pretrained='/nowhere/weights.pt')) == 130


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(keep=0), ValueError, 'keep must be at least 1'),
        (dict(batch_size=0), ValueError, 'batch_size'),
        (dict(model='ViT-Z-99'), ValueError, "unknown CLIP model 'ViT-Z-99'"),
        (dict(pretrained='/nowhere/weights.pt'), FileNotFoundError, '/nowhere/weights.pt'),
        (dict(pretrained=None), ValueError, 'needs weights'),
    ],
)
def test_bad_arguments_leave_nothing(tiny, shared_folder, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        tiny.mine(shared_folder, tmp_path / 'sub' / 'bank', **options)
    assert os.listdir(tmp_path) == []


def test_unreadable_image_stops_the_run(tiny, own_folder, tmp_path):
    (own_folder / 'image_007.jpg').write_bytes(b'no')
    with pytest.raises(ValueError, match='image_007.jpg'):
        tiny.mine(str(own_folder), tmp_path / 'bank')
    assert not (tmp_path / 'bank').exists()


def test_repeated_sentence_ids_are_refused(tiny, own_folder, tmp_path):
    expressions = json.loads((own_folder / 'expressions.json').read_text())
    expressions[0][4] = expressions[0][3]
    (own_folder / 'expressions.json').write_text(json.dumps(expressions))
    with pytest.raises(ValueError, match=f'{expressions[0][3]} follows'):
        tiny.mine(str(own_folder), tmp_path / 'bank')


def test_a_rank_that_waits_in_vain_says_so(tiny, shared_folder, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(TimeoutError, match='rank 1 of 2 waited for rank 0'):
        tiny.mine(shared_folder, tmp_path / 'bank', timeout=0.5)
    monkeypatch.setenv('RANK', '0')
    for shard in tmp_path.glob('bank.work/*/texts-00001.safetensors'):
        shard.unlink()
    with pytest.raises(TimeoutError, match='texts-00001'):
        tiny.mine(shared_folder, tmp_path / 'bank', timeout=0.5)


def test_pool_of_three_images(tiny, tmp_path):
    folder = tmp_path / 'three'
    folder.mkdir()
    tiny.make(str(folder), num_images=3, num_expressions=9)
    bank = tiny.mine(str(folder), tmp_path / 'bank')
    assert bank.stored == 2
    for i, sent_id in enumerate(bank.sent_ids.tolist()):
        band = bank.band(sent_id, 2.0, 'absolute')
        assert sorted([*band.rows.tolist(), int(bank.image_row[i])]) == [0, 1, 2]
        assert not band.truncated


def test_two_jobs_for_one_bank_take_turns(tiny, shared_folder, mined, tmp_path):
    """Two independent processes, both rank 0, as when two configs name one missing bank."""
    path = tmp_path / 'bank.safetensors'
    jobs = [start(tiny, shared_folder, path) for _ in range(3)]
    printed = [job.communicate(timeout=240)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], printed
    assert path.read_bytes() == Path(mined).read_bytes()
    assert os.listdir(tmp_path) == ['bank.safetensors']


def test_others_see_that_an_index_is_built(tmp_path):
    seen = []
    (tmp_path / 'work' / 'run').mkdir(parents=True)
    with busy(tmp_path / 'work' / 'run', every=0.01):
        seen.append(listing(tmp_path / 'work'))
        time.sleep(0.5)
        seen.append(listing(tmp_path / 'work'))
        time.sleep(0.5)
        seen.append(listing(tmp_path / 'work'))
    assert seen[0] != seen[1] != seen[2]
    ended = listing(tmp_path / 'work')
    time.sleep(0.2)
    assert listing(tmp_path / 'work') == ended
