"""What the runtime makes of faulty rules and turned pictures, before it needs a graph."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('onnxruntime', reason='the extra "export" is not installed')
from nemo_mmseg.deployment.runtime import (  # noqa: E402
    ReferringRuntime,
    check_expressions,
    read_picture,
)

PICTURE = dict(
    size=[64, 96], resize='letterbox', interpolation='bicubic', backend='cv2', pad_rgb=[1, 2.5, 255]
)
TEXT = dict(template='{}', length=20, pad=0, cut=20, mask_by_id=False, clean=False, end=None)
RULES = dict(format=3, chunk_size=8, threshold=0.5, picture=PICTURE, text=TEXT)


def without(values, key):
    return {name: value for name, value in values.items() if name != key}


def start(rules, folder):
    (folder / 'export.json').write_text(json.dumps(rules))
    return ReferringRuntime(folder)


@pytest.mark.parametrize(
    'rules',
    [
        RULES,
        RULES | dict(text=TEXT | dict(end=49407)),
        RULES | dict(picture=without(PICTURE, 'pad_rgb') | dict(resize='stretch')),
    ],
)
def test_good_rules_are_accepted(rules, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'lacks .*tokenizer\.json'):
        start(rules, tmp_path)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(format=1), 'has format 1'),
        (dict(chunk_size=0), 'chunk_size is 0'),
        (dict(chunk_size=True), 'chunk_size is True'),
        (dict(picture=PICTURE | dict(interpolation='lanczos')), "interpolation is 'lanczos'"),
        (dict(picture=PICTURE | dict(resize='crop')), 'allowed are letterbox, stretch'),
        (dict(picture=PICTURE | dict(backend='turbojpeg')), 'allowed are cv2, pillow'),
        (dict(picture=PICTURE | dict(size=['a', 1])), "size is ['a', 1]"),
        (dict(picture=PICTURE | dict(size=[64])), 'size is [64]'),
        (dict(picture=PICTURE | dict(size=[64, 0])), 'size is [64, 0]'),
        (dict(picture=without(PICTURE, 'pad_rgb')), 'pad_rgb is None'),
        (dict(picture=PICTURE | dict(pad_rgb=[1, 2, 'x'])), 'three numbers'),
        (dict(text=without(TEXT, 'end')), 'end is'),
        (dict(text=TEXT | dict(template='a ring')), "template is 'a ring'"),
        (dict(text=TEXT | dict(end='x')), "end is 'x'"),
        (dict(text=TEXT | dict(end=2**31)), 'end is 2147483648'),
        (dict(text=TEXT | dict(pad=2**63)), 'pad is 9223372036854775808'),
        (dict(text=TEXT | dict(pad=-1)), 'pad is -1'),
        (dict(text=TEXT | dict(length=0)), 'length is 0'),
        (dict(text=TEXT | dict(cut=-1)), 'cut is -1'),
    ],
)
def test_faulty_rules_name_file_and_field(change, words, tmp_path):
    with pytest.raises(ValueError) as caught:
        start(RULES | change, tmp_path)
    assert str(tmp_path / 'export.json') in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize('text', ['\ud800', 'left \udc00 cat', '\ude00\ud83d'])
def test_half_a_character_is_refused(text):
    with pytest.raises(ValueError, match='expression 1 has half a character'):
        check_expressions(['cat', text])
    assert check_expressions('a \U0001f600 cat') == ['a \U0001f600 cat']


def test_a_turned_picture_is_read_as_it_is_stored_with_a_warning(tmp_path, recwarn):
    stored = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(stored).save(tmp_path / 'turned.png', exif=exif)
    Image.fromarray(stored).save(tmp_path / 'plain.png')
    assert np.array_equal(read_picture(tmp_path / 'plain.png'), stored) and not recwarn.list
    with pytest.warns(UserWarning, match=r'turned\.png has EXIF orientation 6'):
        assert np.array_equal(read_picture(tmp_path / 'turned.png'), stored)
