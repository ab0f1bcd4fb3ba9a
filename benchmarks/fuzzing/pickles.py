"""Prepared pickles: none may run code, and each ends soon, as a split file or as a checkpoint."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from .annotations import check, lay_out, read_all, splits_of, tables
from .judge import Case, Kind
from .mutate import dumps

READERS = ('refs', 'checkpoint zip', 'checkpoint legacy')
SENTINEL = 'made-by-code'


def calls(sentinel: str) -> dict[tuple[str, str], tuple]:
    """Return functions that a pickle could call, and arguments with which they make a file."""
    touch = f'touch {sentinel}'
    python = f'open({sentinel!r}, "w").close()'
    inner = pickle.dumps(0)[:-1] + b'0' + _global('os', 'system') + _value((touch,)) + b'R.'
    return {
        ('os', 'system'): (touch,), ('posix', 'system'): (touch,), ('nt', 'system'): (touch,),
        ('os', 'popen'): (touch,), ('os', 'mkdir'): (sentinel,), ('os', 'mknod'): (sentinel,),
        ('posix', 'mkdir'): (sentinel,), ('os', 'symlink'): ('/', sentinel),
        ('os', 'posix_spawn'): ('/bin/touch', ['touch', sentinel], {}),
        ('subprocess', 'call'): (['touch', sentinel],),
        ('subprocess', 'run'): (['touch', sentinel],),
        ('subprocess', 'Popen'): (['touch', sentinel],), ('subprocess', 'getoutput'): (touch,),
        ('subprocess', 'check_output'): (['touch', sentinel],),
        ('pty', 'spawn'): (['touch', sentinel],), ('builtins', 'eval'): (python,),
        ('builtins', 'exec'): (python,), ('__builtin__', 'eval'): (python,),
        ('__builtin__', 'execfile'): (python,), ('builtins', 'open'): (sentinel, 'w'),
        ('io', 'open'): (sentinel, 'w'), ('_io', 'FileIO'): (sentinel, 'w'),
        ('codecs', 'open'): (sentinel, 'w'), ('builtins', '__import__'): ('antigravity',),
        ('builtins', 'getattr'): ('a', 'join'), ('builtins', 'setattr'): ('a', 'b', 1),
        ('builtins', 'globals'): (), ('builtins', 'compile'): (python, 'a', 'exec'),
        ('builtins', 'input'): (), ('builtins', 'breakpoint'): (), ('builtins', 'exit'): (),
        ('os', '_exit'): (0,), ('os', 'abort'): (), ('os', 'kill'): (0, 0),
        ('signal', 'alarm'): (1,), ('sys', 'exit'): (0,), ('time', 'sleep'): (1000,),
        ('faulthandler', '_sigsegv'): (), ('ctypes', 'string_at'): (0,),
        ('pathlib', 'Path.touch'): (sentinel,), ('pathlib', 'Path'): (sentinel,),
        ('importlib', 'import_module'): ('antigravity',), ('runpy', 'run_path'): (sentinel,),
        ('pickle', 'loads'): (inner,), ('_pickle', 'loads'): (inner,),
        ('marshal', 'loads'): (b'0',), ('timeit', 'timeit'): ('0', python),
        ('cProfile', 'run'): (python,), ('pdb', 'run'): (python,), ('code', 'interact'): (),
        ('bdb', 'Bdb.run'): (None, python), ('platform', 'popen'): (touch,),
        ('operator', 'methodcaller'): ('system', touch), ('functools', 'reduce'): (1, [1]),
        ('functools', 'partial'): (print,), ('types', 'FunctionType'): (),
        ('types', 'SimpleNamespace'): (), ('copyreg', '_reconstructor'): (list, object, None),
        ('copyreg', 'add_extension'): ('os', 'system', 5),
        ('copy_reg', '_reconstructor'): (list, object, None), ('collections', 'OrderedDict'): ([],),
        ('collections', 'defaultdict'): (), ('decimal', 'Decimal'): ('1',),
        ('datetime', 'date'): (2020, 1, 1), ('fractions', 'Fraction'): ('1e999999999',),
        ('re', 'compile'): ('(a+)+$',), ('_codecs', 'encode'): ('a', 'rot13'),
        ('numpy.core.multiarray', '_reconstruct'): (), ('numpy', 'load'): (sentinel,),
        ('numpy', 'fromfile'): (sentinel,), ('numpy', 'ones'): ((10**6, 10**6),),
        ('numpy.testing._private.utils', 'runstring'): (python, {}), ('torch', 'load'): (sentinel,),
        ('torch.hub', 'load'): ('a', 'b'), ('torch.jit', 'load'): (sentinel,),
        ('torch', 'save'): (1, sentinel), ('torch._utils', '_rebuild_tensor_v2'): (),
        ('torch', 'FloatStorage'): (10**12,), ('torch.utils._config_typing', 'eval'): (python,),
        ('mmengine', 'Config.fromfile'): (sentinel,),
        ('mmengine.fileio', 'put_text'): ('a', sentinel),
        ('mmengine.utils.package_utils', 'call_command'): (['touch', sentinel],),
        ('nemo_mmseg.utils.atomic_write', 'write_text'): (sentinel, 'a'),
        ('nemo_mmseg.utils.atomic_write', 'write_bytes'): (sentinel, b'a'),
        ('nemo_mmseg.utils.fileio', 'load_plain_pickle'): (sentinel,),
        ('nemo_mmseg.utils.checkpoint', 'download'): ('http://127.0.0.1:9/a.pth',),
        ('PIL.Image', 'open'): (sentinel,), ('tarfile', 'open'): (sentinel, 'w'),
        ('zipfile', 'ZipFile'): (sentinel, 'w'), ('sqlite3', 'connect'): (sentinel,),
        ('logging', 'FileHandler'): (sentinel,),
        ('tempfile', 'mkdtemp'): ('', '', os.path.dirname(sentinel)),
        ('shutil', 'copy'): ('/etc/hostname', sentinel), ('shelve', 'open'): (sentinel,),
        ('webbrowser', 'open'): ('http://127.0.0.1:9',),
        ('urllib.request', 'urlretrieve'): ('file:///etc/hostname', sentinel),
        ('multiprocessing', 'Process'): (),
        ('distutils.file_util', 'write_file'): (sentinel, ['a']), ('setuptools', 'setup'): (),
        ('pip', 'main'): (['--version'],),
    }  # fmt: skip


def _global(module: str, name: str) -> bytes:
    return f'c{module}\n{name}\n'.encode()


def _stack_global(module: str, name: str) -> bytes:
    return _value(module) + _value(name) + b'\x93'


def _value(value: Any) -> bytes:
    """Opcodes that push a value; one that is no plain value becomes None."""
    try:
        return pickle.dumps(value, protocol=2)[2:-1]
    except Exception:
        return b'N'


def called(sentinel: str) -> list[tuple[str, bytes]]:
    """Return a pickle for each function, by each opcode in turn that calls one."""
    forms: list[tuple[str, Callable[[str, str, bytes, tuple], bytes]]] = [
        ('REDUCE', lambda m, n, a, t: _global(m, n) + a + b'R'),
        ('STACK_GLOBAL', lambda m, n, a, t: b'\x80\x04' + _stack_global(m, n) + a + b'R'),
        ('INST', lambda m, n, a, t: b'(' + b''.join(map(_value, t)) + f'i{m}\n{n}\n'.encode()),
        ('OBJ', lambda m, n, a, t: b'(' + _global(m, n) + b''.join(map(_value, t)) + b'o'),
        ('NEWOBJ', lambda m, n, a, t: b'\x80\x02' + _global(m, n) + a + b'\x81'),
        ('NEWOBJ_EX', lambda m, n, a, t: b'\x80\x04' + _global(m, n) + a + b'}\x92'),
        ('REDUCE in a reference', lambda m, n, a, t: b']}K\x01' + _global(m, n) + a + b'Rsa'),
        ('BUILD', lambda m, n, a, t: b'}' + _value('a') + _global(m, n) + a + b'RsN}b'),
    ]  # fmt: skip
    found = []
    for number, ((module, name), args) in enumerate(calls(sentinel).items()):
        for form, make in (forms[number % 2], forms[2 + number % 6]):
            content = make(module, name, _value(args), args) + b'.'
            found.append((f'{form} of {module}.{name}', content))
    return found


def other() -> list[tuple[str, bytes]]:
    """Return pickles that are odd in other ways."""
    tuples = b'X\x02\x00\x00\x00haq\x00' + b''.join(
        b'h' + bytes([i]) + b'h' + bytes([i]) + b'\x86q' + bytes([i + 1]) for i in range(60)
    )
    lists = b']q\x00' + b''.join(
        b'](h' + bytes([i]) + b'h' + bytes([i]) + b'eq' + bytes([i + 1]) for i in range(60)
    )
    start = b']}' + _value('split') + _value('train') + b's'  # of a reference
    huge = [2**27, 2**31 - 1, 2**32 - 1]
    long = [2**33, 2**40, 2**62, 2**63 - 1, 2**64 - 1]
    found = {
        'memo by text': b']p9999999999999999999\n.', 'negative memo': b']p-1\n.',
        'get nothing': b'g5\n.', 'binget nothing': b'h\x05.', 'no stop': b']', 'no mark': b'e.',
        'empty stack': b'.', 'pop': b'0.', 'pop mark': b'1.', 'dup': b'2.',
        'protocol': b'\x80\xff].', 'frame': b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].',
        'frame short': b'\x80\x04\x95\x64' + bytes(7) + b'].', 'persistent': b'P1\n.',
        'persistent binary': b'K\x01Q.', 'ext 1': b'\x82\x05.', 'ext 2': b'\x83\x05\x00.',
        'ext 4': b'\x84\x05\x00\x00\x00.', 'ext negative': b'\x84\xff\xff\xff\xff.',
        'build list': b']}b.', 'build dict': b'}}b.', 'build None': b'N}b.',
        'build state': b'}K\x01b.', 'append to dict': b'}K\x01a.',
        'append to text': b'X\x01\x00\x00\x00aK\x01a.', 'appends to None': b'N(K\x01e.',
        'append to itself': b']q\x00h\x00a.', 'setitem of list': b']K\x01K\x02s.',
        'setitems odd': b'}(K\x01u.', 'list as key': b'}]K\x01s.', 'dict as key': b'(}K\x01d.',
        'additems to list': b'](K\x01\x90.', 'set in set': b'\x8f(\x8f\x90.',
        'own dict as value': b'}q\x00K\x01h\x00s.', 'buffer': b'\x97.',
        'read-only buffer': b'N\x98.', 'integer of digits': b'I' + b'9' * 10**6 + b'\n.',
        'long of digits': b'L' + b'9' * 10**6 + b'L\n.', 'integer of text': b'Iabc\n.',
        'boolean': b'I01\n.', 'float of text': b'Fabc\n.', 'not a number': b'Fnan\n.',
        'long of bytes': b'\x8b\x40\x42\x0f\x00' + b'\x7f' * 10**6 + b'.',
        'negative long': b'\x8b\xff\xff\xff\xff.', 'string without quotes': b'Sabc\n.',
        'bad escape': b"S'\\x1'\n.", 'bad unicode': b'V\\u12\n.', 'lone surrogate': b'V\\ud800\n.',
        'bad utf-8': b'X\x01\x00\x00\x00\xff.', 'latin string': b'U\x01\xff.',
        'negative length': b'T\xff\xff\xff\xff.',
        'nested lists': b']' * 10**5 + b'a' * (10**5 - 1) + b'.',
        'nested tuples': b')' + b'\x85' * 10**5 + b'.', 'nested marks': b'(' * 10**6 + b'.',
        'nested in a list': b']' + b')' + b'\x85' * 10**5 + b'a.',
        'nested dicts': b'}' + b'K\x01}' * 10**5 + b's' * 10**5 + b'.',
        'tuples as key': b'}' + tuples + b'K\x01s.',
        'tuples in a set': b'\x8f(' + tuples + b'\x90.',
        'tuples as key in a list': b']}' + tuples + b'K\x01sa.',
        'frozen set of tuples': b'(' + tuples + b'\x91.',
        'tuples as id': start + _value('ref_id') + tuples + b'sa.',
        'lists as id': start + _value('ref_id') + lists + b'sa.',
        'lists as split': b']}' + _value('split') + lists + b'sa.',
        'tuples as split': b']}' + _value('split') + tuples + b'sa.',
        'lists as field': b']}' + lists + b'K\x01sa.', 'lists of lists': lists + b'.',
        'set of list': _global('builtins', 'set') + lists + b'\x85R.',
        'set of a number': _global('builtins', 'set') + b'K\x05\x85R.',
        'set itself': _global('builtins', 'set') + b'.',
        'set with state': _global('builtins', 'set') + b')R}b.',
        'set as object': _global('builtins', 'set') + b')\x81.',
        'frozen set itself': b']' + _global('builtins', 'frozenset') + b'a.',
        'dotted name': _global('builtins', 'set.__class__') + b'.',
        'dotted stack': _stack_global('builtins', 'set.__init__.__globals__') + b'.',
        'mro': _stack_global('builtins', 'set.__mro__') + b'.',
        'subclasses': _stack_global('builtins', 'set.__subclasses__') + b')R.',
        'module in a module': _stack_global('builtins.set', '__reduce__') + b'.',
        'name that is no text': b'K\x01K\x02\x93.', 'many': b']' + b'(' + b'K\x01' * 10**6 + b'e.',
        'dups': b']' + b'2' * 10**6 + b'.', 'zeros': bytes(1000), 'text': b'refs',
        **{f'memo {index}': b']r' + struct.pack('<I', index) + b'.' for index in huge},
        **{f'bytes of {n}': b'\x8e' + struct.pack('<Q', n) + b'abc.' for n in long},
        **{f'byte array of {n}': b'\x96' + struct.pack('<Q', n) + b'abc.' for n in long},
        **{f'unicode of {n}': b'\x8d' + struct.pack('<Q', n) + b'abc.' for n in long},
        **{f'short bytes of {n}': b'B' + struct.pack('<I', n) + b'abc.' for n in huge},
        **{f'short unicode of {n}': b'X' + struct.pack('<I', n) + b'abc.' for n in huge},
        'long of 2 GB': b'\x8b\xff\xff\xff\x7fabc.',
    }  # fmt: skip
    return list(found.items())


@cache
def number_of_pickles() -> int:
    """Return how many prepared pickles there are."""
    return len(called('x')) + len(other())


def _zip(content: bytes) -> bytes:
    """A checkpoint whose data.pkl is the pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/byteorder', 'little')
        archive.writestr('archive/version', '3\n')
    return file.getvalue()


def _legacy(content: bytes) -> bytes:
    """A checkpoint of PyTorch before 1.6: pickles of magic number, protocol and system first."""
    head = (
        0x1950A86A20F9469CFC6C,
        1001,
        dict(little_endian=True, protocol_version=1001, type_sizes={}),
    )
    keys = pickle.dumps([], protocol=2)
    return b''.join(pickle.dumps(part, protocol=2) for part in head) + content + keys


def make(folder: Path, rng: random.Random, seed: int) -> Case:
    """Write one prepared pickle where one reader finds it."""
    sentinel = str(folder / SENTINEL)
    prepared = called(sentinel) + other()
    what, content = prepared[seed % len(prepared)]
    reader = READERS[seed // len(prepared)]

    def after(error: Exception | None) -> str | None:
        if 'subprocess' in what or 'popen' in what or 'spawn' in what:
            time.sleep(0.03)
        return 'IT RAN CODE' if os.path.lexists(sentinel) else None

    def wrong(answer: Any) -> str | None:
        return 'it was read'

    if reader == 'refs':
        split_file = lay_out(folder, False, content, dumps(tables()[1]))

        def look(error: Exception | None) -> str | None:
            return (
                after(error)
                or check(split_file, True, False)
                or splits_of(split_file)
                or after(error)
            )

        return Case(
            f'{what} in {reader}',
            partial(read_all, split_file),
            wrong,
            (split_file.name,),
            (),
            after=look,
        )
    path = folder / 'weights.pth'
    path.write_bytes({'zip': _zip, 'legacy': _legacy}[reader.split()[1]](content))

    def use() -> Any:
        import torch

        from nemo_mmseg.apis.inference import fill_model

        return fill_model(torch.nn.Linear(2, 2), path)

    return Case(f'{what} in {reader}', use, wrong, (path.name,), (), after=after)


KINDS = [Kind('prepared-pickles', 0, make, count=len(READERS) * number_of_pickles())]
