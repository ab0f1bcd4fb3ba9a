import json
import pickle
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from nemo_mmseg.mining.bank_writer import BankWriter
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import BankError, BankSpec, NegativeBank, UnknownSentenceError
from nemo_mmseg.negatives.tile_store import TileSpec


def write(path, expressions=50, images=30, stored=12, seed=0, **metadata):
    """A bank of random numbers, and the tables that are in it."""
    rng = np.random.default_rng(seed)
    tables = dict(
        sent_ids=np.cumsum(rng.integers(1, 4, expressions)),
        image_row=rng.integers(0, images, expressions),
        image_ids=np.arange(images) * 2 + 5,
        names=[f'bild_ä{i}.jpg' * (i % 3 + 1) for i in range(images)],
        vectors=rng.normal(size=(images, 8)),
        rows=np.stack([rng.permutation(images)[:stored] for _ in range(expressions)]),
        sims=-np.sort(-rng.uniform(-0.2, 1, (expressions, stored)), axis=1),
        own=rng.uniform(0.2, 1, expressions),
    )
    metadata = dict(dataset='refcoco', split='train', fingerprint='f' * 64) | metadata
    with BankWriter(
        path, tables['sent_ids'], tables['image_row'], tables['image_ids'], tables['names'],
        tables['vectors'], stored, metadata,
    ) as writer:  # fmt: skip
        # In any order, several at a time.
        for part in np.array_split(rng.permutation(expressions), 5):
            writer.write(part, tables['rows'][part], tables['sims'][part], tables['own'][part])
    return tables


def test_reads_what_was_written(tmp_path):
    tables = write(tmp_path / 'bank')
    bank = NegativeBank(tmp_path / 'bank')
    assert len(bank) == 50 and bank.stored == 12
    for i, sent_id in enumerate(tables['sent_ids']):
        rows, sims, own = bank.row(int(sent_id))
        np.testing.assert_array_equal(rows, tables['rows'][i])
        np.testing.assert_array_equal(sims, tables['sims'][i].astype(np.float16))
        assert own == np.float16(tables['own'][i])
    assert list(bank.image_names) == tables['names']
    assert bank.image_names[np.uint16(29)] == tables['names'][29]
    np.testing.assert_array_equal(bank.image_ids, tables['image_ids'])
    np.testing.assert_array_equal(bank.image_row, tables['image_row'])
    np.testing.assert_array_equal(bank.image_vectors, tables['vectors'].astype(np.float16))
    assert bank.metadata['dataset'] == 'refcoco' and bank.metadata['format'] == 2 and bank.checked


def test_any_safetensors_reader_reads_it(tmp_path):
    tables = write(tmp_path / 'bank')
    with safe_open(tmp_path / 'bank', framework='numpy') as file:
        dtypes = {name: file.get_tensor(name).dtype.name for name in file.keys()}
        np.testing.assert_array_equal(file.get_tensor('neighbors'), tables['rows'])
        assert json.loads(file.metadata()['nemo_mmseg'])['split'] == 'train'
    assert dtypes == dict(
        sent_ids='int64', neighbors='uint16', similarities='float16', self_similarity='float16',
        image_row='int32', image_ids='int64', image_name_bytes='uint8',
        image_name_offsets='int64', image_vectors='float16', row_checksums='uint64',
    )  # fmt: skip


def test_large_pools_get_wider_rows(tmp_path):
    for images, dtype in ((2**16, np.uint16), (2**16 + 1, np.int32)):
        tables = write(tmp_path / 'bank', expressions=3, images=images, stored=4)
        rows, _, _ = NegativeBank(tmp_path / 'bank').row(int(tables['sent_ids'][2]))
        assert rows.dtype == dtype
        np.testing.assert_array_equal(rows, tables['rows'][2])


def test_a_bank_of_one_image_is_empty_but_readable(tmp_path):
    tables = write(tmp_path / 'bank', expressions=3, images=1, stored=0)
    bank = NegativeBank(tmp_path / 'bank')
    band = bank.band(int(tables['sent_ids'][0]), BandRule())
    assert len(band.rows) == 0 and not band.truncated
    assert bank.band_sizes(BandRule()).tolist() == [0, 0, 0]
    with safe_open(tmp_path / 'bank', framework='numpy') as file:
        assert file.get_tensor('neighbors').shape == (3, 0)


def test_values_at_the_threshold_stay(tmp_path):
    rows = np.arange(4)[None]
    sims = np.array([[0.5, 0.25, 0.25, 0.125]])
    with BankWriter(
        tmp_path / 'bank', [1], [4], np.arange(6), list('abcdef'), np.eye(6), 4, {}
    ) as writer:
        writer.write(np.array([0]), rows, sims, np.array([0.5]))
    bank = NegativeBank(tmp_path / 'bank')
    assert bank.band(1, BandRule(0.5)).rows.tolist() == [1, 2, 3]
    assert bank.band(1, BandRule(0.25, 'absolute')).rows.tolist() == [1, 2, 3]
    # A hair below the stored value, which float16 cannot hold: the threshold is not rounded.
    assert bank.band(1, BandRule(0.25 - 1e-6, 'absolute')).rows.tolist() == [3]
    assert bank.band_sizes(BandRule(0.25 - 1e-6, 'absolute')).tolist() == [1]


def test_a_wholly_stored_ranking_is_never_truncated(tmp_path):
    tables = write(tmp_path / 'bank', images=13, stored=12)
    band = NegativeBank(tmp_path / 'bank').band(int(tables['sent_ids'][0]), BandRule(2.0))
    assert len(band.rows) == 12 and not band.truncated


def test_same_content_gives_the_same_bytes(tmp_path):
    write(tmp_path / 'one')
    write(tmp_path / 'two')
    assert (tmp_path / 'one').read_bytes() == (tmp_path / 'two').read_bytes()


def test_pickles_without_its_handle(tmp_path):
    tables = write(tmp_path / 'bank', expressions=2000)
    bank = NegativeBank(tmp_path / 'bank')
    assert len(bank) == 2000
    stored = pickle.dumps(bank)
    assert len(stored) < 500
    again = pickle.loads(stored)
    sent_id = int(tables['sent_ids'][7])
    np.testing.assert_array_equal(again.row(sent_id)[0], bank.row(sent_id)[0])


def test_arrays_cannot_be_written_to(tmp_path):
    tables = write(tmp_path / 'bank')
    rows, _, _ = NegativeBank(tmp_path / 'bank').row(int(tables['sent_ids'][0]))
    with pytest.raises(ValueError, match='read-only'):
        rows[0] = 1


def test_missing_file_names_the_command(tmp_path):
    bank = NegativeBank(tmp_path / 'nothing')  # not opened, so no error yet
    with pytest.raises(FileNotFoundError, match='nothing.*python tools/mine_negatives.py CONFIG'):
        bank.band(1, BandRule())


def test_every_cut_is_noticed(tmp_path):
    write(tmp_path / 'bank')
    whole = (tmp_path / 'bank').read_bytes()
    for size in (0, 5, 8, 9, 200, 2000, len(whole) - 1):
        (tmp_path / 'cut').write_bytes(whole[:size])
        with pytest.raises(BankError, match='cut.*mine_negatives'):
            len(NegativeBank(tmp_path / 'cut'))
    (tmp_path / 'cut').write_bytes(whole + b'x')
    with pytest.raises(BankError):
        len(NegativeBank(tmp_path / 'cut'))


def test_a_damaged_header_is_noticed(tmp_path):
    write(tmp_path / 'bank')
    whole = (tmp_path / 'bank').read_bytes()
    damaged = [
        whole[:8] + b'#' + whole[9:],
        whole.replace(b'"neighbors"', b'"neighbour"'),
        whole.replace(b'"U16"', b'"Q16"'),
        struct.pack('<Q', 2**62) + whole[8:],
        b'<html>not a bank at all, but the page that says so</html>',
    ]
    for content in damaged:
        (tmp_path / 'bad').write_bytes(content)
        with pytest.raises(BankError, match='bad'):
            len(NegativeBank(tmp_path / 'bad'))


def test_another_format_is_refused(tmp_path):
    write(tmp_path / 'bank')
    whole = (tmp_path / 'bank').read_bytes()
    (tmp_path / 'bank').write_bytes(whole.replace(b'\\"format\\": 2', b'\\"format\\": 9'))
    with pytest.raises(BankError, match='format 9'):
        len(NegativeBank(tmp_path / 'bank'))


def read_all(path):
    """All that a bank says, and the bands of all expressions."""
    bank = NegativeBank(path)
    rows = [bank.row(sent_id) for sent_id in bank.sent_ids.tolist()]
    bands = [bank.band(sent_id, BandRule(0.9)).rows for sent_id in bank.sent_ids.tolist()]
    tables = bank.image_ids, bank.image_row, bank.image_vectors, bank.sent_ids
    said = [*map(np.ravel, tables), *(np.ravel(part) for row in [*rows, *bands] for part in row)]
    return [list(bank.image_names), bank.metadata, np.concatenate(said).tolist()]


def flips(size, count, seed=0):
    """Places and bits, spread over a file."""
    rng = np.random.default_rng(seed)
    places = np.linspace(0, size - 1, count).astype(int)
    return zip(places.tolist(), (1 << rng.integers(0, 8, count)).tolist())


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    write(tmp_path / 'bank', expressions=20, images=12, stored=8)
    whole = (tmp_path / 'bank').read_bytes()
    read_all(tmp_path / 'bank')
    for place, bit in flips(len(whole), 600):
        damaged = bytearray(whole)
        damaged[place] ^= bit
        (tmp_path / 'bad').write_bytes(damaged)
        with pytest.raises(BankError, match='bad is damaged, or no bank.*make it again with'):
            read_all(tmp_path / 'bad')


def test_the_damaged_array_and_expression_are_named(tmp_path):
    tables = write(tmp_path / 'bank')
    whole = (tmp_path / 'bank').read_bytes()
    sent_ids, rows = tables['sent_ids'], tables['rows'].astype('<u2')
    for content, said in (
        (np.asarray(sent_ids, '<i8'), 'the array sent_ids is not what was written'),
        (tables['vectors'].astype('<f2'), 'the array image_vectors is not what was written'),
        (rows[7], f'neighbors of expression {sent_ids[7]} is not what was written'),
        (tables['sims'].astype('<f2')[9], f'similarities of expression {sent_ids[9]} is not'),
    ):
        at = whole.index(content.tobytes()) + 3
        damaged = whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :]
        (tmp_path / 'bad').write_bytes(damaged)
        with pytest.raises(BankError, match=said):
            read_all(tmp_path / 'bad')
        with pytest.raises(BankError, match=said):
            NegativeBank(tmp_path / 'bad').num_remaining([BandRule(0.9, i2i_sim_thres=0.9)])


def test_banks_from_before_there_were_checksums_are_read(tmp_path):
    """Written by the safetensors library, as banks of format 1 were laid out."""
    tables = write(tmp_path / 'new')
    with safe_open(tmp_path / 'new', framework='numpy') as file:
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != 'row_checksums'}
    made = dict(format=1, fingerprint='f' * 64)
    save_file(arrays, tmp_path / 'old', metadata=dict(nemo_mmseg=json.dumps(made)))
    old, new = NegativeBank(tmp_path / 'old'), NegativeBank(tmp_path / 'new')
    assert not old.checked
    for sent_id in tables['sent_ids'].tolist():
        for one, other in zip(old.row(sent_id), new.row(sent_id)):
            np.testing.assert_array_equal(one, other)
    assert old.band_sizes(BandRule(0.9)).tolist() == new.band_sizes(BandRule(0.9)).tolist()


def test_another_data_set_is_refused_with_both_names(tmp_path):
    write(tmp_path / 'bank')
    bank = NegativeBank(tmp_path / 'bank')
    bank.check('f' * 64)
    with pytest.raises(BankError) as error:
        bank.check('a' * 64, "'refcoco+', split 'train'")
    for part in ("'refcoco', split 'train'", "'refcoco+', split 'train'", 'aaaa', 'ffff'):
        assert part in str(error.value)


def test_unknown_sentence_is_named(tmp_path):
    write(tmp_path / 'bank')
    bank = NegativeBank(tmp_path / 'bank')
    for unknown in (-1, 0, 10**9):
        with pytest.raises(UnknownSentenceError, match=f"no expression {unknown} .'red dog'"):
            bank.band(unknown, BandRule(), 'red dog')
    assert issubclass(UnknownSentenceError, KeyError)


WORKER = """
import sys
import numpy as np
from nemo_mmseg.negatives import BandRule, NegativeBank
bank = NegativeBank(sys.argv[1])
total = sum(float(bank.band(int(s), BandRule()).rows.sum()) for s in bank.sent_ids)
total += int(bank.arrays['similarities'].view(np.uint16).sum())
private = shared = 0
inside = False
for line in open('/proc/self/smaps'):
    if '-' in line.split()[0]:
        inside = sys.argv[1] in line
    elif inside and line.startswith('Private_Dirty'):
        private += int(line.split()[1])
    elif inside and line.startswith('Rss'):
        shared += int(line.split()[1])
print(private, shared)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='/proc/self/smaps')
def test_readers_hold_no_copy_of_their_own(tmp_path):
    path = tmp_path / 'bank'
    write(path, expressions=5000, images=400, stored=300)
    done = subprocess.check_output([sys.executable, '-W', 'ignore', '-c', WORKER, str(path)])
    private, resident = map(int, done.split())
    assert private == 0 and resident > 5000 * 300 * 4 / 1024 * 0.9


def test_a_bank_of_refcoco_size_opens_at_once(tmp_path):
    """120,624 expressions with 1,000 images each; the tables are holes in the file."""
    expressions, images, stored = 120_624, 16_994, 1000
    with BankWriter(
        tmp_path / 'bank',
        sent_ids=np.arange(expressions),
        image_row=np.zeros(expressions),
        image_ids=np.arange(images),
        image_names=[f'COCO_train2014_{i:012d}.jpg' for i in range(images)],
        image_vectors=np.zeros((images, 512)),
        stored=stored,
        metadata=dict(fingerprint='f', dataset='refcoco', split='train'),
    ):
        pass
    assert (tmp_path / 'bank').stat().st_size > expressions * stored * 4
    seconds = []
    for _ in range(5):
        started = time.process_time()
        bank = NegativeBank(tmp_path / 'bank')
        rows, similarities, own = bank.row(77_777)
        seconds.append(time.process_time() - started)
    assert len(rows) == len(similarities) == stored and own == 0
    assert min(seconds) < 0.05


def test_a_path_may_begin_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert BankSpec('~/a/bank.safetensors').path == f'{tmp_path}/a/bank.safetensors'
    assert TileSpec('~/tiles', 8, 8).path == f'{tmp_path}/tiles'
    assert BankSpec('a~/bank').path == 'a~/bank'
