"""What a step of masked training costs, as a ratio to a plain one.

    python benchmarks/masked_step.py
    python benchmarks/masked_step.py CONFIG --size 416 416 --batch 8 --passes 1

Trains the demo's CRIS and a small LAVT, or the networks of the configs given, on random images and
expressions with MaskRIS's two passes (``--passes 1``: with plain augmentation). Steps of both kinds
alternate on the same network, so that a noisy machine is noisy for both. Prints milliseconds of the
median step, their ratio, and on a GPU the peak of memory. Seconds are those of the process on a CPU
(OMP_NUM_THREADS=1 makes them comparable), of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from mmengine.config import DictAction
from train_step import build, load, make_batch

from nemo_mmseg.models.segmentors.masked_training import MaskedTraining

CONFIGS = [
    'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256',
    'lavt_swin-tiny-w7_1xb4-300i_refshapes-plus-256x256',
]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('configs', nargs='*', default=CONFIGS, help='files, or names of configs')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), help='of the input')
    parser.add_argument('--batch', type=int, default=4, help='images a step (default 4)')
    parser.add_argument('--steps', type=int, default=10, help='steps to time (default 10)')
    parser.add_argument('--passes', type=int, choices=(1, 2), default=2)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in tools/train.py')
    return parser.parse_args()


def now(device: str) -> float:
    """Return seconds of the process on a CPU, of the clock on a GPU."""
    if device == 'cuda':
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compare(config: str, args: argparse.Namespace) -> str:
    """Time steps of both kinds; return the line to print."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    args.config = config
    model, optimizer = build([], load(args), device)
    batch = make_batch(args.batch, tuple(args.size), device)
    kinds = {'plain': None, 'masked': MaskedTraining(passes=args.passes)}
    seconds = {kind: [] for kind in kinds}
    memory = dict.fromkeys(kinds, 0)
    for step in range(args.steps + 1):
        for kind, model.masked in kinds.items():
            if device == 'cuda':
                torch.cuda.reset_peak_memory_stats()
            start = now(device)
            loss, _ = model.parse_losses(model.loss(*batch))
            optimizer.update_params(loss)
            if step:  # the first is for warming up
                seconds[kind].append(now(device) - start)
            if device == 'cuda':
                memory[kind] = torch.cuda.max_memory_allocated()
    plain, masked = (median(seconds[kind]) for kind in kinds)
    line = f'{config}: {1000 * plain:.0f} ms, masked {1000 * masked:.0f} ms, {masked / plain:.2f}x'
    if device == 'cuda':
        line += f'; memory {memory["masked"] / memory["plain"]:.2f}x'
    return line


def main() -> None:
    """Compare the networks one by one."""
    args = parse_args()
    print(f'{args.batch} images of {args.size[0]}x{args.size[1]}, {args.passes} passes')
    for config in args.configs:
        print(compare(config, args), flush=True)


if __name__ == '__main__':
    main()
