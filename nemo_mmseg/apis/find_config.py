"""Finds a config of this package by its name."""

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def find_config(name: str) -> str:
    """Path of a config.

    MMEngine's own lookup by name (`hub`, `mmseg::...`) is closed to plugins, hence this one.

    Args:
        name: Path of a config file, or the name of one of this package's configs with or without
            `.py`, e.g. `'cris_r50_8xb8-50e_refcoco-416x416'`. The configs of an installed package
            (`nemo_mmseg/.mim/configs`) are looked through, then those of a checkout (`configs`).

    Returns:
        Path of an existing file.

    Raises:
        FileNotFoundError: If there is none; names the nearest ones.
    """
    if Path(name).is_file():
        return str(name)
    stem = Path(name).name.removesuffix('.py')
    known: dict[str, Path] = {}
    for root in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        for path in sorted(root.rglob('*.py')):
            if '_base_' not in path.parts:
                known.setdefault(path.stem, path)
    if stem == name.removesuffix('.py') and stem in known:
        return str(known[stem])
    near = difflib.get_close_matches(stem, known, n=3, cutoff=0.4)
    hint = f'near it: {", ".join(near)}' if near else f'there are {len(known)} configs by name'
    raise FileNotFoundError(f'{name} is neither a config file nor a name of a config; {hint}')
