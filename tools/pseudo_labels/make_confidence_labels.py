"""Label what response maps leave no doubt about: ``make_confidence_labels.py CONFIG MAPS OUT``.

MAPS was made by ``make_response_maps.py CONFIG ...``. OUT trains the affinity network
(``configs/tris/tris-irn_*``, ``label_file``).
"""

import argparse
import sys

from mmengine.registry import init_default_scope

import nemo_mmseg  # noqa: F401  (registers our classes)
from nemo_mmseg.pseudo_labels.confidence import ConfidenceSettings
from nemo_mmseg.pseudo_labels.make import data_set_of, make_confidence_labels
from nemo_mmseg.pseudo_labels.response_maps import ResponseMaps
from nemo_mmseg.utils.config import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    defaults = ConfidenceSettings()
    parser = argparse.ArgumentParser(
        description='Label what response maps leave no doubt about',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument('maps', help='response maps of its data set')
    parser.add_argument('out', help='JSON file to write')
    parser.add_argument(
        '--foreground', type=float, default=defaults.foreground, help='above it, surely the object'
    )
    parser.add_argument(
        '--background', type=float, default=defaults.background, help='up to it, surely not'
    )
    parser.add_argument(
        '--crf-library',
        choices=('own', 'pydensecrf'),
        default='own',
        help='what computes the dense CRF; both give the same labels',
    )
    parser.add_argument('--workers', type=int, default=0, help='processes; 0: this one')
    return parser.parse_args()


def main() -> int:
    """Label; an error is one line and exit code 1."""
    args = parse_args()
    init_default_scope('mmseg')
    try:
        settings = ConfidenceSettings(args.foreground, args.background, library=args.crf_library)
        maps = ResponseMaps(args.maps)
        dataset = data_set_of(load_config(args), maps.metadata['split'])
        maps.check(dataset)
        print(make_confidence_labels(dataset, maps, args.out, settings, args.workers))
    except (ImportError, OSError, ValueError) as error:
        print(f'make_confidence_labels: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
