"""What tile stores and reduced decoding cost in pixels: mean PSNR in dB over images.

    python benchmarks/psnr.py [--images FOLDER]
    python benchmarks/psnr.py --reduced

"area" is the image's exact average over each pixel of the cell (OpenCV's INTER_AREA); "full" is
the published resize, bilinear from the full image, as a mosaic without store makes it. With
`--reduced` it prints instead what reduced decoding saves of the time for one negative, by size of
the file and of the cell.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
from photo_like import jpeg, picture  # noqa: E402

from nemo_mmseg.datasets.transforms.loading import read_image  # noqa: E402
from nemo_mmseg.datasets.transforms.nemo.cells import read_reduced  # noqa: E402
from nemo_mmseg.mining.tile_writer import encode, resize_to_tile  # noqa: E402
from nemo_mmseg.negatives.pool import IMAGE_SUFFIXES  # noqa: E402
from nemo_mmseg.negatives.tile_store import TileSettings  # noqa: E402

TILE = 240, 240
CELLS = (160, 160), (120, 120), (180, 300), (360, 360)
QUALITIES = 92, 95, 97
SHAPES = (480, 640), (640, 480), (427, 640), (640, 427)  # COCO's most common ones
REDUCED_CELLS = 240, 208  # of mosaics of 480x480 and 416x416
Resize = Callable[[str, np.ndarray, int, int], np.ndarray]


def full(path: str, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A cell without store."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def area(path: str, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The average over each pixel of the cell."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def from_tile(path: str, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A cell resized from a raw tile (``resize=True``)."""
    return full(path, resize_to_tile(image, TileSettings(*TILE)), height, width)


def reduced(path: str, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A cell of ``negative_decode='reduced'``."""
    return full(path, read_reduced(path, height, width), height, width)


def mean_psnr(paths: list[str], one: Resize, other: Resize, cell: tuple[int, int]) -> float:
    """Mean over images of the PSNR between two ways to a cell."""
    values = []
    for path in paths:
        image = read_image(path)
        values.append(cv2.PSNR(one(path, image, *cell), other(path, image, *cell)))
    return float(np.mean(values))


def jpeg_tiles(paths: list[str], quality: int) -> tuple[float, float]:
    """Mean PSNR of JPEG tiles to raw ones, and their mean bytes."""
    settings, values = TileSettings(*TILE, encoding='jpeg', quality=quality), []
    for path in paths:
        tile = resize_to_tile(read_image(path), settings)
        content = encode(tile, settings)
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        values.append((cv2.PSNR(decoded, tile), len(content)))
    return tuple(np.mean(values, axis=0).tolist())


def report(paths: list[str]) -> None:
    """Print the tables for some images."""
    print(f'{len(paths)} images\nJPEG tiles of 240x240 to raw ones')
    for quality in QUALITIES:
        value, size = jpeg_tiles(paths, quality)
        print(f'  quality {quality}: {value:.1f} dB, {size:.0f} bytes a tile')
    print('cells to area averaging')
    for name, way in (('full', full), ('reduced', reduced)):
        print(f'  {name} 240x240: {mean_psnr(paths, way, area, TILE):.1f} dB')
    print('cells from tiles of 240x240: to full, to area; full to area')
    for cell in CELLS:
        values = [
            mean_psnr(paths, *pair, cell)
            for pair in ((from_tile, full), (from_tile, area), (full, area))
        ]
        print(f'  {cell[0]}x{cell[1]}: {values[0]:.1f}, {values[1]:.1f}; {values[2]:.1f} dB')


def synthetic(folder: str, count: int, height: int, width: int) -> list[str]:
    """Write pictures of a size; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        image = picture(rng)
        if height > width:
            image = image.transpose(1, 0, 2)
        paths.append(f'{folder}/{height}x{width}_{number}.jpg')
        Path(paths[-1]).write_bytes(jpeg(np.ascontiguousarray(image[:height, :width]), rng))
    return paths


def report_reduced(paths: list[str], cell: int) -> None:
    """Print how files of one size are decoded for a cell, and the CPU time that this saves."""
    reads = read_image, partial(read_reduced, height=cell, width=cell)
    seconds: tuple[list[float], list[float]] = [], []
    for path in paths * 6:
        for read, times in zip(reads, seconds, strict=True):
            start = time.process_time()
            full(path, read(path), cell, cell)
            times.append(time.process_time() - start)
    height, width = reads[1](paths[0]).shape[:2]
    more = 100 * (median(seconds[1]) / median(seconds[0]) - 1)
    print(f'  cell {cell}x{cell}: decoded at {width}x{height}, {more:+.0f} % CPU time')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='PSNR of what is faster than full decodes')
    parser.add_argument('--images', type=Path, help='a folder of images; default: synthetic ones')
    parser.add_argument('--count', type=int, default=32, help='images at most; default 32')
    parser.add_argument('--reduced', action='store_true', help='what reduced decoding saves')
    args = parser.parse_args()
    if args.images is not None and args.reduced:
        parser.error('--reduced measures synthetic images: leave out --images')
    if args.images is not None:
        found = sorted(p for p in args.images.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            parser.error(f'no images in {args.images}')
        report([str(path) for path in found[: args.count]])
        return
    with tempfile.TemporaryDirectory() as folder:
        if not args.reduced:
            report(synthetic(folder, args.count, 480, 640))
            return
        cv2.setNumThreads(1)
        for height, width in SHAPES:
            paths = synthetic(folder, args.count, height, width)
            print(f'{width}x{height} (width x height)')
            for cell in REDUCED_CELLS:
                report_reduced(paths, cell)


if __name__ == '__main__':
    main()
