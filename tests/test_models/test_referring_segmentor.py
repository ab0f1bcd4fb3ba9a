import pytest
import torch
from mmengine.structures import PixelData

THREE = ['red ring', 'left ring', 'the red one on the left']
TWO = ['ring', 'left']


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


def test_training_on_one_batch_lowers_the_loss_and_finds_the_masks(build, sample):
    model = build()
    images = torch.randn(2, 3, 64, 64)
    samples = [sample(['left ring'], gt=(64, 64)), sample(['red ring'], gt=(64, 64))]
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
    samples = [sample(THREE, gt=(64, 64)), sample(TWO, gt=(64, 64))]
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


def test_data_preprocessor_and_runner_steps(build, sample):
    from mmengine.optim import OptimWrapper

    model = build()
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(TWO, gt=(64, 64)), sample(TWO, gt=(64, 64))],
    )
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    log = model.train_step(data, wrapper)
    assert set(log) == {'loss', 'loss_ce', 'train_iou'}
    model.eval()
    with torch.no_grad():
        assert len(model.test_step(data)) == 2


def test_ignored_pixels_do_not_count(build, sample):
    model = build().eval()
    images, half = torch.randn(1, 3, 64, 64), sample(['ring'], gt=(64, 64))
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
    'test_cfg, error, message',
    [
        (dict(protocol=dict(type='LavaProtocol')), KeyError, 'LavaProtocol'),
        (dict(protocol=dict(type='LAVTProtocol', threshold=0.5)), TypeError, 'threshold'),
        (dict(protocol='cris'), TypeError, 'cfg should be a dict'),
        (dict(threshold=0.5), TypeError, "unexpected keyword argument 'threshold'"),
        (dict(chunk_size=0), ValueError, 'chunk_size in test_cfg must be at least 1'),
    ],
)
def test_bad_test_settings_are_refused(build, test_cfg, error, message):
    with pytest.raises(error, match=message):
        build(test_cfg=test_cfg)
