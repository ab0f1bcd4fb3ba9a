"""TRIS's pseudo labels (IRN): confidence labels, the affinity network, its training, its masks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, _ParamScheduler, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from nemo_mmseg.models.affinity.affinity_displacement_loss import AffinityDisplacementLoss
from nemo_mmseg.models.affinity.pixel_paths import affinity, common_region, pixel_paths
from nemo_mmseg.models.converters.convert import convert_checkpoint
from nemo_mmseg.models.converters.irn import TABLE
from nemo_mmseg.models.converters.rename import inverse, translate
from nemo_mmseg.pseudo_labels.confidence import ConfidenceSettings, confidence_labels
from nemo_mmseg.pseudo_labels.dense_crf import DenseCRF
from nemo_mmseg.pseudo_labels.refine import PUBLISHED, Refiner

from .common import Case, Comparison, Tap, base_model, compare_middle, relative, tapped
from .small import Small

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / 'configs' / 'tris' / 'tris-irn-published_r50_4xb24-3e_refcoco-512x512.py'
CASES = ('tris_irn',)
TAPS = {
    **{f'stage{i + 1}': Tap('backbone', lambda maps, i=i: maps[i]) for i in range(5)},
    **{f'fc_edge{i + 1}': Tap(f'edge_branches.{i}') for i in range(5)},
    'fc_edge6': Tap('edge_out'),
    **{f'fc_dp{i + 1}': Tap(f'displacement_branches.{i}') for i in range(5)},
    'fc_dp6': Tap('displacement_merge'),
}


def published_file(case: Case, mean: np.ndarray | None = None) -> dict[str, Tensor]:
    """The state dict of a published file, each tensor under all its names.

    Args:
        case: Says which seed the weights have.
        mean: The mean of the displacements; None for zeros, as before the training.
    """
    path = case.folder / 'names.json'
    if not path.is_file():
        names = json.loads(gzip.decompress(path.with_name('names.json.gz').read_bytes()))
    else:
        names = json.loads(path.read_text())
    weights = {
        one['name']: torch.zeros(one['shape'], dtype=getattr(torch, one['dtype']))
        for one in names['entries']
    }
    weights = case.fill.fill_state_dict(weights, int(case['seed']))
    mean = np.zeros(2, np.float32) if mean is None else mean
    weights['mean_shift.running_mean'] = torch.from_numpy(mean)
    aliases = {alias: weights[name] for alias, name in names['aliases'].items()}
    buffers = {name: torch.zeros(1) for name in names['also_in_the_training_file']}
    return {**weights, **aliases, **buffers}


def network(case: Case, mean: np.ndarray | None = None) -> nn.Module:
    """Our network with the weights of the case, loaded through the converter."""
    init_default_scope('mmseg')
    converted = convert_checkpoint('irn', published_file(case, mean))
    model = MODELS.build(base_model('irn', converted.model)).eval()
    model.load_state_dict(converted.state_dict)
    return model


def check_network(folder: Path) -> Iterator[Comparison]:
    """Edges and displacements of an image, and what the layers make of it and its mirror image."""
    case = Case(folder, 'network.npz')
    model = network(case, case['running_mean_yx'])
    image = case.fill.make_image(1, *case['image_size'].tolist(), int(case['image_seed']))
    # There, the last layer also subtracts the mean.
    shifted = Tap('displacement_out', lambda x: x - model.mean_displacement[:, None, None])
    taps = {**TAPS, 'fc_dp7': shifted}
    for prefix, dtype in (('', torch.float32), ('f64/', torch.float64)):
        model.to(dtype)
        with tapped(model, taps) as seen:
            edge, displacement = model.predict(image.to(dtype))
        yield from case.compare(f'{prefix}edge', edge, 1e-5)
        yield from case.compare(f'{prefix}displacement', displacement[0], 1e-5)
        yield from compare_middle(
            f'{prefix}mid', seen, {name: case.summary(f'{prefix}mid/{name}') for name in taps}, 1e-5
        )
    yield from case.all_read({})


def parts_of(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our losses under the names of the training loop, without their weights."""
    return {
        'pos_affinity': 2 * losses['loss_positive_affinity'],
        'neg_affinity': 2 * losses['loss_negative_affinity'],
        'fg_displacement': 2 * losses['loss_object_displacement'],
        'bg_displacement': 2 * losses['loss_background_displacement'],
    }


def check_losses(folder: Path) -> Iterator[Comparison]:
    """Losses and gradients of given maps, for two radii."""
    case = Case(folder, 'losses.npz')
    for radius, dtype in ((r, d) for r in (5, 10) for d in (torch.float32, torch.float64)):
        run = f'r{radius}/'
        prefix = run if dtype == torch.float32 else f'f64/{run}'
        edge, displacement = (
            case.tensor(run + name).to(dtype).requires_grad_()
            for name in ('edge_logits', 'displacement')
        )
        labels = case.tensor(run + 'labels')
        losses = AffinityDisplacementLoss(radius)(edge, displacement, labels)
        total = sum(losses.values())
        total.backward()
        parts = parts_of(losses)
        theirs = {
            'pos_affinity': (case[f'{prefix}loss/bg_pos'] + case[f'{prefix}loss/fg_pos']) / 2,
            'neg_affinity': case[f'{prefix}loss/neg'],
            'fg_displacement': case[f'{prefix}loss/dp_fg'],
            'bg_displacement': case[f'{prefix}loss/dp_bg'],
        }
        for name, value in theirs.items():
            yield Comparison(prefix + name, relative(parts[name].detach(), value), 1e-5)
        yield from case.compare(f'{prefix}loss/total', total.detach(), 1e-5)
        for name, grad in (('edge', edge.grad), ('displacement', displacement.grad)):
            yield from case.compare(f'{prefix}grad_norm/{name}', grad.norm(), 1e-4)
            if dtype == torch.float32:
                yield from case.compare(f'{prefix}grad/{name}', grad, 1e-4)
        if dtype == torch.float32:
            yield from check_pairs(case, run, radius, edge.detach().sigmoid()[:, 0], labels)
    yield from case.all_read({})


def check_pairs(
    case: Case, run: str, radius: int, edge: Tensor, labels: Tensor
) -> Iterator[Comparison]:
    """The neighbours, the lengths of the paths to them, and how much they belong together."""
    paths = pixel_paths(radius)
    lengths, counts = np.unique([len(path.pixels) for path in paths], return_counts=True)
    for name, ours in (
        ('search_dst_yx', np.array([path.end for path in paths])),
        ('path_lengths', lengths),
        ('paths_per_length', counts),
    ):
        yield Comparison(run + name, relative(ours, case[run + name]), 0)
    region = common_region(radius, *labels.shape[-2:])
    ours = torch.stack([affinity(edge, path, region).flatten(1) for path in paths], 1)
    yield from case.compare(f'{run}affinity', ours, 1e-5)
    start, ends = region.of(labels), [region.of(labels, path.end) for path in paths]
    same = [(start == end, start, end) for end in ends]
    ours = [
        sum(int((equal & (one == 0)).sum()) for equal, one, _ in same),
        sum(int((equal & (one == 1)).sum()) for equal, one, _ in same),
        sum(int((~equal & (one < 255) & (two < 255)).sum()) for equal, one, two in same),
    ]
    key = f'{run}n_pairs_labelled_bg_fg_neg'
    yield Comparison(key, relative(np.array(ours), case[key]), 0)


def check_training(folder: Path) -> Iterator[Comparison]:
    """Three steps of the published training, and the mean of the displacements after it."""
    case = Case(folder, 'train.npz')
    crop, batch, steps = (int(case[key]) for key in ('crop', 'batch', 'epochs'))
    images = case.fill.make_image(batch, crop, crop, int(case['image_seed']))
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=labels[None]))
        for labels in case.tensor('reduced_labels')
    ]
    for prefix, dtype in (('', torch.float32), ('f64/', torch.float64)):
        model = network(case).to(dtype).train()
        wrapper, scheduler = recipe(model, steps)
        for step in range(steps):
            yield from check_recipe(case, prefix, step, model, wrapper.optimizer)
            wrapper.zero_grad()
            losses = model(images.to(dtype), samples, mode='loss')
            sum(losses.values()).backward()
            for name, value in parts_of(losses).items():
                theirs = case[f'{prefix}loss/{name}'][step]
                yield Comparison(
                    f'{prefix}step {step} {name}', relative(value.detach(), theirs), 1e-4
                )
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    key = f'{prefix}grad_norm/{translate(inverse(TABLE), name)}'
                    yield Comparison(
                        f'step {step} {key}',
                        relative(parameter.grad.norm(), case[key][step]),
                        5e-3 if step else 1e-3,
                        middle=True,
                    )
            wrapper.step()
            scheduler.step()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                key = f'{prefix}after/{translate(inverse(TABLE), name)}'
                for one in case.compare(key, parameter.detach(), 5e-3):
                    yield replace(one, middle=True)
        yield from check_mean(case, prefix, model, batch)
    yield from case.all_read({'labels': 'the reduced ones are used', 'f64/labels': 'same'})


def recipe(model: nn.Module, steps: int) -> tuple[OptimWrapper, _ParamScheduler]:
    """Optimizer and learning rates of the published config, for a training of some steps."""
    cfg = Config.fromfile(CONFIG)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    # MMEngine's rate is 0 in the last step; the published one would be in the step after it.
    rates = dict(cfg.param_scheduler[0], end=steps + 1, by_epoch=False)
    rates.pop('convert_to_iter_based')
    return wrapper, PARAM_SCHEDULERS.build(rates, default_args=dict(optimizer=wrapper))


def check_recipe(
    case: Case, prefix: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Comparison]:
    """Learning rate, momentum and decay of a parameter of each branch."""
    branches = model.edge_out.weight, model.displacement_out[1].weight
    for i, parameter in enumerate(branches):
        group = next(g for g in optimizer.param_groups if any(p is parameter for p in g['params']))
        for key, name in (
            ('lr_edge_displacement', 'lr'),
            ('sgd_momentum', 'momentum'),
            ('sgd_weight_decay', 'weight_decay'),
        ):
            theirs = case[prefix + key][step, i]
            what = f'{prefix}step {step} {name} of branch {i}'
            yield Comparison(what, relative(group[name], theirs), 1e-6, middle=True)


def check_mean(case: Case, prefix: str, model: nn.Module, batch: int) -> Iterator[Comparison]:
    """The mean of the displacements over the batches that are whole."""
    crop, seed = int(case['crop']), int(case['mean_shift_image_seed'])
    images = case.fill.make_image(3, crop, crop, seed)[:batch]
    with torch.no_grad():
        _, displacement = model.eval()(images.to(next(model.parameters()).dtype))
    yield from case.compare(f'{prefix}running_mean_yx', displacement.mean((0, 2, 3)), 1e-2)


CRF_THRESHOLDS = {'sure_foreground': 0.3, 'not_background': 0.1}


def check_crf(folder: Path) -> Iterator[Comparison]:
    """Confidence labels of given maps, and what the dense CRF makes of the masks before."""
    case = Case(folder, 'crf.npz')
    for run in (f'case{i}/' for i in range(int(case['cases']))):
        image, response = case[run + 'image_rgb'], case[run + 'map']
        crf = DenseCRF(image)
        for name, threshold in CRF_THRESHOLDS.items():
            mask = (response > np.float32(threshold)).astype(np.uint8)
            yield different(f'{run}{name}_before_crf', case, mask, 0)
            yield different(f'{run}{name}_after_crf', case, crf.refine(mask[None])[0], 1e-3)
            key = f'{run}{name}_prob1'
            largest = np.abs(crf.probabilities(mask[None])[0] - case[key]).max()
            yield Comparison(key, float(largest), 1e-3)
        labels = confidence_labels(image, response[None], ConfidenceSettings())[0]
        yield different(f'{run}confidence_label', case, labels, 1e-3)


def different(key: str, case: Case, ours: np.ndarray, tolerance: float) -> Comparison:
    """The share of pixels that are not as stored."""
    if ours.shape != case[key].shape:
        return Comparison(f'{key}: {ours.shape} for {case[key].shape}', float('inf'), 0)
    return Comparison(key, float((ours != case[key]).mean()), tolerance)


def unpacked(case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Stored masks of one bit a pixel."""
    return np.unpackbits(case[key], count=int(np.prod(shape))).reshape(shape)


def check_masks(folder: Path) -> Iterator[Comparison]:
    """Masks of given edges, displacements and response maps."""
    case = Case(folder, 'post.npz')
    for run in (f'case{i}/' for i in range(int(case['cases']))):
        image_shape = tuple(case[run + 'image_hw'].tolist())
        response = case[run + 'map']
        refiner = Refiner(case[run + 'edge'][0], case[run + 'displacement_yx'], PUBLISHED)
        yield different(run + 'centroids_yx', case, refiner.centroids, 0)

        shape = tuple(case[run + 'instance_map_shape'].tolist())
        instances = unpacked(case, run + 'instance_map_packed', shape)
        ours = np.arange(shape[0])[:, None, None] == refiner.instances
        yield Comparison(f'{run}instances', float((ours != instances).sum()), 0)
        areas = np.bincount(refiner.instances.ravel())
        yield Comparison(f'{run}instance_areas', relative(areas, case[run + 'instance_areas']), 0)

        spread = refiner.spread(response)
        yield Comparison(
            f'{run}random_walk', relative(spread[:, None], case[run + 'random_walk']), 1e-4
        )
        norm = float(case[f'f64/{run}random_walk_norm'])
        yield Comparison(f'f64/{run}norm', relative(np.linalg.norm(spread), norm), 1e-4)
        parts = refiner.parts(response)
        shape = tuple(case[run + 'masks_shape'].tolist())
        if parts.masks.shape != shape:
            yield Comparison(f'{run}masks: {parts.masks.shape} for {shape}', float('inf'), 0)
            continue
        masks = unpacked(case, run + 'masks_packed', shape)
        yield Comparison(f'{run}pixels of masks', float((parts.masks != masks).sum()), 0)
        union = unpacked(case, run + 'pseudo_mask_packed', image_shape)
        yield Comparison(f'{run}pixels of the union', float((parts.union != union).sum()), 0)
        scores = case[run + 'scores']
        if np.isnan(scores).any():  # nothing to divide by
            yield Comparison(
                f'{run}scores are no numbers', float((~np.isnan(parts.scores)).sum()), 0
            )
            continue
        yield Comparison(f'{run}scores', relative(parts.scores, scores), 1e-4)
        yield Comparison(f'f64/{run}scores', relative(parts.scores, case[f'f64/{run}scores']), 1e-4)
        upsampled = torch.from_numpy(refiner.upsample(spread, image_shape))
        yield from case.compare(f'{run}upsampled', upsampled, 1e-4)


CHECKS = {
    'crf': check_crf,
    'masks': check_masks,
    'network': check_network,
    'losses': check_losses,
    'training': check_training,
}
# The training takes twelve seconds.
SMALL = Small(
    names={
        'crf.npz': None,
        'losses.npz': None,
        'network.npz': 'names.json',
        'post.npz': None,
    }
)
