"""Weights of Stable Diffusion: its single file, the folder of diffusers, and what is refused.

The networks are small. That the table of names is right is told by tests/parity, in numbers.
"""

import json
import pickle
import sys
import types

import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import save_file

from nemo_mmseg.models.converters import lavt, stable_diffusion
from nemo_mmseg.models.converters.convert import convert_file
from nemo_mmseg.models.converters.rename import inverse, translate

UNET = dict(block_channels=(32, 32, 32, 64), layers_per_block=2, word_channels=16)
VAE = dict(block_channels=(32, 32, 32, 64), layers_per_block=1)
LIGHTNING = 'pytorch_lightning.callbacks.model_checkpoint'


def build(part, pretrained=None, seed=1):
    torch.manual_seed(seed)
    kind = dict(type='VPDUNet', **UNET) if part == 'unet' else dict(type='VAEEncoder', **VAE)
    made = MODELS.build(dict(kind, pretrained=None if pretrained is None else str(pretrained)))
    made.init_weights()
    return getattr(made, part)


@pytest.fixture(scope='module')
def parts():
    """UNet and VAE with other weights than those that are loaded into."""
    made = {part: build(part, seed=0) for part in ('unet', 'vae')}
    for network in made.values():
        for parameter in network.parameters():  # norms start alike
            torch.nn.init.normal_(parameter)
    return made


@pytest.fixture
def tensors(parts):
    """What a single file holds, under its names, and much that the networks do not need."""
    found = {}
    for part, prefix, table in (
        ('unet', 'model.diffusion_model.', stable_diffusion.UNET_TABLE),
        ('vae', 'first_stage_model.', stable_diffusion.VAE_TABLE),
    ):
        for name, tensor in parts[part].state_dict().items():
            found[prefix + translate(inverse(table), name)] = tensor.clone()
    for name in ('q', 'k', 'v', 'proj_out'):  # published as 1x1 convolutions
        name = f'first_stage_model.encoder.mid.attn_1.{name}.weight'
        found[name] = found[name][:, :, None, None]
    for name in (
        *('model.diffusion_model.out.0.weight', 'first_stage_model.decoder.conv_in.weight'),
        *('first_stage_model.post_quant_conv.bias', 'betas', 'alphas_cumprod', 'model_ema.decay'),
        'cond_stage_model.transformer.text_model.final_layer_norm.weight',
    ):
        found[name] = torch.ones(3)
    return found


def assert_loaded(parts, pretrained, tolerance=0.0):
    for part, expected in parts.items():
        found = build(part, pretrained).state_dict()
        assert found.keys() == expected.state_dict().keys()
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


def test_single_file_of_safetensors_in_half_precision(parts, tensors, tmp_path):
    save_file({k: v.half().contiguous() for k, v in tensors.items()}, tmp_path / 'sd.safetensors')
    assert_loaded(parts, tmp_path / 'sd.safetensors', 1e-3)


def test_single_file_that_lightning_wrote(parts, tensors, tmp_path, monkeypatch):
    # the published .ckpt names a class of a library that is not there as a key of its callbacks
    module = types.ModuleType(LIGHTNING)
    module.ModelCheckpoint = type('ModelCheckpoint', (), {'__module__': LIGHTNING})
    parents = ['pytorch_lightning', 'pytorch_lightning.callbacks']
    for name, one in zip([*parents, LIGHTNING], [*map(types.ModuleType, parents), module]):
        monkeypatch.setitem(sys.modules, name, one)
    callbacks = {module.ModelCheckpoint: dict(best=torch.tensor(float('inf')).numpy()[()])}
    torch.save(dict(state_dict=tensors, callbacks=callbacks, epoch=3), tmp_path / 'sd.ckpt')
    for name in [*parents, LIGHTNING]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'sd.ckpt', weights_only=True)
    assert_loaded(parts, tmp_path / 'sd.ckpt')


@pytest.fixture
def folder(parts, tmp_path):
    """What diffusers saves of a whole UNet and a whole VAE."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for kind, part in ((UNet2DConditionModel, 'unet'), (AutoencoderKL, 'vae')):
        whole = kind.from_config(dict(parts[part].config))
        whole.load_state_dict({**whole.state_dict(), **parts[part].state_dict()})
        whole.save_pretrained(tmp_path / part)
    return tmp_path


def test_folder_that_diffusers_saved(parts, folder):
    assert_loaded(parts, folder)


def test_folder_with_attention_of_old_names(parts, folder):
    path = folder / 'vae' / 'diffusion_pytorch_model.safetensors'
    names = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    state = parts['vae'].state_dict()
    for new, old in names.items():
        for kind in ('weight', 'bias'):
            place = 'encoder.mid_block.attentions.0'
            state[f'{place}.{old}.{kind}'] = state.pop(f'{place}.{new}.{kind}')
    path.unlink()
    torch.save(state, path.with_suffix('.bin'))
    assert_loaded(parts, folder)


def test_a_folder_of_another_network_is_refused(folder):
    path = folder / 'unet' / 'config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps(dict(config, attention_head_dim=[5, 10, 20, 20])))
    with pytest.raises(ValueError, match=r'unet/config.json is of another .*attention_head_dim.*8'):
        build('unet', folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='config.json'):
        build('unet', folder)
    with pytest.raises(FileNotFoundError, match='unet has no weights'):
        build('unet', folder / 'vae')


def test_a_file_of_another_version_is_refused(tensors, tmp_path):
    path = tmp_path / 'sd2.safetensors'
    for name in [name for name in tensors if name.endswith('attn2.to_k.weight')]:
        tensors[name] = torch.ones(len(tensors[name]), 1024)
    save_file(tensors, path)
    with pytest.raises(
        ValueError, match=r'sd2.safetensors: .*words have 1024 channels \(version 2'
    ):
        build('unet', path)


def test_a_file_that_lacks_something_or_is_another_is_refused(tensors, tmp_path):
    path = tmp_path / 'sd.safetensors'
    lost = tensors.pop('model.diffusion_model.input_blocks.4.1.proj_in.weight')
    save_file(tensors, path)
    with pytest.raises(ValueError, match='sd.safetensors: .*1 missing tensor: .*4.1.proj_in'):
        build('unet', path)
    tensors['model.diffusion_model.input_blocks.4.1.proj_in.weight'] = lost
    tensors['model.diffusion_model.label_emb.0.0.weight'] = lost.clone()
    save_file(tensors, path)
    with pytest.raises(ValueError, match='unknown tensor: .*label_emb'):
        build('unet', path)
    with pytest.raises(FileNotFoundError, match='nowhere.ckpt'):
        build('vae', tmp_path / 'nowhere.ckpt')


def test_a_checkpoint_of_another_method_is_no_vpd(tmp_path):
    theirs = {name.format(i=0, j=0): torch.ones(2) for name in lavt.TABLE}
    torch.save(dict(model=theirs), tmp_path / 'lavt.pth')
    with pytest.raises(ValueError, match='lavt.pth: not a VPD checkpoint: .*unknown tensor'):
        convert_file('vpd', tmp_path / 'lavt.pth', tmp_path / 'out.pth')
