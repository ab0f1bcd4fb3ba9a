"""Look at all data that a config reads: `python tools/check_data.py CONFIG`.

Opens every image, compares its size with the annotated one, decodes every mask, lists each fault
with file and id, prints counts, and ends with exit code 1 if anything is wrong.
"""

import argparse
import sys

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.check_data import LOADERS, check_data, format_reports
from nemo_mmseg.utils.tool import add_config_arguments, load_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Check the data sets of a config')
    add_config_arguments(parser)
    parser.add_argument(
        '--split', nargs='+', choices=LOADERS, default=LOADERS, help='data loaders (default: all)'
    )
    parser.add_argument(
        '--fast', action='store_true', help='only look whether the files are there, decode nothing'
    )
    parser.add_argument('--workers', type=int, default=4, help='threads that decode (default: 4)')
    return parser.parse_args()


def main() -> int:
    """Check, print, and say by the exit code whether all is well."""
    args = parse_args()
    reports = check_data(load_config(args), args.split, not args.fast, args.workers)
    print(format_reports(reports))
    return int(any(report.faults for report in reports))


if __name__ == '__main__':
    sys.exit(main())
