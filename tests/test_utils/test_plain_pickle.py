"""Pickles of plain data are read; those that run code, or never end, are refused at once."""

import pickle
import struct
import tracemalloc

import pytest

from nemo_mmseg.datasets.refer import load_references
from nemo_mmseg.utils.fileio import load_plain_pickle
from nemo_mmseg.utils.plain_pickle import loads_plain

PLAIN = [
    [],
    {},
    (),
    [{'a': (1, 2.5, None, True, (2, ())), 'b': [False], 'c': 'ü', '\U0001f600': '\n'}],
    [0, -1, 255, 256, 65_536, -(2**31), 2**31, 2**63, -(2**63), 2**64, 2**400, 1e300, -0.0],
    ['x' * length for length in (0, 1, 63, 64, 255, 256, 70_000)],
    [b'bytes', b'', b'\x00' * 300],
    {number: [str(number)] for number in range(2000)},
    [['shared']] * 3,
]


def with_lists(value):
    if isinstance(value, dict):
        return {key: with_lists(one) for key, one in value.items()}
    return [with_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('content', PLAIN, ids=lambda value: str(value)[:20])
def test_plain_data_comes_back(content, protocol):
    if protocol < 3 and b'bytes' in content:
        pytest.skip('a function call in these protocols')
    assert repr(loads_plain(pickle.dumps(content, protocol))) == repr(with_lists(content))


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_sets_of_texts_and_numbers_come_back(protocol):
    content = dict(a={3, 4}, b=set(), c=[{'x'}, dict(d={2**40})])
    assert loads_plain(pickle.dumps(content, protocol)) == content


def doubled(depth):
    """A tuple of two tuples of two ...: hashing it takes 2**depth steps."""
    return b')' + b''.join(b'q%ch%c\x86' % (level, level) for level in range(depth))


def laughs(depth, width=10):
    """A list of ten times the same list of ten times ...: 10**depth texts when written out."""
    code = b']q\x00'
    for level in range(1, depth):
        code += b'0]q%c(' % level + b'h%c' % (level - 1) * width + b'e'
    return code


HARMFUL = {
    'nested tuples as a key': b'}(' + doubled(200) + b'K\x01u.',
    'nested tuples as a key, one at a time': b'}' + doubled(200) + b'K\x01s.',
    'nested tuples as a key, protocol 0': b'(' + doubled(200) + b'K\x01d.',
    'deep tuples as a key': b'}(' + b')' + b'\x85' * 200_000 + b'K\x01u.',
    'tuples in a set': b'\x8f(' + doubled(200) + b'\x90.',
    'tuples in a frozenset': b'(' + doubled(200) + b'\x91.',
    'huge numbers as keys': b'}('
    + b''.join(
        b'\x8a\x0c' + ((2**61 - 1) * (2**30 + i)).to_bytes(12, 'little') + b'N'
        for i in range(10_000)
    )
    + b'u.',
    'a place in the memo far away': b'Nr\xff\xff\xff\x7f.',
    'a place in the memo far away, protocol 0': b'Np4000000000\n.',
    'a text of 2 GB': b'X\xff\xff\xff\x7fabc.',
    'a text of 2**63 bytes': b'\x8d' + struct.pack('<Q', 2**63 - 1) + b'abc.',
    'bytes of 2**40': b'\x8e' + struct.pack('<Q', 2**40) + b'abc.',
    'a bytearray of 2**40': b'\x96' + struct.pack('<Q', 2**40) + b'abc.',
    'a number of 2**31 bytes': b'\x8b\xff\xff\xff\x7f.',
    'a number of 10**6 digits': b'L' + b'9' * 10**6 + b'L\n.',
    'a frame of 2**60 bytes': b'\x80\x04\x95' + struct.pack('<Q', 2**60) + b'N.',
    'a float of 10**6 digits': b'F' + b'9' * 10**6 + b'\n.',
    'tuples in a set, protocol 2': b'cbuiltins\nset\n](' + doubled(200) + b'e\x85R.',
    'a set of nothing known': b'cbuiltins\nset\nK\x01\x85R.',
    'a call of a text': b'X\x01\x00\x00\x00a]\x85R.',
    'huge numbers in a set': b'\x8f(\x8a\x0c' + b'\x01' * 12 + b'\x90.',
    'a class': b'cos\nsystem\n(S"touch harmed"\ntR.',
    'a class by name on the stack': b'\x8c\x02os\x8c\x06system\x93.',
    'an instance': b'(ios\nsystem\n.',
    'an object kept elsewhere': b'Pid\n.',
    'an extension': b'\x82\x01.',
    'an unknown instruction': b'\xff.',
    'nothing': b'',
    'no end': b']',
    'no stack': b'.',
    'a place in the memo that is empty': b'h\x05.',
    'a half text': b'X\x05\x00\x00\x00abc',
    'a list as a key': b'}(]Nu.',
}


@pytest.mark.parametrize('code', HARMFUL.values(), ids=HARMFUL)
def test_harmful_pickles_are_refused_at_once(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'refs(unc).p'
    path.write_bytes(code)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match='refs.*not a plain pickle') as error:
            load_plain_pickle(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < len(str(path)) + 400
    assert peak < 100e6 and not (tmp_path / 'harmed').exists()


@pytest.mark.parametrize('key', ['ref_id', 'split', 'ann_id', 'image_id', 'sentences'])
@pytest.mark.parametrize('code', [laughs(60), doubled(200), b']q\x00h\x00a'])
def test_shared_values_are_named_without_being_written_out(mini, key, code):
    names = {name: b'X' + struct.pack('<I', len(name)) + name.encode() for name in
             ('ref_id', 'split', 'ann_id', 'image_id', 'sentences', 'train')}  # fmt: skip
    good = dict(ref_id=b'K\x01', split=names['train'], ann_id=b'K\x65', image_id=b'K\x01')
    pairs = b''.join(
        names[name] + (code if name == key else good.get(name, b']'))
        for name in ('ref_id', 'split', 'ann_id', 'image_id', 'sentences')
    )
    folder = mini.root / 'mini'
    (folder / 'refs(unc).p').write_bytes(b'](}(' + pairs + b'ue.')
    what = 'expression at position 0' if key == 'sentences' else key
    with pytest.raises(ValueError, match=rf'refs\(unc\).p.*{what} is ') as error:
        load_references(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), 'train')
    assert len(str(error.value)) < 600


def test_a_list_that_is_named_too_often_is_refused(mini):
    sentences = [dict(sent_id=i, sent='a') for i in range(10_000)]
    mini.refs[:] = [dict(mini.refs[0], sentences=sentences) for _ in range(10_000)]
    mini.write()
    folder = mini.root / 'mini'
    with pytest.raises(ValueError, match='number of expressions and targets .*is 100000000'):
        load_references(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), 'train')
