"""A whole run of a pure-Python config, whose types are classes: every tool takes it."""

import json
from pathlib import Path

import mmengine.registry
import mmseg.registry
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from small_runs import NEMO, run_tool, small_config

pytestmark = pytest.mark.slow
REGISTRIES = [
    value
    for module in (mmseg.registry, mmengine.registry)
    for value in vars(module).values()
    if isinstance(value, mmengine.registry.Registry)
]


def class_of(name: str) -> type:
    """The class or function of a registered name."""
    return next(found for registry in REGISTRIES if (found := registry.get(name)))


def as_code(value: object, imports: set[str]) -> str:
    """Python code of a setting, with classes as types."""
    if isinstance(value, dict):
        parts = []
        for key, one in value.items():
            if key == 'type' and isinstance(one, str):
                found = class_of(one)
                imports.add(f'from {found.__module__} import {found.__name__}')
                parts.append(f"'type': {found.__name__}")
            else:
                parts.append(f'{key!r}: {as_code(one, imports)}')
        return f'{{{", ".join(parts)}}}'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(as_code(one, imports) for one in value)}]'
    return repr(value)


@pytest.fixture
def python_config(refshapes, tmp_path: Path) -> Path:
    """A shipped config with NeMo in the new style."""
    cfg = small_config(NEMO, refshapes, tmp_path / 'bank.safetensors')
    cfg.train_cfg.update(max_epochs=2, val_interval=1)
    cfg.test_evaluator = [dict(type='GeneralizedReferringIoU', min_pixels=9, by=['area'])]
    ramp = dict(type='LinearRamp', begin=0, end=1, first=0.5, last=1.0)
    cfg.train_dataloader.dataset.pipeline[1].schedule = dict(mined=ramp)
    settings = cfg.to_dict()
    settings.pop('custom_imports')  # the imports of the classes do it
    imports: set[str] = set()
    lines = [f'{name} = {as_code(value, imports)}' for name, value in settings.items()]
    path = tmp_path / 'python_config.py'
    path.write_text('\n'.join([*sorted(imports), *lines]) + '\n')
    assert isinstance(Config.fromfile(path).model.type, type)
    return path


def test_all_tools_take_a_pure_python_config(python_config, tmp_path, monkeypatch, refshapes):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_tool('misc/check_data.py', python_config, '--fast')
    assert ended.value.code == 0
    run_tool('mine_negatives.py', python_config, '--workers', 0)
    run_tool('train.py', python_config, '--work-dir', 'run')
    (checkpoint,) = Path('run').glob('best_*.pth')
    run_tool('test.py', python_config, checkpoint, '--out', 'results', '--work-dir', 'tested')
    results = json.loads(Path('results/predictions.json').read_text())
    assert results['no_target_rule']['min_pixels'] == 9
    metrics = json.loads(Path('results/metrics.json').read_text())
    ious = [record['iou'] for record in results['predictions']]
    assert metrics['gIoU'] == pytest.approx(100 * np.mean(ious))
    assert 'area' in Path('results/difficulty.csv').read_text()
    first = results['predictions'][0]
    dumped = Path('run', python_config.name)  # names its classes by module
    options = ['--config', dumped, '--weights', checkpoint, '--out', 'shown']
    with pytest.raises(SystemExit) as ended:
        run_tool('infer.py', first['image'], first['expression'], *options)
    assert ended.value.code == 0
    (shown,) = Path('shown/masks').iterdir()
    masks = [np.array(Image.open(file)) for file in (shown, f'results/{first["mask"]}')]
    # test.py ran in bfloat16 on several expressions: pixels at the threshold may differ.
    assert np.mean(masks[0] != masks[1]) < 0.01 < min(np.mean(mask) for mask in masks)
    run_tool('analysis_tools/browse_dataset.py', python_config, '--num', 2, '--out', 'sheets')
    assert list(Path('sheets').iterdir())
    run_tool('analysis_tools/inspect_bank.py', python_config, '--out', 'band')
    assert list(Path('band').rglob('*.html'))
