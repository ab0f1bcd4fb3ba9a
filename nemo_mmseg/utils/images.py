"""Decodes images, for everything that reads one: one rule for each kind of file.

- The pixels are those that the file stores. An EXIF tag that turns the picture is not applied,
  since COCO's sizes and masks belong to the stored pixels.
- 16 bits become 8 by ``value >> 8``. 32 bits are refused.
- Alpha is dropped, a palette is resolved, an animation gives its first frame.
- A file that Pillow finds damaged (cut off, a broken data stream) is refused.

OpenCV decodes a JPEG faster than Pillow, to the same pixels, but returns half a picture of a
damaged one. So it gets those files whose markers are all in place, and Pillow gets all others.
"""

from __future__ import annotations

import io
import posixpath
import re
import threading
from contextlib import suppress

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# Names this module's rules where something is kept of what was decoded: change it with them.
DECODING = 'stored pixels, high byte of 16 bits, Pillow refuses'
# Pillow's own limit of what is no decompression bomb: 256 MiB in 24 bits.
MAX_PIXELS = 2**30 // 4 // 3
# By the first bytes of a file. Not Image.open: it warns of large sizes instead of refusing them,
# and tries formats that start other programs.
_FORMATS = {
    b'\xff\xd8\xff': JpegImagePlugin.JpegImageFile,
    b'\x89PNG\r\n\x1a\n': PngImagePlugin.PngImageFile,
    b'RIFF': WebPImagePlugin.WebPImageFile,
    b'BM': BmpImagePlugin.BmpImageFile,
    b'II*\0': TiffImagePlugin.TiffImageFile,
    b'MM\0*': TiffImagePlugin.TiffImageFile,
    b'II+\0': TiffImagePlugin.TiffImageFile,  # with places of 64 bits
    b'MM\0+': TiffImagePlugin.TiffImageFile,
    b'GIF8': GifImagePlugin.GifImageFile,
}
_ORIENTATION, _WIDTH, _HEIGHT = 0x112, 0x100, 0x101  # tags of EXIF and TIFF
# Undoes each orientation.
_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def read_image(path: str, height: int | None = None, width: int | None = None) -> np.ndarray:
    """Read and decode an image file; see this module for the rules.

    Args:
        path: The file, local or of any MMEngine file backend.
        height: Annotated height in pixels. Defaults to None, which compares nothing.
        width: Annotated width in pixels.

    Returns:
        The image ``(H, W, 3)`` uint8, BGR.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, is damaged or no image, or its size is not the
            annotated one. The message has the path.
    """
    return decode_image(read_content(path), path, height, width)


def decode_image(
    content: bytes, path: str, height: int | None = None, width: int | None = None
) -> np.ndarray:
    """Decode the content of an image file, see :func:`read_image`.

    Args:
        content: The bytes of the file.
        path: Its path, for error messages.
        height: Annotated height in pixels. Defaults to None, which compares nothing.
        width: Annotated width in pixels.
    """
    try:
        _refuse_endless_scans(content)
        found = _size_of_whole_jpeg(content)
        image = None if found else _open(content)
        found = found or _stored_size(image)
        _refuse_bomb(*found)
        if height is None or found == (height, width):
            decoded = _decode_by_opencv(content) if image is None else None
            return _decode_by_pillow(image or _open(content)) if decoded is None else decoded
    except Exception as error:  # Pillow's readers have many, such as struct.error
        raise ValueError(f'cannot read the image {path}: {_reason(error)}') from error
    # Not decoded: a size that nobody expects can be a decompression bomb.
    raise ValueError(f'{path} is {found[1]}x{found[0]} pixels, annotated as {width}x{height}')


def bgr_array(image: Image.Image) -> np.ndarray:
    """Return a PIL image as an array ``(H, W, 3)`` uint8, BGR.

    Raises:
        ValueError: It has no pixels, or 32 bits a channel.
        OSError: The file it is read from is damaged.
    """
    if 0 in image.size:
        raise ValueError('it has no pixels')
    with _strict_pillow:
        image.load()
    # Older versions of Pillow open a PNG of 16 bits as 'I'.
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    if image.mode in ('I', 'F'):
        raise ValueError(f'it has 32 bits a channel (mode {image.mode!r}); allowed are 8 and 16')
    if 'transparency' in image.info:  # which Pillow would warn of
        image = image.copy()
        del image.info['transparency']
    return cv2.cvtColor(np.asarray(image.convert('RGB')), cv2.COLOR_RGB2BGR)


def orientation_of(image: str | bytes | Image.Image) -> int:
    """Return by which EXIF orientation viewers turn a picture.

    Args:
        image: A file, its content, or a PIL image.

    Returns:
        2 to 8; 1 where it is not turned, or cannot be read.
    """
    try:
        if not isinstance(image, Image.Image):
            image = _open(image if isinstance(image, bytes) else read_content(image))
            _refuse_bomb(*_stored_size(image))
        tag = image.getexif().get(_ORIENTATION)
    except Exception:  # as in decode_image
        return 1
    return tag if tag in _TURN_BACK else 1


def image_name(name: str) -> str:
    """Return the plain form of a path inside a folder of images: ``./a/../b/x.jpg`` is ``b/x.jpg``.

    Raises:
        ValueError: It names no file, or leads out of the folder.
    """
    if '/' not in name and name not in ('', '.', '..') and '\0' not in name:
        return name  # nearly all
    plain = posixpath.normpath(name)
    if plain in ('.', '..') or plain.startswith(('/', '../')) or '\0' in plain:
        raise ValueError(f'{name!r} is no path of a file inside the folder of the images')
    return plain


def is_image_name(name: str) -> bool:
    """Whether :func:`image_name` takes a name."""
    with suppress(ValueError):
        image_name(name)
        return True
    return False


def read_content(path: str) -> bytes:
    """Read a file whole, for :func:`decode_image` and :func:`orientation_of`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read; the message has the path.
    """
    try:
        return get(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a folder, no permission, a zero byte in the name
        raise ValueError(f'cannot read the image {path}: {error}') from error


def _open(content: bytes) -> ImageFile.ImageFile:
    """Read the header of a file."""
    if not content:
        raise ValueError('it is empty')
    for start, reader in _FORMATS.items():
        if content.startswith(start):
            with _strict_pillow:
                return reader(io.BytesIO(content))
    raise ValueError('it is no JPEG, PNG, WebP, BMP, TIFF or GIF file')


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Height and width, by the header."""
    width, height = image.size
    if image.format == 'TIFF':  # whose size Pillow gives as turned
        width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    return height, width


def _refuse_bomb(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f'it has {width}x{height} pixels; allowed are {MAX_PIXELS} in all')


def _decode_by_pillow(image: ImageFile.ImageFile) -> np.ndarray:
    # Pillow turns a TIFF by its tag, which is undone.
    before = orientation_of(image) if image.format == 'TIFF' else 1
    with _strict_pillow:
        image.load()
    if before == 1 or orientation_of(image) == before:  # older versions of Pillow do not turn it
        return bgr_array(image)
    return bgr_array(image.transpose(_TURN_BACK[before]))


class _StrictPillow:
    """While it is entered, ``LOAD_TRUNCATED_IMAGES`` lets no damaged file through.

    Threads share that setting of Pillow, so it gets its value back when the last one leaves.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.setting = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.setting = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self.setting


_strict_pillow = _StrictPillow()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _decode_by_opencv(content: bytes) -> np.ndarray | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


# The parts of a JPEG that are passed over by their length: tables, restart interval, comment,
# application data. Of the latter Pillow reads some, and refuses those that are too short.
_PLAIN_SEGMENTS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_SHORTEST = {0xE0: 14, 0xE2: 14, 0xEE: 12}
# A progressive JPEG has some ten, also in each small picture that a camera adds.
MAX_SCANS, _SCAN_MARKER = 200, b'\xff\xda'
_PROGRESSIVE, _SCAN, _RESTART_INTERVAL = 0xC2, 0xDA, 0xDD
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
# In coded data FF is followed by 0, unless it begins a marker.
_NEXT_MARKER = re.compile(rb'\xff[^\x00]')
_NEXT_BUT_RESTARTS = re.compile(rb'\xff[^\x00\xd0-\xd7]')
_RESTART = re.compile(rb'\xff([\xd0-\xd7])')


def _size_of_whole_jpeg(content: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG that all decoders read alike, by its markers.

    Segment follows segment up to the end marker, in a frame of a usual kind. Data that were
    overwritten nearly always hold a marker in the wrong place. None leaves a file to Pillow.
    """
    if not content.startswith(b'\xff\xd8\xff'):
        return None
    at, frame, size, restarts, scans = 2, None, None, False, 0
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind, body = content[at + 1], at + 4
        end = at + 2 + int.from_bytes(content[at + 2 : body], 'big')
        if kind in _FRAMES and frame is None:
            frame, size = kind, _usual_size(content[body:end])
            if size is None:
                return None
        elif kind == _SCAN and frame is not None:
            scans += 1
            end = _end_of_scan(content, end, restarts)
        elif kind not in _PLAIN_SEGMENTS or end - body < _SHORTEST.get(kind, 0):
            return None
        restarts |= kind == _RESTART_INTERVAL
        if end < body:  # a length below 2, or a scan without an end
            return None
        at = end
        if scans and content[at : at + 2] == b'\xff\xd9':
            return size
        # What follows the one scan of a frame that is not progressive, no decoder reads alike.
        if scans and frame != _PROGRESSIVE:
            return None
    return None


def _refuse_endless_scans(content: bytes) -> None:
    """Refuse a JPEG that draws the picture over and over, which takes a second for a kilobyte."""
    if content.startswith(b'\xff\xd8\xff') and content.count(_SCAN_MARKER) > MAX_SCANS:
        raise ValueError(f'it has {content.count(_SCAN_MARKER)} scans; allowed are {MAX_SCANS}')


def _usual_size(frame: bytes) -> tuple[int, int] | None:
    """Height and width of a frame of 8 bits, grey or with colours at the usual resolutions."""
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        return None
    height, width = int.from_bytes(frame[1:3], 'big'), int.from_bytes(frame[3:5], 'big')
    if frame[0] != 8 or not height or not width:
        return None
    brightness, colors = frame[7:8], frame[10::3]
    usual = colors == b'\x11\x11' and brightness in (b'\x11', b'\x21', b'\x22')
    return (height, width) if usual or frame[5] == 1 else None


def _end_of_scan(content: bytes, begin: int, restarts: bool) -> int:
    """Where the marker behind the coded data is; -1 where none is, or restarts are in disorder."""
    found = (_NEXT_BUT_RESTARTS if restarts else _NEXT_MARKER).search(content, begin)
    if found is None:
        return -1
    if restarts:
        numbers = b''.join(_RESTART.findall(content, begin, found.start()))
        cycle = bytes(range(0xD0, 0xD8)) * (len(numbers) // 8 + 1)
        if numbers != cycle[: len(numbers)]:
            return -1
    return found.start()
