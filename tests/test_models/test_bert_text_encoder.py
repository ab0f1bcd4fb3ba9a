"""BERTTextEncoder against BERT's formulas written out, and what it does with bad folders."""

import json
import math
import sys

import pytest
import torch
from mmengine.model import BaseModule
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu, layer_norm, linear

from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the', 'red', 'blue', 'ring', '##s', 'left']
SIZES = dict(
    vocab_size=len(WORDS),
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=32,
)
TEXTS = ['red rings', 'the left blue ring', '']


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A folder with config, weights (with pooler) and vocabulary of a tiny BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp('bert')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    torch.manual_seed(3)
    # wide weights, so that attention is far from even
    BertModel(BertConfig(**SIZES, initializer_range=0.5)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to be spoilt."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def encoder(folder, **changes):
    built = BERTTextEncoder(str(folder), **changes)
    built.init_weights()
    return built


def by_hand(weights, ids, mask, heads=2, layers=3):
    """BERT as published: post-norm layers, erf GELU, -10000 added to the scores of padding."""

    def norm(name, x):
        return layer_norm(
            x, x.shape[-1:], weights[f'{name}.weight'], weights[f'{name}.bias'], 1e-12
        )

    def dense(name, x):
        return linear(x, weights[f'{name}.weight'], weights[f'{name}.bias'])

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    table = 'embeddings.{}_embeddings.weight'.format
    x = weights[table('word')][ids] + weights[table('position')][: ids.shape[1]]
    x = norm('embeddings.LayerNorm', x + weights[table('token_type')][0])
    hidden = (1 - mask.to(x.dtype))[:, None, None] * -10000
    for i in range(layers):
        layer = f'encoder.layer.{i}'
        query, key, value = (
            split(dense(f'{layer}.attention.self.{name}', x)) for name in ('query', 'key', 'value')
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + hidden
        found = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = norm(
            f'{layer}.attention.output.LayerNorm',
            x + dense(f'{layer}.attention.output.dense', found),
        )
        inner = gelu(dense(f'{layer}.intermediate.dense', x))
        x = norm(f'{layer}.output.LayerNorm', x + dense(f'{layer}.output.dense', inner))
    return x


def test_equals_bert_by_hand_in_float64(saved):
    built = encoder(saved).double()
    text = built(TEXTS)
    weights = {n: value.double() for n, value in load_file(saved / 'model.safetensors').items()}
    ids, mask = built.tokenize(TEXTS)
    assert text.words.dtype == torch.float64 and text.words.shape == (3, 20, 16)
    torch.testing.assert_close(text.words, by_hand(weights, ids, mask), rtol=1e-10, atol=1e-10)
    assert text.sentence is None and text.one_to_one
    assert text.image_index.tolist() == [0, 1, 2]
    assert torch.equal(text.mask, mask) and built.word_channels == 16


def test_dropout_is_off_in_training_unless_wanted(saved):
    class Root(BaseModule):
        def __init__(self, **options):
            super().__init__()
            self.text_encoder = encoder(saved, **options)

    built = Root().eval().train().text_encoder
    assert built.training and torch.equal(built(TEXTS).words, built(TEXTS).words)
    built = Root(dropout=True).text_encoder
    assert not torch.equal(built(TEXTS).words, built(TEXTS).words)
    built.eval()
    assert torch.equal(built(TEXTS).words, built(TEXTS).words)


def test_frozen_parts_pass_gradients_on(saved):
    built = encoder(saved, frozen=('embeddings', 'encoder.layer.2'))
    built(TEXTS).words.square().sum().backward()
    for name, parameter in built.bert.named_parameters():
        trained = name.startswith(('encoder.layer.0', 'encoder.layer.1'))
        assert parameter.requires_grad == trained
        # a key's bias shifts all scores of a query alike: its gradient is rounding
        assert (parameter.grad is not None) == trained
        if trained and not name.endswith('key.bias'):
            assert parameter.grad.abs().max() > 0


def test_weights_come_with_init_weights(folder):
    """With the prefix and the head of another task in the file."""
    weights = load_file(folder / 'model.safetensors')
    named = {f'bert.{name}': value for name, value in weights.items()}
    named['cls.predictions.bias'] = torch.zeros(len(WORDS))
    named['bert.embeddings.position_ids'] = torch.arange(32)[None]
    save_file(named, folder / 'model.safetensors', metadata=dict(format='pt'))
    built = BERTTextEncoder(str(folder))
    name = 'encoder.layer.1.output.dense.weight'
    assert not torch.equal(built.bert.state_dict()[name], weights[name])
    built.init_weights()
    state = built.bert.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in state.items())
    assert set(weights) - set(state) == {'pooler.dense.weight', 'pooler.dense.bias'}


def test_architecture_from_config_touches_nothing():
    built = BERTTextEncoder('./no-such-folder', config=SIZES, pretrained=False)
    built.init_weights()
    words = built.encode(torch.ones(1, 20).long(), torch.ones(1, 20).bool()).words
    assert words.shape == (1, 20, 16)
    for use in (lambda: built(['red']), lambda: BERTTextEncoder('./no-such-folder')):
        with pytest.raises(OSError, match='no-such-folder'):
            use()


def test_config_of_bert_base():
    frozen = ('embeddings', 'encoder.layer.10', 'encoder.layer.11')
    with torch.device('meta'):
        built = BERTTextEncoder(config={}, pretrained=False, frozen=frozen)
    parameters = list(built.bert.parameters())
    # counted in the published checkpoint: all, and layers 0 to 9
    assert len(parameters) == 197
    assert sum(value.numel() for value in parameters) == 108_891_648
    assert sum(value.numel() for value in parameters if value.requires_grad) == 70_878_720


def test_bad_settings_are_named(saved):
    for length in (1, 33):
        with pytest.raises(ValueError, match='context_length must be 2 to 32'):
            BERTTextEncoder(str(saved), context_length=length)
    assert BERTTextEncoder(str(saved), context_length=32)(['red']).words.shape == (1, 32, 16)
    with pytest.raises(AttributeError, match='3'):
        BERTTextEncoder(str(saved), frozen=('encoder.layer.3',))
    with pytest.raises(ValueError, match='no field hiden_size'):
        BERTTextEncoder(str(saved), config=dict(hiden_size=16))


@pytest.mark.parametrize('words', [None, [*WORDS, 'green']], ids=['none', 'too many'])
def test_a_vocabulary_that_does_not_fit(folder, words):
    (folder / 'vocab.txt').unlink()
    if words:
        (folder / 'vocab.txt').write_text('\n'.join(words))
    found = len(words) if words else 5
    with pytest.raises(ValueError, match=f'vocabulary.*{folder.name}.* {found} tokens.* 11 rows'):
        BERTTextEncoder(str(folder))


@pytest.mark.parametrize(
    'changes, error, message',
    [
        # nothing in the shapes would tell these three
        (dict(num_attention_heads=4), ValueError, 'num_attention_heads=2, this network 4'),
        (dict(hidden_act='relu'), ValueError, 'hidden_act'),
        (dict(layer_norm_eps=1e-5), ValueError, 'layer_norm_eps'),
        # transformers only warns of these two
        (dict(num_hidden_layers=2), RuntimeError, r'beyond this network.*encoder\.layer\.2\.'),
        (dict(num_hidden_layers=4), RuntimeError, r'lack.*encoder\.layer\.3\.'),
        (dict(hidden_size=32), RuntimeError, '(?s)cannot be loaded.*size'),
    ],
)
def test_weights_of_another_network(saved, changes, error, message):
    with pytest.raises(error, match=message):
        encoder(saved, config={**SIZES, **changes})


def test_weights_that_are_cut_or_would_run_code(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RuntimeError, match=f'{folder.name}.* cannot be loaded'):
        encoder(folder)
    path.unlink()
    torch.save({'x': pytest.raises}, folder / 'pytorch_model.bin')
    with pytest.raises(RuntimeError, match=f'{folder.name}.* cannot be loaded'):
        encoder(folder)


DENSE = 'encoder.layer.0.output.dense.weight'
NORM = 'encoder.layer.0.output.LayerNorm.'


@pytest.mark.parametrize('kind', ['bin', 'safetensors', 'parts'])
@pytest.mark.parametrize(
    'name, change, said',
    [
        (DENSE, lambda w: w.to(torch.complex64), f"'{DENSE}' is of torch.complex64"),
        (DENSE, lambda w: (w * 100).int(), f"'{DENSE}' is of torch.int32, where .*float32"),
        (DENSE, lambda w: w * torch.nan, f"'{DENSE}' has values that are not finite"),
        (f'bert.{DENSE}', lambda w: w * 2, f"names one tensor twice, .*'bert.{DENSE}'"),
        (f'module.{DENSE}', lambda w: w * 2, f"names one tensor twice, .*'module.{DENSE}'"),
        (f'{NORM}gamma', lambda w: w * 2, f"names one tensor twice, .*'{NORM}gamma'"),
    ],
)
def test_weights_that_mean_nothing_are_named(folder, kind, name, change, said):
    old = folder / 'model.safetensors'
    state = load_file(old)
    source = f'{NORM}weight' if 'gamma' in name else DENSE
    state[name] = change(state[source])
    old.unlink()
    if kind == 'safetensors':
        save_file(state, old)
    elif kind == 'bin':
        torch.save(state, folder / 'pytorch_model.bin')
    else:
        torch.save(state, folder / 'one.bin')
        index = dict(metadata={}, weight_map=dict.fromkeys(state, 'one.bin'))
        (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
    with pytest.raises(RuntimeError, match=f'{folder.name}.* cannot be loaded: .*{said}'):
        encoder(folder)


def test_a_flipped_bit_in_weights_is_noticed(folder):
    state = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    path = folder / 'pytorch_model.bin'
    torch.save(state, path)
    encoder(folder)
    content = bytearray(path.read_bytes())
    content[content.index(state[DENSE].numpy().tobytes()) + 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match='pytorch_model.bin.* damaged .*the checksum of'):
        encoder(folder)


def test_folder_in_a_package(saved, tmp_path, monkeypatch):
    package = tmp_path / 'package_with_bert'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("it is not to be imported")')
    (package / 'model').symlink_to(saved)
    monkeypatch.syspath_prepend(tmp_path)
    assert encoder('pkg://package_with_bert/model')(['red']).words.shape == (1, 20, 16)
    with pytest.raises(OSError, match='other'):
        BERTTextEncoder('pkg://package_with_bert/other')
    with pytest.raises(ImportError, match='pip install --no-deps no-such-bert'):
        BERTTextEncoder('pkg://no_such_bert/model')


def test_without_transformers(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='pip install transformers'):
        BERTTextEncoder(str(saved))
