"""Reading files of weights: nothing in them runs, and what is wrong with them is said."""

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from nemo_mmseg import compat
from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.utils import checkpoint
from nemo_mmseg.utils.checkpoint import read_checkpoint


@pytest.fixture
def save(tmp_path):
    def write(content, **options):
        torch.save(content, tmp_path / 'a.pth', **options)
        return tmp_path / 'a.pth'

    return write


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize('size', [3, 20_000])
def test_a_file_cut_anywhere_is_said_to_be_cut(save, zipped, size):
    content = dict(
        model=OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(size)),
        args=argparse.Namespace(lr=0.1, names=['x', 'y']),
        epoch=3,
    )
    file = save(content, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(file, [argparse.Namespace])['model']['a'].tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    whole = file.read_bytes()
    # cut in the name of a class, it holds another class
    pattern = r'a\.pth cannot be read as a checkpoint: it (is damaged or cut short|holds \w)'
    for length in range(0, len(whole), len(whole) // 300):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=pattern):
            read_checkpoint(file, [argparse.Namespace])


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
def test_damage_anywhere_is_no_other_error(save, zipped):
    whole = save(dict(a=torch.ones(2), b=[1, 'c']), _use_new_zipfile_serialization=zipped)
    content = bytearray(whole.read_bytes())
    for place in range(0, len(content), 5):
        damaged = content.copy()
        damaged[place] ^= 0x55
        whole.write_bytes(damaged)
        try:
            read_checkpoint(whole)  # padding, a name or a value
        except ValueError as error:
            assert 'cannot be read as a checkpoint' in str(error)


def test_a_flipped_bit_in_a_value_is_noticed(save):
    file = save(dict(state_dict=dict(a=torch.arange(5000.0)), meta=dict(epoch=1)))
    whole = file.read_bytes()
    first = whole.index(torch.arange(5000.0).numpy().tobytes())
    for place in range(first, first + 20_000, 997):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for mmap in (False, True):
            with pytest.raises(
                ValueError, match=r'damaged or cut short \(the checksum of a/data/0'
            ):
                read_checkpoint(file, mmap=mmap)


def test_a_file_without_checksums_is_read_with_a_remark(save, monkeypatch):
    said = []
    monkeypatch.setattr(checkpoint, 'print_log', lambda text, *args: said.append(text))
    torch.serialization.set_crc32_options(False)
    try:
        file = save(dict(a=torch.ones(3)))
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(file)['a'].tolist() == [1, 1, 1]
    assert len(said) == 1 and 'set_crc32_options(False)): damage in it is not noticed' in said[0]


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize('entry', [None, 'state_dict', 'model', 'ema_state_dict'])
@pytest.mark.parametrize(
    'name, tensor, said',
    [
        ('net.weight', torch.tensor([1.0, NAN]), "'net.weight' has values that are not finite"),
        ('net.weight', torch.tensor([1.0, -INF, INF]), "'net.weight' has values .*inf"),
        ('net.weight', torch.tensor([1.0, NAN]).bfloat16(), "'net.weight' has values"),
        ('net.weight', torch.ones(2, dtype=torch.complex64), "'net.weight' is of torch.complex64"),
        (
            'net.weight',
            torch.ones(2, 2).to_sparse(),
            "'net.weight' is of .*sparse.*; allowed: dense",
        ),
        ('net.weight', torch.empty(2, device='meta'), "'net.weight' is of the meta device"),
        ('x' * 3000, torch.tensor([NAN]), "'x{60,90}[.]{3} has values"),
        ('net.mask_token', torch.tensor([-INF, 0]), "'net.mask_token' has values"),
        ('net.mask', torch.tensor([NAN, 0]), "'net.mask' has values that are not finite"),
        ('module.net.bias', torch.ones(2), "one tensor twice, as 'net.bias' and 'module.net.bias'"),
        ('module.module.net.bias', torch.ones(2), "twice, as 'net.bias' and 'module.module.net"),
        ('_orig_mod.net.bias', torch.ones(2), "twice, as 'net.bias' and '_orig_mod.net.bias'"),
        ('net._orig_mod.bias', torch.ones(2), "twice, as 'net.bias' and 'net._orig_mod.bias'"),
    ],
)
def test_weights_that_mean_nothing_are_named(save, entry, name, tensor, said, zipped):
    state = {'net.bias': torch.zeros(2), name: tensor}
    content = state if entry is None else {entry: state, 'epoch': 3}
    file = save(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f'^{file}.*{said}'):
        read_checkpoint(file)


def test_numbers_of_eight_bits_with_a_scale_elsewhere_are_refused(save):
    for tensor, kind in (
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), 'qint8'),
        (torch.ones(2).to(torch.float8_e4m3fn), 'float8_e4m3fn'),
    ):
        with pytest.raises(ValueError, match=rf"a\.pth: the tensor 'w' is of torch.{kind}"):
            read_checkpoint(save(dict(state_dict=dict(w=tensor))))


NO_STATE = dict(
    text='abc', list=[torch.ones(1)], empty={}, number=dict(a=1), name={5: torch.ones(1)},
    tuple={('a',): torch.ones(1)}, none=dict(state_dict=None), inner=dict(state_dict=[1]),
)  # fmt: skip


@pytest.mark.parametrize('content', NO_STATE.values(), ids=NO_STATE)
def test_what_is_no_state_dict_is_refused(content):
    with pytest.raises(ValueError, match=r'^a\.pth holds no state dict'):
        checkpoint.state_dict_of('a.pth', content)


def test_a_state_dict_is_the_entry_or_the_whole():
    state = dict(a=torch.ones(1))
    for content in (state, dict(state_dict=state, meta=5)):
        assert checkpoint.state_dict_of('a.pth', content) == state


def test_what_is_not_finite_by_right_is_read(save):
    huge = torch.tensor([torch.finfo(torch.float32).max] * 3)
    state = {
        'attn.attn_mask': torch.full((3, 3), -INF).triu(1),
        'attn.causal_bias': torch.full((3, 3), -INF).triu(1),
        'h.0.masked_bias': torch.tensor(-INF),
        'huge': huge,  # their sum is no number
        'half': torch.full((9,), 65504.0).half(),
        'steps': torch.tensor(7),
        'module.other': torch.ones(0),
    }
    moments = {'state': {0: {'exp_avg': torch.tensor([NAN])}}, 'param_groups': []}
    content = dict(state_dict=state, optimizer=moments, meta=dict(epoch=1))
    read = read_checkpoint(save(content))
    assert read['state_dict']['huge'].tolist() == huge.tolist()
    assert read['optimizer']['state'][0]['exp_avg'].isnan().all()


@pytest.mark.parametrize('entry', ['state_dict', 'model', 'ema_state_dict'])
def test_records_of_a_training_may_be_infinite(save, entry):
    records = dict(
        best_loss=torch.tensor(INF),
        metrics=dict(val_iou=torch.tensor(NAN)),
        loss_log={'loss': torch.tensor([1.0, NAN])},
        message_hub=dict(runtime_info=dict(loss=torch.tensor(NAN))),
    )
    read = read_checkpoint(save({entry: dict(a=torch.ones(1)), **records}))
    assert read['best_loss'] == INF and read['metrics']['val_iou'].isnan()
    with pytest.raises(ValueError, match="'a' has values that are not finite"):
        read_checkpoint(save({entry: dict(a=torch.tensor(NAN)), **records}))


def test_a_state_dict_in_a_state_dict_is_looked_at(save):
    with pytest.raises(ValueError, match="'a' has values that are not finite"):
        read_checkpoint(save(dict(model=dict(state_dict=dict(a=torch.tensor(NAN))))))


def test_an_optimizer_of_values_that_are_not_finite_is_named():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    checkpoint.check_optimizer('a.pth', dict(optimizer=optimizer.state_dict()))
    checkpoint.check_optimizer('a.pth', dict(optimizer=None))
    optimizer.state[weight]['exp_avg'][1] = NAN
    for state in (optimizer.state_dict(), dict(first=optimizer.state_dict())):
        with pytest.raises(ValueError, match=r'a\.pth: the tensor optimizer\..*exp_avg has values'):
            checkpoint.check_optimizer('a.pth', dict(optimizer=state))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize('kind', [dict, OrderedDict])
def test_a_key_that_the_pickle_sets_twice_is_named(save, kind, zipped):
    state = kind({'a.weight': torch.ones(2), 'b.weight': torch.zeros(2)})
    file = save(dict(state_dict=state), _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(file) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, 'w') as archive:
            for name, content in entries.items():
                archive.writestr(name, content.replace(b'b.weight', b'a.weight'))
    else:
        file.write_bytes(file.read_bytes().replace(b'b.weight', b'a.weight'))
    with pytest.raises(ValueError, match="it sets .*'a.weight' twice in one dict"):
        read_checkpoint(file)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_an_archive_with_two_entries_of_one_name_is_refused(save):
    file = save(dict(a=torch.ones(2)))
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr('a/data/0', b'\1' * 8)
    with pytest.raises(ValueError, match="two entries of the name 'a/data/0'"):
        read_checkpoint(file)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize('protocol', [4, 5])
def test_protocols_that_the_safe_reader_lacks_are_named(save, protocol, zipped):
    file = save(
        dict(state_dict=OrderedDict(a=torch.ones(2))),
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    said = f"written with pickle protocol {protocol}, which PyTorch's safe reader does not read"
    with pytest.raises(ValueError, match=rf'a\.pth cannot be read as a checkpoint: it was {said}'):
        read_checkpoint(file)


def test_a_view_without_end_is_looked_at_in_no_time(save):
    endless = torch.as_strided(torch.ones(4), (10**6, 10**6), (0, 0))
    with pytest.raises(ValueError, match="a.pth: the tensor 'a' shows 4 numbers as 1000000000000"):
        read_checkpoint(save(dict(a=endless)))
    assert read_checkpoint(save(dict(a=endless[0])))['a'].shape == (10**6,)


@pytest.mark.parametrize('error', [PermissionError(13, 'not yours'), MemoryError()])
def test_what_is_no_fault_of_the_file_is_not_said_to_be_one(save, monkeypatch, error):
    file = save(dict(a=1))

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(type(error)) as caught:
        read_checkpoint(file)
    assert caught.value is error


class Touch:
    def __reduce__(self):
        return (Path.touch, (Path('ran'),))


class Settings:
    pass


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
@pytest.mark.parametrize(
    'content, name',
    [
        (Settings(), f'{Settings.__module__}.Settings'),
        (argparse.Namespace(lr=1), 'argparse.Namespace'),
        (Touch(), r'pathlib\.[\w.]+|getattr'),
        (HistoryBuffer([1.0], [1]), r'mmengine\.[\w.]+HistoryBuffer'),
        (np.float64(1), r'numpy\.[\w.]+scalar'),
        (np.ones(2), r'numpy\.[\w.]+_reconstruct'),
    ],
    ids=['class', 'namespace', 'call', 'mmengine', 'scalar', 'array'],
)
def test_the_reason_names_what_was_refused_and_gives_no_advice(
    save, content, name, zipped, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    compat.allow_checkpoint_globals()
    file = save(dict(state_dict={}, other=content), _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError) as caught:
        read_checkpoint(file)
    pattern = (
        rf'{file} cannot be read as a checkpoint: it holds ({name}), which is no tensor or plain '
        'container'
    )
    assert re.fullmatch(pattern, str(caught.value)), caught.value
    assert not Path('ran').exists()


def test_reasons_of_older_readers(save, monkeypatch):
    file = save({})
    advice = 'Weights only load failed. Re-running with `weights_only` set to `False` will succeed'

    def fail(*args, **kwargs):
        try:
            raise pickle.UnpicklingError('Unsupported class argparse.Namespace')
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(f'\033[1m{advice}\033[0m {error}') from None

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(ValueError, match='holds argparse.Namespace, which is no .* container$'):
        read_checkpoint(file)


def listed():
    return set(map(str, torch.serialization.get_safe_globals()))


def test_only_what_is_asked_for_is_allowed_and_the_list_comes_back(save):
    compat.allow_checkpoint_globals()
    before = listed()
    assert any('HistoryBuffer' in entry for entry in before)
    records = dict(loss=HistoryBuffer([0.5], [1]), lr=np.float64(0.1), ids=np.arange(3))
    file = save(records)
    read = read_checkpoint(file, compat.mmengine_globals())
    assert read['loss'].mean() == 0.5 and read['lr'] == 0.1 and read['ids'].tolist() == [0, 1, 2]
    assert listed() == before
    for allow in ((), [argparse.Namespace]):
        with pytest.raises(ValueError, match='it holds'):
            read_checkpoint(file, allow)
        assert listed() == before
    # a statistic is written as a call of getattr
    file = save(dict(find=Find(HistoryBuffer, 'mean')))
    assert read_checkpoint(file, compat.mmengine_globals())['find'] is HistoryBuffer.mean
    for converter in CONVERTERS.values():
        with pytest.raises(ValueError, match='it holds getattr'):
            read_checkpoint(file, converter.allow)


class Find:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize(
    'content, allowed',
    [
        (argparse.Namespace(lr=1), {'caris', 'lavt', 'lavt_one', 'vpd'}),
        (np.float64(0.7), {'cris'}),
        (np.float32(0.7), {'cris'}),
        (np.int64(7), {'cris'}),
        (np.array([0.7]), set()),
        (HistoryBuffer([1.0], [1]), set()),
    ],
    ids=['namespace', 'double', 'float', 'int', 'array', 'mmengine'],
)
def test_published_files_may_hold_what_their_trainings_save(save, content, allowed):
    compat.allow_checkpoint_globals()
    weight = torch.nn.Parameter(torch.ones(2))
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.Adam([weight]), [35])
    file = save(dict(content=content, scheduler=schedule.state_dict()))
    for name, converter in CONVERTERS.items():
        if name in allowed:
            assert read_checkpoint(file, converter.allow)['content'] == content
        else:
            with pytest.raises(ValueError, match='cannot be read as a checkpoint: it holds'):
                read_checkpoint(file, converter.allow)
