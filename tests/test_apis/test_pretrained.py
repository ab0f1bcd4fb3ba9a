"""A network as a folder for a hub: the same masks from it, and clear errors."""

import errno
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from small_networks import SIZE

from nemo_mmseg.apis import (
    ReferringInferencer,
    inference_model,
    init_model,
    pretrained,
    save_pretrained,
)

CONFIG = 'cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'
SENTENCES = ['the red ring', 'a star']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The small CRIS of the package, untrained, as a folder."""
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match='untrained'):
        model = init_model(CONFIG, device='cpu')
    folder = tmp_path_factory.mktemp('hub') / 'network'
    save_pretrained(model, folder, license='apache-2.0', notes='Never trained.')
    return model, folder


def test_the_folder_is_the_network(folder, tmp_path):
    model, folder = folder
    assert sorted(path.name for path in folder.iterdir()) == [
        'README.md', 'config.json', 'model.safetensors',
    ]  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    wanted = inference_model(model, image, SENTENCES)
    found = inference_model(init_model(folder, device='cpu'), image, SENTENCES)
    assert torch.equal(found.seg_logits.data, wanted.seg_logits.data)
    result = ReferringInferencer(folder, device='cpu')(image, SENTENCES)
    assert np.array_equal(result['masks'], wanted.pred_sem_seg.data.numpy() > 0)
    # the weights alone, beside a config
    beside = init_model(CONFIG, folder / 'model.safetensors', device='cpu')
    assert torch.equal(inference_model(beside, image, 'a star').seg_logits.data,
                       inference_model(model, image, 'a star').seg_logits.data)  # fmt: skip


def test_card_and_config(folder):
    _, folder = folder
    card = (folder / 'README.md').read_text()
    header = card.split('---')[1]
    assert 'license: apache-2.0' in header and 'library_name: nemo_mmseg' in header
    assert 'Never trained.' in card and 'CRISHead' in card
    config = json.loads((folder / 'config.json').read_text())
    assert 'data_root' not in json.dumps(config) and 'custom_imports' not in config


def test_bad_folders(folder, tmp_path):
    _, folder = folder
    config, weights = (
        (folder / name).read_bytes() for name in ('config.json', 'model.safetensors')
    )
    with pytest.raises(FileNotFoundError, match=r'lacks config\.json'):
        init_model(tmp_path)
    (tmp_path / 'config.json').write_bytes(config)
    with pytest.raises(FileNotFoundError, match=r'lacks model\.safetensors'):
        ReferringInferencer(tmp_path)
    file = tmp_path / 'model.safetensors'
    file.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r'model\.safetensors'):
        init_model(tmp_path, device='cpu')
    state = load_file(folder / 'model.safetensors')
    name = next(name for name, tensor in state.items() if tensor.ndim > 1)
    save_file({other: tensor for other, tensor in state.items() if other != name}, file)
    with pytest.raises(ValueError, match=rf'(?s)does not fit the network.*{name}'):
        init_model(tmp_path, device='cpu')
    for content, words in [(b'{', 'no JSON'), (b'[]', 'nemo_mmseg_format'),
                           (b'{"nemo_mmseg_format": 9}', 'is 9')]:  # fmt: skip
        (tmp_path / 'config.json').write_bytes(content)
        with pytest.raises(ValueError, match=words):
            init_model(tmp_path)
    for change, words in [
        (dict(model=dict(type='Missing')), 'cannot be built.*Missing'),
        (dict(model=dict(type='ReferringSegmentor', depth=3)), 'cannot be built'),
        (dict(test_dataloader=[]), 'must be a list of transforms'),
    ]:
        (tmp_path / 'config.json').write_text(json.dumps(json.loads(config) | change))
        with pytest.raises(ValueError, match=words):
            init_model(tmp_path, device='cpu')
    pipeline = [dict(type='Missing')]
    change = dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    (tmp_path / 'config.json').write_text(json.dumps(json.loads(config) | change))
    save_file(state, file)
    with pytest.raises(ValueError, match='pipeline cannot be built.*Missing'):
        ReferringInferencer(tmp_path, device='cpu')


def test_a_failed_republishing_leaves_the_old_network(folder, tmp_path, monkeypatch):
    model, _ = folder
    target = tmp_path / 'hub'
    save_pretrained(model, target, notes='First.')
    (target / 'mine.txt').write_text('keep')
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patched, pytest.raises(OSError, match='No space'):
        patched.setattr(pretrained, 'save_file', full)
        save_pretrained(model, target, notes='Second.')
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    save_pretrained(model, target, notes='Second.')
    after = {path.name: path.read_bytes() for path in target.iterdir()}
    assert after == before | {'README.md': before['README.md'].replace(b'First.', b'Second.')}


def test_where_no_folder_can_be(folder, tmp_path):
    model, _ = folder
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(NotADirectoryError, match='file'):
        save_pretrained(model, tmp_path / 'file')
    plain = init_model(CONFIG, folder[1] / 'model.safetensors', device='cpu')
    plain.cfg = Config(dict(model=plain.cfg.model))
    with pytest.raises(ValueError, match='no test_dataloader'):
        save_pretrained(plain, tmp_path / 'new')
