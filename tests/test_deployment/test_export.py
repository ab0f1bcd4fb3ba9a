"""Every network as ONNX: onnxruntime computes what PyTorch does, without PyTorch around it."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.structures import SegDataSample
from PIL import Image
from small_networks import SIZE, networks, shallow, small_config, small_network
from small_transformers import save_transformers

from nemo_mmseg.models.necks.caris_neck import LanguagePrompts
from nemo_mmseg.models.segmentors.clip_grad_cam import CLIPGradCAM

pytest.importorskip('onnxscript', reason='the extra "export" is not installed')
onnx = pytest.importorskip('onnx', reason='the extra "export" is not installed')
onnxruntime = pytest.importorskip('onnxruntime', reason='the extra "export" is not installed')
from nemo_mmseg.deployment.export import export_onnx, write_graph  # noqa: E402
from nemo_mmseg.deployment.runtime import ReferringRuntime  # noqa: E402

EXPRESSIONS = ['red ring', 'left ring', 'the red one on the left', 'ring']
PIPELINE = [
    dict(type='LoadReferringImage'),
    dict(type='Resize', scale=SIZE[::-1], keep_ratio=False),
    dict(type='LoadReferentMask'),
    dict(type='PackReferringInputs'),
]
# Two kinds of CRIS differ in their loss alone; one of them is small.
NAMES = sorted(name for name in networks() if not name.endswith('CRISHead'))
CRIS = next(name for name in NAMES if 'CRISHead' in name)
# Imports nothing of PyTorch and OpenMMLab, and says so.
WITHOUT = """
import runpy, sys
for name in ('torch', 'mmengine', 'mmcv', 'mmseg', 'nemo_mmseg', 'transformers', 'open_clip'):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def with_config(network, model):
    network.cfg = Config(
        dict(model=model, test_dataloader=dict(dataset=dict(type='X', pipeline=PIPELINE)))
    )
    return network.eval()


@pytest.fixture(scope='module')
def make(tmp_path_factory):
    """Build the smallest network of a kind, with a test pipeline."""
    vocabulary = tmp_path_factory.mktemp('bert')

    def built(name):
        model = small_config(name, vocabulary)
        return with_config(shallow(small_network(model, seed=0)), model)

    return built


@pytest.fixture(scope='module')
def cris(make, tmp_path_factory):
    """An exported CRIS, and the network that it was made of."""
    network = make(CRIS)
    return network, export_onnx(network, tmp_path_factory.mktemp('cris') / 'out', torch_export=True)


@pytest.fixture(scope='module')
def picture():
    coarse = np.random.default_rng(3).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(10, axis=1)


def image_input(picture):
    """What the image graph takes, ``(1, 3, H, W)`` uint8 in RGB."""
    resized = cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized.transpose(2, 0, 1).copy())[None]


def data_of(network, picture, expressions):
    """What MMSegmentation's own way hands to a network."""
    resized = cv2.resize(picture[..., ::-1], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    inputs = torch.from_numpy(resized.transpose(2, 0, 1).copy())
    sample = SegDataSample(metainfo=dict(expressions=expressions))
    return network.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]))


def no_target_of(network, picture, expressions):
    """No-target scores of a network; -inf where it has none."""
    with torch.no_grad():
        scores = network.output(**data_of(network, picture, expressions)).no_target
    return np.full(len(expressions), -np.inf) if scores is None else scores.numpy()


def logits_of(network, picture, expressions):
    """Logits of a network by MMSegmentation's own way, at the size of its input."""
    data = data_of(network, picture, expressions)
    with torch.no_grad():
        logits = network(**data, mode='tensor')
    logits = logits[:, :1] if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]
    return F.interpolate(logits, SIZE, mode='bilinear')[:, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_every_network(make, name, picture, tmp_path):
    network = make(name)
    exported = export_onnx(network, tmp_path / 'out')
    runtime = ReferringRuntime(tmp_path / 'out')
    nodes = onnx.load(tmp_path / 'out' / 'image.onnx').graph.node
    assert 'Conv' in {node.op_type for node in nodes}, 'the picture is encoded with the expressions'
    encoded = runtime.encode(picture)
    for count in (1, 2, 4)[: 3 if exported.chunk_size > 1 else 1]:
        wanted = logits_of(network, picture, EXPRESSIONS[:count])
        found, scores = runtime.logits(encoded, EXPRESSIONS[:count])
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
        wanted = no_target_of(network, picture, EXPRESSIONS[:count])
        np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-3)
        assert np.isfinite(scores).all() == ('ReLA' in name)


@pytest.mark.slow
@pytest.mark.parametrize('kind, folder', [('GroupViT', 'group_vit'), ('CLIPSeg', 'clip_seg')])
def test_networks_of_transformers(kind, folder, picture, tmp_path):
    save_transformers(tmp_path)
    model = dict(type=kind, model=str(tmp_path / folder), data_preprocessor=dict(
        type='SegDataPreProcessor', bgr_to_rgb=True, mean=[120.0] * 3, std=[60.0] * 3))  # fmt: skip
    network = with_config(small_network(model, seed=0), model)
    exported = export_onnx(network, tmp_path / 'out', torch_export=True)
    assert exported.fixed_because is None
    image, rest = (
        torch.export.load(exported.folder / f'{name}.pt2').module()
        for name in ('image', 'expressions')
    )
    runtime = ReferringRuntime(exported.folder)
    encoded = runtime.encode(picture)
    for count in (1, 2, 4):
        wanted = logits_of(network, picture, EXPRESSIONS[:count])
        found, _ = runtime.logits(encoded, EXPRESSIONS[:count])
        np.testing.assert_allclose(found, wanted, atol=1e-3 * wanted.std())
        ids, mask = map(torch.from_numpy, runtime.tokenize(EXPRESSIONS[:count]))
        found = rest(tuple(map(torch.from_numpy, encoded.maps)), ids, mask)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-3 * wanted.std())
    for ours, theirs in zip(encoded.maps, image(image_input(picture)), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)
    # The text encoder is not in the graph of the picture: its words were encoded by the export.
    nodes = onnx.load(exported.folder / 'image.onnx').graph.node
    assert 'Gather' not in {node.op_type for node in nodes}


@pytest.mark.slow
def test_cells_that_overlap(tmp_path):
    """CARIS pools a map of 15x15, of 480 pixels, to 2x2, which does not divide it."""
    prompts, x = LanguagePrompts(8, 16).eval().requires_grad_(False), torch.rand(1, 8, 15, 15)
    write_graph(prompts, (x,), ['x'], tmp_path / 'prompts', False, output=['prompts'])
    session = onnxruntime.InferenceSession(tmp_path / 'prompts.onnx')
    np.testing.assert_allclose(session.run(None, {'x': x.numpy()})[0], prompts(x), atol=1e-5)


@pytest.mark.slow
def test_a_picture_is_encoded_once(cris, picture):
    network, exported = cris
    assert not exported.fixed_because
    runtime = ReferringRuntime(exported.folder)
    encoded = runtime.encode(picture)
    together = runtime(encoded, EXPRESSIONS)
    assert together['masks'].shape == (4, *picture.shape[:2]) and together['masks'].dtype == bool
    for index, text in enumerate(EXPRESSIONS):
        alone = runtime(picture, text)
        assert (alone['masks'][0] != together['masks'][index]).mean() < 1e-3
        assert alone['scores'][0] == pytest.approx(together['scores'][index], abs=1e-3)


@pytest.mark.slow
def test_torch_export_is_the_network_too(cris, picture):
    network, exported = cris
    runtime = ReferringRuntime(exported.folder)
    image, expressions = (
        torch.export.load(exported.folder / f'{name}.pt2').module()
        for name in ('image', 'expressions')
    )
    pixels = runtime.encode(picture)
    maps = image(image_input(picture))
    for ours, theirs in zip(pixels.maps, maps, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)
    ids, mask = map(torch.from_numpy, runtime.tokenize(EXPRESSIONS[:2]))
    found = expressions(tuple(maps), ids, mask)[0].numpy()
    np.testing.assert_allclose(found, logits_of(network, picture, EXPRESSIONS[:2]), atol=1e-3)


@pytest.mark.slow
def test_the_folder_runs_without_pytorch_and_openmmlab(cris, picture, tmp_path):
    _, exported = cris
    Image.fromarray(picture).save(tmp_path / 'a.png')
    (tmp_path / 'bad.png').write_text('text')

    def run(*arguments):
        command = [sys.executable, '-c', WITHOUT, str(exported.folder / 'runtime.py'), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run('a.png', *EXPRESSIONS[:2], '--out', 'masks')
    assert done.returncode == 0, done.stderr
    wanted = ReferringRuntime(exported.folder)(picture, EXPRESSIONS[:2])['masks']
    for index in range(2):
        file = tmp_path / 'masks' / f'a_{index}.png'
        assert np.array_equal(np.array(Image.open(file)), wanted[index])
    for arguments, words in [(('no.png', 'a'), 'no.png'), (('bad.png', 'a'), 'bad.png'),
                             (('a.png', ' '), 'expression 0')]:  # fmt: skip
        done = run(*arguments)
        assert done.returncode == 1 and words in done.stderr
        assert 'Traceback' not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_files_of_different_exports(cris, picture, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(cris[1].folder, folder)
    rules = json.loads((folder / 'export.json').read_text())
    rules['picture']['size'] = [96, 96]
    (folder / 'export.json').write_text(json.dumps(rules))
    with pytest.raises(ValueError, match=r'image\.onnx does not fit the files beside it'):
        ReferringRuntime(folder)(picture, 'a')


@pytest.mark.slow
def test_damaged_exports(cris, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(cris[1].folder, folder)
    with pytest.raises(FileNotFoundError, match=r'export\.json'):
        ReferringRuntime(tmp_path)
    content = (folder / 'image.onnx').read_bytes()
    (folder / 'image.onnx').write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match='copy cannot be read'):
        ReferringRuntime(folder)
    (folder / 'image.onnx').unlink()
    with pytest.raises(FileNotFoundError, match=r'image\.onnx'):
        ReferringRuntime(folder)
    rules = json.loads((folder / 'export.json').read_text())
    for change, words in [
        (dict(format=99), 'format 99'),
        (dict(threshold=1.0), 'threshold is 1.0'),
        (dict(picture=None), 'picture is None and must be of type dict'),
        (dict(picture=dict(rules['picture'], size=64)), 'size is 64 and must be of type list'),
        (dict(text={}), 'template is None and must be of type str'),
    ]:
        (folder / 'export.json').write_text(json.dumps({**rules, **change}))
        with pytest.raises(ValueError, match=words):
            ReferringRuntime(folder)
    (folder / 'export.json').write_text('{')
    with pytest.raises(ValueError, match='no JSON'):
        ReferringRuntime(folder)


def test_what_is_refused_before_any_work(make, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'a.txt').write_text('keep')
    network = make(CRIS)
    with pytest.raises(FileExistsError, match='other things'):
        export_onnx(network, tmp_path / 'mine')
    (tmp_path / 'mine' / 'export.json').write_text('{}')
    with pytest.raises(FileExistsError, match=r'other things than an export \(a\.txt\)'):
        export_onnx(network, tmp_path / 'mine')
    assert (tmp_path / 'mine' / 'a.txt').read_text() == 'keep'
    with pytest.raises(NotADirectoryError):
        export_onnx(network, tmp_path / 'mine' / 'a.txt')
    frozen = CLIPGradCAM.__new__(CLIPGradCAM)
    with pytest.raises(ValueError, match='CLIPGradCAM cannot be exported'):
        export_onnx(frozen, tmp_path / 'new')
    assert [path.name for path in tmp_path.iterdir()] == ['mine']
