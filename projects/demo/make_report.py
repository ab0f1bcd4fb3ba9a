"""Write the page about a run with NeMo: `python projects/demo/make_report.py CONFIG WORK_DIR`.

WORK_DIR is that of the training; `tools/test.py --out WORK_DIR --splits ...` wrote the results into
it. For RefShapes, whose scene graphs are known, it prints what they say of the mosaics.
"""

import argparse
import os
import sys
from pathlib import Path

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tools' / 'analysis_tools')]
from refshapes_truth.mosaic_truth import mosaic_truth  # noqa: E402
from report import write_report  # noqa: E402

import nemo_mmseg  # noqa: F401, E402
from nemo_mmseg.mining.requirements import wanted_banks  # noqa: E402
from nemo_mmseg.utils.config import add_config_arguments, load_config  # noqa: E402


def main() -> None:
    """Write the page and print where it lies."""
    parser = argparse.ArgumentParser(description='Write the report page of a run with NeMo')
    add_config_arguments(parser)
    parser.add_argument('work_dir', help='folder of the run')
    parser.add_argument('--splits', nargs='+', default=['val', 'testA', 'testB'])
    args = parser.parse_args()
    cfg = load_config(args)
    print(f'page: {write_report(cfg, args.work_dir, args.splits)}')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    scenes = os.path.join(os.path.dirname(getattr(dataset, 'split_file', '')), 'scenes.json')
    if os.path.isfile(scenes):
        for wanted in wanted_banks(dataset):
            truth = mosaic_truth(dataset, wanted.mosaic)
            print('mosaics by the scene graphs:')
            print('\n'.join(f'  {name}: {value:.4g}' for name, value in truth.items()))


if __name__ == '__main__':
    main()
