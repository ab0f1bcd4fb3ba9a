"""The small CLIP: an ordinary open_clip model that knows more than chance."""

import json

import numpy as np
import torch
from PIL import Image
from refshapes_clip.pairs import can_change
from refshapes_clip.words import all_words, bpe_file

from nemo_mmseg.refshapes import make_sample
from nemo_mmseg.utils import clip as clip_access

NAME = 'RefShapes-CLIP'
FOLDER = clip_access.ASSETS / 'refshapes_clip'


def test_files_are_small_and_every_word_is_one_token():
    assert (FOLDER / 'weights.safetensors').stat().st_size <= 10_000_000
    packed, size = bpe_file(all_words())
    assert (FOLDER / 'bpe.txt.gz').read_bytes() == packed
    config = json.loads((FOLDER / f'{NAME}.json').read_text())
    assert config['text_cfg']['vocab_size'] == size
    tokenizer = clip_access.load_clip_tokenizer(NAME)
    tokens = [tokenizer.encode(word) for word in all_words()]
    assert all(len(one) == 1 for one in tokens)
    assert len({one[0] for one in tokens}) == len(tokens)


def test_recall_is_well_above_chance():
    clip = clip_access.load_clip(NAME, 'refshapes')
    tokenizer = clip_access.load_clip_tokenizer(NAME)
    prepare = clip_access.clip_preprocess(NAME, clip)
    samples = [make_sample(32, 'refshapes+', 'val', i) for i in range(100)]
    images = torch.stack([prepare(Image.fromarray(s.scene.image)) for s in samples])
    expressions = [s.references[0][1][0][0] for s in samples]
    with torch.no_grad():
        seen = torch.cat([clip.encode_image(part, normalize=True) for part in images.split(25)])
        read = clip.encode_text(tokenizer(expressions), normalize=True)
    rank = (seen @ read.t() > (seen * read).sum(1)).sum(0).numpy()
    # Chance is 0.1; a guesser gets to 0.28 once in a million times.
    assert np.mean(rank < 10) >= 0.4


def test_what_training_changes_is_not_a_size():
    words = {'the largest object': False, 'Small things': False, 'the larger star': True}
    words |= {'blue shape': True, 'striped thing': True, 'bigger one on the left': True}
    assert {text: can_change(text) for text in words} == words
