"""Say which files a config reads, and where the missing ones come from.

``python tools/misc/print_data_help.py CONFIG``. Nothing is read or downloaded. The exit code is 1
if a file is missing. Banks and tile stores are not listed: ``NegativeMiningHook`` makes them.
``tools/misc/check_data.py`` looks into the files.
"""

import argparse
import sys
from collections.abc import Iterable

from mmengine.config import Config
from mmengine.registry import init_default_scope

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.datasets.sources import NeededFile, files_of, weights_of
from nemo_mmseg.utils.config import add_config_arguments, load_config, loaded_datasets


def needed_files(cfg: Config) -> dict[NeededFile, list[str]]:
    """Return what the data loaders of a config read, each with the loaders that do; and weights."""
    found: dict[NeededFile, list[str]] = {}
    for loader, leaf in loaded_datasets(cfg):
        for file in files_of(leaf):
            loaders = found.setdefault(file, [])
            loaders += [] if loader in loaders else [loader]
    for file in weights_of(cfg):
        found[file] = ['model']
    return found


def describe(files: dict[NeededFile, Iterable[str]]) -> str:
    """Return the help as text: what is there, then what is missing."""
    lines = []
    for file in sorted(files, key=lambda file: (not file.present, file.path)):
        size = '' if file.size is None else f', {file.size / 1e6:.1f} MB'
        lines.append(f'{"there" if file.present else "MISSING"}: {file.path}{size}')
        if not file.present:
            lines.append(f'  read by: {", ".join(files[file])}')
            lines += _source(file)
    missing = sum(not file.present for file in files)
    lines.append(f'{len(files)} files and folders, {missing} missing')
    return '\n'.join(lines)


def _source(file: NeededFile) -> list[str]:
    source = file.source
    if source is None:
        return ['  from: not known; docs/own_data.md tells how to make data of your own']
    lines = [f'  from: {source.where}', f'  size: {source.size or "not known"}']
    return [*lines, f'  then: {source.note}'] if source.note else lines


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Say where the data of a config comes from')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> int:
    """Print the help, and say by the exit code whether all is there."""
    cfg = load_config(parse_args())
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    files = needed_files(cfg)
    print(describe(files))
    return int(not files or any(not file.present for file in files))


if __name__ == '__main__':
    sys.exit(main())
