"""A tiny CLIP and data set to mine; as a program: mine it once (killed and restarted by tests)."""

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
        # The initial text tower is nearly constant: strengthen it, or all texts are alike.
        with torch.no_grad():
            clip.token_embedding.weight.mul_(50)
            clip.positional_embedding.mul_(30)
        torch.save(clip.state_dict(), osp.join(folder, 'weights.pt'))


class Pool:
    def __init__(self, folder):
        self.folder = folder
        self.names = sorted(n for n in os.listdir(folder) if n.endswith('.jpg'))
        self.ids = np.arange(len(self.names)) * 3 + 7

    def __len__(self):
        return len(self.names)

    def path(self, row):
        return osp.join(self.folder, self.names[row])


class TinyData:
    """What mining needs of a data set."""

    def __init__(self, folder, name='tiny', split='train'):
        self.pool = Pool(folder)
        self.metainfo = dict(dataset_name=name)
        self.split = split
        with open(osp.join(folder, 'expressions.json')) as file:
            self.text = file.read()

    @property
    def fingerprint(self):
        return hashlib.sha256((self.text + repr(self.pool.names)).encode()).hexdigest()

    def expressions(self):
        sent_ids, texts, rows = json.loads(self.text)
        return np.array(sent_ids), texts, np.array(rows)


def mine(folder, path, **options):
    """Mine the tiny data set."""
    from nemo_mmseg.mining.mine import mine_bank

    register_clip(folder)
    settings = dict(
        pretrained=osp.join(folder, 'weights.pt'), keep=12, batch_size=4, shard_size=8,
        num_workers=0, device='cpu', progress=False, timeout=60, cache=False,
    )  # fmt: skip
    settings.update(options)
    return mine_bank(TinyData(folder), path, settings.pop('model', MODEL), **settings)


def in_child(folder, path, kill_after=None):
    """Mine in a forked process, `kill -9` it some seconds after its first file.

    Returns whether it was killed, and the seconds since its first file.
    """
    child = os.fork()
    if child == 0:
        # Whatever happens, this process must not go on as its parent.
        status = 1
        try:
            mine(folder, path)
            status = 0
        finally:
            os._exit(status)
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
    """Kill runs at random moments and finish each with another; print what came of each."""
    import nemo_mmseg.mining  # noqa: F401  (once, not in every child)

    register_clip(folder)
    _, duration = in_child(folder, path)
    chance = random.Random(0)
    while times:
        os.remove(path)
        killed, seconds = in_child(folder, path, chance.uniform(0, 1) * duration)
        duration = duration if killed else min(duration, seconds)
        files = sum(len(files) for *_, files in os.walk(f'{path}.work'))
        in_child(folder, path)
        with open(path, 'rb') as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        times -= killed  # one that was faster than its kill does not count
        print(json.dumps([killed, files, digest]), flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('folder')
    parser.add_argument('path')
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--kills', type=int)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    if args.kills:
        kill_at_random(args.folder, args.path, args.kills)
    else:
        mine(args.folder, args.path, num_workers=args.workers)
