"""Models, weights and tokenizers by name: what is unknown or missing is named."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nemo_mmseg.utils.clip import clip_preprocess, load_clip, load_clip_tokenizer


@pytest.fixture
def tiny(tmp_path):
    """A small model that open_clip knows by name."""
    config = dict(
        embed_dim=16,
        vision_cfg=dict(image_size=32, layers=1, width=32, patch_size=16, head_width=16),
        text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
    )
    path = tmp_path / 'tiny-test-clip.json'
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return 'tiny-test-clip'


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown CLIP model 'ViT-Z-99'.*ViT-B-32"):
        load_clip('ViT-Z-99', None)
    with pytest.raises(ValueError, match='ViT-Z-99'):
        load_clip_tokenizer('ViT-Z-99')


def test_missing_weights_are_named_with_the_known_tags():
    with pytest.raises(FileNotFoundError, match="'no/such.pt' is neither .*'ViT-B-32'.*openai"):
        load_clip('ViT-B-32', 'no/such.pt')


def test_weights_come_from_a_local_file(tiny, tmp_path):
    torch.manual_seed(0)
    saved = load_clip(tiny)
    torch.save(saved.state_dict(), tmp_path / 'weights.pt')
    loaded = load_clip(tiny, str(tmp_path / 'weights.pt'))
    other = load_clip(tiny)
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert not torch.equal(saved.text_projection, other.text_projection)
    assert not loaded.training and loaded.text_projection.dtype == torch.float32


def test_a_damaged_weights_file_is_named(tiny, tmp_path):
    path = tmp_path / 'broken.safetensors'
    path.write_bytes(b'nothing')
    with pytest.raises(Exception, match='broken.safetensors'):
        load_clip(tiny, str(path))


def test_damaged_weights_are_named(tiny, tmp_path):
    state, path = load_clip(tiny).state_dict(), tmp_path / 'weights.pt'
    torch.save(dict(state, text_projection=state['text_projection'] * torch.nan), path)
    with pytest.raises(ValueError, match=f"{path}: the tensor 'text_projection' has values that"):
        load_clip(tiny, str(path))
    torch.save(state, path)
    whole = path.read_bytes()
    place = whole.index(state['text_projection'].numpy().tobytes()) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match=f'{path} .* is damaged .*the checksum of .* differs'):
        load_clip(tiny, str(path))


@pytest.mark.parametrize('kind', ['pt', 'safetensors'])
@pytest.mark.parametrize(
    'name, change, said',
    [
        ('text_projection', lambda w: w.to(torch.complex64), 'is of torch.complex64'),
        ('text_projection', lambda w: (w * 100).int(), 'is of torch.int32, where .*float32'),
        ('text_projection', lambda w: w * torch.inf, 'has values that are not finite'),
        ('module.text_projection', lambda w: w * 2, ''),
    ],
)
def test_weights_of_another_type_are_named(tiny, tmp_path, kind, name, change, said):
    state = {key: value.contiguous() for key, value in load_clip(tiny).state_dict().items()}
    state[name] = change(state['text_projection'])
    path = tmp_path / f'weights.{kind}'
    save_file(state, path) if kind == 'safetensors' else torch.save(state, path)
    with pytest.raises(ValueError, match=f"{path}.*'{name}'.*{said}"):
        load_clip(tiny, str(path))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
def test_weights_that_are_none_are_named(tiny, tmp_path, zipped):
    path = tmp_path / 'weights.pt'
    for content in (
        dict(state_dict={'logit_scale': None}),
        dict(state_dict={5: torch.ones(1)}),
        dict(state_dict=None),
        [1],
        {},
        dict(state_dict={'logit_scale': torch.empty((), device='meta')}),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=str(path)) as caught:
            load_clip(tiny, str(path))
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before-1.6'])
def test_weights_cut_or_changed_anywhere_are_named(tiny, tmp_path, zipped):
    path = tmp_path / 'weights.pt'
    torch.save({'a': torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 25):
        for content in (whole[:place], whole[:place] + b'\x80\xff' + whole[place + 2 :]):
            path.write_bytes(content)
            with pytest.raises((ValueError, RuntimeError), match=str(path)) as caught:
                load_clip(tiny, str(path))
            assert not isinstance(caught.value, UnicodeError)


def test_the_shipped_model_brings_its_own_vocabulary_and_preprocessing():
    model = load_clip('RefShapes-CLIP', 'refshapes')
    tokenizer = load_clip_tokenizer('RefShapes-CLIP')
    ids = tokenizer(['the red star'])
    assert ids.shape == (1, 32) and tokenizer.vocab_size == model.vocab_size < 1000
    assert ids[0, 0] == tokenizer.sot_token_id and ids[0, 4] == tokenizer.eot_token_id
    # A wide image is squashed, not cropped: both of its ends stay visible.
    picture = Image.new('RGB', (400, 200))
    picture.paste((255, 255, 255), (380, 0, 400, 200))
    tensor = clip_preprocess('RefShapes-CLIP', model)(picture)
    assert tensor.shape == (3, 256, 256)
    assert tensor[0, 128, -3] > tensor[0, 128, 128] + 1
