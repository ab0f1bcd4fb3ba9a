"""Own pictures: what a page gets for masks made by hand, and for bad input."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from nemo_mmseg.apis import ReferringInferencer
from nemo_mmseg.evaluation.predictions import describe_mask
from nemo_mmseg.utils.config import find_config
from nemo_mmseg.webdemo.pictures import (
    KEPT_ANSWERS,
    MAX_EXPRESSIONS,
    PictureSegmenter,
    read_picture,
)

NETWORK = 'gradcam_refshapes-clip_refshapes-plus-256x256'


class Masks:
    """An inferencer whose masks are written by hand."""

    def __init__(self, masks, scores=None, nothing=None):
        self.masks = np.array(masks, bool)
        self.scores = scores or [0.5] * len(masks)
        self.nothing = nothing or [False] * len(masks)
        self.images = []

    def __call__(self, image, expressions, draw):
        self.images.append(image)
        rows = zip(expressions, self.masks, self.scores, self.nothing, strict=True)
        records = [
            dict(
                image='image_0', expression=text, score=score, **describe_mask(mask),
                nothing_found=nothing,
            )
            for text, mask, score, nothing in rows
        ]  # fmt: skip
        return dict(masks=self.masks, predictions=records, overlays=[])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A grey picture, 30 wide and 20 high."""
    path = tmp_path / 'street.png'
    Image.new('RGB', (30, 20), (90, 90, 90)).save(path)
    return path


def test_files_hold_the_masks(picture):
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:7, 3:13] = True
    masks[0, 4, 5] = False
    segment = PictureSegmenter(Masks(masks, [0.75, 0.0, 0.0], [False, True, False]))
    answer = segment(picture, ' red car \n\n  dog\r\nthe man\n')
    *pngs, file = answer.files
    assert [path.suffix for path in pngs] == ['.png'] * 3 and file.name == 'predictions.json'
    for path, mask in zip(pngs, masks, strict=True):
        assert np.array_equal(np.array(Image.open(path)), mask)
    written = json.loads(file.read_text())['predictions']
    assert [one['expression'] for one in written] == ['red car', 'dog', 'the man']
    assert [one['nothing_found'] for one in written] == [False, True, False]
    assert [one['score'] for one in written] == [0.75, 0, 0]
    assert {one['image'] for one in written} == {'street.png'}
    for one, mask in zip(written, masks, strict=True):
        assert np.array_equal(coco_mask.decode(one['rle']), mask)
        assert one['area'] == mask.sum()
        assert (file.parent / one['mask']).is_file()
    assert written[0]['bbox'] == [3, 2, 10, 5] and written[1]['bbox'] is None
    assert answer.verdicts[:2] == ['score 0.75', 'nothing found']
    assert answer.verdicts[2].startswith('nothing found (no pixel')


def test_overlays_show_the_mask_on_a_small_picture(tmp_path):
    path, mask = tmp_path / 'wide.png', np.zeros((1, 600, 2048), bool)
    Image.new('RGB', (2048, 600), (90, 90, 90)).save(path)
    mask[0, 200:400, 1024:1600] = True
    (shown,) = PictureSegmenter(Masks(mask))(path, 'car').overlays
    assert shown.shape == (300, 1024, 3)
    assert shown[20, 20].tolist() == [90, 90, 90] and shown[150, 650].tolist() != [90, 90, 90]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_upright_as_viewers_show_them(tmp_path, orientation):
    path = tmp_path / 'phone.png'
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 24, 3), np.uint8))
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(read_picture(path)[..., ::-1], expected)


def jpeg(size: tuple[int, int], color: int = 90) -> bytes:
    content = io.BytesIO()
    Image.new('RGB', size, (color,) * 3).save(content, 'JPEG')
    return content.getvalue()


@pytest.mark.parametrize(
    'content, message',
    [
        (b'dear diary', 'no JPEG, PNG, WebP'),
        (b'', 'empty'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'no JPEG'),
        (jpeg((64, 64))[:-200], '(?i)truncated'),
        (jpeg((4200, 4200)), '4200x4200 pixels; allowed are 16.8 million'),
        (jpeg((9, 60)), '9x60 pixels; allowed are sides'),
        (jpeg((900, 30)), '900x30 pixels; allowed are sides'),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / 'holiday.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        PictureSegmenter(Masks([]))(path, 'car')
    assert 'holiday.jpg' in str(caught.value) and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no expression'),
        (None, 'no expression'),
        (' \n\t\n', 'no expression'),
        ('car\n' * (MAX_EXPRESSIONS + 1), f'{MAX_EXPRESSIONS + 1} expressions; allowed are'),
        ('a' * 301, '301 characters; allowed are 300'),
    ],
)
def test_bad_expressions(picture, text, message):
    with pytest.raises(ValueError, match=message):
        PictureSegmenter(Masks([]))(picture, text)


def test_no_picture():
    with pytest.raises(ValueError, match='no picture'):
        PictureSegmenter(Masks([]))(None, 'car')


def test_an_upload_that_is_gone_is_told_without_the_folder(tmp_path):
    (tmp_path / 'folder.jpg').mkdir()
    for name, message in [('gone.jpg', 'no longer on the server'), ('folder.jpg', 'cannot be re')]:
        with pytest.raises(ValueError, match=f'{name} .*{message}.*upload it again') as caught:
            PictureSegmenter(Masks([]))(tmp_path / name, 'car')
        assert str(tmp_path) not in str(caught.value)


def test_a_large_picture_takes_fewer_expressions(tmp_path):
    path = tmp_path / 'large.jpg'
    path.write_bytes(jpeg((4000, 4000)))
    with pytest.raises(ValueError, match='5 expressions; a picture of 4000x4000 pixels takes 4'):
        PictureSegmenter(Masks([]))(path, 'a\nb\nc\nd\ne')


def test_old_answers_are_removed(picture):
    segment = PictureSegmenter(Masks(np.ones((1, 20, 30))))
    answers = [segment(picture, 'car') for _ in range(KEPT_ANSWERS + 1)]
    there = [all(file.is_file() for file in answer.files) for answer in answers]
    assert there == [False] + [True] * KEPT_ANSWERS


def test_masks_are_those_of_the_inferencer(refshapes):
    path = next((refshapes / 'train2014').glob('*.jpg'))
    inferencer = ReferringInferencer(find_config(NETWORK), device='cpu')
    segment = PictureSegmenter(inferencer)  # the files of its answers are there as long as it is
    answer = segment(path, 'red star\nblue circle')
    expected = inferencer(str(path), ['red star', 'blue circle'], draw=False)
    for file, mask in zip(answer.files, expected['masks']):
        assert np.array_equal(np.array(Image.open(file)), mask)
    assert [record['score'] for record in answer.records] == pytest.approx(expected['scores'])
    assert expected['masks'].any()
