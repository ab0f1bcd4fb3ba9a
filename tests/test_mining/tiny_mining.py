"""A tiny CLIP and data set to mine; as a program: mine it by several processes, and kill some."""

import argparse
import hashlib
import json
import os
import os.path as osp
import random
import signal
import time

import numpy as np
from PIL import Image

MODEL = 'NeMo-Test-CLIP'
CONFIG = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, layers=1, width=32, patch_size=8, head_width=16),
    text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=2),
)
WORDS = 'a the red blue large small left right man dog tree on under near of second'.split()


def register_clip(folder):
    """Add the tiny CLIP to open_clip's models."""
    import open_clip

    path = osp.join(folder, f'{MODEL}.json')
    if not osp.isfile(path):
        with open(path, 'w') as file:
            json.dump(CONFIG, file)
    open_clip.add_model_config(path)


def make(folder, num_images=40, num_expressions=130):
    """Write images, expressions and random weights."""
    import open_clip
    import torch

    register_clip(folder)
    rng = np.random.default_rng(0)
    for i in range(num_images):
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((50, 40)).save(osp.join(folder, f'image_{i:03d}.jpg'))
    texts = [' '.join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(num_expressions)]
    # Gaps between the ids, repeated texts, several expressions an image.
    texts[-10:] = texts[:10]
    sent_ids = np.cumsum(rng.integers(1, 5, num_expressions))
    rows = rng.integers(0, num_images, num_expressions)
    with open(osp.join(folder, 'expressions.json'), 'w') as file:
        json.dump([sent_ids.tolist(), texts, rows.tolist()], file)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.create_model(MODEL)
        # The initial text encoder is nearly constant: strengthen it, or all texts are alike.
        with torch.no_grad():
            clip.token_embedding.weight.mul_(50)
            clip.positional_embedding.mul_(30)
        torch.save(clip.state_dict(), osp.join(folder, 'weights.pt'))


class TinyData:
    """What mining needs of a data set."""

    def __init__(self, folder, name='tiny', split='train'):
        from nemo_mmseg.negatives.pool import ImagePool

        self.metainfo = dict(dataset_name=name)
        self.split = split
        with open(osp.join(folder, 'expressions.json')) as file:
            self.text = file.read()
        names = sorted(name for name in os.listdir(folder) if name.endswith('.jpg'))
        self.fingerprint = hashlib.sha256((self.text + repr(names)).encode()).hexdigest()
        self.pool = ImagePool(folder, np.arange(len(names)) * 3 + 7, names, self.fingerprint)

    def expressions(self):
        sent_ids, texts, rows = json.loads(self.text)
        return np.array(sent_ids), texts, np.array(rows)


def mine(folder, path, **options):
    """Mine the tiny data set, with packs of 8 vectors."""
    from nemo_mmseg.mining import embed, vectors
    from nemo_mmseg.mining.mine import mine_bank
    from nemo_mmseg.negatives.bank import BankSpec

    register_clip(folder)
    embed.BLOCK_SIZE = vectors.PACK_SIZE = 8
    spec = dict(
        model=MODEL,
        pretrained=osp.join(folder, 'weights.pt'),
        keep=12,
        images=None,
        kind='images',
    )
    run = dict(batch_size=4, num_workers=0, device='cpu', progress=False, timeout=60, cache=False)
    for name, value in options.items():
        (spec if name in spec else run)[name] = value
    return mine_bank(TinyData(folder), BankSpec(str(path), **spec), **run)


def start(folder, path, rank=0, world=1):
    """Mine in a forked process; returns its id."""
    child = os.fork()
    if child:
        return child
    # Whatever happens, this process must not go on as its parent.
    status = 1
    try:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
        mine(folder, path)
        status = 0
    finally:
        os._exit(status)


def at_once(folder, path, ranks, jobs):
    """Mine one bank by some jobs of some ranks at the same time."""
    children = [start(folder, path, r, ranks) for _ in range(jobs) for r in reversed(range(ranks))]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def in_child(folder, path, kill_after=None):
    """Mine in a forked process, `kill -9` it some seconds after its first file.

    Returns whether it was killed, and the seconds since its first file.
    """
    child = start(folder, path)
    while not os.path.exists(f'{path}.work') and not os.path.exists(path):
        time.sleep(0.0005)
    started = time.monotonic()
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0
    return killed, time.monotonic() - started


def kill_at_random(folder, path, times):
    """Kill runs at random moments and finish each with another."""
    _, duration = in_child(folder, path)
    chance = random.Random(0)
    with open(path, 'rb') as file:
        expected = file.read()
    while times:
        os.remove(path)
        killed, seconds = in_child(folder, path, chance.uniform(0, 1) * duration)
        duration = duration if killed else min(duration, seconds)
        in_child(folder, path)
        with open(path, 'rb') as file:
            assert file.read() == expected
        times -= killed  # one that was faster than its kill does not count


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('folder')
    parser.add_argument('out')
    parser.add_argument('--kills', type=int, default=2)
    args = parser.parse_args()
    import nemo_mmseg.mining  # noqa: F401  (once, not in every child)

    register_clip(args.folder)
    at_once(args.folder, osp.join(args.out, 'ranks'), ranks=3, jobs=1)
    at_once(args.folder, osp.join(args.out, 'jobs'), ranks=2, jobs=2)
    kill_at_random(args.folder, osp.join(args.out, 'killed'), args.kills)
