"""All of TRIS with one command, in tiny: what runs, what is passed over, and the page."""

import importlib.util
import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import small_runs
import torch
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop

from nemo_mmseg.datasets.conversion import refcoco_to_json
from nemo_mmseg.utils import run_tool as programs
from nemo_mmseg.utils.file_lock import only_one

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = sorted((ROOT / 'configs').glob('*/pipelines/*.py'))
TINY = {
    'stage1.options': {
        'train_cfg.max_epochs': 2,
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.pipeline.3.scale': (64, 64),
    },
    'stage2.options': {
        'train_cfg.max_epochs': 1,
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.pipeline.3.scale': (64, 64),
    },
    'affinity.options': {
        'train_cfg.max_iters': 1,
        'default_hooks.checkpoint.interval': 1,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.2.size': 64,
        'custom_hooks.0.dataloader.dataset.indices': 2,
    },
}
STAGES = [
    'train.py stage1',
    'make_response_maps.py stage1',
    'make_confidence_labels.py stage1',
    'train.py affinity',
    'make_masks.py stage1',
    'train.py stage2',
    'test.py stage1_scores',
    'test.py prms_scores',
    'test.py stage2_scores',
]


class Programs:
    """Runs programs in this process, and keeps which; stops instead of one of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stop_at = ''

    def __call__(self, name, file, *arguments) -> None:
        call = f'{Path(name).name} {Path(file).stem}'
        if call == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(call)
        quiet = [] if 'make_' not in name else ['--workers', 0]
        try:
            small_runs.run_tool(name, file, *arguments, *quiet)
        except SystemExit as end:
            if end.code:
                raise subprocess.CalledProcessError(end.code, ['', '', '', name]) from end

    def new_calls(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def tools(monkeypatch) -> Programs:
    tools = Programs()
    monkeypatch.setattr(programs, 'run_tool', tools)
    return tools


@pytest.fixture
def pipeline(refshapes, tmp_path) -> Config:
    cfg = Config.fromfile(ROOT / 'configs/refshapes/pipelines/tris_refshapes-plus.py')
    cfg.merge_from_dict(dict(data_root=str(refshapes), workers=0, splits=('val',)))
    for name in ('stage1', 'affinity', 'stage2'):
        for loader in ('train', 'test') if name != 'affinity' else ('train',):
            TINY[f'{name}.options'][f'{loader}_dataloader.num_workers'] = 0
            TINY[f'{name}.options'][f'{loader}_dataloader.persistent_workers'] = False
        if name != 'affinity':
            TINY[f'{name}.options']['test_dataloader.dataset.pipeline.1.scale'] = (64, 64)
        else:
            TINY[f'{name}.options']['custom_hooks.0.dataloader.num_workers'] = 0
        cfg[name].options = {**cfg[name].get('options', {}), **TINY[f'{name}.options']}
    small = {
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.pipeline.1.scale': (64, 64),
    }
    cfg.compare = {'CLIP Grad-CAM': dict(cfg.compare['CLIP Grad-CAM'], options=small)}
    return cfg


@pytest.fixture
def run(tools, pipeline, tmp_path):
    def run(*options, work_dir='run') -> int:
        file = tmp_path / 'pipeline.py'
        pipeline.dump(file)
        with pytest.raises(SystemExit) as end:
            small_runs.run_tool('train_tris.py', file, '--work-dir', tmp_path / work_dir, *options)
        return end.value.code

    return run


def load_tool():
    spec = importlib.util.spec_from_file_location('train_tris', ROOT / 'tools/train_tris.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('path', PIPELINES, ids=lambda path: path.stem)
def test_pipelines_name_configs_that_fit_together(path, tmp_path):
    Pipeline = load_tool().Pipeline
    cfg = Config.fromfile(path)
    made = Pipeline(cfg, str(tmp_path))
    stage1, stage2 = made.configs['stage1'], made.configs['stage2']
    assert stage1.model.decode_head.type == 'TRISHead'
    assert stage2.model.decode_head.type == 'TRISMaskHead'
    data = stage2.train_dataloader.dataset
    is_json = data.type == 'ReferringJSONDataset'
    masks, split_file = ('mask_file', 'ann_file') if is_json else ('ann_file', 'split_file')
    assert data[masks] == str(tmp_path / 'pseudo_masks' / 'instances.json')
    assert data[split_file] == stage1.train_dataloader.dataset[split_file]
    images = made.configs['affinity'].train_dataloader.dataset.data_prefix.img_path
    inside = stage1.train_dataloader.dataset
    assert images == str(Path(inside.data_root, inside.data_prefix.img_path).resolve())
    assert 'val' in made.settings['splits'] and path.parents[1].name in ('tris', 'refshapes')


CONFIG = 'tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-256x256'


def wrong(**stage2):
    return dict(stage2=dict(config=CONFIG, **stage2))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(stage3={}), r"unknown: \['stage3'\]"),
        (dict(stage2={}), r"without config: \['stage2'\]"),
        (wrong(option={'train_cfg.max_epochs': 1}), r"unknown: \['stage2.option'\]"),
        (dict(compare=dict(it=dict(path='a'))), r"\['it.path'\], without config: \['it'\]"),
        (dict(checkpoint='first'), "checkpoint must be 'best' or 'last', not 'first'"),
        (dict(workers='two'), "workers must be a whole number from 0, not 'two'"),
        (dict(seed=-1), 'seed must be a whole number from 0, not -1'),
        (dict(proposals='no/such.json'), 'there is no file no/such.json'),
        (wrong(checkpoint='no/such.pth'), 'there is no file no/such.pth'),
        (wrong(options={'train_cgf.max_epochs': 1}), rf'{CONFIG}.py has no train_cgf.max_epochs'),
        (wrong(options={'param_scheduler.7.end': 1}), 'option param_scheduler.7.end: Index 7'),
    ],
)
def test_wrong_pipelines_are_named(change, message, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/refshapes/pipelines/tris_refshapes-plus.py').to_dict()
    Config({**cfg, **change}).dump(tmp_path / 'wrong.py')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_tool().Pipeline(Config.fromfile(tmp_path / 'wrong.py'), str(tmp_path))


def test_options_of_the_command_line_keep_those_of_the_file(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/refshapes/pipelines/tris_refshapes-plus.py')
    options = {'stage2.options.train_dataloader.dataset.split_file': 'other.p', 'splits': 'val'}
    cfg.merge_from_dict(options)
    made = load_tool().Pipeline(cfg, str(tmp_path))
    data = made.configs['stage2'].train_dataloader.dataset
    assert (data.split_file, data.unlabelled) == ('other.p', 'leave_out')
    assert made.settings['splits'] == ('val',)


def test_one_seed_is_that_of_all_trainings(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/refshapes/pipelines/tris_refshapes-plus.py')
    cfg.seed = 7
    made = load_tool().Pipeline(cfg, str(tmp_path))
    configs = [*made.configs.values(), *made.compared.values()]
    assert len(configs) == 5 and all(one.randomness.seed == 7 for one in configs)


def test_scores_of_several_runs_are_means_and_deviations(capsys):
    path = ROOT / 'tools' / 'analysis_tools' / 'tris_page.py'
    print_scores = runpy.run_path(str(path))['print_scores']
    runs = [{'stage 2': {'val': {'mIoU': value}}} for value in (40.0, 42.0, 44.0)]
    print_scores(*runs)
    print_scores(runs[0])
    several, one = (line for line in capsys.readouterr().out.splitlines() if 'stage 2' in line)
    assert several.split('|')[2:5] == ['  val  ', ' 42.0 ± 2.0 ', '      ']
    assert one.split('|')[3].strip() == '40.00'


def test_what_the_last_stages_read_is_looked_at_first(run, tools, pipeline, tmp_path, capsys):
    pipeline.splits = ('val', 'tset')
    assert run() == 1 and "has no split 'tset'; it has: " in capsys.readouterr().err
    pipeline.splits, pipeline.proposals = ('val',), str(tmp_path / 'proposals.json')
    (tmp_path / 'proposals.json').write_text(json.dumps(dict(images=[], annotations=[])))
    assert run() == 1 and 'proposals.json lacks ' in capsys.readouterr().err
    # another run at work in the same folder
    with only_one(tmp_path / 'run' / '.lock', 0, 'test'):
        assert run() == 1
    assert re.search(r'train_tris: waited .*: .*process \d+ .* holds', capsys.readouterr().err)
    assert not tools.calls and not os.listdir(tmp_path / 'run')


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(run, tools, pipeline, tmp_path, monkeypatch, capsys):
    # killed in the second epoch of stage 1
    run_iter = EpochBasedTrainLoop.run_iter

    def killed(loop, index, batch):
        if loop.epoch == 1:
            raise KeyboardInterrupt
        run_iter(loop, index, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EpochBasedTrainLoop, 'run_iter', killed)
        run()
    assert tools.new_calls() == STAGES[:1]
    work_dir = tmp_path / 'run'
    assert (work_dir / 'stage1' / 'epoch_1.pth').is_file()

    # goes on with the second epoch; killed between two stages
    tools.stop_at = 'make_masks.py stage1'
    with pytest.raises(KeyboardInterrupt):
        run()
    assert tools.new_calls() == STAGES[:4]
    logs = sorted((work_dir / 'stage1').glob('*/vis_data/scalars.json'))
    epochs = [{json.loads(x)['epoch'] for x in log.read_text().splitlines()} for log in logs]
    assert epochs == [{1}, {2}]

    tools.stop_at = ''
    assert run() == 0
    assert tools.new_calls() == STAGES[4:]
    assert_page(work_dir, capsys.readouterr().out)

    # nothing is left to do
    page = (work_dir / 'index.html').read_text()
    assert run() == 0 and tools.new_calls() == []
    assert (work_dir / 'index.html').read_text() == page

    # what it is compared with; Grad-CAM learns nothing
    assert run('--compare') == 0
    assert tools.new_calls() == ['test.py compare_CLIP_Grad_CAM_scores']
    scores = json.loads((work_dir / 'scores.json').read_text())
    assert (
        list(scores)[-1] == 'CLIP Grad-CAM' and scores['CLIP Grad-CAM']['val']['expressions'] == 24
    )

    # another threshold of the second stage's masks is no reason to train it again
    pipeline.stage2.options['model.test_cfg.protocol.threshold'] = 0.2
    assert run() == 0 and tools.new_calls() == ['test.py stage2_scores']

    # another setting of stage 2: what depends on it runs again
    pipeline.stage2.options['optim_wrapper.optimizer.lr'] = 1e-4
    before = (work_dir / 'stage2' / 'epoch_1.pth').read_bytes()
    assert run() == 0
    assert tools.new_calls() == ['train.py stage2', 'test.py stage2_scores']
    assert (work_dir / 'stage2.old' / 'epoch_1.pth').read_bytes() == before
    assert 'stage2: changed: config; what there was is in' in capsys.readouterr().out

    # maps of something else in the place of ours
    maps = work_dir / 'response_maps' / 'response_maps.safetensors'
    maps.write_bytes(maps.read_bytes()[:-2] + b'\0\0')
    assert run() == 1
    assert f'{maps} is not what stage response_maps wrote' in capsys.readouterr().err

    # the second stage is no first one
    pipeline.stage1.checkpoint = str(work_dir / 'stage2' / 'epoch_1.pth')
    tools.new_calls()
    assert run(work_dir='other') == 1
    assert 'epoch_1.pth does not fit the network' in capsys.readouterr().err
    assert tools.new_calls() == STAGES[1:2]


@pytest.mark.slow
def test_the_json_form_makes_the_masks_and_scores_of_refcoco_s_layout(
    run, tools, pipeline, refshapes, tmp_path
):
    assert run(work_dir='refcoco') == 0
    folder, out = refshapes / 'refshapes+', tmp_path / 'referring.json'
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), str(out))
    shipped = Config.fromfile(ROOT / 'configs/refshapes/pipelines/tris_refshapes-plus-json.py')
    for name in ('stage1', 'stage2'):
        pipeline[name].config = shipped[name].config
        for loader in ('train', 'test'):
            pipeline[name].options[f'{loader}_dataloader.dataset.ann_file'] = str(out)
    assert run(work_dir='json') == 0
    assert tools.new_calls() == 2 * STAGES
    for file in ('confidence_labels/confidence_labels.json', 'pseudo_masks/instances.json'):
        one, other = (json.loads((tmp_path / of / file).read_text()) for of in ('refcoco', 'json'))
        assert one['annotations'] == other['annotations'] and len(one['annotations']) > 10
    scores = [json.loads((tmp_path / of / 'scores.json').read_text()) for of in ('refcoco', 'json')]
    assert scores[0] == scores[1]


def assert_page(work_dir: Path, printed: str) -> None:
    """It holds all pictures, and the scores that were printed and written."""
    page = (work_dir / 'index.html').read_text()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2 and all(s.startswith('data:image/jpeg;base64,') for s in sources)
    assert not re.findall(r'href=|url\(', page)
    scores = json.loads((work_dir / 'scores.json').read_text())
    assert list(scores) == [
        'stage 1, single maps', 'stage 1, PRMS', 'stage 2', 'response maps', 'pseudo masks'
    ]  # fmt: skip
    for by_split in scores.values():
        for found in by_split.values():
            assert 0 <= found['mIoU'] <= 100
            assert f'<td>{found["mIoU"]:.2f}</td>' in page and f'{found["mIoU"]:.2f}' in printed
    masks = json.loads((work_dir / 'pseudo_masks' / 'instances.json').read_text())
    digest = masks['info']['response_maps']['checkpoint']['name']
    assert digest == 'epoch_2.pth' and masks['info']['affinity']['name'] == 'iter_1.pth'
    assert torch.load(work_dir / 'stage2' / 'epoch_1.pth', weights_only=False)['meta']['epoch'] == 1
