"""Segment pictures with an exported network, without PyTorch and OpenMMLab.

The export copies this file beside the graphs. It needs numpy, onnxruntime, tokenizers and pillow;
OpenCV where the network's pictures were resized by it, ftfy where open_clip's tokenizer was used.

    python EXPORTED/runtime.py PICTURE EXPRESSION ... --out FOLDER
"""

from __future__ import annotations

import argparse
import html
import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import numpy as np
    import onnxruntime
    from PIL import Image
    from tokenizers import Tokenizer
except ImportError as error:
    if __name__ != '__main__':
        raise
    sys.exit(f'runtime: {error}; pip install numpy onnxruntime pillow tokenizers')

FORMAT = 3
GRAPHS = ('image.onnx', 'expressions.onnx')
# Fields of export.json and their types.
RULES = dict(chunk_size=int, threshold=float, picture=dict, text=dict)
PICTURE = dict(size=list, resize=str, interpolation=str, backend=str)
TEXT = dict(template=str, length=int, pad=int, cut=int, mask_by_id=bool, clean=bool)
# Values that some of them must have.
INTERPOLATIONS = dict(nearest='NEAREST', bilinear='BILINEAR', bicubic='BICUBIC', area='BOX')
ALLOWED = dict(
    interpolation=tuple(INTERPOLATIONS), resize=('letterbox', 'stretch'), backend=('cv2', 'pillow')
)
LARGEST_SIDE, MOST_TOKENS, LARGEST_ID, EXIF_ORIENTATION = 32_767, 10_000, 2**31 - 1, 274
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
MAX_PIXELS = 2**30 // 4 // 3  # as everywhere in nemo_mmseg
LARGEST_EXPONENT = 80.0  # of e, in float32


@dataclass(frozen=True)
class Picture:
    """A picture that was encoded once, for any number of calls.

    Attributes:
        maps: What the graph of the expressions takes of it.
        shape: Height and width of the picture.
        matrix: ``(2, 3)``, from its pixels x, y to those of the network's input.
    """

    maps: tuple[np.ndarray, ...]
    shape: tuple[int, int]
    matrix: np.ndarray


class ReferringRuntime:
    """An exported network.

    Example:
        >>> runtime = ReferringRuntime('exported')
        >>> result = runtime('street.jpg', ['the red car', 'the man on the left'])
        >>> result['masks'].shape, result['scores']

    Args:
        folder: What ``export_onnx.py`` wrote.
        providers: Execution providers of onnxruntime. Defaults to the CPU's.

    Raises:
        FileNotFoundError: The folder lacks a file.
        ValueError: A file is damaged or of another version.
    """

    def __init__(
        self, folder: str | Path, providers: Sequence[str] = ('CPUExecutionProvider',)
    ) -> None:
        self.folder = folder = Path(folder)
        self.rules = _read_rules(folder / 'export.json')
        try:
            self.tokenizer = Tokenizer.from_str(
                _existing(folder / 'tokenizer.json').read_text(encoding='utf-8')
            )
            self.graphs = [
                onnxruntime.InferenceSession(str(_existing(folder / name)), providers=providers)
                for name in GRAPHS
            ]
        except FileNotFoundError:
            raise
        except Exception as error:  # onnxruntime and tokenizers have many
            raise ValueError(f'{folder} cannot be read as an exported network: {error}') from error

    def __call__(self, picture: object, expressions: str | Sequence[str]) -> dict:
        """Segment what expressions describe in one picture.

        Args:
            picture: Path, PIL image, ``(H, W, 3)`` uint8 array in **RGB**, or what :meth:`encode`
                returned.
            expressions: One or several.

        Returns:
            ``masks`` ``(N, H, W)`` bool at the picture's size, ``scores`` ``(N,)`` float32, the
            mean probability over each mask, 0 if it is empty, and ``nothing_found`` ``(N,)`` bool.

        Raises:
            FileNotFoundError: There is no such picture.
            ValueError: It cannot be read, or see :func:`check_expressions`.
        """
        texts = check_expressions(expressions)
        encoded = picture if isinstance(picture, Picture) else self.encode(picture)
        masks, scores, nothing_found = [], [], []
        for start in range(0, len(texts), self.rules['chunk_size']):
            logits, scored = self.logits(encoded, texts[start : start + self.rules['chunk_size']])
            for one, absent in zip(logits, scored > 0):
                one = resample(one, encoded.matrix, encoded.shape)
                mask = (one > self.rules['margin']) & ~absent
                masks.append(mask)
                scores.append(_sigmoid(one[mask]).mean() if mask.any() else 0.0)
                nothing_found.append(absent)
        return dict(
            expressions=texts,
            masks=np.stack(masks),
            scores=np.array(scores, dtype=np.float32),
            nothing_found=np.array(nothing_found, dtype=bool),
        )

    def encode(self, picture: object) -> Picture:
        """Compute what needs no text; the arguments are those of a call."""
        image = read_picture(picture)
        resized, matrix = resize_picture(image, self.rules['picture'])
        maps = self._run(0, [np.ascontiguousarray(resized.transpose(2, 0, 1))[None]])
        return Picture(tuple(maps), image.shape[:2], matrix)

    def logits(self, picture: Picture, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``(N, h, w)`` at the network's size, and no-target scores ``(N,)``.

        A score above 0 says that nothing is there. It is -inf for networks that cannot say so.
        """
        logits, *scores = self._run(1, (*picture.maps, *self.tokenize(texts)))
        return logits, scores[0] if scores else np.full(len(texts), -np.inf, dtype=np.float32)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids ``(N, T)`` int64, and ``(N, T)`` bool, True on real tokens."""
        rules = self.rules['text']
        ids = np.full((len(texts), rules['length']), rules['pad'], dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for row, text in enumerate(rules['template'].replace('{}', one) for one in texts):
            found = self.tokenizer.encode(clean(text) if rules['clean'] else text).ids
            if rules['end'] is not None and len(found) > rules['cut']:
                found = [*found[: rules['cut'] - 1], rules['end']]
            found = found[: rules['length']]
            ids[row, : len(found)] = found
            mask[row, : len(found)] = True
        return ids, ids != rules['pad'] if rules['mask_by_id'] else mask

    def _run(self, index: int, inputs: Sequence[np.ndarray]) -> list:
        names = [one.name for one in self.graphs[index].get_inputs()]
        try:
            return self.graphs[index].run(None, dict(zip(names, inputs, strict=True)))
        except Exception as error:  # of another export: other inputs, or of another size
            path = self.folder / GRAPHS[index]
            raise ValueError(f'{path} does not fit the files beside it: {error}') from error


def check_expressions(expressions: str | Sequence[str]) -> list[str]:
    """Return expressions as a list.

    Raises:
        ValueError: There are none, or one is empty, no string, or has half a character.
    """
    texts = [expressions] if isinstance(expressions, str) else list(expressions)
    if not texts:
        raise ValueError('there are no expressions; one or more are needed')
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'expression {index} must be text of one word or more, not {text!r}')
        if any('\ud800' <= character <= '\udfff' for character in text):
            raise ValueError(f'expression {index} has half a character (a surrogate): {text!r}')
    return texts


def read_picture(picture: object) -> np.ndarray:
    """Return a picture as ``(H, W, 3)`` uint8 RGB, as its file stores the pixels.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no picture, or too large.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
            found = f'{picture.shape} {picture.dtype}'
            raise ValueError(f'a picture as an array must be (H, W, 3) uint8 in RGB, not {found}')
        return picture
    if not isinstance(picture, (str, Path, Image.Image)):
        raise ValueError(f'a picture must be a path, PIL image or array, not {type(picture)}')
    name = picture if isinstance(picture, (str, Path)) else 'the PIL image'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large pictures, which are refused below
            image = picture
            if not isinstance(picture, Image.Image):
                image = Image.open(picture, formats=FORMATS)
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise ValueError(f'it has {image.width}x{image.height} pixels; allowed are 1 to '
                                 f'{MAX_PIXELS} in all')  # fmt: skip
            pixels = _rgb(image)
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no picture {name}') from None
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise ValueError(f'cannot read the picture {name}: {error}') from error
    if orientation != 1:
        warnings.warn(f'{name} has EXIF orientation {orientation}: viewers turn it, but its masks '
                      'are those of the pixels as they are stored')  # fmt: skip
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith('I;16'):  # 16 bits a pixel: the high byte
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise ValueError(f'it has 32 bits a channel (mode {image.mode!r}); allowed are 8 and 16')
    return np.asarray(image.convert('RGB'))


def resize_picture(image: np.ndarray, rules: dict) -> tuple[np.ndarray, np.ndarray]:
    """Bring a picture to the network's input.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        rules: ``picture`` of ``export.json``.

    Returns:
        ``(height, width, 3)`` uint8 RGB, and the ``(2, 3)`` matrix from pixels of the picture to
        pixels of the input.
    """
    height, width = rules['size']
    scales = height / image.shape[0], width / image.shape[1]
    if rules['resize'] == 'letterbox':
        import cv2

        scale = min(scales)
        left, top = (width - scale * image.shape[1]) / 2, (height - scale * image.shape[0]) / 2
        matrix = np.array([[scale, 0, left], [0, scale, top]])
        flags = _cv2_code(rules['interpolation'])
        resized = cv2.warpAffine(
            image, matrix, (width, height), flags=flags, borderValue=rules['pad_rgb']
        )
        return resized, matrix
    matrix = np.array([[scales[1], 0, scales[1] / 2 - 0.5], [0, scales[0], scales[0] / 2 - 0.5]])
    if rules['backend'] == 'pillow':
        code = getattr(Image.Resampling, INTERPOLATIONS[rules['interpolation']])
        return np.asarray(Image.fromarray(image).resize((width, height), code)), matrix
    import cv2

    code = _cv2_code(rules['interpolation'])
    return cv2.resize(image, (width, height), interpolation=code), matrix


def _cv2_code(name: str) -> int:
    import cv2

    names = dict(nearest='NEAREST', bilinear='LINEAR', bicubic='CUBIC', area='AREA')
    return getattr(cv2, f'INTER_{names[name]}')


def resample(values: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Read a map bilinearly at the places of every pixel of a picture.

    Args:
        values: ``(h, w)`` float32.
        matrix: ``(2, 3)``, from pixels of the picture to those of the map; it does not rotate.
        shape: Height and width of the picture.

    Returns:
        ``shape`` float32; outside of the map its border goes on.
    """
    for axis in (0, 1):
        row = 1 - axis  # of the matrix, which is for x and y
        places = matrix[row][row] * np.arange(shape[axis]) + matrix[row][2]
        places = places.clip(0, values.shape[axis] - 1)
        low = np.floor(places).astype(np.int64)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = (places - low).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(-LARGEST_EXPONENT, LARGEST_EXPONENT)))


def clean(text: str) -> str:
    """Clean a text as CLIP's tokenizer does."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return ' '.join(text.split()).lower()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f'the exported network lacks {path}')
    return path


def _read_rules(path: Path) -> dict:
    try:
        rules = json.loads(_existing(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}') from error
    if not isinstance(rules, dict) or rules.get('format') != FORMAT:
        found = rules.get('format') if isinstance(rules, dict) else type(rules).__name__
        raise ValueError(f'{path} has format {found!r}; this runtime reads {FORMAT}')
    _check_fields(path, rules, RULES)
    _check_fields(path, rules['picture'], PICTURE)
    _check_fields(path, rules['text'], TEXT)
    threshold = rules['threshold']
    if not 0 < threshold < 1:
        raise ValueError(f'{path}: threshold is {threshold}; allowed is more than 0, less than 1')
    _check_values(path, rules)
    return dict(rules, margin=math.log(threshold / (1 - threshold)))


def _check_fields(path: Path, values: dict, fields: dict[str, type]) -> None:
    for name, kind in fields.items():
        found = values.get(name)
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise ValueError(f'{path}: {name} is {found!r} and must be of type {kind.__name__}')


def _check_values(path: Path, rules: dict) -> None:
    picture, text = rules['picture'], rules['text']
    for name, allowed in ALLOWED.items():
        if picture[name] not in allowed:
            allowed = ', '.join(allowed)
            raise ValueError(f'{path}: {name} is {picture[name]!r}; allowed are {allowed}')
    size, end = picture['size'], text.get('end', '')
    if len(size) != 2 or not all(_is_whole(side, 1, LARGEST_SIDE) for side in size):
        raise ValueError(f'{path}: size is {size!r}; allowed are height and width, each 1 to '
                         f'{LARGEST_SIDE} pixels')  # fmt: skip
    color = picture.get('pad_rgb')
    if picture['resize'] == 'letterbox' and not (
        isinstance(color, list)
        and len(color) == 3
        and all(isinstance(value, (int, float)) and 0 <= value <= 255 for value in color)
    ):
        raise ValueError(f'{path}: pad_rgb is {color!r}; allowed are three numbers of 0 to 255')
    counts = dict(chunk_size=rules['chunk_size'], length=text['length'], cut=text['cut'])
    for name, value in counts.items():
        if not _is_whole(value, 1, MOST_TOKENS):
            raise ValueError(f'{path}: {name} is {value!r}; allowed is 1 to {MOST_TOKENS}')
    if not _is_whole(text['pad'], 0, LARGEST_ID):
        raise ValueError(f'{path}: pad is {text["pad"]!r}; allowed is the id of a token')
    if text['template'].count('{}') != 1:
        raise ValueError(f'{path}: template is {text["template"]!r}; allowed is one {{}} in it')
    if end is not None and not _is_whole(end, 0, LARGEST_ID):
        raise ValueError(f'{path}: end is {end!r}; allowed is the id of a token, or null')


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def main() -> int:
    """Segment a picture from the command line; an error is one line and exit code 1."""
    parser = argparse.ArgumentParser(description='Segment what expressions describe in a picture')
    parser.add_argument('picture')
    parser.add_argument('expressions', nargs='+', metavar='expression')
    parser.add_argument('--model', default=Path(__file__).parent, help='folder of the export')
    parser.add_argument('--out', default='.', help='folder of the masks (default: here)')
    args = parser.parse_args()
    warnings.formatwarning = lambda message, *_, **__: f'runtime: {message}\n'
    try:
        result = ReferringRuntime(args.model)(args.picture, args.expressions)
        Path(args.out).mkdir(parents=True, exist_ok=True)
        for index, (text, mask, score) in enumerate(
            zip(result['expressions'], result['masks'], result['scores'])
        ):
            file = Path(args.out) / f'{Path(args.picture).stem}_{index}.png'
            part = file.with_suffix('.part')  # under its name only when it is whole
            Image.fromarray(mask).save(part, format='PNG')
            part.replace(file)
            absent = result['nothing_found'][index]
            found = 'nothing found' if absent else f'score {score:.3f}, {mask.sum()} pixels'
            print(f'{text!r}: {found}, {file}')
    except (ImportError, OSError, ValueError) as error:
        print(f'runtime: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
