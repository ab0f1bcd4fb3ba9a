import hashlib
import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, NegativeBank


def test_bank_equals_brute_force_with_open_clip(tiny, shared_folder, mined):
    """open_clip's own calls, on full contexts."""
    import open_clip
    from PIL import Image

    data = tiny.TinyData(shared_folder)
    clip, _, preprocess = open_clip.create_model_and_transforms(
        tiny.MODEL, pretrained=shared_folder + '/weights.pt'
    )
    sent_ids, texts, own = data.expressions()
    with torch.no_grad():
        clip.eval()
        pictures = [preprocess(Image.open(data.pool.path(i))) for i in range(len(data.pool))]
        images = clip.encode_image(torch.stack(pictures))
        sentences = clip.encode_text(open_clip.get_tokenizer(tiny.MODEL)(texts))
    images, sentences = (torch.nn.functional.normalize(v.double()) for v in (images, sentences))
    expected = (sentences @ images.T).numpy()

    bank = NegativeBank(mined)
    assert bank.sent_ids.tolist() == sent_ids.tolist()
    assert list(bank.image_names) == data.pool.names.tolist()
    assert bank.image_ids.tolist() == data.pool.ids.tolist()
    assert bank.image_row.tolist() == own.tolist()
    np.testing.assert_allclose(bank.image_vectors, images, atol=1e-3)
    for i, sent_id in enumerate(sent_ids.tolist()):
        rows, sims, self_similarity = bank.row(sent_id)
        assert abs(self_similarity - expected[i, own[i]]) < 1e-3
        np.testing.assert_allclose(sims, expected[i, rows], atol=1e-3)
        others = np.sort(np.delete(expected[i], own[i]))[::-1][:12]
        np.testing.assert_allclose(expected[i, rows], others, atol=1e-5)
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


def test_workers_threads_change_no_byte(tiny, shared_folder, mined, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    tiny.mine(shared_folder, tmp_path / 'bank', num_workers=2)
    torch.set_num_threads(before)
    assert (tmp_path / 'bank').read_bytes() == mined.read_bytes()


@pytest.mark.parametrize('kills', [2, pytest.param(10, marks=pytest.mark.slow)])
def test_ranks_jobs_and_kills_change_no_byte(tiny, shared_folder, mined, tmp_path, kills):
    """Three ranks; two jobs of two ranks for one bank; `kill -9`, and a run that finishes."""
    command = [sys.executable, '-W', 'ignore', tiny.program, shared_folder, tmp_path]
    done = subprocess.run(
        [*command, '--kills', str(kills)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(tmp_path)) == ['jobs', 'killed', 'ranks']
    for path in tmp_path.iterdir():
        assert path.read_bytes() == mined.read_bytes(), path


class Killed(BaseException):
    """Stands for a kill: no handler of the package may see to it."""


def stop_before(monkeypatch, moment):
    """Let the process die before it renames for the n-th time, or (None) before the last time."""
    renamed, real = [], os.replace

    def replace(source, target):
        if len(renamed) == moment or (moment is None and str(source).endswith('bank.tmp')):
            raise Killed
        renamed.append(target)
        real(source, target)

    monkeypatch.setattr(os, 'replace', replace)


@pytest.fixture
def counted(monkeypatch):
    """What is embedded, as [images, texts]."""
    counts = [0, 0]
    for place, name in enumerate(('images', 'encode')):
        real = getattr(ClipEmbedder, name)

        def call(self, batch, real=real, place=place):
            counts[place] += len(batch)
            return real(self, batch)

        monkeypatch.setattr(ClipEmbedder, name, call)
    return counts


@pytest.mark.parametrize('moment', [0, 3, 12, None])
def test_stopped_between_two_writes_it_continues(
    tiny, shared_folder, mined, tmp_path, counted, moment
):
    path = tmp_path / 'bank'
    with pytest.MonkeyPatch.context() as patch:
        stop_before(patch, moment)
        with pytest.raises(Killed):
            tiny.mine(shared_folder, path)
    assert not path.exists()
    tiny.mine(shared_folder, path)
    assert path.read_bytes() == mined.read_bytes()
    assert os.listdir(tmp_path) == ['bank']
    # What was written is not embedded again, but for a pack of 8 and the batches under way.
    distinct = len(set(tiny.TinyData(shared_folder).expressions()[1]))
    again = sum(counted) - 40 - distinct
    assert again == 0 if moment is None else again <= 24


def test_a_damaged_pack_is_made_again(tiny, shared_folder, mined, tmp_path, counted):
    path = tmp_path / 'bank'
    with pytest.MonkeyPatch.context() as patch:
        stop_before(patch, None)
        with pytest.raises(Killed):
            tiny.mine(shared_folder, path)
    before = sum(counted)
    pack = sorted(tmp_path.glob('bank.work/*/pack-*'))[3]
    content = bytearray(pack.read_bytes())
    content[-3] ^= 1
    pack.write_bytes(content)
    tiny.mine(shared_folder, path)
    assert path.read_bytes() == mined.read_bytes()
    assert 8 <= sum(counted) - before < 12


def test_a_cache_is_used_again_and_changes_no_byte(
    tiny, shared_folder, own_folder, mined, tmp_path, counted
):
    cache = str(tmp_path / 'cache')
    distinct = len(set(tiny.TinyData(shared_folder).expressions()[1]))
    tiny.mine(shared_folder, tmp_path / 'one', cache=cache)
    assert counted == [40, distinct]
    assert (tmp_path / 'one').read_bytes() == mined.read_bytes()
    tiny.mine(shared_folder, tmp_path / 'two', cache=cache, keep=5)
    assert counted == [40, distinct]
    tiny.mine(shared_folder, tmp_path / 'off', keep=5)
    assert (tmp_path / 'two').read_bytes() == (tmp_path / 'off').read_bytes()
    assert counted == [80, 2 * distinct]

    # Another data set: a copy of the images, one of them changed, and two other texts.
    counted[:] = 0, 0
    image = own_folder / 'image_011.jpg'
    image.write_bytes((own_folder / 'image_012.jpg').read_bytes()[:-2] + b'\xff\xd9\x00')
    text = (own_folder / 'expressions.json').read_text()
    words = tiny.TinyData(str(own_folder)).expressions()[1]
    text = text.replace(f'"{words[0]}"', '"a blue cat"', 1).replace(f'"{words[20]}"', '"cats"')
    (own_folder / 'expressions.json').write_text(text)
    weights = dict(pretrained=shared_folder + '/weights.pt')
    tiny.mine(str(own_folder), tmp_path / 'other', cache=cache, **weights)
    assert counted == [1, 2]
    tiny.mine(str(own_folder), tmp_path / 'fresh', **weights)
    assert (tmp_path / 'other').read_bytes() == (tmp_path / 'fresh').read_bytes()

    # Another encoder has its own vectors.
    counted[:] = 0, 0
    tiny.mine(shared_folder, tmp_path / 'three', cache=cache, batch_size=3)
    assert counted[0] == 40 and len(os.listdir(cache)) == 2


def test_a_cache_that_cannot_be_written_stops_nothing(
    tiny, shared_folder, mined, tmp_path, monkeypatch
):
    (tmp_path / 'file').touch()
    tiny.mine(shared_folder, tmp_path / 'bank', cache=str(tmp_path / 'file'))
    assert (tmp_path / 'bank').read_bytes() == mined.read_bytes()
    # A user without a home, as containers have.
    for name in ('NEMO_MMSEG_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', homeless)
    tiny.mine(shared_folder, tmp_path / 'again', cache=True)
    assert (tmp_path / 'again').read_bytes() == mined.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ['again', 'bank', 'file']


def test_nothing_is_done_twice_and_leftovers_go(tiny, shared_folder, mined, counted):
    work = Path(f'{mined}.work')
    work.mkdir()
    (work / 'left').touch()
    before = mined.stat().st_mtime_ns
    bank = tiny.mine(shared_folder, mined)
    assert len(bank) == 130 and mined.stat().st_mtime_ns == before and counted == [0, 0]
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
        (dict(keep=0), ValueError, 'keep at least 1'),
        (dict(model='ViT-Z-99'), ValueError, "unknown CLIP model 'ViT-Z-99'"),
        (dict(pretrained='/nowhere/weights.pt'), FileNotFoundError, '/nowhere/weights.pt'),
        (dict(pretrained=None), ValueError, 'does not say how to mine'),
    ],
)
def test_bad_arguments_leave_nothing(tiny, shared_folder, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        tiny.mine(shared_folder, tmp_path / 'sub' / 'bank', **options)
    assert os.listdir(tmp_path) == []


def test_a_path_at_which_no_file_can_be_is_refused_first(tiny, shared_folder, tmp_path, counted):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(IsADirectoryError, match=f'this is a folder.*{tmp_path}/folder'):
        tiny.mine(shared_folder, tmp_path / 'folder')
    with pytest.raises(NotADirectoryError, match=f'this is a file.*{tmp_path}/file'):
        tiny.mine(shared_folder, tmp_path / 'file' / 'bank')
    assert counted == [0, 0] and sorted(os.listdir(tmp_path)) == ['file', 'folder']


def test_a_full_disk_names_the_bank_and_the_run_is_continued(
    tiny, shared_folder, mined, tmp_path, counted, file_size_limit
):
    path = tmp_path / 'bank'
    said = f'File too large, while writing {path}. What is embedded stays'
    limit = mined.stat().st_size - 100
    with file_size_limit(limit), pytest.raises(OSError, match=said):
        tiny.mine(shared_folder, path)
    # All but the vectors is gone.
    left = {file.name.split('-')[0] for file in tmp_path.rglob('*') if file.is_file()}
    assert left == {'pack', 'rank'}
    before = sum(counted)
    tiny.mine(shared_folder, path)
    assert sum(counted) == before and path.read_bytes() == mined.read_bytes()
    assert os.listdir(tmp_path) == ['bank']


def mine_slowly(tiny, folder, path):
    """Mine with workers that are far ahead."""
    encode = ClipEmbedder.images
    ClipEmbedder.images = lambda self, batch: time.sleep(0.3) or encode(self, batch)
    tiny.mine(folder, path, num_workers=2)


def test_workers_of_a_killed_job_end_and_hold_nothing(tiny, shared_folder, mined, tmp_path):
    path = tmp_path / 'bank'
    run = get_context('fork').Process(target=mine_slowly, args=(tiny, shared_folder, path))
    run.start()
    while not list(tmp_path.glob('bank.work/*/pack-*')):
        assert run.is_alive()
        time.sleep(0.01)
    workers = psutil.Process(run.pid).children()
    said = (tmp_path / 'bank.work' / 'lock').read_text()
    assert len(workers) == 2 and said.startswith(f'process {run.pid} on ')
    run.kill()
    run.join()
    started = time.monotonic()
    tiny.mine(shared_folder, path, num_workers=2)
    assert time.monotonic() - started < 30
    assert path.read_bytes() == mined.read_bytes() and os.listdir(tmp_path) == ['bank']
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_unreadable_image_stops_the_run(tiny, own_folder, tmp_path):
    (own_folder / 'image_007.jpg').write_bytes(b'no')
    with pytest.raises(ValueError, match='image_007.jpg'):
        tiny.mine(str(own_folder), tmp_path / 'bank')
    assert not (tmp_path / 'bank').exists()


def test_repeated_sentence_ids_are_refused(tiny, own_folder, tmp_path):
    expressions = json.loads((own_folder / 'expressions.json').read_text())
    expressions[0][4] = expressions[0][3]
    (own_folder / 'expressions.json').write_text(json.dumps(expressions))
    with pytest.raises(ValueError, match=f'sentence id {expressions[0][3]}'):
        tiny.mine(str(own_folder), tmp_path / 'bank')


def test_a_rank_that_waits_in_vain_says_so(tiny, shared_folder, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(TimeoutError, match='rank 1 of 2 waited for rank 0'):
        tiny.mine(shared_folder, tmp_path / 'bank', timeout=0.5)
    monkeypatch.setenv('RANK', '0')
    tiny.mine(shared_folder, tmp_path / 'bank', timeout=0.5)
    with pytest.raises(TimeoutError, match='0 of 2 waited for the vectors of images 8 to 15'):
        tiny.mine(shared_folder, tmp_path / 'other', timeout=0.5)


def test_pool_of_three_images(tiny, tmp_path):
    folder = tmp_path / 'three'
    folder.mkdir()
    tiny.make(str(folder), num_images=3, num_expressions=9)
    bank = tiny.mine(str(folder), tmp_path / 'bank')
    assert bank.stored == 2
    for i, sent_id in enumerate(bank.sent_ids.tolist()):
        band = bank.band(sent_id, BandRule(1.0, 'absolute'))
        assert sorted([*band.rows.tolist(), int(bank.image_row[i])]) == [0, 1, 2]
        assert not band.truncated
