"""Train the demo's small CLIP (RefShapes-CLIP) from pairs of an image and a sentence.

The pairs are made in memory by RefShapes' generator with seeds of their own. No mask and no box
enters a loss; the generator's boxes only tell which sentences belong to a window. The losses:

* image to text and text to image contrast (CLIP) with several sentences of each image;
* the same contrast with the best position of the image in place of its pooled vector (as in FILIP),
  on the attention pool's dense output and on layer 3 through a projection that is thrown away: it
  makes local features that say what is where;
* among the sentences that an image must reject, copies of its own with one word changed (no size:
  "the larger star" of an image implies "the smaller star").

Training starts on windows of scenes (images of few objects, a quarter of the cost, paired with the
sentences of the objects that lie within) and goes on with whole scenes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]

from refshapes_clip.losses import losses_of  # noqa: E402
from refshapes_clip.network import (  # noqa: E402
    CONFIG,
    MEAN,
    STD,
    build,
    save,
    start_from,
    write_config,
)
from refshapes_clip.scenes import SHARD, Batches, Scenes, make_shard  # noqa: E402

ASSETS = ROOT / 'nemo_mmseg' / 'assets' / 'refshapes_clip'
TRAIN_SEED, HELD_OUT_SEED = 7_000_001, 8_000_001  # the demo's data has seed 0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ASSETS, help='folder of the model')
    parser.add_argument('--cache', default='/tmp/refshapes_clip', help='folder for the pairs')
    parser.add_argument('--scenes', type=int, default=12000)
    parser.add_argument('--minutes', type=float, default=35, help='training time, data not counted')
    parser.add_argument('--window-share', type=float, default=0.25, help='share of it on windows')
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--processes', type=int, default=2, help='of one thread each')
    parser.add_argument('--save-every', type=float, default=4, help='minutes between checkpoints')
    parser.add_argument('--init', type=Path, help='start from the model of this folder, not --out')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--nouns',
        type=float,
        default=0.6,
        help='share of the changed copies in which the category is the word that changes; 0.3 '
        'times this share of the sentences is cut down to the category',
    )
    args = parser.parse_args()
    if args.init and args.init.resolve() == args.out.resolve():
        parser.error('--init must be another folder than --out, whose files are overwritten')
    return args


@torch.no_grad()
def recall(model, scenes: Scenes, count: int = 1000, kind: int = 0) -> dict[str, float]:
    """Recall@k of held-out scenes, one sentence each, both directions, and chance."""
    model.eval()
    rng = np.random.default_rng(0)
    count = min(count, len(scenes))
    rows, keep = [], []
    for i in range(count):
        mine = np.arange(scenes.starts[i], scenes.starts[i + 1])
        mine = mine[scenes.kinds[mine] == kind]
        if len(mine):
            rows.append(int(rng.choice(mine)))
            keep.append(i)
    vectors = []
    for start in range(0, len(keep), 64):
        images = torch.from_numpy(scenes.images[keep[start : start + 64]]).permute(0, 3, 1, 2)
        vectors.append(model.encode_image((images.float() - MEAN) / STD, normalize=True))
    text = torch.from_numpy(scenes.tokens[rows].astype(np.int64))
    similarity = torch.cat(vectors) @ model.encode_text(text, normalize=True).t()
    result = {}
    for name, table in (('image->text', similarity), ('text->image', similarity.t())):
        rank = (table > table.diagonal()[:, None]).sum(1)
        for k in (1, 5, 10):
            result[f'{name} R@{k}'] = round(float((rank < k).float().mean()) * 100, 1)
    for k in (1, 5, 10):
        result[f'chance R@{k}'] = round(100 * k / len(keep), 2)
    model.train()
    return result


def average(tensors: list[torch.Tensor], world: int) -> None:
    """Average tensors over the processes, in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    flat /= world
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
        tensor.copy_(part.view_as(tensor))


def train(rank: int, args: argparse.Namespace, paths: list[str], rendezvous: str) -> None:
    """Train in one of the processes; the first one prints, evaluates and saves."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=args.processes
    )
    torch.manual_seed(args.seed)
    model, tokenizer = build(args.out)
    if args.init:
        start_from(model, tokenizer, args.init)
    held_out, scenes = Scenes(paths[:2], tokenizer), Scenes(paths[2:], tokenizer)
    batches = Batches(scenes, tokenizer, args.seed * 1000 + rank, args.nouns)
    model = model.to(memory_format=torch.channels_last).train()
    aux = torch.nn.Conv2d(CONFIG['vision_cfg']['width'] * 16, CONFIG['embed_dim'], 1)
    scales = torch.nn.Parameter(torch.full((2,), float(np.log(12.0))))
    named = [*model.named_parameters(), *aux.named_parameters()]
    decayed = [p for n, p in named if p.ndim > 1 and 'embedding' not in n]
    others = [p for n, p in named if p.ndim <= 1 or 'embedding' in n] + [scales]
    optimizer = torch.optim.AdamW(
        [{'params': decayed, 'weight_decay': 0.05}, {'params': others, 'weight_decay': 0.0}],
        lr=args.lr,
        betas=(0.9, 0.98),
    )
    if rank == 0:
        size = sum(p.numel() for p in model.parameters()) / 1e6
        print(f'{len(scenes)} scenes, {len(scenes.tokens)} sentences, {size:.2f} M parameters')
    torch.manual_seed(args.seed * 1000 + rank)
    plan = np.random.default_rng(args.seed)  # the same in all processes
    start, last_save, step, seen, running = time.time(), time.time(), 0, 0, np.zeros(3)
    while True:
        share = torch.tensor([(time.time() - start) / 60 / args.minutes])
        torch.distributed.broadcast(share, 0)
        share = float(share)
        if share >= 1:
            break
        window = 128 if share < args.window_share or plan.random() < 0.15 else None
        size, per_image = (96, 3) if window else (64, 5)
        longer = window is None and plan.random() < 0.25
        values = losses_of(model, aux, scales, batches.draw(size, per_image, window, longer))
        optimizer.zero_grad(set_to_none=True)
        (2 * values[0] + values[1] + values[2]).backward()  # the pooled vector is what mining uses
        average([p.grad for p in [*decayed, *others]], args.processes)
        torch.nn.utils.clip_grad_norm_([*decayed, *others], 2.0)
        rate = args.lr * min(1.0, (step + 1) / 100) * max(0.02, 0.5 * (1 + np.cos(np.pi * share)))
        for group in optimizer.param_groups:
            group['lr'] = rate
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(60)))
            scales.clamp_(0, float(np.log(60)))
        step, seen = step + 1, seen + size * args.processes
        values = np.array([float(v.detach()) for v in values])
        running = values if step == 1 else 0.97 * running + 0.03 * values
        if rank == 0 and step % 20 == 0:
            shown = ' '.join(f'{v:.3f}' for v in running)
            print(
                f'{share * args.minutes:5.1f} min step {step} {seen} images (window {window}) '
                f'loss {shown} scale {float(model.logit_scale.detach().exp()):.1f} lr {rate:.1e}',
                flush=True,
            )
        if rank == 0 and time.time() - last_save > args.save_every * 60:
            save(model, args.out / 'weights.safetensors')
            print(recall(model, held_out, 500), flush=True)
            last_save = time.time()
    average([b for b in model.buffers() if b.is_floating_point() and b.ndim == 1], args.processes)
    if rank == 0:
        save(model, args.out / 'weights.safetensors')
        for kind, name in enumerate(('appearance', 'location or size', 'relation')):
            print(name, json.dumps(recall(model, held_out, kind=kind)), flush=True)
    torch.distributed.destroy_process_group()


def main() -> None:
    """Make the pairs, train, print recall against chance, write the weights."""
    args = parse_args()
    os.makedirs(args.cache, exist_ok=True)
    jobs = [(HELD_OUT_SEED, k) for k in range(2)]
    jobs += [(TRAIN_SEED, k) for k in range(max(1, args.scenes // SHARD))]
    with ProcessPoolExecutor(args.processes, mp_context=get_context('fork')) as pool:
        paths = list(pool.map(partial(make_shard, folder=args.cache), jobs))
    write_config(args.out)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            train, (args, paths, f'{folder}/rendezvous'), nprocs=args.processes
        )


if __name__ == '__main__':
    main()
