"""What networks to come may rely on: outputs, protocols, auxiliary losses and frozen teachers."""

import copy
import pickle
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import MODELS, TASK_UTILS

from nemo_mmseg.models.converters.convert import parameter_shapes
from nemo_mmseg.models.protocols.geometry import store
from nemo_mmseg.models.structures import HeadOutput, TextFeatures
from nemo_mmseg.models.utils.frozen import FrozenCLIP
from nemo_mmseg.utils.clip import load_clip

runpy.run_path(str(Path(__file__).with_name('toys.py')))  # registers

THREE = ['red ring', 'left ring', 'the red one on the left']
TWO = ['ring', 'left']


@MODELS.register_module()
class ToyTextBackbone(BaseModule):
    """A backbone that looks at the text, as LAVT's: one row per expression comes out."""

    takes_text = True

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 8, stride=8)

    def forward(self, inputs, text):
        return text.rows(self.conv(inputs)) * text.words.mean(1)[:, :, None, None]


@MODELS.register_module()
class ToyHead(BaseModule):
    """Two channels per expression, a no-target score and a vector."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(16, 2, 1)

    def forward(self, feats, text):
        feats = text.rows(feats)
        vector = feats.mean((2, 3))
        return HeadOutput(self.conv(feats), vector.mean(1), dict(vector=vector))

    def loss(self, output, text, data_samples):
        return dict(loss_toy=output.extras['vector'].square().mean())


@TASK_UTILS.register_module()
class ToyProtocol(BaseModule):
    """Foreground where the image is brighter than the vector of the expression is long."""

    def forward(self, output, image, sample):
        length = output.extras['vector'].norm(dim=1)[:, None, None]
        store(sample, length.expand(-1, *image.shape[-2:]), image.mean(0) > length)


@pytest.fixture
def toy(build):
    """Builds a network whose backbone takes text and whose head says all that it can."""
    parts = dict(backbone=dict(type='ToyTextBackbone'), decode_head=dict(type='ToyHead'))
    return lambda **changes: build(**parts, neck=None, **changes)


@pytest.mark.parametrize('chunk_size', [2, 32])
def test_a_head_with_a_no_target_output_and_extras(toy, sample, chunk_size):
    test_cfg = dict(protocol=dict(type='ToyProtocol'), chunk_size=chunk_size)
    model = toy(test_cfg=test_cfg).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = model(images, [sample(THREE), sample(TWO)], mode='predict')
        rows = [(image, [one]) for image, several in zip(images, (THREE, TWO)) for one in several]
        alone = [model(image[None], [sample(one)], mode='predict')[0] for image, one in rows]
    assert [len(one.no_target) for one in found] == [3, 2]
    for name in ('no_target', 'seg_logits', 'pred_sem_seg'):
        several = [getattr(one, name) for one in found]
        single = [getattr(one, name) for one in alone]
        if name != 'no_target':
            several, single = ([one.data for one in group] for group in (several, single))
        torch.testing.assert_close(torch.cat(several), torch.cat(single))
    assert 0 < torch.cat([one.pred_sem_seg.data for one in found]).float().mean() < 1
    assert model(images, [sample(THREE), sample(TWO)], mode='loss').keys() == {'loss_toy'}


def test_outputs_are_cut_and_joined():
    output = HeadOutput(torch.randn(5, 1, 2, 2), torch.randn(5), dict(a=torch.randn(5, 7)))
    parts = output.split([2, 0, 3])
    assert [len(part.extras['a']) for part in parts] == [2, 0, 3]
    joined = HeadOutput.cat(parts)
    assert torch.equal(joined.logits, output.logits)
    assert torch.equal(joined.no_target, output.no_target)
    assert torch.equal(joined.extras['a'], output.extras['a'])
    assert HeadOutput.cat([HeadOutput(output.logits)] * 2).no_target is None


@MODELS.register_module()
class ToyPairHead(BaseModule):
    """Scores each expression for every image of the batch."""

    takes_all_images = True

    def __init__(self):
        super().__init__()
        self.sentence = torch.nn.Linear(16, 16)

    def forward(self, feats, text):
        pairs = torch.einsum('bchw,ec->ebhw', feats, self.sentence(text.words.mean(1)))
        one = pairs[torch.arange(len(text)), text.image_index][:, None]
        return HeadOutput(one, extras=dict(pairs=pairs.amax((2, 3))))


@TASK_UTILS.register_module()
class ToyPairProtocol(BaseModule):
    """Keeps the scores."""

    def forward(self, output, image, sample):
        sample.set_data(dict(pairs=output.extras['pairs']))


@pytest.mark.parametrize('chunk_size', [1, 2, 32])
def test_a_head_that_compares_expressions_with_all_images(build, sample, chunk_size):
    model = build(
        backbone=dict(type='Conv2d', in_channels=3, out_channels=16, kernel_size=8, stride=8),
        neck=None,
        decode_head=dict(type='ToyPairHead'),
        test_cfg=dict(protocol=dict(type='ToyPairProtocol'), chunk_size=chunk_size),
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = model(images, [sample(THREE), sample(TWO)], mode='predict')
        logits = model(images, [sample(THREE), sample(TWO)])
        words = model.text_encoder([*THREE, *TWO]).words
        sentences = model.decode_head.sentence(words.mean(1))
        pixels = model.backbone(images).flatten(2)
    maps = torch.stack([torch.stack([x.T @ one for x in pixels]) for one in sentences])
    assert [one.pairs.shape for one in found] == [(3, 2), (2, 2)]
    torch.testing.assert_close(torch.cat([one.pairs for one in found]), maps.amax(2))
    expected = torch.cat([maps[:3, 0], maps[3:, 1]])
    torch.testing.assert_close(logits[:, 0].flatten(1), expected)


def test_text_features_know_their_images():
    ones = torch.ones(3, 4, dtype=torch.bool)
    text = TextFeatures(torch.randn(3, 4, 6), ones, None, torch.arange(3)).of_images([2, 0, 1])
    x = torch.arange(3.0)
    assert text.rows(x).tolist() == [0, 0, 2] and not text.one_to_one
    assert text.per_expression().rows(x).tolist() == [0, 1, 2]
    assert text.of_images([1, 1, 1]).one_to_one


@MODELS.register_module()
class ToyImageTextEncoder(BaseModule):
    """Its words hold the brightness of the image."""

    takes_image = True

    def tokenize(self, expressions):
        ids = torch.tensor([[len(one)] for one in expressions])
        return ids, ids > 0

    def encode(self, ids, mask):
        words = ids[..., None].float().expand(-1, -1, 16)
        return TextFeatures(words, mask, None, torch.arange(len(ids)), True)

    def condition(self, text, x):
        text.words = text.words * text.rows(x.mean((1, 2, 3)))[:, None, None]
        return text

    def forward(self, expressions):
        return self.encode(*self.tokenize(expressions))


@pytest.mark.parametrize('chunk_size', [1, 2, 32])
def test_a_text_encoder_that_looks_at_the_image(toy, sample, chunk_size):
    model = toy(
        text_encoder=dict(type='ToyImageTextEncoder'),
        test_cfg=dict(protocol=dict(type='ToyProtocol'), chunk_size=chunk_size),
    )
    images = torch.randn(2, 3, 64, 64)
    brightness = images.mean((1, 2, 3))[torch.tensor([0, 0, 0, 1, 1])]
    lengths = torch.tensor([float(len(one)) for one in (*THREE, *TWO)])
    conv = model.backbone.conv(images)[torch.tensor([0, 0, 0, 1, 1])]
    expected = model.decode_head.conv(conv * (lengths * brightness)[:, None, None, None])
    torch.testing.assert_close(model(images, [sample(THREE), sample(TWO)]), expected)


@pytest.fixture
def taught(build, tiny_clip):
    """Builds a CRIS with an auxiliary loss whose teacher is a frozen CLIP."""
    loss = dict(type='ToyTeacherLoss', model=tiny_clip[0], pretrained=tiny_clip[1])
    return lambda **changes: build(aux_losses=[loss], **changes)


def step(model, sample, dtype=torch.float32):
    images = torch.randn(2, 3, 64, 64, dtype=dtype)
    samples = [sample(THREE, gt=(64, 64)), sample(TWO, gt=(64, 64))]
    return model(images, samples, mode='loss')


def test_a_teacher_is_no_part_of_the_network(taught, build, sample, cris_config, tiny_clip):
    model, plain = taught(), build()
    step(model.train(), sample)
    assert model.state_dict().keys() == plain.state_dict().keys()
    loss = dict(type='ToyTeacherLoss', model=tiny_clip[0], pretrained='no/such/file.pt')
    shapes = parameter_shapes({**cris_config, 'aux_losses': [loss]})  # as converters see it
    assert shapes == {name: tensor.shape for name, tensor in plain.state_dict().items()}
    assert list(dict(model.named_parameters())) == list(dict(plain.named_parameters()))
    assert list(dict(model.named_buffers())) == list(dict(plain.named_buffers()))
    # The same seed gives the same network, with a teacher and without.
    for name, tensor in plain.named_parameters():
        assert torch.equal(tensor, model.get_parameter(name)), name
    plain.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(plain.state_dict(), strict=True)
    rules = dict(custom_keys={'aux_losses': dict(lr_mult=9.0)})
    settings = dict(optimizer=dict(type='SGD', lr=1.0))
    wrapper = DefaultOptimWrapperConstructor(settings, rules)(model)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {1.0}


def test_a_teacher_teaches_and_does_not_learn(taught, sample, tiny_clip):
    model = taught().train()
    losses = step(model, sample)
    assert losses.keys() == {'loss_ce', 'train_iou', 'loss_toy'}
    teacher = model.aux_losses[0].teacher
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses['loss_toy'].backward()
    optimizer.step()
    assert model.decode_head.projector.conv3.weight.grad.any()
    stored = load_clip(*tiny_clip)
    assert not any(module.training for module in teacher.network.modules())
    for name, parameter in teacher.network.named_parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.equal(parameter, stored.get_parameter(name)), name
    # batch statistics stay, too
    for name, buffer in teacher.network.named_buffers():
        assert torch.equal(buffer, stored.get_buffer(name)), name


@MODELS.register_module()
class ToyNamedLoss(BaseModule):
    """A loss whose name is an argument."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, inputs, output, text, data_samples):
        return {self.name: output.logits.square().mean()}


@pytest.mark.parametrize('names', [['loss_ce'], ['loss_toy', 'loss_toy']])
def test_no_loss_replaces_another(build, sample, names):
    model = build(aux_losses=[dict(type='ToyNamedLoss', name=name) for name in names]).train()
    with pytest.raises(ValueError, match=f'ToyNamedLoss.* {names[-1]}'):
        step(model, sample)


def test_a_teacher_moves_with_the_model(taught, sample):
    model = taught()
    before = model.aux_losses[0].teacher.network.text_projection.dtype
    model.to(torch.float64)
    after = model.aux_losses[0].teacher.network.text_projection.dtype
    assert (before, after) == (torch.float32, torch.float64)
    assert step(model, sample, torch.float64)['loss_toy'].dtype == torch.float64
    # loaded after the move
    late = MODELS.build(dict(type='ToyTeacherLoss', model='RefShapes-CLIP', pretrained=None))
    assert late.double().teacher.network.text_projection.dtype == torch.float64
    # as a GPU: a device that computes nothing
    ids = late.to('meta').teacher.tokenize(['red'])
    assert late.teacher.encode_text(ids).device.type == 'meta'


def test_copies_of_a_teacher_stand_alone(tiny_clip):
    teacher = FrozenCLIP(*tiny_clip)
    teacher.init_weights()
    ids = teacher.tokenize(['red ring'])
    expected = teacher.encode_text(ids)
    for other in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        teacher.double()
        assert other.network.text_projection.dtype == torch.float32
        torch.testing.assert_close(other.encode_text(ids), expected)
        teacher.float()


def test_a_teacher_is_read_when_training_starts_and_not_before(cris_config, tiny_clip, sample):
    loss = dict(type='ToyTeacherLoss', model=tiny_clip[0], pretrained='no/such/file.pt')
    model = MODELS.build({**cris_config, 'aux_losses': [loss]}).eval()
    model(torch.randn(1, 3, 64, 64), [sample(TWO, ori_shape=(9, 9))], mode='predict')
    with pytest.raises(FileNotFoundError, match='no/such/file.pt'):
        model.init_weights()
