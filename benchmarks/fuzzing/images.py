"""Image files, read by training, mining, tile store, inference and check_data: all alike."""

from __future__ import annotations

import io
import os
import pickle
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .annotations import check, config, picture
from .judge import Case, Kind, allowed_errors
from .mutate import dumps, other_bytes

HEIGHT, WIDTH = 40, 56
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'JPEG2000', 'AVIF')
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
BOX = [8, 6, 40, 6, 40, 30, 8, 30]


@cache
def bases() -> dict[str, tuple[str, bytes, np.ndarray]]:
    """Return sound files by name: suffix, content, and pixels ``(H, W, 3)`` RGB uint8."""
    rgb = np.ascontiguousarray(picture(3, HEIGHT, WIDTH)[..., ::-1])
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[..., 1])
    alpha = image.copy()
    alpha.putalpha(
        Image.fromarray(np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH))
    )
    turned = image.rotate(9).quantize(32)
    deep = Image.fromarray(rgb[..., 1].astype(np.uint16) * 257)

    def exif(orientation: int) -> Any:
        tags = Image.Exif()
        tags[0x0112] = orientation
        return tags

    forms: dict[str, tuple] = {
        'jpeg': (image, 'jpg', dict(quality=92)),
        'jpeg 4:4:4': (image, 'jpg', dict(quality=85, subsampling=0)),
        'jpeg progressive': (image, 'jpg', dict(progressive=True)), 'jpeg grey': (grey, 'jpg', {}),
        'jpeg restart': (image, 'jpg', dict(restart_marker_blocks=1)),
        'jpeg cmyk': (image.convert('CMYK'), 'jpg', {}),
        'jpeg optimised': (image, 'jpg', dict(optimize=True)),
        **{f'jpeg exif {n}': (image, 'jpg', dict(exif=exif(n))) for n in (1, 3, 6, 8, 99)},
        'mpo': (image, 'mpo', dict(save_all=True, append_images=[grey])), 'png': (image, 'png', {}),
        'png grey': (grey, 'png', {}), 'png alpha': (alpha, 'png', {}), 'png 16': (deep, 'png', {}),
        'png palette': (image.quantize(16), 'png', {}),
        'png transparent palette': (image.quantize(16), 'png', dict(transparency=3)),
        'png 1': (grey.convert('1'), 'png', {}), 'png grey alpha': (alpha.convert('LA'), 'png', {}),
        'png exif 3': (image, 'png', dict(exif=exif(3))),
        'apng': (image, 'png', dict(save_all=True, append_images=[image.rotate(9)])),
        'gif': (image.quantize(32), 'gif', {}),
        'gif moving': (image.quantize(32), 'gif', dict(save_all=True, append_images=[turned])),
        'bmp': (image, 'bmp', {}), 'bmp palette': (image.quantize(16), 'bmp', {}),
        'tiff': (image, 'tif', {}), 'tiff lzw': (image, 'tif', dict(compression='tiff_lzw')),
        'tiff 16': (deep, 'tif', {}), 'tiff exif 3': (image, 'tif', dict(exif=exif(3))),
        'webp': (image, 'webp', dict(quality=90)),
        'webp lossless': (image, 'webp', dict(lossless=True)),
        'webp alpha': (alpha, 'webp', dict(lossless=True)),
        'webp exif 3': (image, 'webp', dict(exif=exif(3), lossless=True)),
        'ppm': (image, 'ppm', {}), 'jp2': (image, 'jp2', {}), 'avif': (image, 'avif', {}),
    }  # fmt: skip
    found = {}
    for name, (source, suffix, options) in forms.items():
        file = io.BytesIO()
        kind = {'jpg': 'JPEG', 'tif': 'TIFF', 'jp2': 'JPEG2000'}.get(suffix, suffix.upper())
        source.save(file, kind, **options)
        pixels = decode(file.getvalue())
        assert pixels is not None, name
        found[name] = suffix, file.getvalue(), pixels
    return found


def decode(content: bytes) -> np.ndarray | None:
    """Decode by Pillow alone: stored pixels ``(H, W, 3)`` RGB uint8; None for what it refuses."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > 9 * 10**7:
            return None
        turned = image.getexif().get(0x0112) if image.format == 'TIFF' else None
        image.load()
        if turned in BACK:  # Pillow turns TIFF files by their tag
            image = image.transpose(BACK[turned])
        if image.mode.startswith('I'):
            deep = np.asarray(image).astype(np.int64)
            return np.repeat(
                (np.clip(deep, 0, 2**16 - 1) >> 8).astype(np.uint8)[..., None], 3, axis=2
            )
        return np.asarray(image.convert('RGB'))
    except Exception:  # whatever a decoder raises
        return None


def complaints(content: bytes) -> str:
    """Return what the decoders' libraries write to the standard error about a file."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            return str(error)
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        return file.read().decode(errors='replace').strip()


def close(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Tell whether two images differ by no more than two decoders may."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return float(np.abs(one.astype(int) - other).mean()) <= 2.5


def _mined(folder: Path, pool: Any) -> np.ndarray:
    """The first image of a pool as CLIP's preprocessing gets it, RGB."""
    import torch

    from nemo_mmseg.mining.embed import embed_images
    from nemo_mmseg.mining.vectors import VectorStore
    from nemo_mmseg.negatives.pool import BankImages

    seen: dict[int, np.ndarray] = {}

    class Embedder:
        batch_size, device = 1, 'cpu'

        def preprocess(self, image: Any) -> torch.Tensor:
            return torch.from_numpy(np.array(image))

        def images(self, tensors: torch.Tensor) -> np.ndarray:
            seen.setdefault(len(seen), tensors[0].numpy())
            return np.ones((len(tensors), 2), np.float32)

    store = VectorStore('0' * 64, folder / 'made')
    embed_images(Embedder(), BankImages(pool), [range(1)], store, num_workers=0)
    return seen[0]


def _tile(folder: Path, pool: Any, shape: tuple[int, int]) -> np.ndarray:
    from nemo_mmseg.mining.tile_writer import make_tile_store
    from nemo_mmseg.negatives.tile_store import TileSpec

    spec = TileSpec(str(folder / 'made' / 'tiles'), *shape)
    store = make_tile_store(pool, spec, 0, progress=False)
    return np.array(store.read(store.row_of(str(pool.names[0]))))[..., ::-1]


def make(folder: Path, rng: random.Random, seed: int) -> Case:
    """Write a data set of one image; the first seeds are the sound files, one after the other."""
    names = tuple(bases())
    name = names[seed] if seed < len(names) else rng.choice(names)
    suffix, content, original = bases()[name]
    what = 'unchanged'
    if seed >= len(names):
        others = tuple(one[1] for one in bases().values())
        content, what = other_bytes(content, rng, others)
    file = f'image_1.{suffix}'
    (folder / 'images').mkdir()
    (folder / 'mini').mkdir()
    (folder / 'made').mkdir()
    path = folder / 'images' / file
    path.write_bytes(content)
    image = dict(id=1, file_name=file, height=HEIGHT, width=WIDTH)
    annotation = dict(
        id=5, image_id=1, category_id=1, segmentation=[BOX], area=1.0, bbox=BOX[:4], iscrowd=0
    )
    sentence = dict(sent_id=0, sent='the box', raw='the box', tokens=['the', 'box'])
    ref = dict(ref_id=0, ann_id=5, image_id=1, category_id=1, split='train', sentences=[sentence],
               sent_ids=[0], file_name=file)  # fmt: skip
    instances = dict(images=[image], annotations=[annotation], categories=[dict(id=1, name='a')])
    (folder / 'mini' / 'instances.json').write_bytes(dumps(instances))
    split_file = folder / 'mini' / 'refs(unc).p'
    split_file.write_bytes(pickle.dumps([ref], protocol=2))
    found: dict[str, np.ndarray | Exception] = {}

    def attempt(reader: str, read: Any) -> None:
        try:
            found[reader] = read()
        except allowed_errors() as error:
            found[reader] = error

    def use() -> Any:
        from mmseg.registry import DATASETS

        from nemo_mmseg.apis.inputs import load_image

        dataset = DATASETS.build(config(split_file))

        def train() -> np.ndarray:
            packed = dataset[0]
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[BOX[1] : BOX[5], BOX[0] : BOX[2]] = 1
            if not (packed['data_samples'].gt_sem_seg.data.numpy()[0] == mask).all():
                raise AssertionError('the mask lies elsewhere')
            return packed['inputs'].numpy()[::-1].transpose(1, 2, 0)

        attempt('training', train)
        attempt('mining', lambda: _mined(folder, dataset.pool))
        attempt('tiles', lambda: _tile(folder, dataset.pool, (HEIGHT, WIDTH)))
        attempt('inference', lambda: load_image(str(path))[0][..., ::-1])
        for one in found.values():
            if isinstance(one, Exception) and (file not in str(one) or len(str(one)) > 2000):
                raise one
        if isinstance(found['training'], Exception):
            raise found['training']
        return found

    def wrong(found: dict[str, np.ndarray]) -> str | None:
        return _readers_differ(found) or _pixels_differ(found['training'])

    def _pixels_differ(pixels: np.ndarray) -> str | None:
        if close(pixels, original):
            return None
        meant = decode(content)
        if meant is None:
            return 'read, but Pillow refuses it and the pixels are others'
        if not close(pixels, meant):
            off = np.abs(pixels.astype(int) - meant).mean()
            return f'the pixels are not those that Pillow reads ({off:.0f} off)'
        words = complaints(content)
        if words.startswith(('Corrupt JPEG', 'libpng')):  # Pillow reads on in silence, too
            case.notes.append(f'read as Pillow does, but {words[:100]}')
        return None

    def _readers_differ(found: dict) -> str | None:
        for reader, one in found.items():
            if isinstance(one, Exception):
                return f'training reads it, {reader} refuses: {str(one)[:300]}'
            if not close(one, found['training']):
                return f'{reader} sees other pixels than training ({one.shape} {one.dtype})'
        return None

    def after(error: Exception | None) -> str | None:
        for reader, one in found.items():
            if error is not None and not isinstance(one, Exception):
                meant = decode(content)
                if meant is None or meant.shape == (HEIGHT, WIDTH, 3):
                    return f'{reader} reads what training refuses: {str(error)[:300]}'
                if reader != 'tiles' and not close(one, meant):
                    return f'{reader} sees other pixels than Pillow'
        return check(split_file, error is not None, False)

    def sound() -> bool:
        return what == 'unchanged' and suffix in ('jpg', 'png')

    case = Case(f'{name}: {what}', use, wrong, (file,), sound=sound, after=after)
    return case


KINDS = [Kind('images', 330, make, lambda: bases())]
