"""Measure mining at the size of RefCOCO's training set, on random vectors, pictures and texts.

    python benchmarks/mining.py search            # CPU time against the matrix product
    python benchmarks/mining.py search --device cuda
    python benchmarks/mining.py expressions       # of images, against that of images of expressions
    python benchmarks/mining.py peak              # its memory
    python benchmarks/mining.py run               # embedding, and a whole run, against the image
                                                  # encoder alone
    python benchmarks/mining.py scale             # growth towards a million images

Variants run in turns, on one thread, and ratios are those of medians of CPU time (of time on a
GPU). Peaks are those of Linux.
"""

import argparse
import itertools
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from memory import Peak
from PIL import Image

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.mining.embed import (
    BLOCK_SIZE,
    blocks_of,
    distinct_texts,
    embed_images,
    embed_texts,
)
from nemo_mmseg.mining.mine import mine_bank
from nemo_mmseg.mining.search import search, search_expressions
from nemo_mmseg.mining.vectors import VectorStore
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankSpec, NegativeBank
from nemo_mmseg.negatives.pool import ImagePool
from nemo_mmseg.utils.clip import load_clip
from nemo_mmseg.utils.images import read_image

EXPRESSIONS, IMAGES, DIM = 120_624, 16_994, 512


def unit(count: int, kinds: int = 0) -> np.ndarray:
    """Draw unit vectors ``(count, DIM)``, around as many centres as there are kinds (0: none)."""
    vectors = torch.randn(count, DIM)
    if kinds:
        centres = torch.randn(kinds, DIM, generator=torch.Generator().manual_seed(1))
        vectors = centres[torch.randint(kinds, (count,))] + 0.7 * vectors
    return torch.nn.functional.normalize(vectors).numpy()


def in_blocks(texts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the texts in blocks, as a store gives them."""
    return (texts[block] for block in blocks_of(len(texts)))


def seconds(call: Callable, device: str = 'cpu') -> float:
    """Measure the CPU time of a call, its workers' included; on a GPU the time it takes."""

    def now() -> float:
        if device != 'cpu':
            torch.cuda.synchronize()
            return time.perf_counter()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    started = now()
    call()
    return now() - started


def in_turns(variants: dict[str, Callable], turns: int, device: str = 'cpu') -> dict[str, float]:
    """Return median seconds of each variant."""
    times = {name: [] for name in variants}
    for _ in range(turns):
        for name, call in variants.items():
            times[name].append(seconds(call, device))
    return {name: statistics.median(values) for name, values in times.items()}


def measure_search(expressions: int, pool: int, device: str) -> None:
    """Print time against the matrix product, for vectors at random and in kinds."""
    turns = 10
    part = expressions // turns
    for kinds in (0, 50):
        images, texts = unit(pool, kinds), unit(part, kinds)
        table = torch.from_numpy(images).to(device)
        own = np.random.default_rng(0).integers(0, pool, part)

        def product(texts: np.ndarray = texts, table: torch.Tensor = table) -> None:
            for block in in_blocks(texts):
                torch.from_numpy(block).to(device) @ table.T

        def find(keep: int, texts=texts, own=own, images=images) -> None:
            for _ in search(in_blocks(texts), np.arange(part), own, images, keep, device):
                pass

        variants = {'product': product} | {
            f'keep={keep}': lambda keep=keep, find=find: find(keep) for keep in (300, 1000, 5000)
        }
        product()
        times = in_turns(variants, turns, device)
        ratios = [f'{name} {times[name] / times["product"]:.2f}' for name in list(variants)[1:]]
        print(
            f'search of {part * turns} texts in {pool} images ({kinds or "no"} kinds, {device}), '
            f'/ the matrix product: {", ".join(ratios)} '
            f'(product {1e6 * times["product"] / part:.0f} us a text)',
            flush=True,
        )


def measure_expressions(images: int, turns: int, keep: int) -> None:
    """Print the CPU time of searching expressions for images against that of images for them.

    Once for as many expressions as images, where the time per item can be compared, and once for a
    whole data set with as many expressions per image as RefCOCO's. An image excludes seven of them.
    """
    for texts in (images, images * EXPRESSIONS // IMAGES):
        pictures, sentences = unit(images), unit(texts)
        own = np.random.default_rng(0).integers(0, images, texts)
        excluded = [np.arange(row, row + 7) % texts for row in range(images)]

        def of_expressions(sentences=sentences, own=own, pictures=pictures, texts=texts) -> None:
            for _ in search(in_blocks(sentences), np.arange(texts), own, pictures, keep):
                pass

        def of_images(sentences=sentences, pictures=pictures, texts=texts, said=excluded) -> None:
            blocks = in_blocks(pictures)
            for _ in search_expressions(blocks, sentences, texts, said, keep):
                pass

        times = in_turns({'images': of_expressions, 'expressions': of_images}, turns)
        ratio = times['expressions'] / times['images']
        print(
            f'{images} images, {texts} expressions, keep={keep}: expressions for all images / '
            f'images for all expressions {ratio:.2f} '
            f'(an image {1e6 * times["expressions"] / images:.0f} us, '
            f'an expression {1e6 * times["images"] / texts:.0f} us)',
            flush=True,
        )


def measure_peak(expressions: int, pool: int, keep: int) -> None:
    """Print the peak of a search over the images' vectors."""
    images, rng = unit(pool), np.random.default_rng(0)
    blocks = (unit(len(block)) for block in blocks_of(expressions))
    ids, own = np.arange(expressions), rng.integers(0, pool, expressions)
    with Peak() as peak:
        for _ in search(blocks, ids, own, images, keep):
            pass
    print(
        f'{expressions} texts, {pool} images, keep={keep}: peak {peak.mb:.0f} MB over the vectors',
        flush=True,
    )


def pictures(folder: str, count: int, distinct: int = 24) -> ImagePool:
    """Make a pool that shows some pictures again and again, in files that differ."""
    from photo_like import jpeg, picture

    made, names = [], [f'{row:06d}.jpg' for row in range(count)]
    for row, name in enumerate(names):
        if row < distinct:
            rng = np.random.default_rng(row)
            made.append(jpeg(picture(rng), rng))
        with open(os.path.join(folder, name), 'wb') as file:
            # What follows a JPEG's end is not decoded, but makes another file of it.
            file.write(made[row % distinct] + row.to_bytes(4, 'little'))
    return ImagePool(folder, np.arange(count), names, '0')


def refcoco_like(count: int) -> list[str]:
    """Make distinct texts of 1 to some 20 words, with a long tail as RefCOCO's.

    They are drawn with 3.6 words on average, as RefCOCO's have. Short ones repeat and count once,
    so those that are returned are longer: 4.4 words where there are 3,634.
    """
    words = (
        'a the man woman left right red blue shirt guy girl dog top white black middle second '
        'person in of with chair front back bottom green standing hat table boy'
    ).split()
    rng, texts = np.random.default_rng(0), set()
    while len(texts) < count:
        texts.add(' '.join(rng.choice(words, 1 + rng.negative_binomial(2.2, 0.458))))
    return sorted(texts)


def measure_run(images: int, turns: int, model: str) -> None:
    """Print the CPU time of embedding images and as many texts per image as RefCOCO has.

    It is compared with the image encoder alone, in batches that are in memory. So is that of a
    whole run as users start it: with weights to load and their digest, the cache, search and bank.
    """
    texts = images * EXPRESSIONS // IMAGES
    sentences, _ = distinct_texts(refcoco_like(texts))
    lengths = [len(text.split()) for text in sentences]
    print(f'{texts} texts of {np.mean(lengths):.2f} words, at most {max(lengths)}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, 'weights.pt')
        torch.save(load_clip(model).state_dict(), weights)
        embedder = ClipEmbedder(model, weights)
        pool = pictures(folder, images)
        data = SimpleNamespace(
            pool=pool,
            metainfo=dict(dataset_name='random'),
            split='train',
            expressions=lambda: (np.arange(texts), sentences, np.arange(texts) * images // texts),
        )
        image = embedder.preprocess(Image.fromarray(read_image(pool.path(0))[..., ::-1]))
        batch, turn = torch.stack([image] * 64), itertools.count()

        def store() -> VectorStore:
            return VectorStore(f'{next(turn)}', Path(folder))

        def encoder() -> None:
            with torch.inference_mode():
                for _ in range(images // 64):
                    embedder.clip.encode_image(batch)

        def whole_contexts() -> None:  # open_clip's own way, of 64 texts
            with torch.inference_mode():
                embedder.clip.encode_text(embedder.tokenizer(sentences[:64]))

        times = in_turns(
            {
                'encoder': encoder,
                'images': lambda: embed_images(embedder, pool, blocks_of(images), store()),
                'texts': lambda: embed_texts(embedder, sentences, blocks_of(texts), store()),
                'whole contexts': whole_contexts,
            },
            turns,
        )
        spec = BankSpec(os.path.join(folder, 'bank.safetensors'), model, weights)
        cache = os.path.join(folder, 'cache')
        whole = seconds(lambda: mine_bank(data, spec, progress=False, cache=cache))
    alone, text = times['encoder'], times['texts'] / texts
    parts = {name: times[name] / alone for name in ('images', 'texts')}
    print(
        f'{images} images and {texts} texts embedded / the batched image encoder alone: '
        f'{sum(parts.values()):.2f} ('
        + ', '.join(f'{name} {ratio:.2f}' for name, ratio in parts.items())
        + f'); texts by open_clip in batches {times["whole contexts"] / 64 / text:.1f} x as long; '
        f'encoder {1e3 * alone / images:.0f} ms an image, texts {1e3 * text:.1f} ms each\n'
        f'mine_bank on the same, once, with an empty cache / the batched image encoder alone: '
        f'{whole / alone:.2f}',
        flush=True,
    )


def measure_scale(images: int, count: int, keep: int, folder: str | None) -> None:
    """Print time and memory of a search, and of writing and reading its bank."""
    rng, vectors = np.random.default_rng(0), unit(images)
    blocks = (unit(len(block)) for block in blocks_of(count))
    table, block = torch.from_numpy(vectors), torch.from_numpy(unit(BLOCK_SIZE))
    product = statistics.median(seconds(lambda: block @ table.T) for _ in range(5)) / BLOCK_SIZE
    making = seconds(lambda: unit(BLOCK_SIZE)) / BLOCK_SIZE
    own, names = rng.integers(0, images, count), [f'{i:012d}.jpg' for i in range(images)]
    ids = np.arange(count)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = os.path.join(made, 'bank.safetensors')

        def mine() -> None:
            with BankWriter(
                path, ids, own, np.arange(images), names, vectors, keep, dict(fingerprint='0')
            ) as writer:
                for found in search(blocks, ids, own, vectors, keep):
                    writer.write(*found)

        with Peak() as mining:
            spent = seconds(mine) - making * count
        size, some = os.path.getsize(path), rng.integers(0, count, 2000).tolist()
        with Peak() as reading:
            bank, rule = NegativeBank(path), BandRule(0.95)
            started = time.perf_counter()
            bank.row(0)
            opened = time.perf_counter() - started
            band = seconds(lambda: [bank.band(sent_id, rule) for sent_id in some]) / len(some)
    print(
        f'{images} images ({vectors.nbytes / 1e6:.0f} MB), {count} texts, keep={keep}: '
        f'{spent:.0f} s of CPU, {spent / count / product:.2f} x the product, '
        f'peak {mining.mb:.0f} MB over the vectors; bank of {size / 1e6:.0f} MB '
        f'opened in {1e3 * opened:.1f} ms, a band in {1e6 * band:.0f} us, '
        f'2000 of them {reading.mb:.0f} MB',
        flush=True,
    )


def measure_texts(count: int) -> None:
    """Print what telling distinct texts apart costs."""
    texts = [f'the {i % (count // 2)} th one on the left' for i in range(count)]
    with Peak() as peak:
        spent = seconds(lambda: distinct_texts(texts))
    print(f'{count} expressions told apart: {spent:.1f} s, {peak.mb:.0f} MB', flush=True)


_OPTIONS = {
    '--device': dict(default='cpu', help='of the search'),
    '--expressions': dict(type=int, default=20_000, help='to search for'),
    '--images': dict(type=int, nargs='+', help='sizes of the pool'),
    '--keep': dict(type=int, nargs='+', default=[300], help='images found per expression'),
    '--texts': dict(type=int, default=10, help='per image'),
    '--turns': dict(type=int, default=1, help='of which the median counts'),
    '--model': dict(default='ViT-B-32', help='of open_clip'),
    '--folder': dict(help='where the bank is written; default: the temporary one'),
}
# What each part is told, and the sizes of its pool.
_PARTS = {
    'search': (('--device', '--expressions', '--images'), [IMAGES]),
    'expressions': (('--images', '--turns', '--keep'), [IMAGES]),
    'peak': (('--expressions', '--images', '--keep'), [IMAGES]),
    'run': (('--images', '--turns', '--model'), [512]),
    'scale': (('--images', '--texts', '--keep', '--folder'), [12_500, 25_000, 50_000]),
    'texts': (('--expressions',), []),
}


def read_arguments() -> argparse.Namespace:
    """Read the part to run, with the options that it has; others are refused."""
    parser = argparse.ArgumentParser(description='Measure mining')
    parts = parser.add_subparsers(dest='what', required=True)
    for name, (options, images) in _PARTS.items():
        part = parts.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for option in options:
            part.add_argument(option, **_OPTIONS[option])
        part.set_defaults(images=images)
    args = parser.parse_args()
    if args.what == 'run' and any(count % 64 for count in args.images):
        parser.error('--images: multiples of 64, the size of a batch')
    return args


def main() -> None:
    """Run one kind of measurement."""
    args = read_arguments()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for count in args.images:
        if args.what == 'search':
            measure_search(args.expressions, count, args.device)
        elif args.what == 'expressions':
            for keep in args.keep:
                measure_expressions(count, args.turns, keep)
        elif args.what == 'run':
            measure_run(count, args.turns, args.model)
        elif args.what == 'peak':
            for keep in args.keep:
                for texts in (args.expressions // 10, args.expressions):
                    measure_peak(texts, count, keep)
        else:
            for keep in args.keep:
                measure_scale(count, args.texts * count, keep, args.folder)
    if args.what == 'texts':
        measure_texts(args.expressions)


if __name__ == '__main__':
    main()
