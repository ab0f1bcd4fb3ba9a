"""What the options of modern training cost and bring, as ratios to the plain run.

    python tools/benchmark/training.py cris_r50_8xb8-50e_refcoco-416x416 --size 416 416 --batch 8

Trains on random images and expressions for a few steps, each option in a process of its own (the
peak of memory is a process's), and prints images a second, the peak of memory, and the ratio of
both to the plain run. Options: bf16, compile, checkpointing (backbones with `with_cp`), accumulate
(four steps a weight update), channels_last, all (those of the first three that the backbone has).
"""

from __future__ import annotations

import argparse
import inspect
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.apis import find_config  # noqa: E402
from nemo_mmseg.engine.hooks import CompileHook  # noqa: E402

OPTIONS = ('plain', 'bf16', 'compile', 'checkpointing', 'accumulate', 'channels_last', 'all')


def parse_args() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='file, or name of a config')
    parser.add_argument('--options', nargs='+', choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument('--size', type=int, nargs=2, default=(480, 480), help='of the input')
    parser.add_argument('--batch', type=int, default=8, help='images a step (default 8)')
    parser.add_argument('--steps', type=int, default=20, help='steps to time (default 20)')
    parser.add_argument('--warm-up', type=int, default=3, help='steps before (default 3)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in tools/train.py')
    parser.add_argument('--measure', choices=OPTIONS, help=argparse.SUPPRESS)
    return parser.parse_args()


def load(args: argparse.Namespace) -> Config:
    """The config with what the command line changes."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def switched_on(option: str, cfg: Config) -> list[str]:
    """What an option is for a network: nothing, if its backbone does not have it."""
    chosen = ['bf16', 'compile', 'checkpointing'] if option == 'all' else [option]
    backbone = MODELS.get(cfg.model.backbone.type)
    if 'checkpointing' in chosen and 'with_cp' not in inspect.signature(backbone).parameters:
        chosen.remove('checkpointing')
    return chosen


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Train with one option; images a second, peak of memory in MiB, first and last loss."""
    cfg = load(args)
    chosen = switched_on(args.measure, cfg)
    if 'checkpointing' in chosen:
        cfg.model.backbone.with_cp = True
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).train()
    if 'channels_last' in chosen:
        model.to(memory_format=torch.channels_last)
    if 'compile' in chosen:
        CompileHook().before_run(SimpleNamespace(model=model))
    # the optimizer and its groups are the config's, the precision is the benchmark's
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    for key in ('loss_scale', 'dtype', 'use_fp16'):
        wrapper.pop(key, None)
    if 'accumulate' in chosen:
        wrapper['accumulative_counts'] = 4
    optimizer = build_optim_wrapper(model, wrapper)

    batch = make_batch(args.batch, tuple(args.size), device)
    times, losses = [], []
    for step in range(args.warm_up + args.steps):
        if step == args.warm_up and device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with optimizer.optim_context(model):
            with torch.autocast(device, torch.bfloat16, enabled='bf16' in chosen):
                loss, values = model.parse_losses(model.loss(*batch))
        optimizer.update_params(loss)
        losses.append(float(loss))  # waits for the device
        times.append(time.perf_counter() - start)
    if device == 'cuda':
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rate = args.batch / median(times[args.warm_up :])
    return dict(rate=rate, peak=peak, first=losses[0], last=losses[-1])


def make_batch(
    count: int, size: tuple[int, int], device: str
) -> tuple[torch.Tensor, list[SegDataSample]]:
    """Random images, each with an expression and a rectangle to be found."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, *size, generator=generator)
    samples = []
    for i in range(count):
        mask = torch.zeros(1, *size, dtype=torch.uint8)
        top, left = (int(x) for x in torch.randint(0, min(size) // 2, (2,), generator=generator))
        window = (0, slice(top, top + size[0] // 3), slice(left, left + size[1] // 3))
        mask[window] = 1
        images[i, :, window[1], window[2]] += 2
        sample = SegDataSample(metainfo=dict(expressions=[f'the bright square number {i}']))
        samples.append(sample.set_data({'gt_sem_seg': PixelData(data=mask)}) or sample)
    return images.to(device), [sample.to(device) for sample in samples]


def main() -> None:
    """Measure every option in a process of its own, and print the table."""
    args = parse_args()
    if args.measure:
        print('RESULT ' + json.dumps(measure(args)))
        return
    print(f'{args.config}, {args.batch} images of {args.size[0]}x{args.size[1]}')
    print(
        f'{"":<14}{"images/s":>9}{"ratio":>7}{"MiB":>8}{"ratio":>7}{"loss, first":>13}{"last":>8}'
    )
    cfg, plain = load(args), None
    for option in ['plain', *(o for o in args.options if o != 'plain')]:
        chosen = switched_on(option, cfg)
        if not chosen:
            print(f'{option:<14}not for this backbone')
            continue
        command = [sys.executable, *sys.argv, '--measure', option]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT ')]
        if not lines:
            error = (done.stderr.strip().splitlines() or ['killed'])[-1]
            print(f'{option:<14}failed: {error[:150]}')
            continue
        found = json.loads(lines[-1].removeprefix('RESULT '))
        if option == 'plain':
            plain = found
        # without a plain run there is nothing to compare with
        speed, memory = (f'{found[k] / plain[k]:.2f}' if plain else '-' for k in ('rate', 'peak'))
        print(
            f'{option:<14}{found["rate"]:>9.2f}{speed:>7}{found["peak"]:>8.0f}{memory:>7}'
            f'{found["first"]:>13.3f}{found["last"]:>8.3f}'
            + (f'  = {" + ".join(chosen)}' if option == 'all' else ''),
            flush=True,
        )


if __name__ == '__main__':
    main()
