"""How much is gained by giving a network all expressions of an image at once.

    python benchmarks/inference.py configs/cris/cris_r101_8xb8-50e_refcoco-416x416.py

A network that does not mix text into its backbone encodes the image once for all of them. Weights
do not matter here and are random. Prints seconds an image and the ratio, alternating the two ways
so that a noisy machine is noisy for both, and what counting intersections and unions adds. Seconds
are those of the process on a CPU (OMP_NUM_THREADS=1 makes them comparable), of the clock on a GPU.
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
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nemo_mmseg.evaluation.referring_iou import ReferringIoU  # noqa: E402
from nemo_mmseg.utils.config import find_config  # noqa: E402

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
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='file, or name of a config')
    parser.add_argument('--size', type=int, nargs=2, default=(416, 416), help='of the input')
    parser.add_argument(
        '--original', type=int, nargs=2, default=(480, 640), help='size of the image and its masks'
    )
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
    original = args.original[0], args.original[1]
    scale = min(height / original[0], width / original[1])
    meta = dict(
        ori_shape=original,
        img_shape=(height, width),
        warp_matrix=[[scale, 0.0, 0.0], [0.0, scale, (height - scale * original[0]) / 2]],
    )
    gt = torch.zeros(len(texts), *original, dtype=torch.uint8, device=device)
    gt[:, original[0] // 3 :, : original[1] // 2] = 1
    metric = ReferringIoU()

    def run(first: int, last: int) -> list[SegDataSample]:
        sample = SegDataSample(metainfo=dict(expressions=texts[first:last], **meta))
        sample.set_data({'gt_sem_seg': PixelData(data=gt[first:last])})
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=args.amp):
            return model.predict(image, [sample])

    found = run(0, len(texts))
    ways = {
        'together': lambda: run(0, len(texts)),
        'one by one': lambda: [run(i, i + 1) for i in range(len(texts))],
        'metric': lambda: metric.process(None, [sample.to_dict() for sample in found]),
    }
    clock = time.perf_counter if device == 'cuda' else time.process_time

    def seconds(work) -> float:
        if device == 'cuda':
            torch.cuda.synchronize()
        start = clock()
        work()
        if device == 'cuda':
            torch.cuda.synchronize()
        return clock() - start

    for work in ways.values():
        seconds(work)
    times = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, work in ways.items():
            times[name].append(seconds(work))
    middle = {name: median(several) for name, several in times.items()}
    for name, value in middle.items():
        print(f'{name:<11} {value:.4f} s an image of {len(texts)} expressions')
    print(f'ratio       {middle["one by one"] / middle["together"]:.2f}')
    print(f'metric adds {100 * middle["metric"] / middle["together"]:.2f} %')


if __name__ == '__main__':
    main()
