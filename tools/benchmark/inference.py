"""How much is gained by giving a network all expressions of an image at once.

    python tools/benchmark/inference.py configs/cris/cris_r101_8xb8-50e_refcoco-416x416.py

A network that does not mix text into its backbone encodes the image once for all of them. Weights
do not matter here and are random. Prints seconds an image and the ratio, alternating the two ways
so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nemo_mmseg.apis import find_config  # noqa: E402

EXPRESSIONS = [
    'the woman in green on the right',
    'left man',
    'the dog that lies on the sofa',
    'a red umbrella behind the two children',
    'blue',
    'the second bowl from the left',
    'person with a hat, far back',
]


def parse_args() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='file, or name of a config')
    parser.add_argument('--size', type=int, nargs=2, default=(416, 416), help='of the input')
    parser.add_argument('--expressions', type=int, default=7, help='of an image (default 7)')
    parser.add_argument('--repeats', type=int, default=5, help='images to time (default 5)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='as in tools/train.py')
    return parser.parse_args()


def main() -> None:
    """Build the network and time it."""
    args = parse_args()
    init_default_scope('mmseg')
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).eval()
    height, width = args.size
    image = torch.randn(1, 3, height, width, device=device)
    texts = [EXPRESSIONS[i % len(EXPRESSIONS)] for i in range(args.expressions)]
    meta = dict(
        ori_shape=(height, width),
        img_shape=(height, width),
        warp_matrix=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    )

    def run(several: list[str]) -> list[SegDataSample]:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=args.amp):
            return model.predict(image, [SegDataSample(metainfo=dict(expressions=several, **meta))])

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    ways = {'together': lambda: run(texts), 'one by one': lambda: [run([text]) for text in texts]}
    for work in ways.values():
        seconds(work)
    times = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, work in ways.items():
            times[name].append(seconds(work))
    middle = {name: median(several) for name, several in times.items()}
    for name, value in middle.items():
        print(f'{name:<11} {value:.3f} s an image of {len(texts)} expressions')
    print(f'ratio       {middle["one by one"] / middle["together"]:.2f}')


if __name__ == '__main__':
    main()
