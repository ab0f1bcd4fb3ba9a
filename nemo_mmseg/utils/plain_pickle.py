"""Read pickles from the web: lists, dicts, sets, texts, numbers and None, nothing else.

A pickle is a program. Without any class or function it cannot run code, but a few hundred bytes of
it can still fill the memory (a place in the memo far away) or keep Python busy for ever (tuples of
tuples as keys, whose hash walks exponentially many paths). So its instructions are looked through
first. This takes as long as unpickling does, and a Python loop ten times as long; hence the regular
expression, which takes a thousand instructions at a time.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from functools import partial
from typing import Any

from .faults import shown

NAMES = {ord(op.code): op.name for op in pickletools.opcodes}


def _counted(least: int, most: int, zeros: int) -> bytes:
    """Match a length, of ``1 + zeros`` bytes, and that many bytes."""
    branches = (re.escape(bytes([n]) + bytes(zeros)) + b'.{%d}' % n for n in range(least, most + 1))
    return b'(?:' + b'|'.join(branches) + b')'


# Containers, None, booleans; numbers of at most 64 bits; short texts; places in the memo below
# 2**24, which takes 256 MB at most; numbers and texts as Python 2 wrote them, one a line.
_USUAL = re.compile(
    rb'(?s:[\](}Nadelsu0\x88\x89\x94]|[Kh].|q.|M..|J.{4}|G.{8}|[jr].{3}\0|\x80.|\x95.{8}'
    rb'|[XTB]'
    + _counted(0, 63, 3)
    + rb'|[\x8cUC]'
    + _counted(0, 63, 0)
    + rb'|\x8a'
    + _counted(0, 8, 0)
    + rb'|[gp]\d{1,7}\n|[IL]-?\d{1,18}L?\n|F[^\n]{1,40}\n|[SV][^\n]*\n){1,1000}'
)
# Tuples, and numbers of up to 2,040 bits: harmless but as keys, whose hash takes long or collides.
# Sets, and before protocol 4 calls of their class: whoever reads them looks at what goes in.
_UNUSUAL = re.compile(
    rb'(?s:[t)R\x85\x86\x87\x8f\x90]|c(?:builtins|__builtin__)\nset\n|\x8a'
    + _counted(9, 255, 0)
    + rb'|[IL]-?\d{19,600}L?\n){1,1000}'
)
# Longer texts: the instruction, and the number of bytes of their length.
_LONG_TEXTS = {ord('X'): 4, ord('T'): 4, ord('B'): 4, 0x8C: 1, ord('U'): 1, ord('C'): 1}


class _NoClasses:
    """Second line of defence, behind the look at the instructions."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError('it asks for an object kept elsewhere')


class _QuickUnpickler(_NoClasses, pickle.Unpickler):
    """The unpickler in C, for pickles of usual instructions."""


class _CarefulUnpickler(_NoClasses, pickle._Unpickler):
    """Python's unpickler in Python (slow): tuples become lists, and all keys must be texts.

    Members of sets are texts and numbers of 64 bits. So nothing that is read has a hash that takes
    long, here or where it is used.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)

    def load_dict(self) -> None:
        self._check_keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)

    def _check_keys(self, keys: list) -> None:
        for key in keys:
            if type(key) is not str:
                raise pickle.UnpicklingError(f'a key is {shown(key)}, not a text')

    def load_additems(self) -> None:
        self._check_members(self.stack)
        pickle._Unpickler.load_additems(self)

    def load_reduce(self) -> None:
        # Nothing but the class of sets can be called: find_class knows no other.
        arguments = self.stack[-1]
        if type(arguments) is not list or [*map(type, arguments)] != [list]:
            raise pickle.UnpicklingError(f'a set is made of {shown(arguments)}, not of a list')
        self._check_members(arguments[0])
        pickle._Unpickler.load_reduce(self)

    def find_class(self, module: str, name: str) -> type:
        if module in ('builtins', '__builtin__') and name == 'set':
            return set
        return super().find_class(module, name)

    def _check_members(self, members: list) -> None:
        for one in members:
            if type(one) is not str and (type(one) is not int or one.bit_length() > 64):
                raise pickle.UnpicklingError(f'a member of a set is {shown(one)}')

    def _load_short_tuple(self, length: int) -> None:
        self.stack[-length:] = [self.stack[-length:]]

    dispatch[ord('R')] = load_reduce
    dispatch[0x90] = load_additems
    dispatch[ord('s')] = load_setitem
    dispatch[ord('u')] = load_setitems
    dispatch[ord('d')] = load_dict
    dispatch[ord(')')] = pickle._Unpickler.load_empty_list
    dispatch[ord('t')] = pickle._Unpickler.load_list
    dispatch[0x85] = partial(_load_short_tuple, length=1)
    dispatch[0x86] = partial(_load_short_tuple, length=2)
    dispatch[0x87] = partial(_load_short_tuple, length=3)


def loads_plain(content: bytes) -> Any:
    """Unpickle plain data.

    Args:
        content: The pickle. Byte strings of Python 2 become texts: UTF-8 where that reads, else
            Latin-1.

    Returns:
        What was pickled, with lists in the place of tuples.

    Raises:
        ValueError: The pickle is damaged, cut short, or holds anything but plain data.
    """
    unpickler = _QuickUnpickler if _is_usual(content) else _CarefulUnpickler
    problem: Exception | None = None
    for encoding in ('utf-8', 'latin-1'):
        try:
            return unpickler(io.BytesIO(content), encoding=encoding).load()
        except UnicodeDecodeError as error:
            problem = error
        except Exception as error:  # a damaged pickle fails in any opcode with any exception
            problem = error
            break
    raise ValueError(f'{problem}'[:200]) from problem


def _is_usual(content: bytes) -> bool:
    """Look through the instructions; True if no tuple and no huge number is among them."""
    usual, position = True, 0
    while position < len(content):
        code = content[position]
        if found := _USUAL.match(content, position):
            position = found.end()
        elif code == ord('.'):
            return usual
        elif found := _UNUSUAL.match(content, position):
            usual, position = False, found.end()
        elif size := _LONG_TEXTS.get(code):
            start = position + 1 + size
            position = start + int.from_bytes(content[position + 1 : start], 'little')
        else:
            around = content[max(position - 30, 0) : position + 40]
            raise ValueError(
                f'it asks for more than lists, dicts, texts and numbers: instruction '
                f'{NAMES.get(code, code)} at byte {position}, in {shown(around)}'
            )
    raise ValueError('it is cut short')
