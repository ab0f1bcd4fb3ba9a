"""CompileHook on a LAVT of a few thousand weights whose text encoder counts letters."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, MODELS
from mmseg.structures import SegDataSample
from torch import nn

from nemo_mmseg.models.structures import TextFeatures

init_default_scope('mmseg')


@MODELS.register_module(name='LetterEncoder', force=True)
class LetterEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(128, 6)

    def tokenize(self, texts):
        ids = torch.tensor([[ord(letter) for letter in text.ljust(12)[:12]] for text in texts])
        return ids, ids != ord(' ')

    def encode(self, ids, mask):
        return TextFeatures(self.embedding(ids), mask, None, torch.arange(len(ids)), True)

    def forward(self, texts):
        return self.encode(*self.tokenize(texts))


def network(**backbone):
    """Two stages: tracing a Swin takes long."""
    torch.manual_seed(0)
    swin = dict(embed_dims=8, depths=(1, 2), num_heads=(1, 1), strides=(4, 2), out_indices=(0, 1))
    backbone = dict(word_channels=6, drop_path_rate=0.0, fusion_heads=(1, 1), **swin, **backbone)
    model = MODELS.build(
        dict(
            type='ReferringSegmentor',
            data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=1),
            text_encoder=dict(type='LetterEncoder'),
            backbone=dict(type='LAVTSwinTransformer', window_size=4, **backbone),
            decode_head=dict(type='LAVTHead', in_channels=(8, 16)),
        )
    )
    return model


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x)

    def loss(self, x):
        return self(x).square().mean()


class Toy(nn.Module):
    """Parts of one layer, to look at what is compiled and what not."""

    def __init__(self):
        super().__init__()
        self.text_encoder = nn.Sequential(nn.Embedding(5, 4))
        self.backbone = nn.Linear(4, 4)
        self.decode_head = Head()

    def forward(self, ids):
        return self.decode_head.loss(self.backbone(self.text_encoder(ids)))


def samples(*counts):
    torch.manual_seed(1)
    made = []
    for count in counts:
        sample = SegDataSample(metainfo=dict(expressions=['red', 'left one', 'it'][:count]))
        mask = (torch.rand(count, 64, 64) > 0.6).to(torch.uint8)
        sample.gt_sem_seg = PixelData(data=mask)
        made.append(sample)
    return torch.randn(len(counts), 3, 64, 64), made


def hook(**options):
    return HOOKS.build(dict(type='CompileHook', **options))


@pytest.fixture
def graphs():
    """A backend that runs what it is given as it is, and its graphs so far."""
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    yield SimpleNamespace(seen=seen, backend=backend)
    torch._dynamo.reset()
    torch.compiler.set_stance('default')


def gradients(model, *counts):
    losses = model.loss(*samples(*counts))
    losses['loss_ce'].backward()
    return losses['loss_ce'], {name: p.grad for name, p in model.named_parameters()}


def compiled_parts(model):
    return {name for name, part in model.named_modules() if part._compiled_call_impl}


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_backbone_and_head_are_compiled_and_keep_their_names(graphs, wrap):
    model = Toy()
    names = list(model.state_dict())
    hook(backend=graphs.backend).before_run(SimpleNamespace(model=wrap(model)))
    assert compiled_parts(model) == {'backbone', 'decode_head'}  # there is no neck
    model(torch.tensor([1, 2])).backward()
    # one graph for the backbone, one for the head, which its loss calls
    assert len(graphs.seen) == 2
    assert list(model.state_dict()) == names


def test_a_copy_is_a_plain_network_with_the_same_weights(graphs):
    # what MMEngine's exponential moving average does
    model = Toy()
    hook(backend=graphs.backend).before_run(SimpleNamespace(model=model))
    model(torch.tensor([1, 2]))
    twin = copy.deepcopy(model)
    assert compiled_parts(twin) == set()
    assert twin(torch.tensor([3])) == model(torch.tensor([3]))


def test_parts_by_name(graphs):
    model = Toy()
    hook(modules=['text_encoder.0'], backend=graphs.backend).before_run(
        SimpleNamespace(model=model)
    )
    assert compiled_parts(model) == {'text_encoder.0'}
    for wrong in (['backbon'], ['neck'], [''], []):
        with pytest.raises(ValueError, match='has no part'):
            hook(modules=wrong).before_run(SimpleNamespace(model=model))
    with pytest.raises(ValueError, match='list of names'):
        hook(modules='backbone')


@pytest.mark.slow
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_compiled_lavt_learns_the_same(graphs, with_cp):
    plain, model = network(), network(with_cp=with_cp)
    hook(backend=graphs.backend).before_run(SimpleNamespace(model=model))
    loss, grads = gradients(model, 1, 2)
    # the backbone without and with the text, and the head
    assert len(graphs.seen) == 3, 'a graph is broken'
    expected, expected_grads = gradients(plain, 1, 2)
    torch.testing.assert_close(loss, expected)
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, msg=lambda text, name=name: name + text)


def test_evaluation_is_plain_and_training_compiled_also_after_a_validation_that_raised(graphs):
    model, ids = Toy(), torch.tensor([1, 2])
    hook(backend=graphs.backend).before_run(SimpleNamespace(model=model))
    model.eval()
    expected = model(ids)
    failing = model.decode_head.register_forward_pre_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(ids)
    failing.remove()
    assert graphs.seen == []
    assert model.train()(ids) == expected
    assert len(graphs.seen) == 2


def test_what_is_compiled_elsewhere_stays_so_in_evaluation(graphs):
    model, other = Toy(), nn.Linear(4, 4)
    hook(backend=graphs.backend).before_run(SimpleNamespace(model=model))
    model.eval()
    torch.compile(other, backend=graphs.backend)(model.backbone.weight)
    assert len(graphs.seen) == 1
    # and the user's own choice of running plain outlasts an evaluation
    torch.compiler.set_stance('force_eager')
    model(torch.tensor([1, 2]))
    model.train()(torch.tensor([1, 2]))
    assert len(graphs.seen) == 1


def test_a_part_that_stays_in_evaluation_mode_while_the_network_trains_is_compiled(graphs):
    model = Toy()  # as LAVT's BERT
    hook(modules=['text_encoder'], backend=graphs.backend).before_run(SimpleNamespace(model=model))
    model.text_encoder.eval()
    model(torch.tensor([1, 2]))
    assert len(graphs.seen) == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('g++'), reason='inductor needs a compiler')
def test_inductor_computes_the_same():
    torch._dynamo.reset()
    plain, model = network(), network()
    # the backbone compiles for minutes on two CPU cores
    hook(modules=['decode_head']).before_run(SimpleNamespace(model=model))
    loss, grads = gradients(model, 1, 2)
    expected, expected_grads = gradients(plain, 1, 2)
    torch.testing.assert_close(loss, expected)
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-5)
