"""One GPU that accumulates does what several do, where no layer looks at the whole batch."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.modules.batchnorm import _BatchNorm

from nemo_mmseg.models.converters.convert import build_without_memory

ROOT = Path(__file__).resolve().parents[2]
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'red', 'left', 'ring', 'the', 'one']
BERT = dict(
    vocab_size=len(WORDS),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=16,
)
SWIN = dict(
    embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.0
)
CARIS = dict(
    text_encoder=dict(type='PromptedBERTTextEncoder', context_length=8),
    backbone=dict(type='PlainSwinTransformer', **SWIN),
    neck=dict(type='CARISNeck', in_channels=(8, 16, 32, 64), channels=32, word_channels=16),
    decode_head=dict(
        type='CARISHead', fine_channels=8, channels=32, word_channels=16, num_layers=1
    ),
)
LAVT = dict(
    text_encoder=dict(type='BERTTextEncoder', context_length=8),
    backbone=dict(type='LAVTSwinTransformer', word_channels=16, **SWIN),
    decode_head=dict(type='LAVTHead', in_channels=(8, 16, 32, 64)),
)


@pytest.fixture
def build(tmp_path):
    """Build a narrow network in float64, always with the same weights."""
    (tmp_path / 'vocab.txt').write_text('\n'.join(WORDS))

    def make(parts):
        bert = dict(model=str(tmp_path), config=BERT, pretrained=False)
        preprocessor = dict(type='SegDataPreProcessor', size_divisor=1)
        config = dict(parts, type='ReferringSegmentor', data_preprocessor=preprocessor)
        torch.manual_seed(0)
        return MODELS.build({**config, 'text_encoder': {**parts['text_encoder'], **bert}}).double()

    return make


def batch(numbers, height_of):
    """Images and samples; the mask of number n is `height_of(n)` pixels high."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(8, 3, 64, 64, generator=generator, dtype=torch.float64)
    samples = []
    for n in numbers:
        mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
        mask[0, n : n + height_of(n), 8:40] = 1
        mask[0, 60:] = 255  # not counted
        sample = SegDataSample(metainfo=dict(expressions=[['red ring', 'the left one'][n % 2]]))
        sample.gt_sem_seg = PixelData(data=mask)
        samples.append(sample)
    return images[list(numbers)], samples


def backward(model, numbers, height_of):
    losses = model(*batch(numbers, height_of), mode='loss')
    return sum(value for name, value in losses.items() if 'loss' in name)


def gradients(model, gpus, height_of):
    """What DDP steps by: the mean of the gradients of the GPUs."""
    model.zero_grad()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    mean = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for numbers in gpus:
        loss = backward(model, numbers, height_of)
        found = torch.autograd.grad(loss, list(parameters.values()))
        for name, gradient in zip(parameters, found, strict=True):
            mean[name] += gradient / len(gpus)
    return mean


def accumulated(model, parts, height_of):
    """What one step with `accumulative_counts` moves the weights by, at a rate of 1."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    wrapper = OptimWrapper(torch.optim.SGD(trained, lr=1.0), accumulative_counts=len(parts))
    for numbers in parts:
        with wrapper.optim_context(model):
            wrapper.update_params(backward(model, numbers, height_of))
    moved = {name: before[name] - p.detach() for name, p in model.named_parameters()}
    return {name: moved[name] for name, p in model.named_parameters() if p.requires_grad}


def difference(one, other):
    """Norm of the difference of two gradients, as a share of the second."""
    norm = sum(value.square().sum() for value in other.values()).sqrt()
    return float(sum((one[name] - other[name]).square().sum() for name in other).sqrt() / norm)


FOUR, WHOLE = [(0, 1), (2, 3), (4, 5), (6, 7)], [tuple(range(8))]


def same_size(number):
    return 20


def growing(number):
    return 4 + 6 * number


# The losses are float32, so sums that are ordered differently differ by its rounding.
ROUNDING = 1e-5


def test_without_batch_statistics_a_step_is_that_of_several_gpus(build):
    model = build(CARIS).train()
    assert not any(isinstance(module, _BatchNorm) for module in model.modules())
    for height_of in (same_size, growing):
        gpus = gradients(model, FOUR, height_of)
        assert difference(accumulated(build(CARIS).train(), FOUR, height_of), gpus) < ROUNDING
    whole = gradients(model, WHOLE, same_size)
    assert difference(gradients(model, FOUR, same_size), whole) < ROUNDING
    # The loss is a mean weighted by class: parts with more foreground weigh more in one batch.
    whole = gradients(model, WHOLE, growing)
    assert 10 * ROUNDING < difference(gradients(model, FOUR, growing), whole) < 0.1


def test_batch_statistics_are_those_of_a_part(build):
    model = build(LAVT).train()
    whole = gradients(model, WHOLE, same_size)
    assert difference(accumulated(build(LAVT).train(), FOUR, same_size), whole) > 0.01
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    still = model.state_dict()
    whole = gradients(model, WHOLE, same_size)
    assert difference(gradients(model, FOUR, same_size), whole) < ROUNDING
    assert difference(accumulated(model, FOUR, same_size), whole) < ROUNDING
    assert still.keys() == model.state_dict().keys()


def rows_of_the_page():
    """Base model and what the page says of its batch normalisation: layers by part."""
    text = (ROOT / 'docs' / 'training.md').read_text()
    section = text[text.index('\n## One GPU') :]
    rows = re.findall(r'^\| [^|]+ \| `([\w-]+)` \| ([^|]+) \|', section, re.MULTILINE)
    return {name: dict(re.findall(r'`(\w+)` (\d+)', cell)) for name, cell in rows}


def test_the_page_names_the_networks_with_batch_normalisation():
    found = rows_of_the_page()
    bases = ROOT / 'configs' / '_base_' / 'models'
    methods = {re.match(r'tris-stage\d|[a-z]+', path.stem)[0] for path in bases.glob('*.py')}
    untrained = {'clipseg', 'groupvit', 'gradcam', 'irn'}
    assert {re.match(r'tris-stage\d|[a-z]+', name)[0] for name in found} == methods - untrained
    for name, parts in found.items():
        model = build_without_memory(Config.fromfile(bases / f'{name}.py').model).train()
        counts = Counter(
            where.partition('.')[0]
            for where, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.training
        )
        assert {part: str(number) for part, number in counts.items()} == parts, name
