"""The parts of an export that need no graph: tokenizer, picture, text, messages."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmseg.models import SegDataPreProcessor
from PIL import Image

from nemo_mmseg.apis.inputs import make_item
from nemo_mmseg.models.protocols.geometry import sample_bilinear
from nemo_mmseg.utils.clip import load_clip_tokenizer

pytest.importorskip('onnxruntime', reason='the extra "export" is not installed')
from nemo_mmseg.deployment import runtime  # noqa: E402
from nemo_mmseg.deployment.picture_rules import picture_rules  # noqa: E402
from nemo_mmseg.deployment.text_files import clip_tokenizer  # noqa: E402

TEXTS = [
    'the left one', "A man's   RED hat, 22nd row!", 'café &amp; 猫 ☃', 'x-ray!!!', '', "it's we'll",
    'left\tof\nit', '“quoted” — dash', 'naïve ﬁne', '123 4.5',
]  # fmt: skip


@pytest.mark.parametrize('model', ['RefShapes-CLIP', 'RN50-quickgelu'])
def test_clips_tokenizer_is_open_clips(model):
    theirs = load_clip_tokenizer(model, context_length=77)
    ours = clip_tokenizer(theirs)
    for text in TEXTS:
        row = theirs([text])[0].tolist()
        end = row.index(theirs.eot_token_id)
        assert ours.encode(runtime.clean(text)).ids == row[: end + 1], text


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Letterbox', size=(48, 64)),
        dict(type='Letterbox', size=(64, 48), interpolation='bilinear', pad_val=(1, 2, 3)),
        dict(type='Resize', scale=(64, 48), keep_ratio=False),
        dict(type='Resize', scale=(40, 56), keep_ratio=False, backend='pillow'),
    ],
)
def test_a_picture_is_prepared_as_by_the_pipeline(step):
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, None, 2)
    pipeline = Compose([step, dict(type='PackReferringInputs')])
    rules = picture_rules(pipeline, SegDataPreProcessor())
    found, matrix = runtime.resize_picture(np.ascontiguousarray(image[..., ::-1]), rules)
    wanted = pipeline(make_item(image, ['a']))['inputs'].flip(0).permute(1, 2, 0).numpy()
    assert np.array_equal(found, wanted)
    # and back, as the protocols do it
    maps = torch.rand(2, *rules['size'])
    back = sample_bilinear(maps, matrix, (50, 90)).numpy()
    for one, expected in zip(maps.numpy(), back, strict=True):
        found = runtime.resample(one, matrix, (50, 90))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    'steps, words',
    [
        ([dict(type='Resize', scale=(64, 48), keep_ratio=True)], 'keep_ratio=False'),
        ([dict(type='Letterbox', size=(8, 8)), dict(type='ReferringFlip')], 'ReferringFlip'),
        ([], 'nothing'),
    ],
)
def test_pipelines_that_cannot_be_exported(steps, words):
    pipeline = Compose([*steps, dict(type='PackReferringInputs')])
    with pytest.raises(ValueError, match=words):
        picture_rules(pipeline, SegDataPreProcessor())


def test_pictures_of_all_kinds(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for name in ('a.png', 'a.bmp', 'a.tiff', 'a.webp'):
        Image.fromarray(rgb).save(tmp_path / name, lossless=True)
        assert np.array_equal(runtime.read_picture(tmp_path / name), rgb), name
    assert np.array_equal(runtime.read_picture(str(tmp_path / 'a.png')), rgb)
    assert np.array_equal(runtime.read_picture(Image.fromarray(rgb)), rgb)
    high = rgb[..., 0].astype(np.uint16) * 256 + 7
    Image.fromarray(high).save(tmp_path / 'deep.png')
    assert np.array_equal(runtime.read_picture(tmp_path / 'deep.png')[..., 1], rgb[..., 0])


@pytest.mark.parametrize(
    'content, words',
    [(b'', 'cannot read'), (b'text', 'cannot read'), ('cut', 'cannot read'), (None, 'no picture')],
)
def test_bad_pictures(tmp_path, content, words):
    path = tmp_path / 'a.png'
    if content == 'cut':
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:5000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=rf'{words}.*a\.png'):
        runtime.read_picture(path)


def test_what_is_no_picture_and_no_text():
    for wrong in (
        3,
        np.zeros((4, 4)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match='picture'):
            runtime.read_picture(wrong)
    for wrong in ([], ['a', ' '], [3], ''):
        with pytest.raises(ValueError, match='expression'):
            runtime.check_expressions(wrong)
    assert runtime.check_expressions('a') == ['a']
