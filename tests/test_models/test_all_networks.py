"""What holds for every network, whatever its parts.

Networks, converters and configs are found in their folders. A new one is tested by being there:

- every config: its network can be built
- every base model of a converter: the table is invertible and fills every tensor
- the smallest base model of each kind (``small_networks.kind_of``): all the rest, which runs
  networks
"""

import io

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from small_networks import CONFIGS, SIZE, networks, small_config, small_network
from torch import nn

from nemo_mmseg.models.converters.convert import base_models, convert_checkpoint, parameter_shapes
from nemo_mmseg.models.converters.converter import CONVERTERS
from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.models.segmentors.masked_training import MaskedTraining

EXPRESSIONS = [['red ring', 'left ring', 'the red one on the left'], ['ring', 'left']]


@pytest.fixture(scope='module')
def build(tmp_path_factory):
    """Build the smallest network of certain classes with random weights, without a hub."""
    vocabulary = tmp_path_factory.mktemp('bert')
    return lambda name, seed: small_network(small_config(name, vocabulary), seed)


@pytest.fixture(scope='module', params=sorted(networks()))
def network(build, request):
    """One network of each kind."""
    return build(request.param, seed=0)


def batch(network, expressions=EXPRESSIONS, first=0):
    """What the data preprocessor makes of images with unequal numbers of expressions."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    samples = []
    for several in expressions:
        meta = dict(expressions=several, ori_shape=(48, 40), img_shape=SIZE)
        mask = torch.rand(len(several), *SIZE, generator=generator) > 0.6
        gt = PixelData(data=mask.to(torch.uint8))
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=gt))
    images = list(images[first : first + len(samples)])
    return network.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)


def test_logits_and_masks(network):
    network.eval()
    with torch.no_grad():
        logits = network(**batch(network), mode='tensor')
        found = network(**batch(network), mode='predict')
    assert logits.shape[:2] in ((5, 1), (5, 2)) and logits.isfinite().all()
    for sample, several in zip(found, EXPRESSIONS, strict=True):
        mask, probability = sample.pred_sem_seg.data, sample.seg_logits.data
        assert mask.shape == probability.shape and len(mask) == len(several)
        assert mask.dtype == torch.uint8 and probability.dtype == torch.float32
        assert mask.max() <= 1 and 0 <= probability.min() and probability.max() <= 1


def test_several_expressions_of_an_image_are_what_each_is_alone(network):
    network.eval().double()
    with torch.no_grad():
        together = network(**batch(network), mode='tensor')
        alone = [
            network(**batch(network, [[one]], image), mode='tensor')
            for image, several in enumerate(EXPRESSIONS)
            for one in several
        ]
    network.float()
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together[0], together[1]), 'the text matters'


def test_an_image_is_encoded_once_whatever_the_chunks(network):
    network.eval().double()
    whole, rows = network.chunk_size, []
    first = next(part for part in network.backbone.modules() if isinstance(part, nn.Conv2d))
    with torch.no_grad():
        together = network(**batch(network), mode='tensor')
        hook = first.register_forward_hook(lambda part, args, out: rows.append(len(out)))
        network.chunk_size = 2
        chunks = network(**batch(network), mode='tensor')
    hook.remove()
    network.chunk_size = whole
    network.float()
    assert rows == [2]
    torch.testing.assert_close(chunks, together, rtol=1e-9, atol=1e-9)


def test_a_training_step_reaches_every_parameter(network):
    network.train().zero_grad()
    loss, log = network.parse_losses(network(**batch(network), mode='loss'))
    loss.backward()
    assert loss.isfinite() and loss > 0 and 'loss' in log
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, parameter in parameters.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in parameters.values())
    network.zero_grad()


@pytest.mark.parametrize('passes', [1, 2])
def test_masked_training_reaches_every_parameter(network, passes):
    masked = MaskedTraining(16, image_ratio=0.5, text_ratio=1.0, passes=passes)
    if passes == 2 and not getattr(network.decode_head, 'learns_masks', True):
        pytest.skip('learns no masks')
    network.train().zero_grad()
    network.masked = masked
    losses = network(**batch(network), mode='loss')
    loss, _ = network.parse_losses(losses)
    loss.backward()
    network.masked = None
    assert loss.isfinite() and ('loss_masked' in losses) == (passes == 2)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, parameter in parameters.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in parameters.values())
    network.zero_grad()


def test_two_channels_have_the_published_weights_in_both_passes(network):
    network.eval()
    with torch.no_grad():
        channels = network(**batch(network), mode='tensor').shape[1]
    if channels == 2:
        kind = type(network.decode_head).__name__
        weights = (4.5, 5.5) if kind == 'ReLAHead' else (0.9, 1.1)
        assert list(network.decode_head.class_weights) == pytest.approx(weights)


def test_hidden_tokens_of_an_expression_matter_and_keep_its_ends(network):
    network.eval()
    encoder = network.text_encoder
    ids, mask = encoder.tokenize(EXPRESSIONS[0][:2])
    masked = MaskedTraining(text_ratio=1.0, text_shares=(1.0, 0.0))
    found = masked.mask_tokens(ids, mask, encoder.token_vocabulary())
    # all but start and end
    assert torch.equal(found[~mask], ids[~mask]) and torch.equal(found[:, 0], ids[:, 0])
    assert ((found != ids).sum(1) == mask.sum(1) - 2).all()
    with torch.no_grad():
        plain, hidden = (encoder.encode(one, mask).words for one in (ids, found))
    assert plain.shape == hidden.shape and not torch.allclose(plain[:, 1], hidden[:, 1])


def test_a_state_dict_makes_the_same_network_again(network, build, request):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = build(request.node.callspec.params['network'], seed=1).eval()
    with torch.no_grad():
        expected = network.eval()(**batch(network), mode='tensor')
        assert not torch.equal(other(**batch(other), mode='tensor'), expected)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert torch.equal(other(**batch(other), mode='tensor'), expected)


@pytest.mark.parametrize(
    'name, base', [(name, base) for name in CONVERTERS for base in CONVERTERS[name].models]
)
def test_a_converter_fills_every_tensor(name, base):
    """Names of ours, read backwards through the table, make a checkpoint that fits."""
    converter = CONVERTERS[name]
    model = base_models(converter)[base]
    shapes = parameter_shapes(model)
    back = inverse(converter.table)
    published = {part: {} for part in converter.parts}
    for ours, shape in shapes.items():
        theirs = translate(back, ours)
        assert theirs is not None, f'no published name becomes {ours}'
        parts = [part for part, prefix in converter.parts.items() if theirs.startswith(prefix)]
        part = max(parts, key=lambda part: len(converter.parts[part]))
        theirs = theirs.removeprefix(converter.parts[part])
        assert theirs not in published[part], f'{theirs} becomes two of our tensors'
        published[part][theirs] = torch.empty(shape, device='meta')
    converted = convert_checkpoint(name, published, model)
    assert converted.state_dict.keys() == shapes.keys() and not converted.left_out


@pytest.mark.parametrize('folder', sorted(path.name for path in CONFIGS.glob('[!_]*')))
def test_every_config_builds(folder):
    built = set()
    for path in sorted((CONFIGS / folder).glob('*.py')):
        model = Config.fromfile(path).model
        if str(model) not in built:
            try:
                # A network that is used as published has no parameters in checkpoints.
                assert parameter_shapes(model) or model.type != 'ReferringSegmentor', path.name
            except ImportError as error:  # of a package with weights
                assert 'pip install' in str(error)
            built.add(str(model))
    assert built
