"""Export a network to ONNX: ``export_onnx.py CONFIG CHECKPOINT --out FOLDER``.

The folder gets the graphs, the tokenizer and a runtime that needs neither PyTorch nor OpenMMLab.
What is printed are the differences between onnxruntime and PyTorch. See docs/deployment.md.
"""

import argparse
import sys

from mmengine.config import DictAction

import nemo_mmseg  # noqa: F401  (registers our classes)
from nemo_mmseg.apis.inference import init_model
from nemo_mmseg.deployment.export import Exported, check_export_packages, export_onnx


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Export a network to ONNX and check it')
    parser.add_argument('config', help='config, name of one of ours, or folder of publish_model.py')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint (default: of the folder, or untrained)'
    )
    parser.add_argument('--out', required=True, help='folder to write')
    parser.add_argument(
        '--torch-export', action='store_true', help='write each graph for torch.export, too (*.pt2)'
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-3,
        help='largest difference of logits, as a share of the largest (default: %(default)s)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides, KEY=VALUE')
    return parser.parse_args()


def print_report(exported: Exported) -> None:
    """Say what was written and how far it is from PyTorch."""
    print('\n'.join(exported.differences.lines()))
    if exported.fixed_because:
        print(f'one expression a call: their number cannot be left open ({exported.fixed_because})')
    print(f'{exported.folder}: image.onnx, expressions.onnx')


def main() -> int:
    """Export; an error is one line and exit code 1."""
    args = parse_args()
    try:
        check_export_packages()
        model = init_model(args.config, args.checkpoint, 'cpu', args.cfg_options)
        print_report(export_onnx(model, args.out, args.torch_export, args.tolerance))
    except (ImportError, OSError, ValueError) as error:
        print(f'export_onnx: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
