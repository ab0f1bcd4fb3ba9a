"""The variants of NeMo's base config can stand in its place, and change what they say."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

import nemo_mmseg

CONFIGS = Path(nemo_mmseg.__file__).parents[1] / 'configs'
BASES = sorted((CONFIGS / '_base_').glob('nemo*.py'))
METHOD = CONFIGS / 'cris' / 'cris_r50_nemo_8xb8-50e_refcoco-416x416.py'


@pytest.mark.parametrize('base', BASES, ids=lambda path: path.stem)
def test_a_method_can_use_any_of_them(base, tmp_path):
    text = METHOD.read_text().replace("'../_base_/nemo.py'", repr(str(base)))
    config = tmp_path / 'config.py'
    config.write_text(text.replace("'./", f"'{METHOD.parent}/"))
    init_default_scope('mmseg')
    cfg, plain = Config.fromfile(config), Config.fromfile(METHOD)
    mosaic = cfg.train_dataloader.dataset.pipeline[1]
    built = TRANSFORMS.build({**mosaic, 'bank': dict(mosaic.bank)})
    built.bands(cfg.train_cfg.max_epochs)
    changed = {key for key in mosaic if mosaic[key] != plain.nemo.get(key)}
    own, first = Config.fromfile(base), Config.fromfile(CONFIGS / '_base_' / 'nemo.py')
    expected = {key for key in own.nemo if own.nemo[key] != plain.nemo.get(key)}
    assert changed == expected | ({'bank'} if own.bank != first.bank else set())
    assert bool(changed) == (base.stem != 'nemo')
    # What a work folder keeps is the same config again.
    again = Config.fromstring(cfg.pretty_text, '.py').train_dataloader.dataset.pipeline[1]
    assert again == mosaic and TRANSFORMS.build(again).bands() == built.bands()
