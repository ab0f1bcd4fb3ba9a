"""Grids of runs: plan, resuming, and the page's numbers against numpy."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from experiment import Experiment, Run, claim, flat, plan_text, run_cell, run_experiment
from experiment_page import gains, read_scores, write_experiment_page
from mmengine.config import Config

from nemo_mmseg.refshapes.write import make_refshapes
from nemo_mmseg.utils.config import find_config

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'projects' / 'experiments' / 'grids').glob('*.py'))
CRIS = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'

ROWS = {
    'none': dict(config=CRIS.format('')),
    'mixed up': dict(config=CRIS.format('_cutmix')),
}


def make_experiment(**changes) -> Experiment:
    settings = dict(
        name='toy',
        rows=ROWS,
        baseline='none', iterations=2, param_scheduler=[], seeds=(0, 1), splits=('val', 'testA'),
        seconds_per_iteration=30, seconds_per_test=60, cores=2,
    )  # fmt: skip
    return Experiment(**{**settings, **changes})


def fake_iou(row: str, seed: int, sent_id: int) -> float:
    gain = (1 + seed) * (sent_id % 3) if row == 'mixed_up' else 0
    return (sent_id * 7 % 10 + 2 * seed + gain) / 20


class FakeTools:
    """Writes what train.py and test.py write; keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __call__(self, command) -> None:
        tool, config = Path(command[3]).name, Path(command[4])
        folder = config.parent
        self.calls.append((tool, f'{folder.parent.name}/{folder.name}'))
        if tool == 'train.py':
            (folder / 'iter_2.pth').write_text('weights')
            with config.open('a') as file:  # as MMEngine's runner writes it
                file.write(f'work_dir = {str(folder)!r}\nlauncher = "none"\n')
            return
        assert Path(command[5]) == folder / 'iter_2.pth'
        row, seed = folder.parent.name, int(folder.name[5:])
        for number, split in enumerate(('val', 'testA')):
            records = []
            for sent_id in range(10 * number, 10 * number + 10):
                union = 100 * (1 + sent_id)
                inside = round(union * fake_iou(row, seed, sent_id))
                records.append(
                    dict(intersection=inside, union=union, target_area=0.1,
                         num_distractors=sent_id % 3, sent_id=sent_id, ref_id=sent_id,
                         image_id=sent_id // 2, image=f'{sent_id // 2}.jpg', expression='a dog')
                )  # fmt: skip
            (folder / split).mkdir()
            content = dict(predictions=records, empty_union=1.0, tie='>=')
            (folder / split / 'predictions.json').write_text(json.dumps(content))
            (folder / split / 'metrics.json').write_text('{}')


def test_a_stopped_grid_goes_on_where_it_was(tmp_path):
    experiment, tools, pages = make_experiment(), FakeTools(), []
    assert '4 of 4 runs of 2 iterations remain: about 0.1 hours on 2 cores' in plan_text(
        experiment, tmp_path
    )

    def stopped(command):
        if len(tools.calls) == 3:  # the second run was trained and is about to be evaluated
            raise KeyboardInterrupt
        tools(command)

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, tmp_path, stopped, lambda: pages.append(1))
    plan = plan_text(experiment, tmp_path)
    assert '3 of 4 runs' in plan and 'mixed up, seed 0: iter_2' in plan and len(pages) == 1
    run_experiment(experiment, tmp_path, tools)
    assert tools.calls == [
        (tool, f'{row}/seed_{seed}')
        for seed in (0, 1)
        for row in ('none', 'mixed_up')
        for tool in ('train.py', 'test.py')
    ]
    run_experiment(experiment, tmp_path, tools)
    assert len(tools.calls) == 8 and '0 of 4 runs' in plan_text(experiment, tmp_path)


def test_runs_are_equally_long_and_differ_in_seed_alone(tmp_path):
    first, second, third, _ = make_experiment().cells(tmp_path)
    for run in (first, second, third):
        cfg = run.config()
        assert cfg.train_cfg.max_iters == 2 and cfg.train_cfg.type == 'IterBasedTrainLoop'
        assert cfg.randomness.seed == run.seed
        assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    settings, other = first.config().to_dict(), third.config().to_dict()
    assert settings.pop('randomness') != other.pop('randomness') and settings == other
    train, test = first.commands()
    assert train[-1] == '--resume' and test[-3:] == ['--splits', 'val', 'testA']


@pytest.mark.parametrize(
    'options, key',
    [
        ({'randomness.seed': 7}, 'randomness.seed'),
        ({'default_hooks.checkpoint.interval': 3}, 'default_hooks.checkpoint.interval'),
        ({'default_hooks': dict(checkpoint=dict(interval=3))}, 'default_hooks.checkpoint.interval'),
        ({'train_dataloader.sampler.shuffle': False}, 'train_dataloader.sampler.shuffle'),
        ({'train_cfg.max_epochs': 3}, 'train_cfg.max_epochs'),
        ({'train_cfg': {}}, 'train_cfg'),
        ({'param_scheduler.0.end': 3}, 'param_scheduler.0.end'),
        ({'work_dir': 'a'}, 'work_dir'),
    ],
)
def test_options_that_would_be_overwritten_are_refused(tmp_path, options, key):
    rows = {**ROWS, 'other': dict(config=CRIS.format(''), options=options)}
    with pytest.raises(ValueError, match=f"row 'other': the option '{key}' is set by the exper"):
        plan_text(make_experiment(rows=rows), tmp_path)
    with pytest.raises(ValueError, match=f"'{key}' is set by the experiment itself"):
        plan_text(make_experiment(options=options), tmp_path)


def test_no_setting_that_the_experiment_changes_is_an_option(tmp_path):
    then = flat(Config.fromfile(find_config(CRIS.format(''))).to_dict())
    now = flat(make_experiment(seeds=(4,)).cells(tmp_path)[0].config().to_dict())
    changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    assert {'randomness.seed', 'train_cfg.max_iters', 'log_processor.by_epoch'} <= set(changed)
    for key in changed:
        with pytest.raises(ValueError, match='is set by the experiment itself'):
            make_experiment(options={key: 1}).cells(tmp_path)[0].config()


def test_options_beside_what_the_experiment_sets_stay(tmp_path):
    options = {'randomness.deterministic': True, 'default_hooks.logger.interval': 3}
    options |= {'log_processor.window_size': 5, 'train_dataloader.batch_size': 3}
    run = make_experiment(options=options, seeds=(4,)).cells(tmp_path)[0]
    found = flat(run.config().to_dict())
    assert {key: found[key] for key in options} == options and found['randomness.seed'] == 4


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    experiment = make_experiment()
    run_experiment(experiment, tmp_path, FakeTools())
    changed = make_experiment(options={'optim_wrapper.optimizer.lr': 0.5})
    with pytest.raises(ValueError, match='other settings') as error:
        run_experiment(changed, tmp_path, FakeTools())
    assert '(optim_wrapper.optimizer.lr=0.5, not 0.' in str(error.value)
    with pytest.raises(ValueError, match='other splits'):
        run_experiment(make_experiment(splits=('val',)), tmp_path, FakeTools())
    # A run that was continued says so in its file, which is not another setting.
    file = experiment.cells(tmp_path)[0].folder / 'config.py'
    resumed = Config.fromfile(file)
    resumed.update(resume=True, load_from='iter_1.pth')
    file.write_text(resumed.pretty_text)
    page = write_experiment_page(changed, tmp_path, '')[1].read_text()
    assert 'none, seed 0; mixed up, seed 0; none, seed 1; mixed up, seed 1 (optim_w' in page
    assert 'launcher' not in page and 'work_dir' not in page
    assert 'other settings' not in write_experiment_page(experiment, tmp_path, '')[1].read_text()


def test_processes_share_a_grid(tmp_path):
    experiment, tools, started = make_experiment(), FakeTools(), []

    def slow(command):
        started.append(time.time())
        while len(started) < 2 and time.time() < started[0] + 30:
            time.sleep(0.01)  # until another one is at work beside this one
        tools(command)

    with ThreadPoolExecutor() as threads:
        done = [threads.submit(run_experiment, experiment, tmp_path, slow) for _ in range(3)]
    for future in done:
        future.result()
    assert len(tools.calls) == len(set(tools.calls)) == 8 and '0 of 4' in plan_text(
        experiment, tmp_path
    )
    assert started[1] < started[0] + 29


def test_a_busy_run_is_left_alone(tmp_path):
    experiment, tools = make_experiment(), FakeTools()
    first = experiment.cells(tmp_path)[0]
    with claim(first.folder) as ours, claim(first.folder) as theirs:
        assert ours and not theirs
        assert not run_cell(first, tools) and not tools.calls
        run_experiment(experiment, tmp_path, tools)
        assert len(tools.calls) == 6 and not first.finished
    run_experiment(experiment, tmp_path, tools)
    assert len(tools.calls) == 8 and first.finished


def test_a_run_that_another_process_finished_meanwhile_is_not_repeated(tmp_path, monkeypatch):
    run, tools = make_experiment().cells(tmp_path)[0], FakeTools()

    @contextmanager
    def late(folder):
        monkeypatch.undo()
        run_cell(run, tools)
        with claim(folder) as ours:
            yield ours

    monkeypatch.setattr('nemo_mmseg.apis.experiment.claim', late)
    assert not run_cell(run, tools) and len(tools.calls) == 2


def test_the_dead_hold_nothing_unless_their_trainer_lives(tmp_path):
    """The lock of a killed process is free when the program that it started has ended, too."""
    script = (
        'import sys\nfrom pathlib import Path\nfrom nemo_mmseg.apis.experiment import call, claim\n'
        'with claim(Path(sys.argv[1])) as ours:\n    assert ours\n'
        '    call(["sh", "-c", f"echo $$; exec sleep 60"])\n'
    )
    command = [sys.executable, '-W', 'ignore', '-c', script, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = int(next(line for line in process.stdout if line.strip().isdigit()))
    process.kill()
    process.wait()
    with claim(tmp_path) as ours:
        assert not ours and str(process.pid) in (tmp_path / 'lock').read_text()
    os.kill(child, signal.SIGKILL)
    for _ in range(100):
        with claim(tmp_path) as ours:
            if ours:
                break
        time.sleep(0.05)
    assert ours and str(os.getpid()) in (tmp_path / 'lock').read_text()


def test_a_run_without_results_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match='wrote no'):
        run_cell(make_experiment().cells(tmp_path)[0], lambda command: None)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(baseline='nothing'), 'none of the rows'),
        (dict(seeds=()), 'needs iterations'),
        (dict(seeds=(1, 1)), 'given twice'),
        (dict(seeds=0), 'seeds=0 is no list of whole numbers'),
        (dict(seeds=('0',)), 'whole numbers'),
        (dict(seeds=(0, -1)), 'whole numbers'),
        (dict(splits=('val', 'val')), 'given twice'),
        (dict(by=('distractor',)), "no difficulty is called 'distractor'"),
        (dict(by='distractor'), "no difficulty is called 'distractor'"),
        (dict(rows={'none': dict(option={})}), 'needs config'),
        (dict(rows={'none': dict(config='a'), 'none?': dict(config='b')}), 'same folder'),
    ],
)
def test_bad_experiments(changes, message):
    with pytest.raises(ValueError, match=message):
        make_experiment(**changes)


def test_one_name_is_a_tuple_of_one():
    experiment = make_experiment(splits='val', by='distractors', cut='much', seeds=range(2))
    assert experiment.splits == ('val',) and experiment.by == ('distractors',)
    assert experiment.cut == ('much',) and experiment.seeds == (0, 1)
    assert make_experiment(by=['length', 'area*length']).by == ('length', 'area*length')


@pytest.mark.parametrize('seeds', ['0', '"01"', 'None'])
def test_the_file_of_bad_seeds_is_named(tmp_path, seeds):
    file = tmp_path / 'small.py'
    file.write_text(
        f"rows = {ROWS}\nbaseline = 'none'\niterations = 2\nparam_scheduler = []\nseeds = {seeds}\n"
        "splits = 'val'\n"
    )
    with pytest.raises(ValueError, match=r'small\.py: seeds=.* is no list of whole numbers'):
        Experiment.from_file(file)
    file.write_text(file.read_text().replace(f'seeds = {seeds}', 'seeds = [3]'))
    experiment = Experiment.from_file(file)
    assert experiment.seeds == (3,) and experiment.splits == ('val',)


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(rows={**ROWS, 'mixed up': dict(config=CRIS.format('_cutmx'))}),
            "row 'mixed up': .*cutmx.* near it: .*cutmix",
        ),
        (dict(splits=('vall',)), "has no split 'vall'; it has: train, val"),
        (dict(options={'train_dataloader.dataset.pipline.1.p': 1}), "did you mean 'pipeline'"),
    ],
)
def test_what_cannot_run_is_refused_before_any_run(tmp_path, changes, message):
    experiment, tools = make_experiment(**changes), FakeTools()
    with pytest.raises(ValueError, match=message):
        plan_text(experiment, tmp_path)
    with pytest.raises(ValueError, match=message):
        run_experiment(experiment, tmp_path, tools)
    assert not tools.calls and not any(tmp_path.iterdir())


def measures(row: str, seed: int, where: np.ndarray) -> np.ndarray:
    """oIoU and mIoU of the fake results, in per cent."""
    union = 100 * (1 + where)
    inside = np.array([round(u * fake_iou(row, seed, i)) for u, i in zip(union, where)])
    return 100 * np.array([inside.sum() / union.sum(), (inside / union).mean()])


def test_numbers_of_the_page(tmp_path):
    experiment = make_experiment(data='python make_data.py')
    run_experiment(experiment, tmp_path, FakeTools())
    scores = read_scores(experiment, tmp_path)
    everything = np.arange(20)
    sets = dict(all=everything, **{str(k): everything[everything % 3 == k] for k in range(3)})
    found = gains(scores['none'], scores['mixed up'])
    by = gains(scores['none'], scores['mixed up'], 'distractors')
    values = {
        label: np.array([[measures(r, s, of) for s in (0, 1)] for r in ('none', 'mixed_up')])
        for label, of in sets.items()
    }
    for column, measure in enumerate(('oIoU', 'mIoU')):
        assert [gain.label for gain in by[measure]] == ['0', '1', '2']
        for gain in (*found[measure], *by[measure]):
            each = np.diff(values[gain.label][:, :, column], axis=0)[0]
            np.testing.assert_allclose(gain.seeds, each, err_msg=f'{measure} {gain.label}')
            assert gain.mean == pytest.approx(each.mean())
            assert gain.expressions == len(sets[gain.label]) and gain.low <= gain.mean <= gain.high
    assert by['mIoU'][2].mean == pytest.approx(15) and by['mIoU'][0].high == 0

    html, markdown = write_experiment_page(
        experiment, tmp_path, 'python projects/experiments/run_grid.py x'
    )
    text = markdown.read_text()
    lines = {line.split(' |')[0]: line for line in text.splitlines()}
    for row, of in (('none', values['all'][0]), ('mixed up', values['all'][1])):
        cells = [f'{m:.2f} ± {s:.2f}' for m, s in zip(of.mean(0), of.std(0, ddof=1))]
        assert f'| {row} | 2 | {" | ".join(cells)} | ' in text
        assert f'| {row} | 1 | {of[1, 0]:.2f} | {of[1, 1]:.2f} | ' in text  # a single run
    gain = found['oIoU'][0]
    spread = np.std(gain.seeds, ddof=1)
    assert f'| {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] ± {spread:.2f} | ' in text
    assert lines['| expressions'] == '| expressions | 7 | 7 | 6 |'
    base = values['2'][0][:, 1]
    assert lines['| mIoU of none'].endswith(f' | {base.mean():.2f} ± {base.std(ddof=1):.2f} |')
    assert (
        '\npython make_data.py\npython projects/experiments/run_grid.py x\n' in text
        and 'Time: 0.0' in text
    )
    assert (tmp_path / 'toy_distractors.png').is_file()
    assert html.read_text().count('src="data:image/png') == 2 and 'http' not in html.read_text()
    assert not list(tmp_path.rglob('*.tmp'))


def test_a_page_of_an_unfinished_grid(tmp_path):
    experiment = make_experiment()
    assert '0 of 4' in write_experiment_page(experiment, tmp_path, '')[1].read_text()
    run_cell(experiment.cells(tmp_path)[1], FakeTools())  # no baseline yet
    assert '1 of 4' in write_experiment_page(experiment, tmp_path, '')[1].read_text()


def test_shipped_experiments_fit_the_budget_and_share_their_runs(tmp_path):
    digests: dict[Path, str] = {}
    hours = 0.0
    for file in FILES:
        experiment = Experiment.from_file(file)
        assert len(experiment.seeds) >= 3 and experiment.cut
        each = experiment.iterations * experiment.seconds_per_iteration
        each += experiment.seconds_per_test
        for run in experiment.cells(tmp_path):
            if run.folder not in digests:
                hours += experiment.cores * each / 3600
            assert digests.setdefault(run.folder, run.digest()) == run.digest()
    assert {file.stem for file in FILES} == {'comparison', 'band', 'distractors', 'few_images'}
    assert len(digests) == 33 == len(set(digests.values())) and hours < 8


@pytest.mark.slow
def test_two_real_runs(tmp_path):
    sizes = dict(train=8, val=2, testA=2, testB=2)
    make_refshapes(str(tmp_path / 'data'), 'refshapes+', sizes, seed=5)
    file = tmp_path / 'small.py'
    options = {f'{s}_dataloader.dataset.data_root': f'{tmp_path}/data/' for s in ('val', 'test')}
    options['train_dataloader.dataset.data_root'] = f'{tmp_path}/data/'
    options |= {'train_dataloader.batch_size': 2, 'train_dataloader.num_workers': 0}
    options['train_dataloader.persistent_workers'] = False
    file.write_text(
        f"rows = {ROWS}\nbaseline = 'none'\niterations = 2\nparam_scheduler = []\nseeds = (0,)\n"
        f"splits = ('val',)\noptions = {options}\n"
    )
    command = [
        sys.executable,
        '-W',
        'ignore',
        str(ROOT / 'projects/experiments/run_grid.py'),
        str(file),
    ]
    command += ['--work-dir', str(tmp_path / 'out')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '2 of 2 runs are finished' in (tmp_path / 'out' / 'small.md').read_text()
    run: Run = Experiment.from_file(file).cells(tmp_path / 'out')[0]
    assert run.finished and run.checkpoint.is_file()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert '0 of 2 runs' in done.stdout and 'Iter(train)' not in done.stdout
