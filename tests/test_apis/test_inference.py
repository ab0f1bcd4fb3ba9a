"""Inference with a tiny CRIS: the same masks by every way, and clear errors."""

import json
import os
import pickle
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from nemo_mmseg.apis import ReferringInferencer, inference_model, init_model

TINY_CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(layers=[1, 1, 1, 1], width=16, image_size=64, patch_size=None),
    text_cfg=dict(context_length=12, vocab_size=49408, width=32, heads=2, layers=1),
)
TOOL = Path(__file__).parents[2] / 'tools' / 'infer.py'
SENTENCES = ['the left one', 'a red ball on the table', 'dog', 'the man', 'b', 'c d', 'e']


@pytest.fixture(scope='module')
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A CRIS of some hundred thousand weights."""
    path = tmp_path_factory.mktemp('clip') / 'Tiny-CLIP-use.json'
    path.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(path)
    clip = dict(model='Tiny-CLIP-use', pretrained=None)
    pipeline = [
        dict(type='LoadReferringImage'),
        dict(type='Letterbox', size=(96, 96)),
        dict(type='LoadReferentMask'),
        dict(type='PackReferringInputs'),
    ]
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='ReferringSegmentor',
                data_preprocessor=dict(
                    type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
                ),
                text_encoder=dict(type='OpenCLIPTextEncoder', context_length=8, **clip),
                backbone=dict(type='OpenCLIPResNet', **clip),
                neck=dict(
                    type='CRISNeck',
                    in_channels=[128, 256, 32],
                    sentence_channels=32,
                    channels=[16, 32, 64],
                ),
                decode_head=dict(
                    type='CRISHead',
                    in_channels=32,
                    word_channels=32,
                    sentence_channels=32,
                    num_layers=1,
                    num_heads=2,
                    feedforward_channels=64,
                ),
                test_cfg=dict(protocol=dict(type='CRISProtocol', threshold=0.5)),
            ),
            test_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dict(type='X', pipeline=pipeline))
            ),
        )
    )


@pytest.fixture(scope='module')
def weights(cfg: Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights, saved as a run and a distributed wrapper would."""
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match='untrained'):
        model = init_model(cfg, device='cpu')
    for value in model.parameters():  # CLIP starts with zeros where maps would differ
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.1)
    path = tmp_path_factory.mktemp('weights') / 'best.pth'
    state = {f'module.{name}': value for name, value in model.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(epoch=3)), path)
    return str(path)


@pytest.fixture(scope='module')
def inferencer(cfg: Config, weights: str) -> ReferringInferencer:
    return ReferringInferencer(cfg, weights, device='cpu')


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    """(60, 90, 3) BGR."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (90, 60), interpolation=cv2.INTER_CUBIC)


def test_the_same_as_the_test_pipeline(cfg, inferencer, image, tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, image)
    result = inferencer(path, SENTENCES)
    item = dict(
        img_path=path, height=60, width=90, expressions=SENTENCES, sent_ids=list(range(7)),
        ref_ids=[0] * 7, targets=[[0]] * 7, seg_fields=[],
        instances=[dict(ann_id=1, segmentation=[[2, 2, 50, 2, 50, 50]])],
    )  # fmt: skip
    packed = Compose(cfg.test_dataloader.dataset.dataset.pipeline)(item)
    with torch.no_grad():
        sample = inferencer.model.test_step({key: [value] for key, value in packed.items()})[0]
    masks = sample.pred_sem_seg.data.numpy().astype(bool)
    assert np.array_equal(result['masks'], masks) and masks.shape == (7, 60, 90)
    assert 0 < masks.sum() < masks.size
    probability = sample.seg_logits.data.numpy()
    for mask, values, score in zip(masks, probability, result['scores'], strict=True):
        assert score == pytest.approx(values[mask].mean() if mask.any() else 0, abs=1e-5)


def test_nothing_found_is_an_answer(inferencer, image, tmp_path, monkeypatch):
    plain = inferencer(image, ['dog', 'the man'], draw=False)
    assert plain['nothing_found'].tolist() == [False, False]
    assert plain['masks'][1].any()
    head = inferencer.model.decode_head
    forward = head.forward

    def says(feats, text):
        return replace(forward(feats, text), no_target=torch.tensor([-0.1, 0.1]))

    monkeypatch.setattr(head, 'forward', says)
    result = inferencer(image, ['dog', 'the man'], out_dir=tmp_path)
    assert result['nothing_found'].tolist() == [False, True]
    assert np.array_equal(result['masks'][0], plain['masks'][0])
    assert not result['masks'][1].any() and result['scores'][1] == 0
    written = json.loads((tmp_path / 'predictions.json').read_text())['predictions']
    assert [record['nothing_found'] for record in written] == [False, True]
    # the caption is all that differs between the pictures of two empty masks
    monkeypatch.setattr(head, 'forward', forward)
    assert not np.array_equal(result['overlays'][1], inferencer(image, 'the man')['overlays'][0])


@pytest.mark.parametrize('nothing', [False, True])
def test_rela_says_that_there_is_nothing(image, tmp_path, nothing):
    name, file = 'rela_refshapes-clip_1xb8-300i_grefshapes-256x256', tmp_path / 'rela.pth'
    with pytest.warns(UserWarning, match='untrained'):
        model = init_model(name, device='cpu')
    torch.nn.init.zeros_(model.decode_head.no_target_embed[-1].weight)
    bias = torch.tensor([-9.0, 9.0] if nothing else [9.0, -9.0])
    model.decode_head.no_target_embed[-1].bias.data = bias
    torch.save(model.state_dict(), file)
    result = ReferringInferencer(name, str(file), device='cpu')(image, ['dog', 'man'], draw=False)
    assert result['nothing_found'].tolist() == [nothing] * 2
    assert result['masks'].any() != nothing


def test_path_array_and_pil_are_one(inferencer, image, tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), image)
    expected = inferencer(path, 'the left one')['masks']
    assert np.array_equal(inferencer(image, ['the left one'])['masks'], expected)
    pil = Image.fromarray(image[..., ::-1].copy())
    assert np.array_equal(inferencer(pil, 'the left one')['masks'], expected)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    three = np.repeat(gray[..., None], 3, axis=2)
    assert np.array_equal(inferencer(gray, 'dog')['masks'], inferencer(three, 'dog')['masks'])


def test_many_expressions_encode_the_image_once(inferencer, image):
    calls = []
    handle = inferencer.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    together = inferencer(image, SENTENCES)
    assert len(calls) == 1
    alone = [inferencer(image, sentence) for sentence in SENTENCES]
    handle.remove()
    masks = np.concatenate([result['masks'] for result in alone])
    assert (together['masks'] != masks).mean() < 1e-3  # rounding at the threshold
    assert together['scores'] == pytest.approx([float(r['scores'][0]) for r in alone], abs=1e-3)


@pytest.mark.parametrize('batch_size', [1, 2, 5])
def test_lists_of_images(inferencer, image, batch_size):
    images = [image, image[:40], image[:, ::-1].copy()]
    sentences = [['dog', 'the man'], 'b', ['c d', 'e', 'dog']]
    results = inferencer(images, sentences, batch_size=batch_size)
    assert [result['masks'].shape for result in results] == [(2, 60, 90), (1, 40, 90), (3, 60, 90)]
    for one, sentence, result in zip(images, sentences, results, strict=True):
        assert (inferencer(one, sentence)['masks'] != result['masks']).mean() < 1e-3
    assert len(inferencer(images, 'dog')) == 3
    assert isinstance(inferencer([image], ['dog']), list)


def test_a_folder_is_a_list_of_its_images(cfg, weights, image, tmp_path, capsys):
    paths = [tmp_path / name for name in ('a.png', 'b.bmp')]
    for path, one in zip(paths, (image, image[:40]), strict=True):
        cv2.imwrite(str(path), one)
    (tmp_path / 'notes.txt').write_text('text')
    inferencer = ReferringInferencer(cfg, weights, device='cpu', show_progress=True)
    found = inferencer(tmp_path, SENTENCES[:2], draw=False)
    assert '2/2' in capsys.readouterr().err
    wanted = inferencer(paths, [SENTENCES[:2]] * 2, draw=False)
    assert [r['predictions'] for r in found] == [r['predictions'] for r in wanted]
    assert len(inference_model(inferencer.model, tmp_path, 'dog')) == 2
    one_by_one = inferencer.iterate(tmp_path, SENTENCES[:2], draw=False)
    assert np.array_equal(next(one_by_one)['masks'], wanted[0]['masks'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty has no image files'):
        inferencer(tmp_path / 'empty', 'dog')


def test_written_files(inferencer, image, tmp_path):
    results = inferencer([image, image[:40]], [['dog', 'the man'], ['b']], out_dir=tmp_path)
    records = json.loads((tmp_path / 'predictions.json').read_text())['predictions']
    assert [record['expression'] for record in records] == ['dog', 'the man', 'b']
    masks = [mask for result in results for mask in result['masks']]
    for record, mask in zip(records, masks, strict=True):
        assert np.array_equal(np.array(Image.open(tmp_path / record['mask'])), mask)
        assert np.array_equal(coco_mask.decode(record['rle']), mask)
        assert record['area'] == mask.sum() and (tmp_path / record['overlay']).is_file()
    assert results[0]['overlays'][0].shape[1:] == (90, 3)
    assert inferencer(image, 'dog', draw=False)['overlays'] == []


def run_tool():
    """Run the tool with `sys.argv`; return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name='__main__')
    return stopped.value.code


def test_from_the_command_line(cfg, weights, image, tmp_path, capsys, monkeypatch):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    cfg.dump(tmp_path / 'config.py')
    out = tmp_path / 'out'
    arguments = ['a.png', 'dog', 'the man', '--config', 'config.py', '--weights', weights]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['infer.py', *arguments, '--out', 'out', '--device', 'cpu'])
    assert run_tool() == 0
    assert (out / 'overlays' / '0000_a.png').is_file()
    assert "'the man': score" in capsys.readouterr().out
    # a folder, with files that are no images beside them, and a damaged one
    (tmp_path / 'pictures').mkdir()
    for name in ('b.png', 'a.JPG'):
        cv2.imwrite(str(tmp_path / 'pictures' / name), image)
    (tmp_path / 'pictures' / 'notes.txt').write_text('text')
    argv = ['infer.py', 'pictures', *arguments[1:], '--out', 'many', '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', argv)
    assert run_tool() == 0
    shown = capsys.readouterr()
    assert '2/2' in shown.err and shown.out.index('a.JPG') < shown.out.index('b.png')
    records = json.loads((tmp_path / 'many' / 'predictions.json').read_text())['predictions']
    assert [Path(record['image']).name for record in records] == ['a.JPG'] * 2 + ['b.png'] * 2
    # the damaged one is named; the results of the others are written
    (tmp_path / 'pictures' / 'aa.png').write_text('text')
    (tmp_path / 'many' / 'predictions.json').unlink()
    assert run_tool() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('infer: ') and 'aa.png' in last
    again = json.loads((tmp_path / 'many' / 'predictions.json').read_text())['predictions']
    assert again == records
    # one image alone is an error, and leaves no file
    argv = ['infer.py', 'pictures/aa.png', *arguments[1:], '--out', 'one', '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', argv)
    assert run_tool() == 1 and not (tmp_path / 'one').exists()


def test_the_functions_every_user_of_mmseg_knows(cfg, weights, inferencer, image):
    options = {'model.test_cfg.protocol.threshold': 0.3}
    model = init_model(cfg, weights, device='cpu', cfg_options=options)
    assert cfg.model.test_cfg.protocol.threshold == 0.5 and not model.training
    sample = inference_model(model, image, SENTENCES)
    assert np.array_equal(sample.pred_sem_seg.data, sample.seg_logits.data > 0.3)
    same = init_model(cfg, weights, device='cpu')
    samples = inference_model(same, [image, image], ['dog', SENTENCES])
    masks = inferencer(image, SENTENCES)['masks']
    assert np.array_equal(samples[1].pred_sem_seg.data.numpy() > 0, masks)
    assert samples[0].pred_sem_seg.data.shape == (1, 60, 90)


@pytest.mark.parametrize(
    'images, expressions, error, words',
    [
        ('no.jpg', 'dog', FileNotFoundError, r'no\.jpg'),
        (3, 'dog', ValueError, 'image_0 must be'),
        (np.zeros((5, 5, 4), np.uint8), 'dog', ValueError, 'uint8 in BGR'),
        (np.zeros((5, 5, 3)), 'dog', ValueError, 'uint8 in BGR'),
        (np.zeros((5, 5, 3), np.uint8), ['dog', ' '], ValueError, 'image 0 needs expressions'),
        (np.zeros((5, 5, 3), np.uint8), ['half \ud800'], ValueError, 'image 0 needs expressions'),
        (np.zeros((5, 5, 3), np.uint8), [], ValueError, 'image 0 needs expressions'),
        (np.zeros((5, 5, 3), np.uint8), ['dog', 3], ValueError, 'image 0 needs expressions'),
        ([np.zeros((5, 5, 3), np.uint8)], ['a', 'b'], ValueError, '1 images, but .* for 2'),
    ],
)
def test_bad_input(inferencer, images, expressions, error, words):
    with pytest.raises(error, match=words):
        inferencer(images, expressions)


@pytest.mark.parametrize('batch_size', [0, -1])
def test_a_batch_without_images_is_refused(inferencer, image, tmp_path, batch_size):
    with pytest.raises(ValueError, match=f'batch size is {batch_size}; allowed: 1 or more'):
        inferencer(image, 'dog', tmp_path / 'out', batch_size)
    assert not (tmp_path / 'out').exists()


def test_a_file_that_is_no_image(inferencer, tmp_path):
    (tmp_path / 'a.jpg').write_text('text')
    with pytest.raises(ValueError, match=r'a\.jpg'):
        inferencer(tmp_path / 'a.jpg', 'dog')


class RunsCode:
    def __reduce__(self):
        return (os.system, ('touch ran',))


def test_bad_checkpoints(cfg, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='no checkpoint no.pth'):
        init_model(cfg, 'no.pth')
    content = Path(weights).read_bytes()
    (tmp_path / 'short.pth').write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='short.pth cannot be read'):
        init_model(cfg, 'short.pth')
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(dict(state_dict=RunsCode())))
    with pytest.raises(ValueError, match='evil.pth cannot be read'):
        init_model(cfg, 'evil.pth')
    torch.save(dict(state_dict=RunsCode()), 'evil.pth')
    with pytest.raises(ValueError, match='evil.pth cannot be read'):
        init_model(cfg, 'evil.pth')
    assert not Path('ran').exists()
    torch.save(dict(a=1), 'other.pth')
    with pytest.raises(ValueError, match='other.pth holds no state dict'):
        init_model(cfg, 'other.pth')
    state = torch.load(weights)['state_dict']
    missing = dict(state)
    name, value = missing.popitem()
    torch.save(dict(state_dict=missing), 'missing.pth')
    with pytest.raises(ValueError, match=f'(?s)missing.pth does not fit.*{name[7:]}'):
        init_model(cfg, 'missing.pth')


def test_a_config_without_test_pipeline(cfg):
    without = Config(dict(model=cfg.model, test_dataloader=dict(dataset=dict(type='X'))))
    for config in (without, Config(dict(model=cfg.model))):
        with pytest.raises(ValueError, match='no test_dataloader with a pipeline'):
            ReferringInferencer(config, device='cpu')
