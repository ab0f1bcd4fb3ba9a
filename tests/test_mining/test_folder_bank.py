"""A bank whose negatives come from a folder that is not the data set's."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nemo_mmseg.mining import check_bank
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, BankSpec, NegativeBank
from nemo_mmseg.negatives.pool import FolderPool, folder_pool


@pytest.fixture
def negatives(shared_folder, tmp_path):
    """18 images in two folders; two are images of the data set, one only has the name of one."""
    folder = tmp_path / 'negatives'
    (folder / 'more').mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(15):
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        name = f'more/other_{i}.png' if i % 2 else f'other_{i}.jpg'
        Image.fromarray(pixels).resize((50, 40)).save(folder / name)
    shutil.copy(f'{shared_folder}/image_003.jpg', folder / 'image_003.jpg')
    shutil.copy(f'{shared_folder}/image_020.jpg', folder / 'more' / 'image_020.jpg')
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / 'image_005.jpg')
    (folder / 'notes.txt').write_text('no image')
    return folder


def embed(tiny, folder, paths, texts):
    """open_clip's own vectors, in float64."""
    import open_clip

    clip, _, preprocess = open_clip.create_model_and_transforms(
        tiny.MODEL, pretrained=f'{folder}/weights.pt'
    )
    tokenizer = open_clip.get_tokenizer(tiny.MODEL)
    with torch.no_grad():
        clip.eval()
        images = [clip.encode_image(preprocess(Image.open(p).convert('RGB'))[None]) for p in paths]
        words = [clip.encode_text(tokenizer([text])) for text in texts]
    return [torch.nn.functional.normalize(torch.cat(v).double()).numpy() for v in (images, words)]


@pytest.mark.parametrize('keep', [5, 1000])
def test_folder_bank_equals_brute_force(tiny, shared_folder, negatives, tmp_path, keep):
    path = tmp_path / 'bank.safetensors'
    tiny.mine(shared_folder, path, images=str(negatives), keep=keep)
    bank, data = NegativeBank(path), tiny.TinyData(shared_folder)
    sent_ids, texts, own = data.expressions()
    files = sorted(
        str(p.relative_to(negatives)) for p in negatives.rglob('*') if p.suffix in ('.jpg', '.png')
    )
    assert len(files) == 18 == bank.num_candidates
    assert list(bank.image_names)[:18] == files
    # The data set's other 38 images follow: two lie in the folder, and one has another's name.
    rest = [n for n in data.pool.names if n not in ('image_003.jpg', 'image_020.jpg')]
    assert list(bank.image_names)[18:] == rest and (bank.image_ids[:18] < 0).all()

    paths = [negatives / name for name in files]
    candidates, words = embed(tiny, shared_folder, paths, texts)
    owns, _ = embed(
        tiny, shared_folder, [data.pool.path(i) for i in range(len(data.pool))], texts[:1]
    )
    same = {3: files.index('image_003.jpg'), 20: files.index('more/image_020.jpg')}
    seen = 0
    for i, sent_id in enumerate(sent_ids.tolist()):
        rows, similarities, self_similarity = bank.row(sent_id)
        assert abs(self_similarity - words[i] @ owns[own[i]]) < 1e-3
        np.testing.assert_allclose(bank.image_vectors[bank.image_row[i]], owns[own[i]], atol=1e-3)
        expected = candidates @ words[i]
        if own[i] in same:
            expected[same[own[i]]] = -np.inf
            seen += 1
        best = np.sort(expected)[::-1][: min(keep, 17)]
        np.testing.assert_allclose(similarities, best, atol=1e-3)
        np.testing.assert_allclose(expected[rows], best, atol=1e-5)
        assert bank.band(sent_id, BandRule(0, 'rank', top_k=10)).truncated == (keep == 5)
    assert seen > 0


def test_a_folder_bank_is_refused_for_another_folder_and_for_none(
    tiny, shared_folder, negatives, tmp_path
):
    path = tmp_path / 'bank.safetensors'
    tiny.mine(shared_folder, path, images=str(negatives))
    data = tiny.TinyData(shared_folder)
    settings = (str(path), tiny.MODEL, f'{shared_folder}/weights.pt', 12)
    check_bank(data, BankSpec(*settings, images=str(negatives)))
    with pytest.raises(BankError, match='images or expressions differ'):
        check_bank(data, BankSpec(*settings))
    (negatives / 'other_0.jpg').unlink()
    folder_pool.cache_clear()
    with pytest.raises(BankError, match='with the images of'):
        check_bank(data, BankSpec(*settings, images=str(negatives)))


def test_links_are_followed_but_not_in_circles(negatives, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    shutil.copy(negatives / 'other_0.jpg', tmp_path / 'elsewhere' / 'linked.jpg')
    (negatives / 'away').symlink_to(tmp_path / 'elsewhere')
    before = set(FolderPool(str(negatives)).names)
    assert len(before) == 19 and 'away/linked.jpg' in before
    (negatives / 'more' / 'up').symlink_to(negatives)
    (tmp_path / 'elsewhere' / 'self').symlink_to('.')
    assert set(FolderPool(str(negatives)).names) == before


def test_a_folder_that_is_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere is missing or holds'):
        FolderPool(str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='fewer than two images'):
        FolderPool(str(tmp_path))
