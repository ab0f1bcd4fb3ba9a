import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.structures import PixelData
from mmseg.registry import MODELS

THREE = ['red ring', 'left ring', 'the red one on the left']
TWO = ['ring', 'left']


@MODELS.register_module()
class TestTextBackbone(BaseModule):
    """A backbone that looks at the text, as LAVT's: one row per expression comes out."""

    __test__ = False  # no test, whatever its name says
    takes_text = True

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 8, stride=8)

    def forward(self, inputs, text):
        return text.rows(self.conv(inputs)) * text.words.mean(1)[:, :, None, None]


@MODELS.register_module()
class TestPlainHead(BaseModule):
    """Two channels per expression and a no-target score."""

    __test__ = False

    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 2, 1)

    def predict(self, feats, text):
        feats = text.rows(feats)
        return self.conv(feats), feats.mean((1, 2, 3))

    def loss(self, feats, text, data_samples):
        return dict(loss_plain=self.predict(feats, text)[0].square().mean())


def test_several_expressions_per_image_equal_one_by_one(build, sample):
    model = build().eval()
    images = torch.randn(2, 3, 96, 64)
    meta = dict(ori_shape=(48, 40), img_shape=(96, 64))
    with torch.no_grad():
        grouped = model(images, [sample(THREE, **meta), sample(TWO, **meta)], mode='predict')
        logits = model(images, [sample(THREE), sample(TWO)], mode='tensor')
    assert logits.shape == (5, 1, 24, 16)
    for image, together, expressions in zip(images, grouped, (THREE, TWO), strict=True):
        assert together.pred_sem_seg.data.shape == (len(expressions), 48, 40)
        assert together.pred_sem_seg.data.dtype == torch.uint8
        assert together.seg_logits.data.dtype == torch.float32
        for row, expression in enumerate(expressions):
            with torch.no_grad():
                alone = model(image[None], [sample([expression], **meta)], mode='predict')[0]
            assert alone.pred_sem_seg.data.shape == (1, 48, 40)
            torch.testing.assert_close(
                alone.seg_logits.data[0], together.seg_logits.data[row], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize('chunk_size', [1, 2, 4])
def test_chunks_change_nothing(build, sample, chunk_size):
    images = torch.randn(2, 3, 64, 64)
    samples = [sample(THREE), sample(TWO)]
    with torch.no_grad():
        whole = build().eval()(images, samples)
        parts = build(test_cfg=dict(chunk_size=chunk_size)).eval()(images, samples)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)


def test_the_image_is_encoded_once_whatever_the_chunks(build, sample):
    model = build(test_cfg=dict(chunk_size=2)).eval()
    calls = []
    model.backbone.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    model(torch.randn(2, 3, 64, 64), [sample(THREE), sample(TWO)])
    assert calls == [2]


def test_every_parameter_gets_a_gradient(build, sample):
    model = build()
    losses = model(
        torch.randn(2, 3, 64, 64),
        [sample(THREE, truth=(64, 64)), sample(TWO, truth=(64, 64))],
        mode='loss',
    )
    assert set(losses) == {'loss_ce', 'train_iou'}
    model.parse_losses(losses)[0].backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert not any('logit_scale' in name for name, _ in model.named_parameters())


def test_training_on_one_batch_lowers_the_loss_and_finds_the_masks(build, sample):
    model = build()
    images = torch.randn(2, 3, 64, 64)
    samples = [sample(['left ring'], truth=(64, 64)), sample(['red ring'], truth=(64, 64))]
    for one, columns in zip(samples, (slice(0, 32), slice(32, 64)), strict=True):
        one.gt_sem_seg.data.zero_()[..., columns] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for _ in range(30):
        losses = model(images, samples, mode='loss')
        optimizer.zero_grad()
        losses['loss_ce'].backward()
        optimizer.step()
        history.append((losses['loss_ce'].item(), float(losses['train_iou'])))
    assert history[-1][0] < 0.3 * history[0][0]
    assert history[-1][1] > 80


@pytest.mark.parametrize('mode', ['loss', 'predict'])
def test_bfloat16_autocast(build, sample, mode):
    model = build().to(memory_format=torch.channels_last)
    samples = [sample(THREE, truth=(64, 64)), sample(TWO, truth=(64, 64))]
    model.train(mode == 'loss')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = model(torch.randn(2, 3, 64, 64), samples, mode=mode)
    if mode == 'loss':
        assert out['loss_ce'].dtype == torch.float32
        out['loss_ce'].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    else:
        assert out[0].seg_logits.data.dtype == torch.float32


def test_channels_last_is_the_same_network(build, sample):
    images, samples = torch.randn(2, 3, 64, 96), [sample(THREE), sample(TWO)]
    with torch.no_grad():
        plain = build().eval()(images, samples)
        last = build().eval().to(memory_format=torch.channels_last)(images, samples)
    torch.testing.assert_close(plain, last, atol=1e-5, rtol=1e-5)


def test_a_backbone_that_takes_text_needs_nothing_else(build, sample):
    model = build(
        backbone=dict(type='TestTextBackbone'),
        neck=None,
        decode_head=dict(type='TestPlainHead', channels=16),
        test_cfg=dict(chunk_size=2),
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = model(images, [sample(THREE), sample(TWO)], mode='predict')
        alone = model(images[1:], [sample(TWO[1:])], mode='predict')[0]
    assert [len(one.no_target) for one in out] == [3, 2]
    torch.testing.assert_close(out[1].no_target[1], alone.no_target[0])
    torch.testing.assert_close(out[1].seg_logits.data[1], alone.seg_logits.data[0])
    losses = model(images, [sample(THREE), sample(TWO)], mode='loss')
    assert losses['loss_plain'] > 0


def test_data_preprocessor_and_runner_steps(build, sample):
    from mmengine.optim import OptimWrapper

    model = build()
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(TWO, truth=(64, 64)), sample(TWO, truth=(64, 64))],
    )
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    log = model.train_step(data, wrapper)
    assert set(log) == {'loss', 'loss_ce', 'train_iou'}
    model.eval()
    with torch.no_grad():
        assert len(model.test_step(data)) == 2


def test_rates_of_the_published_parameter_groups(build):
    keys = {
        'positional_embedding': dict(lr_mult=1.0),
        'backbone': dict(lr_mult=0.1),
        'text_encoder': dict(lr_mult=0.1),
    }
    model = build()
    wrapper = DefaultOptimWrapperConstructor(
        dict(optimizer=dict(type='Adam', lr=1.0)), dict(custom_keys=keys)
    )(model)
    rates = {id(g['params'][0]): g['lr'] for g in wrapper.optimizer.param_groups}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        slow = name.startswith(('backbone', 'text_encoder')) and 'positional' not in name
        assert rates[id(parameter)] == pytest.approx(0.1 if slow else 1.0), name


def test_ignored_pixels_do_not_count(build, sample):
    model = build().eval()
    images, half = torch.randn(1, 3, 64, 64), sample(['ring'], truth=(64, 64))
    half.gt_sem_seg.data[:, :32] = 255
    with torch.no_grad():
        logits = model(images, [half])
        loss = model(images, [half], mode='loss')['loss_ce']
    # labels of every fourth pixel: nearest, as the published training resizes them
    target = half.gt_sem_seg.data[:, ::4, ::4].float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[0, :, 8:], target[:, 8:])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('expressions', [None, [], 'left ring'])
def test_samples_without_a_list_of_expressions_are_refused(build, sample, expressions):
    one = sample(['x'], img_path='a.jpg')
    one.set_metainfo(dict(expressions=expressions))
    with pytest.raises(ValueError, match='a.jpg.*expressions'):
        build().eval()(torch.randn(1, 3, 64, 64), [one], mode='predict')


def test_missing_samples_and_wrong_ground_truth_are_refused(build, sample):
    model = build()
    with pytest.raises(ValueError, match='expressions'):
        model(torch.randn(1, 3, 64, 64), None, mode='predict')
    one = sample(TWO)
    one.gt_sem_seg = PixelData(data=torch.zeros(1, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match='2 expressions.*1'):
        model(torch.randn(1, 3, 64, 64), [one], mode='loss')


@pytest.mark.parametrize(
    'test_cfg, message',
    [
        (dict(protocol='lava'), 'unknown protocol'),
        (dict(protocol='lavt', threshold=0.5), 'no option.*threshold'),
        (dict(chunk_size=0), 'chunk_size'),
        (dict(threshold=1.0), r'threshold in test_cfg must be in \(0, 1\)'),
    ],
)
def test_bad_test_settings_are_refused(build, test_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(test_cfg=test_cfg)
