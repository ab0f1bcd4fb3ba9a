"""Segmentations: broken ones of every kind, and sound ones in rare forms."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .mutate import odd_value, short

HEIGHT, WIDTH = 24, 36


def runs_of(mask: np.ndarray) -> list[int]:
    """Column-major runs; the first is of zeros."""
    flat = mask.flatten(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, flat.size]).tolist()


def odd_segmentation(value: Any, rng: random.Random) -> tuple[Any, str]:
    """Draw a segmentation that is broken, or sound in a rare form."""
    value = copy.deepcopy(value)
    box = [4.0, 3.0, 20.0, 3.0, 20.0, 12.0, 4.0, 12.0]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[rng.randrange(9) : 15, 5 : rng.randrange(9, WIDTH)] = 1
    code = coco_mask.encode(np.asfortranarray(mask))['counts'].decode()
    runs, size = runs_of(mask), [HEIGHT, WIDTH]
    at = rng.randrange(len(code))
    number = rng.choice((float('nan'), float('inf'), -float('inf'), 2e8, 1e30, -1e30, 1e308, 2**31,
                         2**63, 2**70, -5, 1e5, 9000, None, True, '7', [], 'nan', '@digits@',
                         '@1e400@', '@deep@', -0.5, 1e-300))  # fmt: skip
    place = rng.randrange(8)
    with_number = [*box[:place], number, *box[place + 1 :]]
    run = rng.choice((-1, 1.0, 0.5, None, True, '7', 2**32, 2**63, 2**70, 1e30, float('nan'), [1]))
    row = rng.randrange(len(runs))
    negative = list(runs)
    negative[row] = -5
    negative[(row + 1) % len(runs)] += runs[row] + 5
    noise = ''.join(chr(rng.randrange(48, 112)) for _ in range(rng.randrange(1, 30)))
    sizes = (None, 5, 'ab', [24], [24.0, 36.0], ['24', '36'], [24.5, 36], [24, 36, 1], [True, 36])
    forms = dict(
        coordinate=[with_number], coordinate_2=[box, with_number], flat=box, flat_odd=with_number,
        odd_length=[box[:-1]], odd_of_seven=[[*box, 5.0]], short=[box[:4]],
        short_too=[box[:4], box], text=[list(map(str, box))],
        pairs=[[box[i : i + 2] for i in range(0, 8, 2)]], none=None, number=7, word='polygon',
        empty=[], empties=[[], []], no_dict={}, true=True,
        mixed=[box, dict(size=size, counts=code)], mixed_runs=[dict(size=size, counts=runs), box],
        list_of_codes=[dict(size=size, counts=code)] * 2,
        list_of_runs=[dict(size=size, counts=runs)],
        junk_in_list=[box, rng.choice((None, 'a', 5, {}, [[]]))],
        flipped=dict(size=size[::-1], counts=code), other_size=dict(size=[9, 9], counts=code),
        huge_size=dict(size=[2**31, 2**31], counts=code), no_size=dict(counts=code),
        odd_size=dict(size=rng.choice(sizes), counts=code),
        cut=dict(size=size, counts=code[:at]), longer=dict(size=size, counts=code + noise),
        garbage=dict(size=size, counts=noise), flip=dict(size=size, counts=_one_char(code, rng)),
        odd_characters=dict(size=size, counts=rng.choice(('\x00', 'é', '\ud800', ' ', '\n', '~~'))),
        text_runs=dict(size=size, counts=' '.join(map(str, runs))),
        run=dict(size=size, counts=[*runs[:row], run, *runs[row + 1 :]]),
        more=dict(size=size, counts=[*runs, rng.choice((0, 1, 10**6))]),
        negative=dict(size=size, counts=negative),
        float_runs=dict(size=size, counts=[float(r) for r in runs]),
        zeros=dict(size=size, counts=[*runs[:1], 0, 0, *runs[1:]]),
        all_ones=dict(size=size, counts=[0, HEIGHT * WIDTH]),
        all_zero=dict(size=size, counts=[HEIGHT * WIDTH]), no_counts=dict(size=size),
        odd_counts=dict(size=size, counts=odd_value(rng, True)),
        many=dict(size=size, counts=[1] * (HEIGHT * WIDTH)), long=[box * 2000],
        many_polygons=[box] * 300, outside=[[100, 100, 120, 100, 120, 120, 100, 120]],
        line=[[3, 3, 9, 3, 6, 3]], point=[[3, 3] * 4], sound=value, odd=odd_value(rng, True),
    )  # fmt: skip
    name = rng.choice(tuple(forms))
    return forms[name], f'segmentation {name}: {short(forms[name], 90)}'


def _one_char(code: str, rng: random.Random) -> str:
    at = rng.randrange(len(code))
    return code[:at] + chr(ord(code[at]) ^ (1 << rng.randrange(6))) + code[at + 1 :]
