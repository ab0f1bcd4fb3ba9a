"""Compare our networks with what the published implementations returned for the same weights.

    python tests/parity/check_parity.py ../shared/parity/cris_r50 ../shared/parity/lavt_swin_t

A case folder holds what the published code returned (case.npz) and, of a network, the published
names (names.json); beside it is the rule that draws the weights (fill.py). The weights go through
`convert_checkpoint` and are loaded strictly. Prints one line per comparison; exit code 1 if any is
beyond its tolerance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from parity import METHODS, write_small
from parity.common import Comparison


def run(check: Callable[[Path], Iterator[Comparison]], folder: Path, verbose: bool) -> int:
    """Print the comparisons of a check, of the intermediate ones the worst; how many failed."""
    start, failed, middle = time.perf_counter(), 0, []
    for one in check(folder):
        failed += not one.holds
        if one.middle:
            middle.append(one)
        if verbose or not one.holds or not one.middle:
            print(f'    {one}', flush=True)
    if middle and not verbose:
        worst = max(middle, key=lambda one: one.difference / one.tolerance)
        print(f'    {len(middle)} intermediate results, the worst is:\n    {worst}')
    print(f'    {time.perf_counter() - start:.0f} s')
    return failed


def main() -> int:
    """Run the cases given on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folders', nargs='+', type=Path, help='case folders')
    parser.add_argument('--verbose', action='store_true', help='also print what agrees')
    names = {name for method in METHODS.values() for name in method.CHECKS}
    parser.add_argument('--only', choices=sorted(names), help='just this check')
    parser.add_argument(
        '--small',
        type=Path,
        metavar='FOLDER',
        help='compare nothing, but write the small copies of the cases that the tests keep',
    )
    args = parser.parse_args()
    folders = [folder.resolve() for folder in args.folders]
    method_of = {case: method for method in METHODS.values() for case in method.CASES}
    for folder in folders:
        if folder.name not in method_of:
            parser.error(f'{folder}: no check for this case; known: {sorted(method_of)}')
        if not any(folder.glob('*.npz')):
            parser.error(f'{folder}: no such folder, or there are no values in it')
    failed = made = 0
    for folder in folders:
        method = method_of[folder.name]
        if args.small:
            size = write_small(method, folder, args.small / folder.name)
            print(f'{args.small / folder.name}: {size / 1024:.0f} KiB')
            continue
        for name, check in method.CHECKS.items():
            if args.only in (None, name):
                print(f'{folder.name}, {name}', flush=True)
                failed += run(check, folder, args.verbose)
                made += 1
    if not args.small:
        if not made:
            parser.error(f'these cases have no check {args.only!r}')
        print(f'{failed} comparisons failed' if failed else 'all comparisons agree')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
