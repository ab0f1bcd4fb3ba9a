"""What the checks of annotation files cost, at RefCOCO's size.

    python benchmarks/annotation_check.py

Writes ``refs(unc).p`` and ``instances.json`` of RefCOCO's numbers, and times each check alone, on
all 142,209 expressions and 50,000 targets. A run checks those of one split. The last line compares
with reading the training split, checks included. CPU seconds of this process, best of the repeats.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the CPU seconds of a call, the best of some."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def costs(folder: Path, repeats: int) -> dict[str, float]:
    """Time each check, and the reading of the training split.

    Args:
        folder: With ``refs(unc).p`` and ``instances.json``.
        repeats: How often each is timed.

    Returns:
        CPU seconds by what they are spent on.
    """
    from nemo_mmseg.datasets.refer import load_references
    from nemo_mmseg.datasets.segmentation import clean_segmentation
    from nemo_mmseg.utils import annotation_schema as schema
    from nemo_mmseg.utils.faults import Faults
    from nemo_mmseg.utils.fileio import collector_paused
    from nemo_mmseg.utils.plain_pickle import loads_plain

    content = (folder / 'refs(unc).p').read_bytes()
    refs, instances = loads_plain(content), json.loads((folder / 'instances.json').read_bytes())
    sentences = [sentence for ref in refs for sentence in ref['sentences']]
    sizes = {image['id']: (image['height'], image['width']) for image in instances['images']}
    annotations = {one['id']: one for one in instances['annotations']}
    targets = [annotations[ref['ann_id']] for ref in refs]
    check = Faults().check
    files = str(folder / 'refs(unc).p'), str(folder / 'instances.json')

    def check_targets() -> None:
        for one in targets:
            clean_segmentation(one['segmentation'], *sizes[one['image_id']])
            schema.BOX.holds(one['bbox'])

    tables = {
        'images': (instances['images'], schema.IMAGE),
        'annotations': (instances['annotations'], schema.ANNOTATION),
        'references': (refs, {**schema.SPLIT, **schema.reference_rules(False)}),
        'expressions': (sentences, schema.expression_rules('sent')),
    }
    with collector_paused():
        found = {
            f'{len(records)} {name}': seconds(partial(check, records, rules, '', '', 'id'), repeats)
            for name, (records, rules) in tables.items()
        }
        found[f'segmentations of {len(targets)} targets'] = seconds(check_targets, repeats)
        careful = seconds(lambda: loads_plain(content), repeats)
        found['instructions of the pickle'] = careful - seconds(
            lambda: pickle.loads(content), repeats
        )
        found['reading the training split'] = seconds(
            lambda: load_references(*files, 'train'), repeats
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--share', type=float, default=1.0, help="of RefCOCO's size (default 1)")
    parser.add_argument('--repeats', type=int, default=3, help='of each check (default 3)')
    args = parser.parse_args()
    from refcoco_size import write_refcoco_size

    with tempfile.TemporaryDirectory() as folder:
        write_refcoco_size(Path(folder), args.share)
        found = costs(Path(folder) / 'refcoco', args.repeats)
    *checks, reading = found
    for name in checks:
        print(f'{name}: {found[name]:.3f} s of CPU')
    total = sum(found[name] for name in checks)
    rest = found[reading] - total
    print(
        f'all checks: {total:.2f} s; {reading} with its checks: {found[reading]:.2f} s, '
        f'{found[reading] / rest:.2f} times that without'
    )


if __name__ == '__main__':
    main()
