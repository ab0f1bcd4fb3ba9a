"""A page for pictures and mosaics: ``python tools/demo_app.py CONFIG CHECKPOINT``.

``--refshapes`` needs no file: it shows the small network of the package on drawn scenes, and makes
and mines these scenes on the first start. What is computed is in ``nemo_mmseg.webdemo``, the page
in ``demo_page.py`` beside this file. It needs the extra ``demo``.
"""

import argparse
import sys
from typing import Any

from mmengine.config import DictAction

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.inference import ReferringInferencer, read_config
from nemo_mmseg.negatives.ranked_file import BankError
from nemo_mmseg.negatives.tile_store import TileStoreError
from nemo_mmseg.webdemo import (
    ABOUT_SMALL_NETWORK,
    MosaicBrowser,
    PictureSegmenter,
    small_refshapes,
    small_refshapes_configs,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Try a network and browse mosaics in a browser')
    parser.add_argument('config', nargs='?', help='config, name of one of ours, or hub folder')
    parser.add_argument('checkpoint', nargs='?', help='weights (default: those of a hub folder)')
    parser.add_argument(
        '--refshapes', action='store_true', help='the small network of the package, on RefShapes'
    )
    parser.add_argument(
        '--data',
        default='work_dirs/demo_app/refshapes',
        help='folder of RefShapes for --refshapes, made if missing (default: %(default)s)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--device', help='e.g. cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 lets other machines in')
    parser.add_argument('--port', type=int, default=7860)
    args = parser.parse_args()
    if args.refshapes == (args.config is not None):
        parser.error('give either a config or --refshapes')
    if args.refshapes and args.cfg_options:
        parser.error('--cfg-options changes a config: it does nothing with --refshapes')
    return args


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Load the network and the data.

    Returns:
        The arguments of ``demo_page.build_page``.

    Raises:
        OSError, ValueError: Config or checkpoint are missing or faulty.
        BankError: The bank of ``--refshapes`` was made of other data.
    """
    about, examples = '', []
    if args.refshapes:
        print(f'RefShapes and its bank: {args.data} (made on the first start)', flush=True)
        examples = [list(pair) for pair in small_refshapes(args.data)]
        cfg, mosaics = small_refshapes_configs(args.data)
        weights, about = None, ABOUT_SMALL_NETWORK
    else:
        cfg, weights = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        mosaics, weights = cfg, args.checkpoint or weights
    inferencer = ReferringInferencer(cfg, weights, args.device)
    if weights is None and not getattr(inferencer.model, 'training_free', False):
        raise ValueError(f'{type(inferencer.model).__name__} needs a checkpoint')
    try:
        browser = MosaicBrowser(mosaics)
    except (BankError, ImportError, OSError, TileStoreError, ValueError) as error:
        browser = f'There is nothing to browse: {error}'
    segment = PictureSegmenter(inferencer)
    return dict(segment=segment, browser=browser, about=about, examples=examples)


def main() -> int:
    """Serve the page until it is interrupted; an error before is one line and exit code 1."""
    args = parse_args()
    try:
        from demo_page import build_page, serve  # after the command line: gradio takes seconds
    except ImportError as error:
        print(
            f'demo_app: {error}; the demo needs: pip install "nemo-mmsegmentation[demo]"',
            file=sys.stderr,
        )
        return 1
    try:
        serve(build_page(**prepare(args)), args.host, args.port)
    except (BankError, ImportError, OSError, ValueError) as error:
        print(f'demo_app: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
