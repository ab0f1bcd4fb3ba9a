"""Stages of a long computation: one that is finished, with the same inputs, is not run again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .atomic_write import remove_leftovers, write_text
from .digests import digest_of_file
from .fileio import load_json


def run_stage(
    folder: str | os.PathLike,
    inputs: Mapping[str, str],
    work: Callable[[], object],
    output: Callable[[], Path],
) -> float:
    """Run a stage, or pass over it.

    ``stage.json`` in its folder says what its inputs were, and, once it is finished, how long it
    took. A stage that was killed is called again in the same folder, and may continue what it finds
    there. Where an input has changed, the folder is moved to ``<folder>.old``, and the stage begins
    anew.

    Args:
        folder: Folder of the stage, which nothing else writes to.
        inputs: What the result depends on, by name: digests, settings.
        work: Does the work.
        output: Returns the file that the work ends with.

    Returns:
        Seconds that the stage took, this time or when it was run.

    Raises:
        ValueError: The folder holds files, but not of a stage; or the output is not what the stage
            wrote.
        FileNotFoundError: There is no output when the work ends.
    """
    folder = Path(folder)
    file, inputs = folder / 'stage.json', dict(inputs)
    known = load_json(file) if file.is_file() else None
    if known is None and folder.exists():
        remove_leftovers(folder)  # of one that was killed while it wrote its first file
    if known is None and folder.exists() and any(folder.iterdir()):
        raise ValueError(f'{folder} holds files of something else: name another folder')
    if known is not None and known['inputs'] != inputs:
        names = inputs.keys() | known['inputs'].keys()
        changed = sorted(n for n in names if inputs.get(n) != known['inputs'].get(n))
        old = folder.with_name(f'{folder.name}.old')
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        known = None
        print(f'== {folder.name}: changed: {", ".join(changed)}; what there was is in {old}')
    elif known is not None and 'output' in known:
        path = folder / known['output']
        if path.is_file():
            if digest_of_file(path) != known['sha256']:
                raise ValueError(
                    f'{path} is not what stage {folder.name} wrote. To make it again, delete it'
                )
            print(f'== {folder.name}: finished', flush=True)
            return known['seconds']
    print(f'== {folder.name}: {"begins" if known is None else "continues"}', flush=True)
    write_text(file, json.dumps(dict(inputs=inputs), indent=1))
    start = time.time()
    work()
    path, seconds = output(), time.time() - start
    written = dict(
        output=os.path.relpath(path, folder), sha256=digest_of_file(path), seconds=seconds
    )
    write_text(file, json.dumps(dict(inputs=inputs, **written), indent=1))
    print(f'== {folder.name}: {seconds:.0f} s', flush=True)
    return seconds
