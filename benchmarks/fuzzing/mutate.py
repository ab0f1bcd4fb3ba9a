"""Mutations: of bytes, and of the values in what JSON and pickles hold."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

# Stand in JSON for what ``json.dumps`` cannot write; replaced in the text.
DEEP = '@deep@'
RAW = {
    DEEP: '[' * 100_000 + ']' * 100_000,
    '@deep dict@': '{"a":' * 50_000 + '1' + '}' * 50_000,
    '@1e400@': '1e400',
    '@digits@': '1' + '0' * 5000,
    '@minus zero@': '-0',
    '@tiny@': '1e-400',
}
NUMBERS = (
    0, 1, -1, 2, 1.5, 5.0, -0.0, 0.1, 7, 1e30, -1e30, 2e8, 1e308, float('nan'), float('inf'),
    -float('inf'), 2**31, 2**31 - 1, -(2**31) - 1, 2**32, 2**53 + 1, 2**63, 2**63 - 1, -(2**63) - 1,
    2**64, 2**70, -(2**70), 10**30,
)  # fmt: skip
TEXTS = (
    '', ' ', '5', '101', '-1', '1.5', 'abc', 'nan', 'None', '\x00', '\ud800', 'é', '../x.png',
    '/etc/passwd', 'x' * 3000, 'a\nb', '[1]', 'train', 'http://x.invalid/y.png', '٣',
)  # fmt: skip
CONTAINERS = ([], {}, [1], [[1]], [None], [-1], [1, 1], {'a': 1}, [[]], [{}], {'size': 1}, ['5'])


def other_bytes(content: bytes, rng: random.Random, others: tuple[bytes, ...] = ()) -> tuple:
    """Change the bytes of a file.

    Args:
        content: The file.
        rng: The mutation's generator.
        others: Contents of other kinds of files.

    Returns:
        The changed content, and in words what was done.
    """
    size = len(content)
    at = rng.randrange(size)
    length = min(size - at, rng.choice((1, 2, 4, 8, 16, 64, 256, 4096)))
    end = at + length
    before, block, after = content[:at], content[at:end], content[end:]
    actions = dict(
        flip=lambda: _flip(content, rng, 1),
        flips=lambda: _flip(content, rng, rng.choice((2, 5, 20, 200))),
        byte=lambda: before + bytes([rng.randrange(256)]) + content[at + 1 :],
        cut=lambda: content[:at],
        cut_end=lambda: content[: -rng.choice((1, 2, 8, 100))],
        cut_front=lambda: content[rng.choice((1, 2, 8, 100)) :],
        zeros=lambda: before + bytes(length) + after,
        ones=lambda: before + b'\xff' * length + after,
        noise=lambda: before + rng.randbytes(length) + after,
        delete=lambda: before + after,
        insert=lambda: before + rng.randbytes(length) + content[at:],
        repeat=lambda: before + block * rng.choice((2, 3, 100)) + after,
        swap=lambda: _swap(content, rng, length),
        append=lambda: content + rng.randbytes(rng.choice((1, 7, 1000))),
        append_zeros=lambda: content + bytes(rng.choice((1, 8, 4096))),
        twice=lambda: content + content,
        empty=lambda: b'',
        all_zero=lambda: bytes(size),
        all_noise=lambda: rng.randbytes(size),
        text=lambda: content.replace(b'\n', b'\r\n') + b'\n',
        bom=lambda: b'\xef\xbb\xbf' + content,
        utf16=lambda: content.decode('latin-1').encode('utf-16'),
        other=lambda: rng.choice(others) if others else b'<html>404</html>',
    )  # fmt: skip
    common = ('flip', 'flips', 'byte', 'zeros', 'noise', 'delete', 'insert', 'swap', 'cut')
    action = rng.choice(common) if rng.random() < 0.6 else rng.choice(tuple(actions))
    return actions[action](), f'{action} at {at} of {size}, {length} bytes'


def _flip(content: bytes, rng: random.Random, number: int) -> bytes:
    changed = bytearray(content)
    for _ in range(number):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _swap(content: bytes, rng: random.Random, length: int) -> bytes:
    length = min(length, max(1, len(content) // 3))
    one = rng.randrange(max(1, len(content) - 2 * length))
    two = rng.randrange(one + length, max(one + length + 1, len(content) - length))
    return (
        content[:one] + content[two : two + length] + content[one + length : two]
        + content[one : one + length] + content[two + length :]
    )  # fmt: skip


def odd_value(rng: random.Random, plain: bool) -> Any:
    """Draw a value that no field expects.

    Args:
        rng: The mutation's generator.
        plain: Whether it must be one that JSON can hold (see :func:`dumps`).
    """
    if not plain and rng.random() < 0.35:
        return rng.choice(tuple(PICKLED.values()))()
    kinds = [NUMBERS, TEXTS, CONTAINERS, (None, True, False)] + [tuple(RAW)] * plain
    return copy.deepcopy(rng.choice(rng.choice(kinds)))


def laughs(depth: int = 40) -> list:
    """Return a list that is small in memory and endless as text."""
    value: list = ['ha']
    for _ in range(depth):
        value = [value, value]
    return value


def _tuples(depth: int = 40) -> tuple:
    value: tuple = ('ha',)
    for _ in range(depth):
        value = (value, value)
    return value


def _ring() -> list:
    value: list = [1]
    value.append(value)
    return value


def _ring_of_dict() -> dict:
    value: dict = {}
    value['a'] = value
    return value


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


# What pickles hold beside JSON's values.
PICKLED = {
    'laughs': laughs,
    'laughs of tuples': _tuples,
    'ring': _ring,
    'ring of dict': _ring_of_dict,
    'digits': lambda: 10**5000,
    'bytes': lambda: b'5',
    'byte array': lambda: b'\x80\xff',
    'set': lambda: {1, 2},
    'frozen set': lambda: frozenset({1}),
    'tuple': lambda: (1, 2),
    'nested': lambda: _nested(150),
    'dict of tuple': lambda: {(1, 2): 3, None: 4, 5: 6},
    'many': lambda: list(range(20_000)),
}


def change_structure(
    content: Any, rng: random.Random, plain: bool, fields: tuple[str, ...] = ()
) -> tuple[Any, str, list[list]]:
    """Change one place in a tree of lists and dicts.

    Args:
        content: The tree; it is copied.
        rng: The mutation's generator.
        plain: Whether the result must be one that JSON can hold.
        fields: Keys that most changes go to.

    Returns:
        The changed tree, in words what was done, and the keys on the way to each place.
    """
    content = copy.deepcopy(content)
    places = list(_places(content, []))
    chosen = [place for place in places if place[0][-1] in fields]
    path, holder = rng.choice(chosen if chosen and rng.random() < 0.75 else places)
    key = path[-1]
    action = rng.choices(
        ('set', 'delete', 'cast', 'wrap', 'rename', 'double', 'exchange', 'whole'),
        (60, 8, 12, 5, 4, 4, 5, 2),
    )[0]
    value, paths = holder[key], [path]
    if action == 'set':
        holder[key] = odd_value(rng, plain)
    elif action == 'delete':
        del holder[key]
    elif action == 'cast':
        holder[key] = rng.choice((str, _float, _list, _dict))(value)
    elif action == 'wrap':
        holder[key] = rng.choice(([value], [value, value], {'value': value}))
    elif action == 'rename' and isinstance(holder, dict):
        holder[f'{key}_'] = holder.pop(key)
    elif action == 'double' and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(value))
    elif action == 'exchange':
        other_path, other = rng.choice(places)
        paths.append(other_path)
        if not (set(map(id, _parents(content, other_path))) & {id(value)}) and not (
            set(map(id, _parents(content, path))) & {id(other[other_path[-1]])}
        ):
            holder[key], other[other_path[-1]] = other[other_path[-1]], holder[key]
    elif action == 'whole':
        content = odd_value(rng, plain)
    else:
        holder[key] = odd_value(rng, plain)
    return content, f'{action} {path} (was {short(value)})', paths


def _places(value: Any, path: list) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        yield [*path, key], value
        if isinstance(one, (dict, list)):
            yield from _places(one, [*path, key])


def _parents(content: Any, path: list) -> list:
    found = [content]
    for key in path:
        found.append(found[-1][key])
    return found


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, int) else 0.5


def _list(value: Any) -> Any:
    return list(value.values()) if isinstance(value, dict) else [value]


def _dict(value: Any) -> Any:
    return {str(i): one for i, one in enumerate(value)} if isinstance(value, list) else {}


def dumps(content: Any) -> bytes:
    """Write JSON, also what stands in it for raw text."""
    text = json.dumps(content)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def short(value: Any, most: int = 60) -> str:
    """Return the beginning of a value as text."""
    text = repr(value)
    return text if len(text) <= most else text[:most] + '...'
