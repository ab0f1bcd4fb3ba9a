"""The affinity network learns in the runner by its configs, and knows what it must refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mini_refcoco import HEIGHT, WIDTH, compressed, rectangle
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from small_runs import runner_of, weights

from nemo_mmseg.datasets.samplers import SampleIndex
from nemo_mmseg.models.converters.convert import convert_checkpoint, parameter_shapes
from nemo_mmseg.models.converters.irn import TABLE
from nemo_mmseg.models.converters.rename import inverse, translate

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
MENDED, PUBLISHED = (
    CONFIGS / 'tris' / f'{name}_r50_4xb24-3e_refcoco-512x512.py'
    for name in ('tris-irn', 'tris-irn-published')
)
REFSHAPES = CONFIGS / 'refshapes' / ('tris-irn_refshapes-clip_1xb8-100i_refshapes-plus-256x256.py')
SIZE = 64


@pytest.fixture
def labels(mini):
    """Confidence labels of two objects: known left and right of a strip that is not."""
    path = mini.root / 'labels.json'
    annotations = [
        dict(
            id=100 + i,
            image_id=i,
            category_id=1,
            segmentation=compressed(rectangle(0, 0, 20, HEIGHT)),
            unknown=compressed(rectangle(20, 0, 28, HEIGHT)),
        )
        for i in (1, 2, 3)
    ]
    path.write_text(json.dumps(dict(images=mini.instances['images'], annotations=annotations)))
    return path


def small(config, mini, labels, **changes):
    """A config with a network that trains in a second, on the labels."""
    cfg = Config.fromfile(config)
    for loader in (cfg.train_dataloader, cfg.custom_hooks[0].dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.ann_file = str(labels)
        loader.dataset.data_prefix.img_path = str(mini.root / 'images')
        loader.dataset.pipeline[2].size = SIZE
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.update(channels=(64, 8, 16, 32, 64))
    cfg.model.loss.radius = 3
    cfg.train_cfg.max_epochs = cfg.param_scheduler[0].end = 2
    cfg.log_level = 'WARNING'
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize('config', [MENDED, PUBLISHED], ids=lambda path: path.stem[:14])
def test_it_learns_by_its_config(mini, labels, tmp_path, config):
    cfg = small(config, mini, labels)
    runner = runner_of(cfg, tmp_path)
    runner.train()
    after = weights(tmp_path / 'epoch_2.pth')
    updated = runner.optim_wrapper.optimizer.state  # their momentum
    learnt = {name for name, one in runner.model.named_parameters() if one in updated}
    assert learnt == {
        name for name, _ in runner.model.named_parameters() if not name.startswith('backbone')
    }

    # The mean is that of the checkpoint's network: over the images, or with the padding beside
    # them and without the last batch.
    dataset = DATASETS.build(cfg.custom_hooks[0].dataloader.dataset)
    images = torch.stack([dataset[i]['inputs'] for i in range(3)])
    runner.model.eval()
    images = runner.model.data_preprocessor(dict(inputs=list(images)))['inputs']
    assert images[0, :, HEIGHT:].abs().max() < 1e-5, 'padding is the mean colour'
    with torch.no_grad():
        _, displacement = runner.model(images)
    if config == PUBLISHED:
        expected = displacement[:2].mean((0, 2, 3))
    else:
        expected = displacement[:, :, : HEIGHT // 4, : WIDTH // 4].mean((0, 2, 3))
    torch.testing.assert_close(after['mean_displacement'], expected)
    assert expected.abs().min() > 0
    _, shifted = runner.model.predict(images)
    torch.testing.assert_close(shifted, displacement - expected[:, None, None])


def test_it_learns_by_iterations(mini, labels, tmp_path):
    cfg = Config.fromfile(REFSHAPES)
    for loader in (cfg.train_dataloader, cfg.custom_hooks[0].dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root='', ann_file=str(labels))
        loader.dataset.data_prefix.img_path = str(mini.root / 'images')
        loader.dataset.pipeline[2].size = SIZE
    cfg.train_cfg.max_iters = cfg.default_hooks.checkpoint.interval = 2
    cfg.log_level = 'WARNING'
    runner_of(cfg, tmp_path).train()
    assert weights(tmp_path / 'iter_2.pth')['mean_displacement'].abs().min() > 0


def test_recipes_differ_in_what_is_mended():
    init_default_scope('mmseg')
    network = MODELS.build(dict(Config.fromfile(PUBLISHED).model, init_cfg=None))
    found = {}
    for path in (MENDED, PUBLISHED):
        optimizer = build_optim_wrapper(network, Config.fromfile(path).optim_wrapper).optimizer
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        found[path] = {
            (names[id(p)].split('_')[0], group['lr'], group['momentum'], group['weight_decay'])
            for group in optimizer.param_groups
            for p in group['params']
            if p.requires_grad
        }
    assert found[PUBLISHED] == {('edge', 0.1, 1e-4, 1e-4), ('displacement', 1.0, 1e-4, 1e-4)}
    assert found[MENDED] == {('edge', 0.01, 0.9, 1e-4), ('displacement', 0.1, 0.9, 1e-4)}


def test_the_backbone_stays_as_it_is():
    init_default_scope('mmseg')
    model = Config.fromfile(MENDED).model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    network = MODELS.build(dict(model, channels=(64, 8, 16, 32, 64))).train()
    norms = [m for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert not any(parameter.requires_grad for parameter in network.backbone.parameters())
    assert network.edge_branches[0].training


@pytest.mark.parametrize('size', [(64, 96), (50, 70), (33, 31)])
def test_networks_without_a_stem_take_any_image(size):
    init_default_scope('mmseg')
    model = Config.fromfile(CONFIGS / '_base_' / 'models' / 'irn_refshapes-clip.py').model
    model.backbone.pretrained = None
    network = MODELS.build(model).eval()
    edge, displacement = network.predict(torch.randn(1, 3, *size))
    cells = tuple(-(-length // 4) for length in size)
    assert edge.shape == (1, *cells) and displacement.shape == (1, 2, *cells)
    assert 0 < edge.min() and edge.max() < 1


def test_pairs_learn_what_they_shall():
    # Two halves of a map, told apart by a strong edge, point to their own centres.
    init_default_scope('mmseg')
    loss = MODELS.build(dict(type='AffinityDisplacementLoss', radius=3))
    labels = torch.zeros(1, 8, 12, dtype=torch.uint8)
    labels[:, :, 7:] = 1
    labels[:, :, 5:7] = 255
    edge = torch.full((1, 1, 8, 12), -12.0)
    edge[..., 5:7] = 12.0
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing='ij')
    displacement = torch.where(labels == 1, torch.stack([4 - y, 9 - x]), torch.zeros(2, 8, 12))
    best = loss(edge, displacement[None] if displacement.ndim == 3 else displacement, labels)
    assert all(value < 2e-5 for value in best.values()), best
    for change in (dict(edge_logits=-edge), dict(displacement=-displacement.reshape(1, 2, 8, 12))):
        arguments = dict(
            edge_logits=edge, displacement=displacement.reshape(1, 2, 8, 12), labels=labels
        )
        assert sum(loss(**{**arguments, **change}).values()) > 0.5
    # what is unknown teaches nothing
    nothing = loss(-edge, displacement.reshape(1, 2, 8, 12), torch.full_like(labels, 255))
    assert not sum(nothing.values())


def test_crops_show_image_and_label_at_the_same_place():
    crop = TRANSFORMS.build(dict(type='AffinityCrop', size=SIZE))
    # grey values tell the column, labels where it is past the middle
    image = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 90, 0).repeat(3, 2)
    label = (image[..., 0] >= 120).astype(np.uint8)
    sizes, flips = set(), set()
    for index in range(20):
        results = dict(img=image.copy(), gt_seg_map=label.copy(), rng=np.random.default_rng(index))
        results = crop(results)
        assert results['img'].shape == (SIZE, SIZE, 3) and results['img'].dtype == np.float32
        cells = results['gt_seg_map']
        assert cells.shape == (SIZE // 4, SIZE // 4)
        centres = results['img'][2::4, 2::4, 0]
        known = cells != 255
        assert np.array_equal(known, centres != np.float32(crop.fill[0])) or known.all()
        clear = known & (np.abs(centres - 120) > 4)
        assert np.array_equal(centres[clear] > 120, cells[clear] == 1)
        row = results['img'][SIZE // 2, : results['img_shape'][1], 0]
        flips.add(row[-1] > row[0])
        sizes.add(results['img_shape'])
    assert len(sizes) > 1 and flips == {True, False}


def test_samples_are_functions_of_seed_epoch_and_index(mini, labels):
    init_default_scope('mmseg')
    dataset = DATASETS.build(small(MENDED, mini, labels).train_dataloader.dataset)

    def draw(epoch):
        sample = dataset[SampleIndex(1, epoch=epoch, seed=3)]
        return sample['inputs'], sample['data_samples'].gt_sem_seg.data

    for one, two in zip(draw(0), draw(0)):
        assert torch.equal(one, two)
    assert not all(torch.equal(one, two) for one, two in zip(draw(0), draw(1)))


def test_annotations_of_another_kind_are_refused(mini, labels):
    init_default_scope('mmseg')
    dataset = small(MENDED, mini, mini.root / 'mini' / 'instances.json').train_dataloader.dataset
    with pytest.raises(ValueError, match='instances.json: annotation 101: unknown is missing'):
        DATASETS.build(dataset)
    labels.write_text(json.dumps(dict(annotations=[])))
    dataset.ann_file = str(labels)
    with pytest.raises(ValueError, match='labels.json: images is missing; allowed: a list'):
        DATASETS.build(dataset)


def test_checkpoints_that_do_not_fit_are_refused():
    init_default_scope('mmseg')
    shapes = parameter_shapes(Config.fromfile(PUBLISHED).model)
    published = {
        translate(inverse(TABLE), name): torch.empty(shape, device='meta')
        for name, shape in shapes.items()
    }
    published |= {'stage1.0.weight': published['resnet50.conv1.weight']}
    converted = convert_checkpoint('irn', published)
    assert converted.state_dict.keys() == shapes.keys() and converted.model == 'irn_r50'
    assert list(converted.left_out) == ['stage1.0.weight']
    with pytest.raises(ValueError, match='1 missing tensor: fc_dp7.3.weight'):
        convert_checkpoint('irn', {k: v for k, v in published.items() if k != 'fc_dp7.3.weight'})
    with pytest.raises(ValueError, match='1 unknown tensor: classifier.weight'):
        convert_checkpoint('irn', {**published, 'classifier.weight': torch.empty(1)})


def test_damaged_labels_are_named(mini, labels):
    init_default_scope('mmseg')
    content = json.loads(labels.read_text())
    content['annotations'][1]['unknown'] = dict(size=[HEIGHT, WIDTH], counts=[7])
    content['annotations'][0].update(segmentation=None, unknown=None)
    labels.write_text(json.dumps(content))
    dataset = DATASETS.build(small(MENDED, mini, labels).train_dataloader.dataset)
    with pytest.raises(ValueError, match=r'labels.json: annotation 102, unknown: .*counts'):
        dataset[1]
    assert set(dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist()) <= {0, 255}
