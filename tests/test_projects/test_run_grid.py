"""Grids of runs: the plan, going on after a stop, and the page's numbers against numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
import run_grid as tool
from grid_page import gains, read_scores, score_rows, write_grid_page
from mmengine.config import Config
from mmseg.registry import DATASETS
from run_grid import Grid, plan_text, run_grid

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.evaluation import ExpressionScores

GRIDS = sorted(Path(tool.__file__).parent.glob('grids/*.py'))
CRIS = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
ROWS = {
    'none': dict(config=CRIS.format('')),
    'mixed up': dict(config=CRIS.format('_cutmix'), options={'train_dataloader.batch_size': 3}),
}


def make_grid(**changes) -> Grid:
    settings = dict(name='toy', rows=ROWS, baseline='none', iterations=2, param_scheduler=[])
    return Grid(**{**settings, 'seeds': (0, 1), 'splits': ('val', 'testA'), **changes})


def fake_iou(row: str, seed: int, sent_id: int) -> float:
    gain = (1 + seed) * (sent_id % 3) if row == 'mixed_up' else 0
    return (sent_id * 7 % 10 + 2 * seed + gain) / 20


class FakeTools:
    """Writes what train.py and test.py write; keeps what it was asked for."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.stop_at = stop_at

    def __call__(self, name, file, *arguments) -> None:
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        folder = Path(file).parent
        row, seed = folder.parent.name, int(folder.name[5:])
        self.calls.append((name, f'{row}/{seed}'))
        if name == 'train.py':
            assert arguments == ('--work-dir', folder / 'train', '--resume')
            (folder / 'train').mkdir()
            (folder / 'train' / 'iter_2.pth').write_text('weights')
            return
        assert arguments[0] == folder / 'train' / 'iter_2.pth'
        assert arguments[-5:] == ('--out', folder, '--splits', 'val', 'testA')
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
            content = dict(predictions=records, empty_union=1.0, tie='>=', no_target_rule=None)
            (folder / split / 'predictions.json').write_text(json.dumps(content))
            (folder / split / 'metrics.json').write_text('{}')


@pytest.fixture
def fake(monkeypatch) -> FakeTools:
    tools = FakeTools()
    monkeypatch.setattr(tool, 'run_tool', tools)
    return tools


def test_a_stopped_grid_goes_on_where_it_was(tmp_path, fake):
    grid = make_grid()
    assert '4 of 4 runs of 2 iterations remain' in plan_text(grid, tmp_path)
    fake.stop_at = 3  # the second run is trained and is about to be evaluated
    with pytest.raises(KeyboardInterrupt):
        run_grid(grid, tmp_path)
    plan = plan_text(grid, tmp_path)
    assert '3 of 4 runs' in plan and 'mixed up, seed 0: iter_2' in plan
    assert '1 of 4 runs are finished' in (tmp_path / 'toy.md').read_text()
    fake.stop_at = None
    run_grid(grid, tmp_path, seeds=[0])
    run_grid(grid, tmp_path)
    assert fake.calls == [
        (name, f'{row}/{seed}')
        for seed in (0, 1)
        for row in ('none', 'mixed_up')
        for name in ('train.py', 'test.py')
    ]
    run_grid(grid, tmp_path)
    assert len(fake.calls) == 8 and '0 of 4 runs' in plan_text(grid, tmp_path)


def test_a_test_config_has_results_of_its_own(tmp_path, monkeypatch, fake):
    run_grid(make_grid(seeds=(0,)), tmp_path)
    calls = []
    monkeypatch.setattr(tool, 'run_tool', lambda *arguments: calls.append(arguments))
    grid = make_grid(seeds=(0,), runs='toy', test_config='on_mosaics_test.py')
    assert '2 of 2 runs' in plan_text(grid, tmp_path)
    for cell in grid.cells(tmp_path):
        cell.run()
    config = Path(tool.__file__).parent / 'on_mosaics_test.py'
    assert [call[:2] for call in calls] == [('test.py', config)] * 2  # trained before
    for call, row in zip(calls, ('none', 'mixed_up')):
        out = tmp_path / 'toy' / row / 'seed_0' / 'on_mosaics_test'
        assert call[call.index('--out') + 1] == out


def test_every_expression_is_tested_on_the_same_mosaic(refshapes):
    """Of four images, the expression's own and three others, whatever the network and its seed."""
    cfg = Config.fromfile(Path(tool.__file__).parent / 'on_mosaics_test.py')
    assert cfg.randomness.seed == 0
    settings = dict(cfg.test_dataloader.dataset, data_root=f'{refshapes}/', split='train')
    dataset = DATASETS.build(settings)
    assert len(dataset) == len(dataset.expressions()[0])
    for index in (0, len(dataset) - 1):
        key = SampleIndex(index, epoch=0, seed=0)
        first, again = (dataset[key]['data_samples'].metainfo for _ in range(2))
        assert first['mosaic'] == again['mosaic'] and first['mosaic']['kind'] == 'random'
        shown = {*first['mosaic']['names'], Path(first['img_path']).name}
        assert len(shown) == 4 and len(first['expressions']) == 1


def test_runs_are_equally_long_and_differ_in_seed_alone(tmp_path):
    first, second, third, _ = make_grid().cells(tmp_path)
    for cell in (first, second, third):
        cfg = cell.config()
        assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=2)
        assert cfg.val_dataloader is None  # nor is its data needed
        assert cfg.randomness.seed == cell.seed
        assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    assert second.config().train_dataloader.batch_size == 3
    settings, other = first.config().to_dict(), third.config().to_dict()
    assert settings.pop('randomness') != other.pop('randomness') and settings == other


def test_a_run_with_other_settings_is_not_continued(tmp_path, fake):
    fake.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run_grid(make_grid(), tmp_path)
    changed = make_grid(options={'optim_wrapper.optimizer.lr': 0.5})
    with pytest.raises(ValueError, match=r'none.seed_0.cell\.py has other settings'):
        run_grid(changed, tmp_path)


def test_wrong_grids_are_named_before_any_run(tmp_path, fake):
    file = tmp_path / 'small.py'
    file.write_text(f"rows = {ROWS}\nbaseline = 'none'\niterations = 2\nseed = 3\n")
    with pytest.raises(TypeError, match='seed'):
        Grid.from_file(file)
    rows = {**ROWS, 'last': dict(config=CRIS.format('_cutmx'))}
    with pytest.raises(FileNotFoundError, match='near it: .*cutmix'):
        run_grid(make_grid(rows=rows), tmp_path)
    assert not fake.calls


def measures(row: str, seed: int, where: np.ndarray) -> np.ndarray:
    """oIoU and mIoU of the fake results, in per cent."""
    union = 100 * (1 + where)
    inside = np.array([round(u * fake_iou(row, seed, i)) for u, i in zip(union, where)])
    return 100 * np.array([inside.sum() / union.sum(), (inside / union).mean()])


def test_numbers_of_the_page(tmp_path, fake):
    grid = make_grid(data='python make_data.py')
    run_grid(grid, tmp_path)
    scores = read_scores(grid, tmp_path)
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

    text = write_grid_page(grid, tmp_path, 'python run_grid.py x').read_text()
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
    assert '\npython make_data.py\npython run_grid.py x\n' in text
    assert (tmp_path / 'toy_distractors.png').is_file() and (tmp_path / 'toy_all.png').is_file()


def test_shares_of_no_target_answers_are_in_per_cent_and_have_intervals():
    def run(answers: list[bool]) -> ExpressionScores:
        columns = dict.fromkeys(
            ('intersection', 'union', 'num_distractors', 'target_area'), [1] * 4
        )
        texts = dict(images=list('abcd'), expressions=['thing'] * 4, datasets=[''] * 4)
        return ExpressionScores(
            **columns, **texts, sent_ids=range(4), no_target=[True, True, True, False],
            predicted_no_target=answers, generalized=True,
        )  # fmt: skip

    none, row = run([True, False, False, False]), run([True, True, False, False])
    head, first, second = score_rows({'none': {0: none}, 'row': {0: row}}, 'none')
    assert head[2:6] == ['cIoU', 'gIoU', 'N-acc', 'T-acc']
    assert (first[4], first[5], second[4], second[5]) == ('33.33', '100.00', '66.67', '100.00')
    gain = second[head.index('gain in N-acc')]
    assert gain.startswith('+33.33 [+0.00, +100.00]')


def test_shipped_grids_share_their_runs(tmp_path):
    settings: dict[Path, str] = {}
    for file in GRIDS:
        for cell in Grid.from_file(file).cells(tmp_path):
            text = repr(cell.config().to_dict())
            assert settings.setdefault(cell.folder, text) == text
    assert len(settings) == 66 == len(set(settings.values()))
