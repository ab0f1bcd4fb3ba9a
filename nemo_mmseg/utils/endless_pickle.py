"""Look through the pickle of a checkpoint for tuples whose hash would take for ever.

A tuple can hold another one twice, which holds another one twice, and so on: fifty of them fit into
some hundred bytes, and the hash of the outermost walks 2**50 paths. PyTorch's reader of checkpoints
refuses most classes, but hashes whatever stands as a key.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO

# Entries of tuples, counted along all paths, that a pickle may handle: a second of hashing. Those
# of a checkpoint are shapes, strides and places of tensors, some ten per tensor.
MAX_ENTRIES = 10_000_000
_TUPLES = {'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'FROZENSET'}
_PUTS = {'PUT', 'BINPUT', 'LONG_BINPUT'}
_GETS = {'GET', 'BINGET', 'LONG_BINGET'}


def refuse_endless(stream: BinaryIO) -> None:
    """Follow the instructions of one pickle without carrying them out.

    This takes a microsecond an instruction, of which a tensor has some twenty.

    Args:
        stream: Where the pickle begins; it is read to its end.

    Raises:
        ValueError: Its tuples unfold to more than ``MAX_ENTRIES``, or it is no pickle.
        Exception: Whatever else a damaged one raises.
    """
    stack: list[Any] = []  # for a tuple its number of entries along all paths, else 0
    memo: dict[int, int] = {}
    total = 0
    for op, argument, _ in pickletools.genops(stream):
        if op.name in _PUTS or op.name == 'MEMOIZE':
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif op.name in _GETS:
            stack.append(memo[argument])
        elif op.name == 'DUP':
            stack.append(stack[-1])
        else:
            taken = _take(stack, op)
            entries = sum(taken)
            total += entries
            if total > MAX_ENTRIES:
                raise ValueError('its tuples hold one another in endless many ways')
            unfolded = len(taken) + entries if op.name in _TUPLES else 0
            for made in op.stack_after:
                stack.append(None if made is pickletools.markobject else unfolded)


def _take(stack: list[Any], op: pickletools.OpcodeInfo) -> list[int]:
    """Take from the stack what an instruction does, and return it without the mark."""
    before = op.stack_before
    if pickletools.markobject not in before:
        begin = len(stack) - len(before)
        taken = stack[begin:] if before else []
    else:
        mark = len(stack) - 1
        while stack[mark] is not None:
            mark -= 1
        begin = mark - before.index(pickletools.markobject)
        taken = stack[begin:mark] + stack[mark + 1 :]
    if begin < 0:
        raise ValueError('it takes more from the stack than there is')
    if before:
        del stack[begin:]
    return taken
