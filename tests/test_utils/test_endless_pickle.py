"""Pickles of checkpoints that would take for ever are refused before they are read."""

import io
import pickle
import zipfile

import pytest

from nemo_mmseg.utils.checkpoint import read_checkpoint
from nemo_mmseg.utils.endless_pickle import refuse_endless


def endless(make):
    """Opcodes of a container that holds another one twice, and so on."""
    return b'K\x05q\x00' + b''.join(make % (i, i, i + 1) for i in range(60))


TUPLES, LISTS = endless(b'h%ch%c\x86q%c'), endless(b'](h%ch%ceq%c')
# Sixty empty lists first, which are then filled from the outermost on.
LATE = b''.join(b']q%c0' % i for i in range(61)) + b''.join(
    b'h%c(h%ch%ce0' % (i, i - 1, i - 1) for i in range(60, 0, -1)
)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize(
    'content',
    [
        *(form % TUPLES for form in (b'}%bK\x01s.', b'}(%bK\x01u.', b'(%bK\x01d.', b'%bQ.')),
        *(form % TUPLES for form in (b'\x8f(%b\x90.', b']%ba.', b'(%b\x91.', b'%bh\x03R.')),
        *(form % LISTS for form in (b'cbuiltins\nset\n%b\x85R.', b'%bN\x85R.', b'%bQ.')),
        LATE + b'h\x3cN\x85R.',
        b'}q\x00X\x05\x00\x00\x00modelh\x00s.',  # a dict that holds itself
    ],
)
def test_a_pickle_that_takes_for_ever_is_refused_at_once(tmp_path, content, zipped):
    file = tmp_path / 'a.pth'
    if zipped:
        with zipfile.ZipFile(file, 'w') as archive:
            archive.writestr('a/data.pkl', content)
            archive.writestr('a/version', '3\n')
    else:
        head = (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))
        parts = [pickle.dumps(part, protocol=2) for part in (*head, [])]
        file.write_bytes(b''.join([*parts[:3], content, parts[3]]))
    with pytest.raises(ValueError, match=r'a\.pth cannot be read.*container'):
        read_checkpoint(file)


@pytest.mark.parametrize('protocol', range(6))
def test_tuples_that_end_are_let_through(protocol):
    shape = (3, 4, (5, 6))
    content = {(1, (2, shape)): [shape] * 1000, 'set': {shape, frozenset({shape})}, 'n': None}
    refuse_endless(io.BytesIO(pickle.dumps([content, content, 2.5, b'a', 'b'], protocol)))
