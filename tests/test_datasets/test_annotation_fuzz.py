"""Damaged annotation files, at random but seeded: what is read is usable, or the error is named."""

import json
import pickle

import numpy as np
import pytest
from mini_refcoco import MiniGRefCOCO, MiniRefCOCO

from nemo_mmseg.datasets.refer import Layout, load_references
from nemo_mmseg.datasets.segmentation import decode_segmentation

# Values of every type, to stand where another one belongs.
VALUES = [None, True, 0, -1, 1.5, 2**63, 10**300, float('nan'), float('inf'), '', '1', '\ud800']
VALUES += [[], [1], [[1, 2, 3]], [None], {}, {'a': 1}, {'size': [48, 64], 'counts': '0'}]


def places(value, path=()):
    """All places in a nested value, as paths of keys."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)):
        if isinstance(value[key], (dict, list)):
            yield from places(value[key], (*path, key))
        else:
            yield (*path, key)


def put(value, path, other):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = other


def damaged(content, rng):
    """Bytes with some flipped, cut out, doubled, or cut off."""
    content = bytearray(content)
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
    match rng.integers(4):
        case 0:
            for place in rng.integers(0, len(content), rng.integers(1, 6)):
                content[place] = rng.integers(256)
        case 1:
            del content[start : start + length]
        case 2:
            content[start:start] = content[start : start + length]
        case 3:
            del content[start:]
    return bytes(content)


@pytest.mark.parametrize('kind', ['values', 'bytes'])
@pytest.mark.parametrize('made', [MiniRefCOCO, MiniGRefCOCO])
@pytest.mark.filterwarnings('ignore:.*without an expression')
def test_damage_is_named_or_harmless(tmp_path, made, kind):
    rng = np.random.default_rng(0)
    generalized = made is MiniGRefCOCO
    files = {name: tmp_path / name for name in ('instances.json', 'refs.p', 'refs.json')}
    named = right = 0
    for number in range(400):
        mini = made(tmp_path)
        parts = dict(refs=mini.refs, instances=mini.instances)
        if kind == 'values':
            paths = [path for path in places(parts) if len(path) > 1]
            for _ in range(rng.integers(1, 3)):
                value = VALUES[rng.integers(len(VALUES))]
                try:
                    put(parts, paths[rng.integers(len(paths))], value)
                except (TypeError, KeyError, IndexError):
                    pass  # the first change has removed the place of the second
        refs = files['refs.json' if number % 2 else 'refs.p']
        written = {
            files['instances.json']: json.dumps(parts['instances']).encode(),
            refs: json.dumps(parts['refs']).encode()
            if number % 2
            else pickle.dumps(parts['refs'], protocol=number % 5),
        }
        if kind == 'bytes':
            hit = list(written)[rng.integers(2)]
            written[hit] = damaged(written[hit], rng)
        for path, content in written.items():
            path.write_bytes(content)
        try:
            found = load_references(
                str(refs), str(files['instances.json']), 'train', Layout(generalized=generalized)
            )
        except ValueError as error:
            assert str(tmp_path) in str(error) and len(str(error)) < len(str(tmp_path)) + 500
            named += 1
            continue
        for reference in found:
            for annotation in reference.annotations:
                size = reference.image['height'], reference.image['width']
                assert decode_segmentation(annotation['segmentation'], *size).max() <= 1
        right += 1
    assert named > 100 and right > 10
