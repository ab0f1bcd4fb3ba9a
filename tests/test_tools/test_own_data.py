"""The tutorial of docs/own_data.md as a user follows it, and a run on own data as on RefCOCO."""

import csv
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_runs import (
    NEMO,
    RecordSamples,
    assert_same_weights,
    logged,
    run_tool,
    small_config,
    train,
)

from nemo_mmseg.datasets.conversion import refcoco_to_json
from nemo_mmseg.utils.fileio import load_plain_pickle

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'own_data.md'


@pytest.fixture(autouse=True)
def scope_of_other_tests():
    """Runs forget the default scope."""
    yield
    init_default_scope('mmseg')


def blocks(language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The tools of a block, each with its arguments."""
    lines = block.replace('\\\n', ' ').splitlines()
    return [shlex.split(line.removeprefix('python tools/')) for line in lines]


def draw(folder: Path) -> None:
    """The pictures and masks of the page, and some more of a square on a ground each."""
    (table,) = blocks('text')
    rows = list(csv.reader(table.splitlines()))
    rows += [
        [f'{n}.jpg', f'{n}.png', f'square {n}', 'square', 'val' if n % 4 == 0 else 'train']
        for n in range(10)
    ]
    rng = np.random.default_rng(0)
    for part in ('images', 'masks'):
        (folder / part).mkdir(parents=True)
    for image in {row[0] for row in rows[1:]}:
        pixels = np.full((60, 80, 3), rng.integers(256, size=3), np.uint8)
        cv2.imwrite(str(folder / 'images' / image), pixels)
    for mask in {mask for row in rows[1:] for mask in row[1].split(';') if mask}:
        drawn = np.zeros((60, 80), np.uint8)
        x, y = rng.integers(0, 40, 2)
        drawn[y : y + 20, x : x + 20] = 255
        cv2.imwrite(str(folder / 'masks' / mask), drawn)
    with open(folder / 'sentences.csv', 'w', newline='') as file:
        csv.writer(file).writerows(rows)


@pytest.mark.slow
def test_the_tutorial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / 'data' / 'own')
    config = tmp_path / 'my_own.py'
    config.write_text(blocks('python')[0].replace("'../_base_", f"'{ROOT}/configs/_base_"))
    convert, *others = commands(blocks('bash')[0])
    assert {command[1] for command in others} == {'configs/refshapes/my_own.py'}
    check, mine, look, learn = ([tool, str(config), *more] for tool, _, *more in others)
    with pytest.raises(SystemExit) as end:
        run_tool(*convert)
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        run_tool(*check)
    assert end.value.code == 0
    counts = re.findall(r'own\.json +\| +(\w+) \|([\d |]+)', capsys.readouterr().out)
    found = {split: [int(n) for n in row.split('|')[:4]] for split, row in counts}
    # references, expressions, images, objects; the second numbers are those of the page
    assert found == {'train': [7 + 3, 7 + 4, 7 + 1, 7 + 2], 'val': [3 + 2, 3 + 2, 3 + 1, 3 + 1]}

    cfg = Config.fromfile(config)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=1)
    cfg.default_hooks.visualization.draw = False
    cfg.dump(config)
    run_tool(*mine)
    assert Path('data/own/bank.safetensors').is_file()
    run_tool(*look)
    assert list(Path('work_dirs/look').glob('*.png'))
    run_tool(*learn, '--work-dir', tmp_path / 'run')
    (scores,) = [line for line in logged(tmp_path / 'run') if 'oIoU' in line]
    assert scores['expressions'] == 5 and 0 <= scores['oIoU'] <= 100
    assert {'distractors=0/oIoU', 'distractors=unknown/oIoU'} <= scores.keys()
    assert any(line.get('mosaic/mined') for line in logged(tmp_path / 'run'))


@pytest.mark.slow
def test_a_run_on_the_json_form_is_that_on_refcoco_s_layout(refshapes, refshapes_bank, tmp_path):
    """The same bank serves, and the same samples in the same order lead to the same weights."""
    folder, out = refshapes / 'refshapes+', tmp_path / 'refshapes+.json'
    refcoco_to_json(str(folder / 'refs(unc).p'), str(folder / 'instances.json'), str(out))
    ends, records, scores = [], [], []
    for kind in ('refcoco', 'json'):
        name = NEMO.replace('-plus-', '-plus-json-') if kind == 'json' else NEMO
        cfg = small_config(name, refshapes, refshapes_bank)
        if kind == 'json':
            for loader in (cfg.train_dataloader, cfg.val_dataloader):
                assert loader.dataset.ann_file == 'refshapes+/referring.json'
                loader.dataset.ann_file = str(out)
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        cfg.val_evaluator.by = ['distractors', 'length', 'area', 'position', 'size_word']
        cfg.custom_hooks.append(dict(type='RecordSamples'))
        ends.append(train(cfg, tmp_path / kind)[1])
        records.append([one['digest'] for one in RecordSamples.records])
        (line,) = [line for line in logged(tmp_path / kind) if 'oIoU' in line]
        scores.append({key: line[key] for key in line if 'IoU' in key or 'Pr@' in key})
    assert records[0] == records[1] and len(records[0]) > 10
    assert_same_weights(*ends)
    assert scores[0] == scores[1] and 'Pr@0.5' in scores[0]
    for by in ('distractors=', 'length=', 'area=', 'position=', 'size_word='):
        assert any(key.startswith(by) for key in scores[0])


def test_converters_there_and_back(mini, tmp_path, monkeypatch, capsys):
    """The page's commands, on another data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (mini.root / 'mini').rename(tmp_path / 'data' / 'refcoco')
    (block,) = [block for block in blocks('bash') if 'referring_json_to_refcoco.py' in block]
    for command in commands(block):
        with pytest.raises(SystemExit) as end:
            run_tool(*command)
        assert end.value.code == 0
    printed = capsys.readouterr().out
    assert 'refs(unc).p and instances.json are in data/back' in printed
    assert load_plain_pickle('data/back/refs(unc).p') == mini.refs
    with pytest.raises(SystemExit) as end:
        run_tool('dataset_converters/to_referring_json.py', 'coco', 'gone.json', 'x.json')
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert 'gone.json' in error and 'Traceback' not in error
