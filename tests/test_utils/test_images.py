"""One rule for every image file: its stored pixels, 8 bits, or an error that names the path."""

import io
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from nemo_mmseg.utils.images import bgr_array, decode_image, image_name, orientation_of, read_image

ORIENTATION = 0x112


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def picture(height=40, width=56, seed=0):
    """A smooth picture (height, width, 3) uint8, no two corners of which are alike."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)), (width, height)) for n in (3, 7, 15)]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(content):
    """What Pillow decodes, BGR; None where it refuses."""
    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))[..., ::-1]
    except Exception:
        return None


LOSSLESS = dict(PNG={}, WEBP=dict(lossless=True), TIFF={})


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', [*LOSSLESS, 'JPEG'])
def test_the_stored_pixels_whatever_the_orientation(tmp_path, kind, orientation):
    rgb, exif = picture(), Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / 'photo'
    path.write_bytes(encoded(rgb, kind, exif=exif, **LOSSLESS.get(kind, dict(quality=90))))
    if kind == 'JPEG':  # lossy: what the file without the tag shows
        rgb = by_pillow(encoded(rgb, kind, quality=90))[..., ::-1]
    np.testing.assert_array_equal(read_image(str(path), 40, 56), rgb[..., ::-1])
    assert orientation_of(str(path)) == orientation
    if orientation > 4:  # the size that viewers show is not the annotated one
        assert ImageOps.exif_transpose(Image.open(path)).size == (40, 56)
        with pytest.raises(ValueError, match='photo is 56x40 pixels, annotated as 40x56'):
            read_image(str(path), 56, 40)


def test_16_bits_become_8():
    grey = np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29
    color = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)  # BGR
    for suffix in ('.png', '.tiff'):
        for values in (grey, color):
            _, content = cv2.imencode(suffix, values)
            expected = np.broadcast_to((values >> 8).reshape(40, 56, -1), (40, 56, 3))
            decoded = decode_image(content.tobytes(), 'p')
            assert decoded.dtype == np.uint8
            np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(bgr_array(Image.fromarray(grey))[..., 1], grey >> 8)


def test_32_bits_are_refused_by_name():
    for values in (np.full((4, 5), 0.5, np.float32), np.full((4, 5), 70000, np.int32)):
        with pytest.raises(ValueError, match=r'cannot read the image a/b\.tif: it has 32 bits'):
            decode_image(encoded(values, 'TIFF'), 'a/b.tif')


def test_alpha_palettes_inks_and_animations():
    rgb = picture()
    alpha = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56)
    rgba, grey = np.dstack([rgb, alpha]), rgb[..., 0]
    few = Image.fromarray(rgb).quantize(16)
    clear = few.copy()
    clear.info['transparency'] = bytes(range(16))
    cmyk = Image.fromarray(rgb).convert('CMYK')
    cases = [
        (encoded(rgba, 'PNG'), rgb),
        (encoded(rgba, 'TIFF'), rgb),
        (encoded(np.dstack([grey, alpha]), 'PNG'), np.dstack([grey] * 3)),
        (encoded(grey, 'BMP'), np.dstack([grey] * 3)),
        (encoded(Image.fromarray(grey > 99), 'PNG'), np.dstack([(grey > 99) * np.uint8(255)] * 3)),
        (encoded(few, 'PNG'), np.asarray(few.convert('RGB'))),
        (encoded(clear, 'PNG'), np.asarray(few.convert('RGB'))),
        (encoded(few, 'GIF', save_all=True, append_images=[few.rotate(180)]), few.convert('RGB')),
        (encoded(cmyk, 'TIFF'), cmyk.convert('RGB')),
    ]
    for content, expected in cases:
        np.testing.assert_array_equal(decode_image(content, 'p')[..., ::-1], np.asarray(expected))


def variants():
    """JPEGs of all usual kinds."""
    rgb, exif = picture(), Image.Exif()
    exif[ORIENTATION] = 6
    yield from (encoded(rgb, 'JPEG', quality=q, subsampling=s) for q in (50, 95) for s in (0, 1, 2))
    yield encoded(rgb, 'JPEG', progressive=True)
    yield encoded(rgb, 'JPEG', restart_marker_blocks=3, quality=92)
    yield encoded(rgb, 'JPEG', restart_marker_rows=1, optimize=True, exif=exif)
    yield encoded(rgb, 'JPEG', icc_profile=b'x' * 200, comment=b'\xff\xd9')
    yield encoded(rgb[..., 0], 'JPEG')
    yield encoded(Image.fromarray(rgb).convert('CMYK'), 'JPEG')


def damaged(content, rng):
    """A JPEG with one fault."""
    kind, begin = rng.integers(9), int(rng.integers(3, len(content)))
    end = min(len(content), begin + int(rng.integers(1, 400)))
    noise = rng.integers(0, 256, end - begin, dtype=np.uint8).tobytes()
    marker = bytes([0xFF, rng.choice([0xC4, 0xD0, 0xD3, 0xD9, 0xDA, 0xE1, 0xFE, 0xFF])])
    head = int(rng.integers(3, content.rfind(b'\xff\xda') + 12))
    return [
        lambda: content[:begin],
        lambda: content[:begin] + content[end:],
        lambda: content[:begin] + noise + content[end:],
        lambda: content[:begin] + noise + content[begin:],
        lambda: content[:begin] + bytes(end - begin) + content[end:],
        lambda: content[:begin] + b'\xff' * (end - begin) + content[end:],
        lambda: content[:begin] + marker + content[begin:],
        lambda: content[:begin] + bytes([content[begin] ^ 1 << rng.integers(8)]) + content[end:],
        lambda: content[:head] + noise[:1] + content[head + 1 :],
    ][kind]()


def test_what_opencv_decodes_is_what_pillow_decodes():
    """The fast way changes nothing: the same files are refused, and the same pixels are read."""
    rng, refused, originals = np.random.default_rng(0), 0, list(variants())
    for content in originals:
        np.testing.assert_array_equal(decode_image(content, 'p'), by_pillow(content))
    for number in range(1500):
        content = damaged(originals[number % len(originals)], rng)
        expected = by_pillow(content)
        if expected is None:
            refused += 1
            with pytest.raises(ValueError, match='cannot read the image some/p'):
                decode_image(content, 'some/path.jpg')
        else:
            np.testing.assert_array_equal(decode_image(content, 'p'), expected)
    assert 300 < refused < 1200


@pytest.mark.parametrize('allowed', [False, True])
def test_files_that_are_cut_or_overwritten_are_refused(monkeypatch, allowed):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', allowed)
    rgb = picture(120, 160)
    for kind in ('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP'):
        content = encoded(rgb, kind)
        for share in (0.02, 0.5, 0.9):
            with pytest.raises(ValueError, match=r'cannot read the image d/x\.\w+: '):
                decode_image(content[: int(share * len(content))], f'd/x.{kind}')
    content = bytearray(encoded(rgb, 'JPEG'))
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    with pytest.raises(ValueError, match='broken data stream'):
        decode_image(bytes(content), 'x.jpg')
    assert ImageFile.LOAD_TRUNCATED_IMAGES is allowed


def test_threads_do_not_let_damaged_files_through(monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    content, let_through = encoded(picture(200, 200), 'PNG')[:-2000], []

    def decode():
        for _ in range(20):
            try:
                let_through.append(decode_image(content, 'x.png'))
            except ValueError:
                pass

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    assert not let_through and ImageFile.LOAD_TRUNCATED_IMAGES is True


def chunk(name, body):
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def png_of_size(height, width):
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    data = chunk(b'IDAT', zlib.compress(bytes(10**6)))
    return b'\x89PNG\r\n\x1a\n' + header + data + chunk(b'IEND', b'')


def jpeg_of_size(height, width):
    content = encoded(picture(), 'JPEG')
    at = content.index(b'\xff\xc0') + 5
    return content[:at] + struct.pack('>HH', height, width) + content[at + 4 :]


@pytest.mark.parametrize('limit', [None, 10**8])
def test_a_bomb_is_refused_by_its_header(monkeypatch, limit):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    for content in (
        png_of_size(10_000, 10_000),
        png_of_size(2**31 - 1, 2**31 - 1),
        jpeg_of_size(65_500, 65_500),
        encoded(picture(), 'BMP').replace(struct.pack('<i', 56), struct.pack('<i', 10**9), 1),
    ):
        with pytest.raises(ValueError, match=r'cannot read the image a/b\.png: it has \d+x\d+ pix'):
            decode_image(content, 'a/b.png')


def test_another_size_than_the_annotated_one_is_not_decoded():
    for content in (png_of_size(9000, 9000), jpeg_of_size(9000, 9000)):
        with pytest.raises(ValueError, match='p is 9000x9000 pixels, annotated as 64x48'):
            decode_image(content, 'p', 48, 64)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / 'folder.jpg').mkdir()
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'page.jpg').write_text('<html>not found</html>')
    (tmp_path / 'vector.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0')
    for name, reason in [
        ('folder.jpg', 'director'),
        ('empty.jpg', 'it is empty'),
        ('page.jpg', 'it is no JPEG, PNG'),
        ('vector.jpg', 'it is no JPEG, PNG'),
        ('a\0b.jpg', 'null byte'),
    ]:
        path = str(tmp_path / name)
        with pytest.raises(ValueError, match=reason) as found:
            read_image(path)
        assert f'cannot read the image {path}' in str(found.value)
        assert orientation_of(path) == 1
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_image(str(tmp_path / 'nowhere.jpg'))


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'GIF', 'TIFF', 'BMP'])
def test_any_fault_of_another_format_is_one_kind_of_error(kind):
    """Wherever a byte is wrong: pixels of the right shape, or the error that has the path."""
    content, rng = encoded(picture(), kind), np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's about tags that mean nothing
        for number in range(300):
            wrong = bytearray(content)
            for _ in range(number % 3 + 1):
                limit = 80 if number % 2 else len(content)
                wrong[rng.integers(min(limit, len(content)))] = rng.integers(256)
            try:
                image = decode_image(bytes(wrong), 'here.img')
            except ValueError as error:
                assert 'cannot read the image here.img' in str(error)
            else:
                assert image.ndim == 3 and image.dtype == np.uint8


@pytest.mark.parametrize(
    ('name', 'plain'),
    [
        ('x.jpg', 'x.jpg'),
        ('part0/x.jpg', 'part0/x.jpg'),
        ('./x.jpg', 'x.jpg'),
        ('a//b/./x.jpg', 'a/b/x.jpg'),
        ('a/../x.jpg', 'x.jpg'),
    ],
)
def test_names_have_one_form(name, plain):
    assert image_name(name) == plain


@pytest.mark.parametrize(
    'name', ['', '.', '..', '../x.jpg', 'a/../../x.jpg', '/x.jpg', 'a\0/b', 'a/..']
)
def test_names_stay_in_the_folder(name):
    with pytest.raises(ValueError, match='is no path of a file inside the folder'):
        image_name(name)


def test_a_jpeg_that_draws_itself_over_and_over_is_refused():
    content = encoded(picture(), 'JPEG', progressive=True)
    last = content.rindex(b'\xff\xda')
    scan = content[last:-2]
    assert np.array_equal(decode_image(content, 'x.jpg'), by_pillow(content))
    endless = content[:-2] + scan * 200 + b'\xff\xd9'
    with pytest.raises(ValueError, match=r'x\.jpg: it has 2\d\d scans; allowed are 200'):
        decode_image(endless, 'x.jpg')


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match='no pixels'):
        bgr_array(Image.new('RGB', (0, 5)))
