"""Banks of expressions: mined by the same run, against a search over all pairs."""

import json

import numpy as np
import pytest
import torch

from nemo_mmseg.mining.search import search_expressions
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, BankSpec, NegativeBank, UnknownSentenceError
from nemo_mmseg.negatives.expression_bank import ExpressionBank


def spoken_alike(text):
    return ' '.join(text.split()).casefold()


@pytest.fixture
def folder(tiny, own_folder):
    """The tiny data set, where some expressions differ in case and spaces from others."""
    path = own_folder / 'expressions.json'
    sent_ids, texts, rows = json.loads(path.read_text())
    for i in range(5):
        texts[40 + i] = f' {texts[i].upper()}  '.replace(' ', '  ')
    path.write_text(json.dumps([sent_ids, texts, rows]))
    return str(own_folder)


def test_equals_brute_force_over_all_pairs(tiny, folder, tmp_path):
    """open_clip's own vectors; what is said of an image in any way is not its negative."""
    import open_clip
    from PIL import Image

    bank = tiny.mine(folder, tmp_path / 'bank', kind='expressions', keep=30)
    data = tiny.TinyData(folder)
    sent_ids, texts, own = data.expressions()
    clip, _, preprocess = open_clip.create_model_and_transforms(
        tiny.MODEL, pretrained=folder + '/weights.pt'
    )
    with torch.no_grad():
        clip.eval()
        pictures = [preprocess(Image.open(data.pool.path(i))) for i in range(len(data.pool))]
        images = clip.encode_image(torch.stack(pictures))
        sentences = clip.encode_text(open_clip.get_tokenizer(tiny.MODEL)(texts))
    images, sentences = (torch.nn.functional.normalize(v.double()) for v in (images, sentences))
    scores = (images @ sentences.T).numpy()

    assert isinstance(bank, ExpressionBank) and bank.stored == 30
    alike = [spoken_alike(text) for text in texts]
    assert sorted(map(spoken_alike, bank.texts)) == sorted(set(alike))
    assert bank.text_sent_ids.tolist() == [
        min(s for s, text in zip(sent_ids.tolist(), alike) if text == spoken_alike(candidate))
        for candidate in bank.texts
    ]
    every = BandRule(tau=0, tau_mode='rank', top_k=30)
    for i, sent_id in enumerate(sent_ids.tolist()):
        band = bank.band(sent_id, every)
        image, drawn = own[i], [bank.texts[row] for row in band.rows]
        said = {alike[j] for j in range(len(texts)) if own[j] == image}
        assert not said & set(map(spoken_alike, drawn)) and len(set(drawn)) == 30
        assert abs(band.self_similarity - scores[image, i]) < 1e-3
        best = {}  # of each expression of another image, however often and wherever it is said
        for j, text in enumerate(alike):
            if text not in said:
                best[text] = scores[image, j]
        expected = sorted(best.values(), reverse=True)[:30]
        np.testing.assert_allclose(band.similarities, expected, atol=1e-3)
        found = [best[spoken_alike(text)] for text in drawn]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_band_is_below_tau(tiny, shared_folder, tmp_path):
    bank = tiny.mine(shared_folder, tmp_path / 'bank', kind='expressions', keep=1000)
    rules = [BandRule(0.9, 'relative', 5), BandRule(0.05, 'margin', 7), BandRule(3, 'rank', 4)]
    remaining = bank.num_remaining(rules)
    assert not bank.is_cut
    for i, sent_id in enumerate(bank.sent_ids.tolist()):
        whole = bank.band(sent_id, BandRule(0, 'rank', 1000))
        sims, own = whole.similarities.astype(float), whole.self_similarity
        assert (np.diff(sims) <= 0).all()
        kept = [sims <= 0.9 * own, sims <= own - 0.05, np.arange(len(sims)) >= 3]
        for row, rule, keep in zip(remaining, rules, kept):
            band = bank.band(sent_id, rule)
            assert band.rows.tolist() == whole.rows[keep][: rule.top_k].tolist()
            assert row[i] == keep.sum() and not band.truncated
    with pytest.raises(UnknownSentenceError, match="no expression 10000 \\('a cat'\\)"):
        bank.band(10_000, rules[0], 'a cat')


@pytest.mark.parametrize('keep', [1, 9, 1000])
def test_the_search_equals_brute_force(keep):
    rng = np.random.default_rng(keep)
    images, texts = (
        (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
        for v in (rng.normal(size=(37, 12)), rng.normal(size=(90, 12)))
    )
    # The last 10 texts are no candidates; an image excludes none, some or many.
    excluded = [rng.choice(80, rng.integers(0, 40), replace=False) for _ in images]
    seen = []
    blocks = (images[i : i + 11] for i in range(0, 37, 11))
    for found in search_expressions(blocks, texts, 80, excluded, keep):
        seen += found.images.tolist()
        for image, rows, sims in zip(*found):
            scores = texts[:80].astype(float) @ images[image].astype(float)
            scores[excluded[image]] = -np.inf
            order = np.argsort(-scores)[: len(rows)]
            assert rows.tolist() == order.tolist()
            np.testing.assert_allclose(sims, scores[order], atol=1e-6)
            assert len(rows) == min(keep, 80 - max(map(len, excluded)))
    assert seen == list(range(37))


def test_workers_and_the_cache_change_no_byte(tiny, shared_folder, tmp_path):
    """With the cache of a bank of images nothing is embedded again."""
    cache = str(tmp_path / 'cache')
    tiny.mine(shared_folder, tmp_path / 'images', cache=cache)
    packs = sorted((tmp_path / 'cache').rglob('pack-*'))
    for name, options in dict(one=dict(cache=cache), two=dict(num_workers=2)).items():
        tiny.mine(shared_folder, tmp_path / name, kind='expressions', **options)
    assert sorted((tmp_path / 'cache').rglob('pack-*')) == packs
    assert (tmp_path / 'one').read_bytes() == (tmp_path / 'two').read_bytes()


def test_other_kinds_and_damage_are_refused(tiny, shared_folder, mined, tmp_path):
    path = tmp_path / 'bank'
    bank = tiny.mine(shared_folder, path, kind='expressions')
    with pytest.raises(BankError, match=f"{path} is damaged, or no bank: its kind is 'expr"):
        NegativeBank(path).row(1)
    with pytest.raises(BankError, match='no bank of expressions: its kind is None'):
        tiny.mine(shared_folder, mined, kind='expressions')
    with pytest.raises(BankError, match='keep=12, this run asks for 5'):
        tiny.mine(shared_folder, path, kind='expressions', keep=5)
    with pytest.raises(BankError, match="made for 'tiny', split 'train'.*their images or expr"):
        bank.check('0' * 64)
    content = bytearray(path.read_bytes())
    values = bank.arrays['similarities'][bank.image_row[0]].tobytes()
    content[content.index(values)] ^= 1
    path.write_bytes(content)
    row = bank.image_row[0]
    with pytest.raises(BankError, match=f'similarities of the image in row {row} is not what was'):
        ExpressionBank(path).band(int(bank.sent_ids[0]), BandRule())
    with pytest.raises(ValueError, match="images='folder' goes with a bank of images"):
        BankSpec('bank', images='folder', kind='expressions')


def test_one_image_that_says_it_all(tiny, own_folder, tmp_path):
    sent_ids, texts, _ = json.loads((own_folder / 'expressions.json').read_text())
    said = [sent_ids, texts, [0] * len(texts)]
    (own_folder / 'expressions.json').write_text(json.dumps(said))
    with pytest.raises(ValueError, match='no expression of another image is left'):
        tiny.mine(str(own_folder), tmp_path / 'bank', kind='expressions')
