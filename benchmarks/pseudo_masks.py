"""Measure how fast response maps become masks, against the published procedure.

    python benchmarks/pseudo_masks.py                     # an image of 192 x 256 with 3 objects
    python benchmarks/pseudo_masks.py --size 320 426

Edges, displacements and response maps of an image are made up: some discs, with noise. The
published procedure is written here from its description, in the plain way: each object for itself,
all 300 steps of all pixels, the dense matrix of all pairs of pixels multiplied with itself eight
times. What the network costs is in neither.
Seconds are those of the CPU, on one thread.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from memory import Peak
from scipy import ndimage

from nemo_mmseg.models.affinity.pixel_paths import pixel_paths
from nemo_mmseg.pseudo_labels.refine import PUBLISHED, STRIDE, Refiner


def made_up(
    height: int, width: int, objects: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make edges ``(h, w)``, displacements ``(2, h, w)`` and response maps ``(objects, H, W)``."""
    rng = np.random.default_rng(seed)
    h, w = -(-height // STRIDE), -(-width // STRIDE)
    y, x = np.mgrid[:h, :w]
    edge = np.full((h, w), 0.02) + 0.1 * rng.random((h, w))
    displacement = rng.normal(0, 0.3, (2, h, w))
    responses = []
    for number in range(objects):
        centre = h * rng.uniform(0.35, 0.65), w * (number + 0.5) / objects
        radius = 0.4 * min(h, w / objects)
        distance = np.hypot(y - centre[0], x - centre[1])
        inside = distance < radius
        displacement[:, inside] += np.stack([centre[0] - y, centre[1] - x])[:, inside]
        edge = np.maximum(edge, 0.95 * np.exp(-((distance - radius) ** 2)))
        peak = np.exp(-(distance**2) / radius**2) + 0.05 * rng.random((h, w))
        large = F.interpolate(torch.from_numpy(peak)[None, None], (height, width), mode='bilinear')
        responses.append((large[0, 0] / large.max()).numpy())
    return (
        ndimage.gaussian_filter(edge, 0.5).astype(np.float32),
        ndimage.gaussian_filter(displacement, (0, 0.5, 0.5)).astype(np.float32),
        np.stack(responses).astype(np.float32),
    )


def published_centroids(displacement: np.ndarray) -> np.ndarray:
    """Move every pixel 300 times by the displacement at its place."""
    height, width = displacement.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(300):
        up, left = np.floor(y).astype(int), np.floor(x).astype(int)
        down, right = np.ceil(y).astype(int), np.ceil(x).astype(int)
        v, u = y - up, x - left
        step = (
            displacement[:, down, right] * v * u
            + displacement[:, down, left] * v * (1 - u)
            + displacement[:, up, right] * (1 - v) * u
            + displacement[:, up, left] * (1 - v) * (1 - u)
        )
        y, x = np.clip(y + step[0], 0, height - 1), np.clip(x + step[1], 0, width - 1)
    return np.stack([np.rint(y), np.rint(x)]).astype(int)


def published_transition(edge: np.ndarray) -> torch.Tensor:
    """Make the dense matrix of 256 steps."""
    height, width = edge.shape
    matrix = torch.eye(height * width)
    padded = np.pad(edge, 5, constant_values=1)
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    for path in pixel_paths(5):
        values = [padded[y + 5 + dy, x + 5 + dx] for dy, dx in path.pixels]
        affinity = torch.from_numpy(1 - np.max(values, axis=0))
        end_y, end_x = y + path.end[0], x + path.end[1]
        fits = (end_y < height) & (end_x >= 0) & (end_x < width)
        start, end = (y * width + x)[fits], (end_y * width + end_x)[fits]
        matrix[start, end] = matrix[end, start] = affinity[torch.from_numpy(fits)]
    matrix = matrix**10
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(8):
        matrix = matrix @ matrix
    return matrix


def published_mask(edge: np.ndarray, displacement: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Refine the map of one object, as the published code does for each."""
    centroids = published_centroids(displacement)
    areas, _ = ndimage.label(np.hypot(*displacement) < 2.5)
    instances = np.unique(areas[tuple(centroids)], return_inverse=True)[1].reshape(edge.shape)
    one_hot = torch.from_numpy(np.arange(instances.max() + 1)[:, None, None] == instances)
    small = F.interpolate(
        torch.from_numpy(response)[None, None], edge.shape, mode='bilinear', align_corners=True
    )[0]
    parts = small * one_hot * (1 - torch.from_numpy(edge))
    spread = (parts.flatten(1) @ published_transition(edge)).reshape(1, *parts.shape)
    large = F.interpolate(spread, scale_factor=STRIDE, mode='bilinear', align_corners=False)
    large = large[0, :, : response.shape[0], : response.shape[1]]
    large = F.pad(large / large.max(), (0, 0, 0, 0, 1, 0), value=0.25)
    return (large.argmax(0) > 0).numpy()


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return what a call returns, its CPU seconds and its peak of memory in MB."""
    with Peak() as peak:
        started = time.process_time()
        result = call()
        spent = time.process_time() - started
    return result, spent, peak.mb


def main() -> None:
    """Compare both on the same image."""
    parser = argparse.ArgumentParser(
        description='Measure how fast response maps become masks',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--size', type=int, nargs=2, default=[192, 256], help='height and width')
    parser.add_argument('--objects', type=int, default=3, help='in the image')
    parser.add_argument('--seed', type=int, default=0, help='of the image')
    args = parser.parse_args()
    torch.set_num_threads(1)
    edge, displacement, responses = made_up(*args.size, args.objects, args.seed)

    def ours() -> np.ndarray:
        refiner = Refiner(edge, displacement, PUBLISHED)
        return np.stack([refiner.parts(response).union for response in responses])

    def published() -> np.ndarray:
        return np.stack([published_mask(edge, displacement, one) for one in responses])

    Refiner(edge[:8, :8], displacement[:, :8, :8]).parts(responses[0, :32, :32])  # warm up
    masks, spent, memory = timed(ours)
    wanted, published_spent, published_memory = timed(published)
    count = len(responses)
    print(
        f'{args.size[0]} x {args.size[1]} pixels, {count} objects\n'
        f'published procedure: {count / published_spent:.3f} masks a CPU second, '
        f'peak {published_memory:.0f} MB\n'
        f'ours: {count / spent:.2f} masks a CPU second, peak {memory:.0f} MB\n'
        f'{published_spent / spent:.0f} times as fast; {1e3 * (masks != wanted).mean():.2f} pixels '
        f'in a thousand differ; masks cover {1e2 * wanted.mean():.0f} % of the image',
        flush=True,
    )


if __name__ == '__main__':
    main()
