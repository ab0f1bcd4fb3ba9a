"""Networks that are used as they were published: maps against formulas, files from anywhere."""

import builtins

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from small_transformers import save_transformers
from torch import nn

from nemo_mmseg.apis.inference import fill_model
from nemo_mmseg.models.segmentors.clip_grad_cam import CLIPGradCAM
from nemo_mmseg.models.utils.vision_towers import resized_positions


def samples(*expressions):
    return [
        SegDataSample(metainfo=dict(expressions=list(several), ori_shape=(30, 50)))
        for several in expressions
    ]


def tiny_vit(folder, **vision):
    """Name of an open_clip ViT of a few thousand weights."""
    import json

    import open_clip

    config = dict(
        embed_dim=24,
        vision_cfg=dict(image_size=48, layers=2, width=32, head_width=16, patch_size=16, **vision),
        text_cfg=dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1),
    )
    (folder / 'TestTinyViT.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / 'TestTinyViT.json')
    return 'TestTinyViT'


@pytest.fixture
def grad_cam(tiny_clip, tmp_path):
    def build(kind, **settings):
        torch.manual_seed(3)
        name = tiny_clip[0] if kind == 'resnet' else tiny_vit(tmp_path)
        model = MODELS.build(dict(type='CLIPGradCAM', model=name, **settings)).eval()
        model.init_weights()
        return model

    return build


def by_differences(model, expression, features, rest):
    """The map of one expression by the formula, its derivative by small steps of the features."""
    texts = model.encode_text([expression, *model.background])
    scale = model.clip.network.logit_scale.exp()

    def fit(x):
        return (scale * F.normalize(rest(x), dim=-1) @ texts.T).softmax(1)[:, 0]

    step = 1e-6
    steps = step * torch.eye(features.numel(), dtype=features.dtype).unflatten(
        1, features.shape[1:]
    )
    slopes = ((fit(features + steps) - fit(features - steps)) / (2 * step)).view_as(features)
    maps = (slopes.mean((2, 3), keepdim=True) * features).sum(1)[0]
    return maps / maps.max() if maps.max() > 0 else maps


@torch.no_grad()
def test_grad_cam_of_a_resnet_is_the_formula(grad_cam):
    model = grad_cam('resnet', background=('sky', 'wall')).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    visual = model.clip.network.visual
    x = visual.stem(image)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    expected = by_differences(model, 'red ring', x, visual.attnpool)
    found = model.encode_decode(image, samples(['red ring']))[0, 0]
    assert found.shape == (2, 2) and found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_grad_cam_of_a_vit_is_the_formula(grad_cam):
    model = grad_cam('vit', background=('sky',)).double()
    image = torch.randn(1, 3, 48, 48, dtype=torch.float64)
    visual = model.clip.network.visual
    # by hand: all blocks but the last, then the last one behind its first norm
    x = visual.conv1(image).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding)
    before = visual.transformer.resblocks[0](x)
    last = visual.transformer.resblocks[1]
    normed = last.ln_1(before)

    def rest(patches):
        y = torch.cat(
            [normed[:, :1].expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1
        )
        y = before + last.attn(y, y, y, need_weights=False)[0]
        y = y + last.mlp(last.ln_2(y))
        return visual.ln_post(y)[:, 0] @ visual.proj

    patches = normed[:, 1:].transpose(1, 2).unflatten(2, (3, 3))
    expected = by_differences(model, 'a red ring', patches, rest)
    found = model.encode_decode(image, samples(['a red ring']))[0, 0]
    assert found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['resnet', 'vit'])
@pytest.mark.parametrize('background', [(), ('sky', 'wall')])
@torch.no_grad()
def test_several_expressions_and_images_are_those_alone(grad_cam, kind, background):
    model = grad_cam(kind, background=background)
    images = torch.randn(3, 3, 96, 64)
    said = [['red ring', 'left ring', 'ring'], ['the ring'], ['left', 'red']]
    together = model.encode_decode(images, samples(*said))
    alone = [
        model.encode_decode(image[None], samples([one]))
        for image, several in zip(images, said)
        for one in several
    ]
    stride = 32 if kind == 'resnet' else 16
    assert together.shape == (6, 1, 96 // stride, 64 // stride)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert together.amax((1, 2, 3)).max() == pytest.approx(1)


def test_positions_are_resized_as_pictures_are():
    table = torch.randn(1 + 9, 4)
    assert resized_positions(table, (3, 3)) is table
    found = resized_positions(table, (6, 3))
    assert torch.equal(found[0], table[0]) and found.shape == (19, 4)
    ramp = torch.cat([torch.zeros(1, 1), torch.arange(3.0).repeat_interleave(3)[:, None]])
    middle = resized_positions(ramp, (9, 9))[1:].view(9, 9)[3:6]
    assert torch.allclose(middle[1], torch.ones(9), atol=1e-5)
    assert (middle.diff(dim=0) > 0).all() and torch.allclose(middle, middle[:, :1], atol=1e-5)


def test_an_encoder_that_is_neither_is_refused(grad_cam):
    model = grad_cam('resnet')
    model.clip.network.visual = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"'TestTinyCLIP', Sequential, is neither a ViT nor"):
        model.encode_decode(torch.randn(1, 3, 64, 64), samples(['ring']))


def test_nothing_learns_and_no_checkpoint_fits(grad_cam, tmp_path):
    model = grad_cam('resnet')
    assert not model.state_dict() and not list(model.parameters())
    fill_model(model, None)
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='CLIPGradCAM is used as it was published'):
        fill_model(model, tmp_path / 'a.pth')
    with pytest.raises(NotImplementedError, match='nothing to train'):
        model.loss(torch.zeros(1, 3, 64, 64), samples(['ring']))


@pytest.mark.parametrize('kind', ['resnet', 'vit'])
def test_grad_cam_goes_through_the_protocol(grad_cam, kind):
    model = grad_cam(kind)
    data = samples(['red ring', 'left ring'])
    data[0].gt_sem_seg = PixelData(data=torch.zeros(2, 30, 50))
    with torch.no_grad():
        (found,) = model.predict(torch.randn(1, 3, 64, 96), data)
    assert found.pred_sem_seg.data.shape == found.seg_logits.data.shape == (2, 30, 50)


def test_the_clip_of_the_package_finds_things_better_than_a_random_one(refshapes):
    """More of what is pointed at lies on the target than by chance."""
    from mmseg.registry import DATASETS
    from small_runs import small_config

    cfg = small_config('cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256', refshapes, refshapes)
    for step in cfg.val_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (256, 256)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    shares = {}
    for pretrained in ('refshapes', None):
        torch.manual_seed(0)
        model = CLIPGradCAM(
            'RefShapes-CLIP', pretrained, background=(),
            data_preprocessor=cfg.model.data_preprocessor, test_cfg=dict(),
        ).eval()  # fmt: skip
        share = []
        for item in (dataset[i] for i in range(len(dataset))):
            data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
            (found,) = model.test_step(data)
            gt = item['data_samples'].gt_sem_seg.data.bool()
            response = found.seg_logits.data
            share += [(one[mask].mean() - one.mean()).item() for one, mask in zip(response, gt)]
        shares[pretrained] = sum(share) / len(share)
    assert shares['refshapes'] > 0.05 > abs(shares[None])


@pytest.fixture(scope='session')
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp('hub')
    save_transformers(folder)
    return folder


@pytest.mark.parametrize('kind, name', [('GroupViT', 'group_vit'), ('CLIPSeg', 'clip_seg')])
def test_networks_of_transformers(hub, kind, name):
    model = MODELS.build(dict(type=kind, model=str(hub / name), test_cfg=dict(chunk_size=2))).eval()
    assert not model.state_dict()
    images = torch.randn(2, 3, 64, 64)
    said = [['the red ring', 'left ring', 'ring'], ['the wall']]
    logits = model.encode_decode(images, samples(*said))
    assert logits.shape == (4, 1, 64, 64) and logits.std() > 0
    alone = model.encode_decode(images[:1], samples(['left ring']))
    torch.testing.assert_close(logits[1:2], alone, rtol=1e-4, atol=1e-5)
    alone = model.encode_decode(images[1:], samples(['the wall']))
    torch.testing.assert_close(logits[3:], alone, rtol=1e-4, atol=1e-4)
    found = model.predict(images, samples(*said))
    assert found[0].pred_sem_seg.data.shape == (3, 30, 50)


def published(hub, kind, folder, texts):
    """A network of transformers, and the arguments that tell it the texts."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(hub / folder)
    tokens = tokenizer(texts, padding=True, return_tensors='pt')
    network = getattr(transformers, kind).from_pretrained(hub / folder).eval()
    return network, {key: tokens[key] for key in ('input_ids', 'attention_mask')}


def test_group_vit_lets_the_background_compete(hub):
    model = MODELS.build(
        dict(type='GroupViT', model=str(hub / 'group_vit'), background=('sky', 'wall'))
    )
    image = torch.randn(1, 3, 64, 64)
    texts = ['a photo of left ring', 'a photo of sky', 'a photo of wall']
    network, tokens = published(hub, 'GroupViTModel', 'group_vit', texts)
    with torch.no_grad():
        found = network(**tokens, pixel_values=image, output_segmentation=True)
        found = found.segmentation_logits[0]
    logits = model.encode_decode(image, samples(['left ring']))[0, 0]
    expected = found[0] - found[1:].logsumexp(0)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


def test_group_vit_s_background_fits_every_precision(hub):
    image, data = torch.randn(1, 3, 64, 64), samples(['left ring'])
    first, model = (
        MODELS.build(dict(type='GroupViT', model=str(hub / 'group_vit'))) for _ in range(2)
    )
    expected = first.encode_decode(image, data)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        model.encode_decode(image, data)
    model.encode_image(image.clone().requires_grad_())[2].sum().backward()
    torch.testing.assert_close(model.encode_decode(image, data), expected)
    exact = model.double().encode_decode(image.double(), data)
    torch.testing.assert_close(exact, expected.double(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.float().encode_decode(image, data), expected)


@pytest.mark.parametrize('template', ['ring', 'a {0}', '{} or {}'])
def test_a_template_has_one_place_for_the_expression(hub, template):
    with pytest.raises(ValueError, match='allowed is a text with {} in one place'):
        MODELS.build(dict(type='CLIPSeg', model=str(hub / 'clip_seg'), template=template))


@pytest.mark.parametrize('size', [(64, 32), (72, 64), (72, 72), (64, 256)])
def test_clip_seg_refuses_what_its_decoder_cannot_lay_out(hub, size):
    model = MODELS.build(dict(type='CLIPSeg', model=str(hub / 'clip_seg')))
    with pytest.raises(ValueError, match=rf'{size[0]}x{size[1]}; allowed are squares .* of 16'):
        model.encode_decode(torch.randn(1, 3, *size), samples(['ring']))


def test_clip_seg_is_the_library_s(hub):
    model = MODELS.build(dict(type='CLIPSeg', model=str(hub / 'clip_seg')))
    image = torch.randn(1, 3, 64, 64)
    texts = ['the left ring', 'red ring', 'wall']
    network, tokens = published(hub, 'CLIPSegForImageSegmentation', 'clip_seg', texts)
    with torch.no_grad():
        found = network(**tokens, pixel_values=image.repeat(3, 1, 1, 1)).logits
    logits = model.encode_decode(image, samples(texts))[:, 0]
    torch.testing.assert_close(logits, found, rtol=1e-4, atol=1e-5)


def test_group_vit_without_a_background_is_refused(hub):
    with pytest.raises(ValueError, match='GroupViT: background needs words'):
        MODELS.build(dict(type='GroupViT', model=str(hub / 'group_vit'), background=()))


def test_long_expressions_are_cut(hub):
    model = MODELS.build(dict(type='CLIPSeg', model=str(hub / 'clip_seg')))
    model.encode_decode(torch.randn(1, 3, 64, 64), samples(['the red ring ' * 9]))


def test_other_files_are_refused(hub, tmp_path):
    missing = MODELS.build(dict(type='GroupViT', model=str(tmp_path / 'nothing')))
    with pytest.raises(OSError, match='GroupViTModel: .*nothing.* is neither a folder with config'):
        missing.init_weights()
    other = MODELS.build(dict(type='GroupViT', model=str(hub / 'clip_seg')))
    with pytest.raises(ValueError, match=r"clip_seg' does not fit GroupViTModel"):
        other.init_weights()


def test_a_missing_library_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'transformers':
            raise ImportError('No module named transformers')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match=r'CLIPSegForImageSegmentation needs transformers .*pip'):
        MODELS.build(dict(type='CLIPSeg', model='anything'))


def test_grad_cam_leaves_no_trace(grad_cam):
    model = grad_cam('resnet')
    image = torch.randn(1, 3, 64, 64)
    before = model.clip.encode_image(image)
    model.encode_decode(image, samples(['ring']))
    assert torch.equal(model.clip.encode_image(image), before)
