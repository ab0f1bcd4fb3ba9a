"""Stages are run once for the same inputs, and continued where they stopped."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import get_context

import psutil
import pytest

from nemo_mmseg.utils.atomic_write import atomic_write
from nemo_mmseg.utils.dist import wait_for
from nemo_mmseg.utils.run_tool import run_tool
from nemo_mmseg.utils.stages import run_stage


class Work:
    """Appends a line to a file; stops before the second one if asked to."""

    def __init__(self, folder) -> None:
        self.folder, self.runs, self.stop = folder, 0, False

    def __call__(self) -> None:
        self.runs += 1
        for _ in range(2):
            with open(self.folder / 'lines', 'a') as file:
                file.write('x')
            if self.stop:
                raise KeyboardInterrupt


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / 'one')


def run(work, **inputs) -> float:
    return run_stage(work.folder, inputs, work, lambda: work.folder / 'lines')


def test_a_finished_stage_is_passed_over_until_an_input_changes(work, capsys):
    run(work, config='a', data='1')
    assert capsys.readouterr().out.startswith('== one: begins\n')
    seconds = run(work, config='a', data='1')
    assert work.runs == 1 and capsys.readouterr().out == '== one: finished\n'
    assert seconds == json.loads((work.folder / 'stage.json').read_text())['seconds']
    run(work, config='a', data='2', more='3')
    assert work.runs == 2 and (work.folder / 'lines').read_text() == 'xx'
    assert 'one: changed: data, more; what there was is in' in capsys.readouterr().out
    assert (work.folder.parent / 'one.old' / 'lines').read_text() == 'xx'
    (work.folder / 'lines').unlink()  # the user wants it anew
    run(work, config='a', data='2', more='3')
    assert work.runs == 3


def test_a_killed_stage_finds_what_it_made(work, capsys):
    work.stop = True
    with pytest.raises(KeyboardInterrupt):
        run(work, config='a')
    work.stop = False
    run(work, config='a')
    assert '== one: continues' in capsys.readouterr().out
    assert (work.folder / 'lines').read_text() == 'xxx'
    # one that was killed with other inputs is not continued
    work.stop = True
    with pytest.raises(KeyboardInterrupt):
        run(work, config='b')
    work.stop = False
    run(work, config='c')
    assert (work.folder / 'lines').read_text() == 'xx'


def test_files_of_something_else_are_refused(work):
    run(work, config='a')
    (work.folder / 'lines').write_text('other')
    with pytest.raises(ValueError, match='lines is not what stage one wrote'):
        run(work, config='a')
    (work.folder / 'stage.json').unlink()
    with pytest.raises(ValueError, match='one holds files of something else'):
        run(work, config='a')
    assert work.runs == 1


def test_a_stage_that_was_killed_before_it_began_is_no_other_file(work):
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    work.folder.mkdir()
    with suppress(KeyboardInterrupt), atomic_write(work.folder.parent / 'stage.json') as part:
        left = work.folder / part.name.replace(f'-{os.getpid()}-', f'-{ended.pid}-')
        left.touch()
        raise KeyboardInterrupt
    run(work, config='a')
    assert work.runs == 1 and not left.exists()


def wait_in_a_program(program) -> None:
    run_tool(program)


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere the program stays')
def test_a_program_ends_with_the_process_that_runs_it(tmp_path):
    program, said = tmp_path / 'program.py', tmp_path / 'said'
    program.write_text(f"import os, time; open('{said}', 'x').write('1'); time.sleep(60)")
    runner = get_context('fork').Process(target=wait_in_a_program, args=(program,))
    runner.start()
    wait_for(lambda: said.exists() or None, lambda: [], 20, 'the program')
    (child,) = psutil.Process(runner.pid).children()
    runner.kill()
    runner.join()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_programs_that_are_missing_or_fail(tmp_path, capfd):
    with pytest.raises(FileNotFoundError, match='there is no program .*no_tool'):
        run_tool('no_tool.py')
    program = tmp_path / 'program.py'
    program.write_text('import sys, nemo_mmseg; print(sys.argv[1:]); sys.exit(3)')
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_tool(program, 'a b', 2)
    assert error.value.returncode == 3 and "['a b', '2']" in capfd.readouterr().out
