"""Look through the pickle of a checkpoint for what its reader would not notice.

Two things: containers that are endless when they are unfolded, and a key that is set twice.

A tuple or list can hold another one twice, which holds another one twice, and so on: fifty of them
fit into some hundred bytes, and the outermost has 2**50 entries along all paths. PyTorch's reader
of checkpoints refuses most classes, but it hashes what stands as a key, and writes out what it
refuses.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import BinaryIO

from .faults import shown

# Entries along all paths that a pickle may handle, beside ten for each of its bytes: a second of
# hashing. Those of a checkpoint are mostly shapes, strides and places, some ten for each tensor.
MAX_ENTRIES = 10_000_000
_MARK, _LEAF = None, 0
_MAKE = {
    *('TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'EMPTY_TUPLE', 'FROZENSET', 'EMPTY_SET'),
    *('LIST', 'EMPTY_LIST', 'DICT', 'EMPTY_DICT'),
}
_FILL = {'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS'}
_SET = {'SETITEM', 'SETITEMS'}
_CALL = {'REDUCE', 'INST', 'OBJ', 'NEWOBJ', 'NEWOBJ_EX'}
_PUT = {'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'}
_GET = {'GET', 'BINGET', 'LONG_BINGET'}


@dataclass
class _Container:
    """A container: its entries along all paths, whether another one holds it, its keys of text."""

    entries: int = 0
    held: bool = False
    keys: set[str] = field(default_factory=set)


def refuse_endless(stream: BinaryIO) -> int:
    """Follow the instructions of one pickle without carrying them out.

    This takes two microseconds an instruction, of which a tensor has some twenty.

    Args:
        stream: Where the pickle begins; it is read to its end.

    Returns:
        The protocol of the pickle; 0 for those of text, too.

    Raises:
        ValueError: It unfolds to more than ``MAX_ENTRIES``, fills a container late, or sets a key
            twice in one dict.
        Exception: Whatever else a damaged pickle raises.
    """
    stack: list[_Container | str | int | None] = []
    memo: dict[int, _Container | str | int | None] = {}
    total = protocol = 0
    for op, argument, place in pickletools.genops(stream):
        if op.name in _PUT:
            memo[len(memo) if argument is None else argument] = stack[-1]
            continue
        if op.name in _GET or op.name == 'DUP':
            stack.append(stack[-1] if argument is None else memo[argument])
            continue
        if op.name == 'PROTO':
            protocol = argument
        taken = _take(stack, op)
        if op.name == 'BUILD':  # fills an object, whose keys stay known
            made = taken.pop(0)
            total += _hold(_Container(), taken)
        elif op.name in _FILL:
            made = taken.pop(0)
            total += _hold(made, taken)
            if op.name in _SET:
                _set_keys(made, taken[::2])
        elif op.name in _MAKE or op.name in _CALL:
            made = _Container()
            total += _hold(made, taken)
            if op.name in _CALL:
                made.entries = 0  # an object, or what is filled afterwards
            elif op.name == 'DICT':
                _set_keys(made, taken[::2])
        else:
            made = argument if isinstance(argument, str) else _LEAF
        if total > MAX_ENTRIES + 10 * (place or 0):
            raise ValueError('its containers hold one another in endless many ways')
        stack += [_MARK if one is pickletools.markobject else made for one in op.stack_after]
    return protocol


def _set_keys(container: _Container | str | int | None, keys: list) -> None:
    if isinstance(container, _Container):
        for key in keys:
            if isinstance(key, str):
                if key in container.keys:
                    raise ValueError(f'it sets {shown(key)} twice in one dict')
                container.keys.add(key)


def _hold(container: _Container | str | int | None, items: list) -> int:
    """Put items into a container; return how many entries that are along all paths."""
    inner = [item for item in items if isinstance(item, _Container)]
    entries = len(items) + sum(item.entries for item in inner)
    if isinstance(container, _Container):
        # Pickle fills what is inside first. The other way round, nothing could be counted.
        if inner and (container.held or any(item is container for item in inner)):
            raise ValueError('it fills a container that another one, or itself, holds already')
        container.entries += entries
    for item in inner:
        item.held = True
    return entries


def _take(stack: list, op: pickletools.OpcodeInfo) -> list:
    """Take from the stack what an instruction does; return it without the mark."""
    before = op.stack_before
    if not before:
        return []
    begin = len(stack) - len(before)
    taken = stack[begin:]
    if pickletools.markobject in before:
        mark = len(stack) - 1
        while stack[mark] is not _MARK:
            mark -= 1
        begin = mark - before.index(pickletools.markobject)
        taken = stack[begin:mark] + stack[mark + 1 :]
    if begin < 0:
        raise ValueError('it takes more from the stack than there is')
    del stack[begin:]
    return taken
