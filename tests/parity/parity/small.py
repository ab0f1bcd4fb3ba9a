"""Small copies of cases, for the tests of this project.

Results are cut down to what the comparisons need: of a large tensor, its statistics and 512 of its
values. Weights and images are drawn by :mod:`.filling`, whose rule is compared with the case's.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from nemo_mmseg.utils.atomic_write import atomic_write, write_bytes

from . import filling
from .common import Case, summarize


@dataclass(frozen=True)
class Small:
    """What is kept of the files of a case.

    Args:
        names: File of values -> file of the names that its weights have; None if it has none.
        summarized: Keys of which a summary is kept.
        dropped: Keys that are left out, or patterns of them.
        first: Keys of which the first row is kept.
    """

    names: Mapping[str, str | None]
    summarized: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    first: tuple[str, ...] = ()


def write_small(method: ModuleType, folder: Path, target: Path) -> int:
    """Write the small copy of a case.

    Args:
        method: Module with ``SMALL``.
        folder: The case.
        target: Folder to write; made if it is not there.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: The rule of this package draws other weights than the case's.
    """
    target.mkdir(parents=True, exist_ok=True)
    rules: Small = method.SMALL
    for values, names in rules.names.items():
        case = Case(folder, values, names)
        if names is not None:
            check_rule(case)
        kept = {}
        for key in case.keys():
            if key in rules.summarized:
                summary = summarize(torch.from_numpy(case[key]))
                kept.update({f'{key}/{part}': np.asarray(x) for part, x in summary.items()})
            elif key in rules.first:
                kept[key] = case[key][:1]
            elif not any(fnmatchcase(key, pattern) for pattern in rules.dropped):
                kept[key] = case[key]
        with atomic_write(target / values) as part, part.open('wb') as file:
            np.savez_compressed(file, **kept)
        if names is not None:
            packed = gzip.compress((folder / names).read_bytes(), mtime=0)
            packed_names = target / f'{Path(names).name}.gz'
            write_bytes(packed_names, packed)
    return sum(path.stat().st_size for path in target.iterdir())


def check_rule(case: Case) -> None:
    """Raise an error if :mod:`.filling` is not the rule of a case."""
    theirs = case.fill
    names = {
        'a.weight': (3, 5, 2, 2),
        'b.weight': (7,),
        'b.bias': (7,),
        'c.running_var': (9,),
        'd': (),
    }
    empty = {name: torch.zeros(shape) for name, shape in names.items()}
    empty['e'] = torch.arange(3)
    for seed in (0, int(case['seed'])):
        drawn = theirs.fill_state_dict(empty, seed=seed), filling.fill_state_dict(empty, seed=seed)
        images = [module.make_image(2, 30, 41, seed) for module in (theirs, filling)]
        for ours, other in (*((drawn[0][name], drawn[1][name]) for name in empty), images):
            if not torch.equal(ours.reshape(-1), other.reshape(-1)):
                raise ValueError(f'{case.folder.parent / "fill.py"} draws by another rule')
