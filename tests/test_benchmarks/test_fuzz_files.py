"""Changed files of every kind are read right or refused by name, and the judge of it is right."""

import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
PROGRAM = str(BENCHMARKS / 'fuzz_files.py')


def fuzz(*arguments):
    """Run the program; returns its exit code and what it printed."""
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def parts(monkeypatch):
    """The modules of the fuzzer."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from fuzzing import annotations, judge, mutate, pickles, truth

    return SimpleNamespace(
        annotations=annotations, judge=judge, mutate=mutate, pickles=pickles, truth=truth
    )


def test_some_mutations_of_every_kind():
    code, printed = fuzz('--number', 100)
    assert code == 0, printed[-6000:]


@pytest.mark.slow
def test_all_mutations():
    code, printed = fuzz('--number', 1500)
    assert code == 0, printed[-6000:]
    assert int(printed.split('| all')[1].split('|')[1]) > 2400


def outcomes(parts, folder, *uses, **about):
    """What the judge says of mutations that do these things."""

    def make(place, rng, seed):
        (place / 'refs.p').touch()
        use = uses[seed]
        return parts.judge.Case(
            'a change', lambda: use(place), lambda answer: answer, ('refs.p',), **about
        )

    kind = parts.judge.Kind('toy', 1, make)
    return list(parts.judge.run([(kind, seed) for seed in range(len(uses))], folder))


def raising(error):
    def use(place):
        raise error

    return use


def test_the_judge_counts_what_is_right_and_what_is_named(parts, tmp_path):
    found = outcomes(
        parts,
        tmp_path,
        lambda place: None,
        raising(ValueError('refs.p: reference 5 has no image')),
        raising(FileNotFoundError(2, 'No such file', 'refs.p')),
    )
    assert [one.result for one in found] == ['right', 'named error', 'named error']
    assert not list(tmp_path.iterdir())


def test_the_judge_sees_every_fault(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(parts.judge, 'SECONDS', 6)
    monkeypatch.setattr(parts.judge, 'MEMORY', 2**27)

    def hang(place):
        while True:
            pass

    def eat(place):
        held = np.ones(2**27)  # more than the parent has by far
        time.sleep(60)
        return held

    faults = {
        'another answer': lambda place: 'another answer',
        'TypeError': raising(TypeError('refs.p')),
        'RecursionError': raising(RecursionError('refs.p')),
        'no file is named': raising(ValueError('no such field')),
        'characters': raising(ValueError('refs.p' * 1000)),
        'a bare': raising(UnicodeDecodeError('utf-8', b'refs.p', 0, 1, 'refs.p')),
        'SIGSEGV': lambda place: os.kill(os.getpid(), 11),
        'exit code': lambda place: os._exit(7),
        'more than 6 s': hang,
        'GB of memory': eat,
        'files are left': lambda place: (place / 'refs.p.part').touch(),
    }
    found = outcomes(parts, tmp_path, *faults.values(), lambda place: None)
    assert [one.seed for one in found] == list(range(len(faults) + 1))
    for one, words in zip(found, faults):
        assert one.result == 'anything else' and words in one.detail, (one, words)
    assert found[-1].result == 'right'


def test_a_message_names_the_record_and_a_sound_file_is_read(parts, tmp_path):
    error = raising(ValueError('refs.p is wrong'))
    assert 'neither id' in outcomes(parts, tmp_path / 'a', error, about=('ref_id',))[0].detail
    assert 'sound' in outcomes(parts, tmp_path / 'b', error, sound=lambda: True)[0].detail


@pytest.mark.parametrize('generalized', [False, True])
def test_the_truth_of_sound_files_is_what_the_data_set_reads(parts, tmp_path, generalized):
    """Each knows nothing of the other."""
    refs, instances = parts.annotations.tables(generalized)
    content = parts.mutate.dumps(refs)
    if not generalized:
        content = pickle.dumps(refs)
    split_file = parts.annotations.lay_out(
        tmp_path, generalized, content, parts.mutate.dumps(instances)
    )
    sizes = dict.fromkeys(parts.annotations.expected_images(), (24, 36))
    truth = parts.truth.Reader(sizes, generalized).read(refs, instances)
    assert not truth.loose and len(truth.samples) == 13
    assert parts.annotations.read_all(split_file) == truth.samples
    assert parts.annotations.check(split_file, False, True) is None


def test_the_truth_decodes_run_lengths_as_pycocotools_does(parts):
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.asfortranarray(rng.random((24, 36)) < rng.random(), np.uint8)
        counts = parts.truth.decode_counts(coco_mask.encode(mask)['counts'])
        values = np.arange(len(counts)) % 2
        assert (np.repeat(values, counts).reshape(36, 24).T == mask).all()
    for text in ('', 'P', '04?P', 'é', 'o' * 20):
        if text:
            with pytest.raises(parts.truth.Invalid):
                parts.truth.decode_counts(text)


def test_a_seed_gives_the_same_mutation(parts):
    content = bytes(range(256)) * 4
    for seed in range(40):
        one, other = (parts.mutate.other_bytes(content, random.Random(seed)) for _ in range(2))
        assert one == other
        tree = dict(a=[dict(id=1, b=2.0), dict(id=2)], c='text')
        kept = repr(tree)
        parts.mutate.change_structure(tree, random.Random(seed), False)
        assert repr(tree) == kept


def test_prepared_pickles_run_code_in_a_reader_that_lets_them(parts, tmp_path):
    """The sentinel proves something: pickle itself makes it with many of them."""
    sentinel = tmp_path / 'made'
    program = (
        'import pickle, sys\n'
        'try: pickle.loads(sys.stdin.buffer.read())\n'
        'except BaseException: pass\n'
    )
    made = 0
    wanted = ('os.system', 'subprocess.call', 'builtins.eval', 'builtins.open', '_io.FileIO')
    for name, content in parts.pickles.called(str(sentinel)):
        if name.startswith(('REDUCE of', 'STACK_GLOBAL of')) and name.endswith(wanted):
            subprocess.run([sys.executable, '-c', program], input=content, timeout=60)
            made += sentinel.exists()
            sentinel.unlink(missing_ok=True)
    assert made == len(wanted)
