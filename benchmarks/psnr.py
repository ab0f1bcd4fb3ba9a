"""What tile stores cost in pixels: mean PSNR in dB over images.

    python benchmarks/psnr.py [--images FOLDER]

"area" is the image's exact average over each pixel of the cell (OpenCV's INTER_AREA); "full" is the
published resize, bilinear from the full image, as a mosaic without store makes it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
from photo_like import jpeg, picture  # noqa: E402

from nemo_mmseg.mining.tile_writer import encode, resize_to_tile  # noqa: E402
from nemo_mmseg.negatives.pool import IMAGE_SUFFIXES  # noqa: E402
from nemo_mmseg.negatives.tile_store import TileSpec  # noqa: E402
from nemo_mmseg.utils.images import read_image  # noqa: E402

SIDE = 240
SPEC = TileSpec('', SIDE, SIDE, encoding='jpeg')


def report(paths: list[str]) -> None:
    """Print the figures for some images."""
    to_raw, to_area, sizes = [], [], []
    for path in paths:
        image = read_image(path)
        tile = resize_to_tile(image, SPEC)
        content = encode(tile, SPEC)
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        area = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        to_raw.append(cv2.PSNR(decoded, tile))
        to_area.append(cv2.PSNR(tile, area))
        sizes.append(len(content))
    print(f'{len(paths)} images, tiles of {SIDE}x{SIDE}')
    print(f'JPEG to raw: {np.mean(to_raw):.1f} dB, {np.mean(sizes):.0f} bytes a tile')
    print(f'full to area: {np.mean(to_area):.1f} dB')


def main() -> None:
    """Print the figures for synthetic images, or for those of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=Path, help='a folder of images; default: synthetic ones')
    parser.add_argument('--count', type=int, default=32, help='images at most; default 32')
    args = parser.parse_args()
    if args.images is not None:
        found = sorted(p for p in args.images.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
        report([str(path) for path in found[: args.count]])
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [f'{folder}/{number}.jpg' for number in range(args.count)]
        for path in paths:
            Path(path).write_bytes(jpeg(picture(rng), rng))
        report(paths)


if __name__ == '__main__':
    main()
