"""Train the demo's small CLIP (RefShapes-CLIP) from pairs of an image and a sentence.

The pairs are made in memory by RefShapes' generator with seeds of their own. No mask and no box
enters a loss; the generator's boxes only tell which sentences belong to a window. The losses:

* image to text and text to image contrast (CLIP) with several sentences of each image;
* the same contrast with the best position of the image in place of its pooled vector (as in FILIP),
  on the attention pool's dense output and on layer 3 through a projection that is thrown away: it
  makes local features that say what is where;
* among the sentences that an image must reject, copies of its own with one word changed.

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

import cv2
import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nemo_mmseg.datasets.refshapes import words as vocab  # noqa: E402
from nemo_mmseg.datasets.refshapes.pairs import make_pairs  # noqa: E402
from nemo_mmseg.utils.atomic_write import atomic_write, write_bytes, write_text  # noqa: E402

ASSETS = Path(__file__).resolve().parents[1] / 'nemo_mmseg' / 'assets' / 'refshapes_clip'
CONFIG = {
    'embed_dim': 128,
    'quick_gelu': True,
    'vision_cfg': {'image_size': 256, 'layers': [1, 1, 2, 1], 'width': 16, 'head_width': 64},
    'text_cfg': {'context_length': 32, 'width': 128, 'heads': 4, 'layers': 3},
}
TRAIN_SEED, HELD_OUT_SEED = 7_000_001, 8_000_001  # the demo's data has seed 0
SHARD = 500
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1) * 255
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1) * 255


def make_shard(job: tuple[int, int], folder: str) -> str:
    """Make a file with SHARD scenes and their sentences, if it is not there."""
    seed, number = job
    path = os.path.join(folder, f'{seed}_{number:03d}.npz')
    if not os.path.exists(path):
        cv2.setNumThreads(0)
        made = [make_pairs(seed, number * SHARD + i) for i in range(SHARD)]
        with atomic_write(path) as part, part.open('wb') as file:
            np.savez(
                file,
                images=np.stack([m.image for m in made]),
                boxes=np.concatenate([m.boxes for m in made]),
                kinds=np.concatenate([m.kinds for m in made]),
                counts=np.array([len(m.sentences) for m in made]),
                sentences=np.array([s for m in made for s in m.sentences]),
            )
    return path


class Scenes:
    """All scenes of some shards in memory, with tokenized sentences."""

    def __init__(self, paths: list[str], tokenizer) -> None:
        parts = []
        for path in paths:
            with np.load(path) as data:
                parts.append({k: data[k] for k in data.files})
        self.images = np.concatenate([p['images'] for p in parts])
        self.boxes = np.concatenate([p['boxes'] for p in parts])
        self.kinds = np.concatenate([p['kinds'] for p in parts])
        counts = np.concatenate([p['counts'] for p in parts])
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        sentences = np.concatenate([p['sentences'] for p in parts])
        self.tokens = tokenizer([str(s) for s in sentences]).numpy().astype(np.int16)

    def __len__(self) -> int:
        return len(self.images)


class Batches:
    """Draws batches: images, sentences, and copies of sentences with one word changed."""

    def __init__(self, scenes: Scenes, tokenizer, seed: int, nouns: float = 0.0) -> None:
        self.scenes = scenes
        self.nouns = nouns
        self.rng = np.random.default_rng(seed)
        ids = {w: tokenizer.encode(w)[0] for w in vocab.all_words()}
        plurals = [vocab.PLURALS.get(n, n + 's') for n in vocab.NOUNS]
        groups = [vocab.NOUNS, plurals, vocab.COLOUR_NAMES, vocab.TEXTURE_NAMES, vocab.TAILS]
        groups += [('small', 'little', 'large', 'big'), vocab.SIDES]
        same = [('plain', 'solid'), ('small', 'little'), ('large', 'big'), ('outline', 'outlines')]
        same += [n for n in vocab.CATEGORIES.values()] + list(vocab.COLOUR_WORDS.values())
        same += [
            tuple(vocab.PLURALS.get(n, n + 's') for n in ns) for ns in vocab.CATEGORIES.values()
        ]
        self.swaps: dict[int, np.ndarray] = {}
        for group in groups:
            for word in group:
                alike = {w for s in same if word in s for w in s} | {word}
                self.swaps[ids[word]] = np.array([ids[w] for w in group if w not in alike])
        self.is_noun = np.zeros(tokenizer.vocab_size, bool)
        self.is_noun[[ids[word] for word in [*vocab.NOUNS, *plurals]]] = True
        self.swappable = np.zeros(tokenizer.vocab_size, bool)
        self.swappable[list(self.swaps)] = True

    def _changed(self, tokens: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(self.swappable[tokens])
        if self.rng.random() < self.nouns and self.is_noun[tokens].any():
            places = np.flatnonzero(self.is_noun[tokens])
        changed = tokens.copy()
        place = places[int(self.rng.integers(len(places)))]
        choices = self.swaps[int(tokens[place])]
        changed[place] = choices[int(self.rng.integers(len(choices)))]
        return changed

    def _noun_alone(self, tokens: np.ndarray) -> np.ndarray:
        """The sentence cut down to its first noun."""
        place = int(np.flatnonzero(self.is_noun[tokens])[0])
        short = np.zeros_like(tokens)
        short[:3] = tokens[0], tokens[place], tokens.max()  # start, noun, end
        return short

    def draw(self, size: int, per_image: int, window: int | None, longer: bool):
        """A batch.

        Args:
            size: Images.
            per_image: Sentences of each image, and as many changed copies.
            window: Side of the windows cut from the scenes in pixels, None for whole scenes.
            longer: Also sentences with locations and relations (not for windows).

        Returns:
            images uint8 (B, 3, s, s), tokens (2 S, L) of the true sentences followed by as many
            changed ones, owner (S,) image of each true sentence.
        """
        rng, data = self.rng, self.scenes
        images, tokens, owner = [], [], []
        while len(images) < size:
            i = int(rng.integers(len(data)))
            rows = np.arange(data.starts[i], data.starts[i + 1])
            image = data.images[i]
            if not longer or window:
                rows = rows[data.kinds[rows] == 0]
            if window:
                boxes = data.boxes[rows]
                if not len(boxes):
                    continue
                # A window around a random object, so that none is empty.
                box = boxes[int(rng.integers(len(boxes)))]
                room = image.shape[0] - window
                x = int(np.clip(rng.uniform(*sorted((box[2] - window, box[0] + 1))), 0, room))
                y = int(np.clip(rng.uniform(*sorted((box[3] - window, box[1] + 1))), 0, room))
                seen = (boxes[:, 0] >= x - 2) & (boxes[:, 2] <= x + window + 2)
                seen &= (boxes[:, 1] >= y - 2) & (boxes[:, 3] <= y + window + 2)
                rows, image = rows[seen], image[y : y + window, x : x + window]
            if not len(rows):
                continue
            # Always as many (again if need be): oneDNN keeps a plan for each shape it meets.
            rows = rng.choice(rows, per_image, replace=len(rows) < per_image)
            if (window or not longer) and rng.random() < 0.5:
                image = image[:, ::-1]
            owner += [len(images)] * len(rows)
            images.append(image)
            for r in rows:
                alone = rng.random() < 0.3 * self.nouns and self.is_noun[data.tokens[r]].any()
                tokens.append(self._noun_alone(data.tokens[r]) if alone else data.tokens[r])
        tokens += [self._changed(t) for t in tokens]
        stacked = np.stack(tokens).astype(np.int64)
        longest = int((stacked > 0).any(0).sum())
        length = 14 if longest <= 14 else stacked.shape[1]
        images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return images, torch.from_numpy(stacked[:, :length]), torch.tensor(owner)


def encode_text(model, tokens: torch.Tensor) -> torch.Tensor:
    """The model's text tower on sentences cut to their own length (its mask is causal)."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    x = x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def encode_image(model, aux, images: torch.Tensor):
    """Pooled vector, dense output of the attention pool, projected layer 3, all of unit length."""
    visual = model.visual
    x = visual.layer2(visual.layer1(visual.stem(images)))
    mid = visual.layer3(x)
    x = visual.layer4(mid)
    pool = visual.attnpool
    n, c, h, w = x.shape
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1)
    position = pool.positional_embedding
    side = int((len(position) - 1) ** 0.5)
    if (h, w) != (side, side):  # a window: the positions of a random place of that size
        top = int(torch.randint(side - h + 1, ()))
        left = int(torch.randint(side - w + 1, ()))
        grid = position[1:].view(side, side, c)[top : top + h, left : left + w]
        position = torch.cat([position[:1], grid.reshape(-1, c)])
    x = x + position
    heads = pool.num_heads

    def split(t):
        return t.view(n, -1, heads, c // heads).transpose(1, 2)

    x = F.scaled_dot_product_attention(
        split(pool.q_proj(x)), split(pool.k_proj(x)), split(pool.v_proj(x))
    )
    x = F.normalize(pool.c_proj(x.transpose(1, 2).reshape(n, -1, c)).float(), dim=-1)
    local = F.normalize(aux(mid).flatten(2).transpose(1, 2).float(), dim=-1)
    return x[:, 0], x[:, 1:], local


def contrast(similarity: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Contrastive loss of logits (B images, true sentences followed by changed ones)."""
    true = len(owner)
    columns = torch.arange(true)
    to_image = F.cross_entropy(similarity[:, :true].t(), owner)
    own = torch.zeros_like(similarity, dtype=torch.bool)
    own[owner, columns] = True
    rejected = similarity.masked_fill(own, float('-inf')).logsumexp(1)
    to_text = F.softplus(rejected[owner] - similarity[owner, columns]).mean()
    # Each true sentence against its own changed copy.
    pairs = F.softplus(similarity[owner, columns + true] - similarity[owner, columns]).mean()
    return to_image + to_text + pairs


def best_position(dense: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Logits (B, S) of the best position (smoothly) of each image for each sentence."""
    similarity = torch.einsum('bpc,sc->bsp', dense, text) * scale
    return similarity.logsumexp(-1) - float(np.log(dense.shape[1])) * 0.5


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


def save(model, path: Path) -> None:
    """Write the weights as float16 safetensors."""
    from safetensors.torch import save_file

    state = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
        if not k.endswith('attn_mask')
    }
    with atomic_write(path) as part:
        save_file(state, part)


def write_config(folder: Path) -> None:
    """Write the model's config and vocabulary into a folder."""
    packed, size = vocab.bpe_file(vocab.all_words())
    config = json.loads(json.dumps(CONFIG))
    config['text_cfg']['vocab_size'] = size
    write_bytes(folder / 'bpe.txt.gz', packed)
    write_text(folder / 'RefShapes-CLIP.json', json.dumps(config, indent=4) + '\n')


def build(folder: Path):
    """Build model and tokenizer from the config and vocabulary of a folder."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    open_clip.add_model_config(folder / 'RefShapes-CLIP.json')
    length = CONFIG['text_cfg']['context_length']
    tokenizer = SimpleTokenizer(str(folder / 'bpe.txt.gz'), context_length=length)
    return open_clip.create_model('RefShapes-CLIP', precision='fp32'), tokenizer


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
    parser.add_argument('--init', type=Path, help='start from these weights')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--nouns',
        type=float,
        default=0.6,
        help='share of the changed copies in which the category is the word that changes; 0.3 '
        'times this share of the sentences is cut down to the category',
    )
    return parser.parse_args()


def average(tensors: list[torch.Tensor], world: int) -> None:
    """Average tensors over the processes, in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    flat /= world
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
        tensor.copy_(part.view_as(tensor))


def losses_of(model, aux, scales, batch) -> list[torch.Tensor]:
    """The three contrastive losses of a batch."""
    images, tokens, owner = batch
    images = ((images.float() - MEAN) / STD) * (1 + 0.1 * torch.randn(len(images), 1, 1, 1))
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16):
        pooled, dense, local = encode_image(model, aux, images)
        text = encode_text(model, tokens)
    scale = scales.exp()
    # Layer 3 has many positions: half of the images will do.
    half = len(images) // 2
    true = owner < half
    some = text[torch.cat([true, true])]
    return [
        contrast(model.logit_scale.exp() * pooled @ text.t(), owner),
        contrast(best_position(dense, text, scale[0]), owner),
        contrast(best_position(local[:half], some, scale[1]), owner[true]),
    ]


def train(rank: int, args: argparse.Namespace, paths: list[str], rendezvous: str) -> None:
    """Train in one of the processes; the first one prints, evaluates and saves."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=args.processes
    )
    torch.manual_seed(args.seed)
    model, tokenizer = build(args.out)
    if args.init:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(args.init), strict=False)
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
        for kind, name in enumerate(('appearance', 'location', 'relation')):
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
