"""What the options of modern training cost and bring, as ratios to the plain run.

    python benchmarks/train_step.py cris_r101_8xb8-50e_refcoco-416x416 --size 416 416 --batch 8
    python benchmarks/train_step.py CONFIG --data           # with the config's own loader
    python benchmarks/train_step.py CONFIG --curve 300 --options bf16 fast

Trains on random images and expressions for a few steps, each option in a process of its own (the
peak of memory is a process's), and prints images a second, the peak of memory, and the ratio of
both to the plain run: float32, on a GPU with TF32. With ``--data`` batches come from the config's
training loader, and the share of the time in which the step waits for them is printed; images a
second never count it. With ``--curve N`` every option learns N batches, the same for all, and the
distance of its losses to those of the plain run is compared with noise: the distance of a plain run
with other batches and other dropout.

Options: bf16, compile, channels_last, fused (optimizer), checkpointing (backbones with
``with_cp``), accumulate (four steps a weight update), fast (the first four). On a GPU seconds are
those of the clock, on a CPU those of the process. A CPU without AVX-512 is slow in bf16, and
training by config does not use it there.
"""

from __future__ import annotations

import argparse
import inspect
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from mmengine.config import Config, DictAction
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nemo_mmseg.engine.hooks.compile_hook import CompileHook  # noqa: E402
from nemo_mmseg.utils.config import find_config  # noqa: E402

FAST = ('bf16', 'compile', 'channels_last', 'fused')
OPTIONS = ('plain', *FAST, 'checkpointing', 'accumulate', 'fast')
BLOCK = 10  # iterations whose mean loss is a point of a curve


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='file, or name of a config')
    parser.add_argument('--options', nargs='+', choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument('--size', type=int, nargs=2, help='of the input (default 480 480)')
    parser.add_argument('--batch', type=int, help='images a step (default 8)')
    parser.add_argument('--steps', type=int, default=20, help='steps to time (default 20)')
    parser.add_argument('--warm-up', type=int, default=3, help='steps before (default 3)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in tools/train.py')
    parser.add_argument('--data', action='store_true', help="batches of the config's own loader")
    parser.add_argument('--curve', type=int, default=0, help='iterations of the loss curves')
    parser.add_argument('--measure', choices=OPTIONS, help=argparse.SUPPRESS)
    parser.add_argument('--seed', type=int, default=0, help='of batches and dropout (default 0)')
    args = parser.parse_args()
    if args.data and (args.size is not None or args.batch is not None):
        parser.error(
            "--data takes the batches of the config's loader: leave out --size and --batch"
        )
    if args.batch is not None and args.batch < 1:
        parser.error(f'--batch {args.batch} is no batch')
    args.size, args.batch = args.size or (480, 480), args.batch or 8
    return args


def load(args: argparse.Namespace) -> Config:
    """Read the config and apply what the command line changes."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def switched_on(option: str, cfg: Config) -> list[str]:
    """List what an option switches on for a network: nothing, if its backbone does not have it."""
    backbone = MODELS.get(cfg.model.backbone.type)
    if option == 'checkpointing' and 'with_cp' not in inspect.signature(backbone).parameters:
        return []
    return list(FAST) if option == 'fast' else [option]


def build(chosen: list[str], cfg: Config, device: str) -> tuple[torch.nn.Module, OptimWrapper]:
    """Build the network and its optimizer with what was chosen."""
    if 'checkpointing' in chosen:
        cfg.model.backbone.with_cp = True
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
    wrapper['optimizer'] = dict(wrapper['optimizer'])
    # absent, not False, which PyTorch takes for "neither fused nor foreach", its slow loop
    wrapper['optimizer'].pop('fused', None)
    if 'fused' in chosen:
        wrapper['optimizer']['fused'] = True
    if 'accumulate' in chosen:
        wrapper['accumulative_counts'] = 4
    return model, build_optim_wrapper(model, wrapper)


def batches(args: argparse.Namespace, cfg: Config, model: torch.nn.Module) -> Iterator[tuple]:
    """Yield normalised images and data samples without end: the loader's, new ones, or one."""
    device = str(next(model.parameters()).device)
    size = tuple(args.size)
    if args.data:
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=args.seed)
        while True:
            for data in loader:
                data = model.data_preprocessor(data, training=True)
                yield data['inputs'], data['data_samples']
    if not args.curve:
        yield from repeat(make_batch(args.batch, size, device))
    for step in count():
        yield make_batch(args.batch, size, device, seed=1_000_003 * args.seed + step)


def measure(args: argparse.Namespace) -> dict:
    """Train with one option.

    Returns:
        ``rate`` images a second, ``peak`` MiB of memory, ``data``, the share of the time spent
        waiting for it, and all ``losses``.
    """
    cfg = load(args)
    chosen = switched_on(args.measure, cfg)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    # A float32 that nobody would train with is no baseline.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model, optimizer = build(chosen, cfg, device)
    torch.manual_seed(args.seed)

    def now() -> float:
        if device == 'cuda':
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    source = batches(args, cfg, model)
    times, waited, losses, images = [], [], [], []
    steps = args.curve or args.warm_up + args.steps
    warm_up = min(args.warm_up, steps - 1)
    for step in range(steps):
        if step == warm_up and device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        asked = time.perf_counter()
        batch = next(source)
        start = now()
        got = time.perf_counter()
        with optimizer.optim_context(model):
            with torch.autocast(device, torch.bfloat16, enabled='bf16' in chosen):
                loss, _ = model.parse_losses(model.loss(*batch))
        optimizer.update_params(loss)
        losses.append(loss.detach())
        times.append(now() - start)
        waited.append((got - asked) / (time.perf_counter() - asked))
        images.append(len(batch[1]))
    if device == 'cuda':
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rate = images[-1] / median(times[warm_up:])
    # the mean: a loader that falls behind makes few steps wait long
    data = sum(waited[warm_up:]) / len(waited[warm_up:])
    return dict(rate=rate, peak=peak, data=data, losses=torch.stack(losses).tolist())


def make_batch(
    number: int, size: tuple[int, int], device: str, seed: int = 0
) -> tuple[torch.Tensor, list[SegDataSample]]:
    """Draw random images, each with an expression and a rectangle to be found."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(number, 3, *size, generator=generator)
    samples = []
    for i in range(number):
        mask = torch.zeros(1, *size, dtype=torch.uint8)
        top, left = (int(x) for x in torch.randint(0, min(size) // 2, (2,), generator=generator))
        window = (0, slice(top, top + size[0] // 3), slice(left, left + size[1] // 3))
        mask[window] = 1
        images[i, :, window[1], window[2]] += 2
        sample = SegDataSample(metainfo=dict(expressions=[f'the bright square number {i}']))
        samples.append(sample.set_data({'gt_sem_seg': PixelData(data=mask)}) or sample)
    return images.to(device), [sample.to(device) for sample in samples]


def distance(losses: list[float], others: list[float]) -> float:
    """Return the RMS difference of two loss curves, each point the mean of some iterations."""
    curves = []
    for values in (losses, others):
        whole = torch.tensor(values[: len(values) // BLOCK * BLOCK] or values)
        curves.append(whole.unflatten(0, (-1, min(BLOCK, len(whole)))).mean(1))
    return float((curves[0] - curves[1]).square().mean().sqrt())


def measured(option: str, *more: str) -> dict | str:
    """Measure one option in a process of its own; return what it found, or why it did not."""
    command = [sys.executable, *sys.argv, '--measure', option, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT ')]
    if lines:
        return json.loads(lines[-1].removeprefix('RESULT '))
    return (done.stderr.strip().splitlines() or ['killed'])[-1]


def main() -> None:
    """Measure every option in a process of its own, and print the table."""
    args = parse_args()
    if args.measure:
        print('RESULT ' + json.dumps(measure(args)))
        return
    size = f'{args.batch} images of {args.size[0]}x{args.size[1]}'
    print(f'{args.config}, {"batches of its loader" if args.data else size}')
    print(
        f'{"":<14}{"images/s":>9}{"ratio":>7}{"MiB":>8}{"ratio":>7}{"data":>7}'
        f'{"loss, first":>13}{"last":>8}'
    )
    cfg, plain, noise = load(args), None, None
    for option in ['plain', *(o for o in args.options if o != 'plain')]:
        chosen = switched_on(option, cfg)
        if not chosen:
            print(f'{option:<14}not for this backbone')
            continue
        found = measured(option)
        if isinstance(found, str):
            print(f'{option:<14}failed: {found[:150]}')
            continue
        if option == 'plain':
            plain = found
        # without a plain run there is nothing to compare with
        speed, memory = (f'{found[k] / plain[k]:.2f}' if plain else '-' for k in ('rate', 'peak'))
        data = f'{100 * found["data"]:.1f}%' if args.data else '-'
        line = (
            f'{option:<14}{found["rate"]:>9.2f}{speed:>7}{found["peak"]:>8.0f}{memory:>7}{data:>7}'
            f'{found["losses"][0]:>13.3f}{found["losses"][-1]:>8.3f}'
        )
        if args.curve and plain:
            if option == 'plain':
                other = measured('plain', '--seed', str(args.seed + 1))
                noise = (
                    None if isinstance(other, str) else distance(found['losses'], other['losses'])
                )
                line += '  noise failed' if noise is None else f'  noise {noise:.4f}'
            else:
                away = distance(found['losses'], plain['losses'])
                line += f'  {away:.4f} from plain'
                line += '' if noise is None else ', within noise' * (away <= noise)
        print(line + (f'  = {" + ".join(chosen)}' if option == 'fast' else ''), flush=True)


if __name__ == '__main__':
    main()
