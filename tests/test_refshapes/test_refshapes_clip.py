"""The demo's CLIP: small, an ordinary open_clip model, and it knows more than chance."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from nemo_mmseg.refshapes.sample import make_sample
from nemo_mmseg.refshapes.words import all_words, bpe_file, learn_merges
from nemo_mmseg.utils import clip as clip_access

NAME = 'RefShapes-CLIP'
FOLDER = clip_access.ASSETS / 'refshapes_clip'


@pytest.fixture(scope='module')
def clip():
    return clip_access.load_clip(NAME, 'refshapes')


def test_files_are_small_and_the_vocabulary_is_the_words():
    assert (FOLDER / 'weights.safetensors').stat().st_size <= 10_000_000
    packed, size = bpe_file(all_words())
    assert (FOLDER / 'bpe.txt.gz').read_bytes() == packed
    config = json.loads((FOLDER / f'{NAME}.json').read_text())
    assert config['text_cfg']['vocab_size'] == size


def test_every_word_is_one_token():
    tokenizer = clip_access.load_clip_tokenizer(NAME)
    assert all(len(tokenizer.encode(word)) == 1 for word in all_words())
    assert len({tokenizer.encode(word)[0] for word in all_words()}) == len(all_words())
    with pytest.raises(ValueError, match='star7'):
        learn_merges(['star7'])


@pytest.mark.parametrize('flavour', ['refshapes', 'refshapes+', 'refshapesg'])
def test_the_generator_uses_no_other_word(flavour):
    known = set(all_words())
    for index in range(40):
        for _, said in make_sample(31, flavour, 'val', index).references:
            for text, _ in said:
                assert set(re.findall('[a-z]+', text)) <= known, text


def test_recall_is_well_above_chance(clip):
    count = 100
    tokenizer = clip_access.load_clip_tokenizer(NAME)
    prepare = clip_access.clip_preprocess(NAME, clip)
    samples = [make_sample(32, 'refshapes+', 'val', i) for i in range(count)]
    images = torch.stack([prepare(Image.fromarray(s.scene.image)) for s in samples])
    texts = [s.references[0][1][0][0] for s in samples]
    with torch.no_grad():
        seen = torch.cat([clip.encode_image(part, normalize=True) for part in images.split(25)])
        read = clip.encode_text(tokenizer(texts), normalize=True)
    rank = (seen @ read.t() > (seen * read).sum(1)).sum(0).numpy()
    # Chance is 0.1; a guesser gets to 0.28 once in a million times.
    assert np.mean(rank < 10) >= 0.4
