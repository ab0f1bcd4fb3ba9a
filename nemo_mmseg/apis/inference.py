"""Inference: a network from a config and a checkpoint, and its masks for images and expressions."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from tqdm import tqdm

from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.evaluation.predictions import (
    describe_mask,
    mask_scores,
    resize_mask,
    write_image,
    write_json,
)
from nemo_mmseg.models.converters.rename import Renamed, describe, differences
from nemo_mmseg.utils.checkpoint import read_checkpoint, state_dict_of
from nemo_mmseg.utils.config import find_config
from nemo_mmseg.visualization.drawing import add_caption, draw_mask, make_grid

from .inputs import Expressions, Images, build_pipeline, is_single, iterate_items, list_images
from .pretrained import read_pretrained, read_pretrained_weights


def init_model(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build the network of a config, ready for inference.

    Args:
        config: Path of a config, name of one of this package's configs, a ``Config``, or a folder
            that :func:`~.pretrained.save_pretrained` wrote, with its weights.
        checkpoint: Checkpoint of a run, a plain state dict, or a file of safetensors. Only tensors,
            plain containers and MMEngine's own records are unpickled. None takes the weights of
            a folder, and else leaves the network as its ``init_weights`` makes it, untrained.
        device: E.g. ``'cuda:0'``; None takes a GPU if there is one.
        cfg_options: Settings of the config to override, by dotted keys.

    Returns:
        The network in eval mode; its ``cfg`` is the config.

    Raises:
        FileNotFoundError: There is no such config or checkpoint.
        ValueError: The checkpoint is damaged, holds other things, or does not fit the network; or
            the config names a part or an option that there is not.
    """
    cfg, weights = read_config(config)
    checkpoint = weights if checkpoint is None else checkpoint
    cfg.merge_from_dict(cfg_options or {})
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    try:
        model = MODELS.build(copy.deepcopy(cfg.model))  # parts take settings out of their dicts
    except (AttributeError, KeyError, TypeError) as error:
        name = 'the config' if isinstance(config, Config) else config
        raise ValueError(f'{name}: its network cannot be built: {error}') from error
    model.cfg = cfg
    if checkpoint is None and not getattr(model, 'training_free', False):
        warnings.warn('no checkpoint given: the network is untrained, and its masks mean nothing')
        model.init_weights()
    else:
        fill_model(model, checkpoint)
    return model.to(device or get_device()).eval()


def read_config(config: str | os.PathLike | Config) -> tuple[Config, Path | None]:
    """Return a config of its own, and the weights where it is that of a folder with such."""
    if isinstance(config, Config):
        return copy.deepcopy(config), None
    if Path(config).is_dir():
        return read_pretrained(config)
    return Config.fromfile(find_config(str(config))), None


def fill_model(model: nn.Module, checkpoint: str | os.PathLike | None) -> None:
    """Load a checkpoint strictly.

    Args:
        model: The network, filled in place.
        checkpoint: See :func:`init_model`; None for a network that is used as it was published.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds other things, or does not fit the network; or it is missing
            where the network needs one, or given where there is nothing to fill.
    """
    training_free, name = getattr(model, 'training_free', False), type(model).__name__
    if checkpoint is None:
        if not training_free:
            raise ValueError(f'{name} needs a checkpoint')
        model.init_weights()
        return
    if training_free:
        raise ValueError(f'{name} is used as it was published: it takes no checkpoint')
    if Path(checkpoint).suffix == '.safetensors' and Path(checkpoint).is_file():
        state = read_pretrained_weights(checkpoint, model)
    else:
        state = state_dict_of(checkpoint, read_checkpoint(checkpoint, allow=mmengine_globals()))
    # Distributed runs save the names of their wrapper.
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    same_names = Renamed(state, {name: name for name in state}, {})
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = describe(differences(same_names, shapes, state, {})) or error
        raise ValueError(f'{checkpoint} does not fit the network: {reason}') from error


def inference_model(
    model: nn.Module, images: Images, expressions: Expressions
) -> SegDataSample | list[SegDataSample]:
    """Segment images one after the other.

    Args:
        model: Network of :func:`init_model`.
        images: See :class:`ReferringInferencer`.
        expressions: See :class:`ReferringInferencer`.

    Returns:
        For one image a data sample, with ``pred_sem_seg`` and ``seg_logits`` (the foreground
        probability), each ``(N, H, W)``, of its N expressions. For a list of images, or a folder, a
        list of them.
    """
    pipeline, samples = build_pipeline(model.cfg), []
    for item in iterate_items(images, expressions):
        with torch.no_grad():
            samples += model.test_step(pseudo_collate([pipeline(item)]))
    return samples[0] if is_single(images) else samples


class ReferringInferencer(BaseInferencer):
    """Segment what expressions describe, with the network of a config.

    The config's test pipeline prepares the images and its test protocol makes the masks. All
    expressions of an image go through the network together. A network whose visual encoder ignores
    the text encodes the image once.

    Example:
        >>> inferencer = ReferringInferencer('cris_r50_8xb8-50e_refcoco-416x416', 'best.pth')
        >>> result = inferencer('street.jpg', ['the red car', 'the man on the left'])
        >>> result['masks'].shape, result['scores']

    Args:
        model: Path of a config, name of one of this package's configs, a ``Config``, or a folder
            that :func:`~.pretrained.save_pretrained` wrote.
        weights: Checkpoint, see :func:`init_model`; None takes those of a folder, and else leaves
            the network untrained.
        device: E.g. ``'cuda:0'``; None takes a GPU if there is one.
        show_progress: Whether calls show a progress bar, which counts images. Defaults to False.
    """

    visualize_kwargs = {'draw'}
    postprocess_kwargs = {'items'}

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        show_progress: bool = False,
    ) -> None:
        # MMEngine looks names up in the metafiles of its own packages, hence `read_config`.
        cfg, own = read_config(model)
        weights = own if weights is None else weights
        super().__init__(cfg, weights, device, scope='mmseg', show_progress=False)
        self.progress_bar = show_progress  # MMEngine's own counts batches, without their number

    def __call__(
        self,
        images: Images,
        expressions: Expressions,
        out_dir: str | os.PathLike | None = None,
        batch_size: int = 1,
        draw: bool = True,
    ) -> dict | list[dict]:
        """Segment one image or several.

        Args:
            images: An image, a list of images, or a folder, whose image files are a list in the
                order of their names. An image is a path, ``(H, W, 3)`` uint8 array in BGR order as
                mmcv reads it, or PIL image. An EXIF orientation is not applied: masks are those of
                the stored pixels, and a warning says so.
            expressions: For one image an expression or a list of them. For a folder the same, for
                all its images. For a list of images a list with the same for each image, or one
                expression for all.
            out_dir: Folder for masks, overlays and ``predictions.json``; None writes nothing.
            batch_size: Images that go through the network together, if the pipeline makes them the
                same size. Defaults to 1.
            draw: Whether to draw overlays. Defaults to True.

        Returns:
            For one image a dict, for a list or a folder a list of them:

            - expressions: N sentences.
            - masks: ``(N, H, W)`` bool, at the image's size.
            - scores: ``(N,)`` float32, mean foreground probability over the mask; 0 if it is empty.
            - nothing_found: ``(N,)`` bool, True where the network says that the image shows nothing
              like this; the mask is then empty. False for a network that cannot say so.
            - overlays: N pictures ``(H', W, 3)`` uint8 RGB; empty without ``draw``.
            - predictions: N dicts for JSON with ``image``, ``expression``, ``score``, ``area``,
              ``bbox``, ``rle``, ``nothing_found``, and with ``out_dir`` the files ``mask`` and
              ``overlay``.
        """
        results = list(self.iterate(images, expressions, out_dir, batch_size, draw))
        return results[0] if is_single(images) else results

    def iterate(
        self,
        images: Images,
        expressions: Expressions,
        out_dir: str | os.PathLike | None = None,
        batch_size: int = 1,
        draw: bool = True,
        errors: list[str] | None = None,
    ) -> Iterator[dict]:
        """Yield the results one after the other, so that any number of images fits into memory.

        The arguments are those of a call, which keeps the results. With ``out_dir`` files are
        written as they come, ``predictions.json`` when all are there.

        Args:
            images: As of a call.
            expressions: As of a call.
            out_dir: As of a call.
            batch_size: As of a call.
            draw: As of a call.
            errors: Gets a line for each image that cannot be read, which is then left out. Defaults
                to None: the first one raises.

        Raises:
            ValueError: ``batch_size`` is below 1; and see :func:`~.inputs.iterate_items`.
        """
        if batch_size < 1:
            raise ValueError(f'the batch size is {batch_size}; allowed: 1 or more')
        items, records = iterate_items(images, expressions, errors), []
        number, count = 0, len(list_images(images))
        with tqdm(total=count, unit='image', disable=not self.progress_bar) as bar:
            while batch := list(islice(items, batch_size)):
                found = super().__call__(batch, items=batch, batch_size=batch_size, draw=draw)
                for result in found:
                    if out_dir is not None:
                        write_result(result, number, out_dir)
                    records += result['predictions']
                    number += 1
                    bar.update()
                    yield result
        if out_dir is not None:
            write_json(Path(out_dir) / 'predictions.json', dict(predictions=records))

    def preprocess(self, inputs: list[dict], batch_size: int = 1) -> Iterator[dict]:
        """Yield batches of at most ``batch_size`` images whose network inputs have one size."""
        batch: list[dict] = []
        for packed in map(self.pipeline, map(dict, inputs)):
            shape = packed['inputs'].shape
            if batch and (len(batch) >= batch_size or batch[0]['inputs'].shape != shape):
                yield self.collate_fn(batch)
                batch = []
            batch.append(packed)
        if batch:
            yield self.collate_fn(batch)

    @torch.no_grad()
    def forward(self, inputs: dict) -> list[tuple[np.ndarray, list[float], list[bool]]]:
        """Return for each image its masks, ``(N, H, W)`` bool at its size, and their scores.

        The third are bools: whether the network says that there is nothing to find.
        """
        predictions = []
        for sample in self.model.test_step(inputs):
            found = sample.pred_sem_seg.data > 0
            nothing = torch.zeros(len(found), dtype=torch.bool, device=found.device)
            if 'no_target' in sample:
                nothing = sample.no_target > 0
            found = found & ~nothing[:, None, None]
            scores = mask_scores(found, sample.seg_logits.data)
            shape = sample.ori_shape[:2]
            masks = [resize_mask(mask, shape) for mask in found.cpu().numpy()]
            predictions.append((np.stack(masks), scores, nothing.tolist()))
        return predictions

    def visualize(
        self, inputs: list[dict], preds: list[tuple], draw: bool = True
    ) -> list[list[np.ndarray]]:
        """Draw each mask over its image, with expression and score above it."""
        if not draw:
            return [[] for _ in inputs]
        overlays = []
        for item, rows in zip(inputs, preds, strict=True):
            overlays.append([])
            for text, mask, score, nothing in zip(item['expressions'], *rows, strict=True):
                drawn = draw_mask(item['img'][..., ::-1], mask)
                verdict = 'nothing found' if nothing else f'score {score:.2f}'
                overlays[-1].append(add_caption(drawn, f'{text}\n{verdict}'))
        return overlays

    def postprocess(
        self,
        preds: list[tuple],
        visualization: list[list[np.ndarray]],
        return_datasamples: bool = False,
        items: Sequence[dict] = (),
    ) -> list[dict]:
        """Collect the results of each image, see :meth:`__call__`."""
        results = []
        for item, rows, overlays in zip(items, preds, visualization, strict=True):
            expressions, (masks, scores, nothing_found) = item['expressions'], rows
            predictions = [
                dict(
                    image=item['img_path'],
                    expression=text,
                    score=score,
                    **describe_mask(mask),
                    nothing_found=nothing,
                )
                for text, mask, score, nothing in zip(expressions, *rows, strict=True)
            ]
            results.append(
                dict(
                    expressions=list(expressions),
                    masks=masks,
                    scores=np.array(scores, dtype=np.float32),
                    nothing_found=np.array(nothing_found),
                    overlays=overlays,
                    predictions=predictions,
                )
            )
        return results

    def _init_model(self, cfg: Config, weights: str | None, device: str) -> nn.Module:
        return init_model(cfg, weights, device)

    def _init_pipeline(self, cfg: Config) -> Compose:
        return build_pipeline(cfg)

    def _init_collate(self, cfg: Config) -> Callable:
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> None:
        """Build none: overlays need no visualizer, which would make folders of its own."""


def write_result(result: dict, number: int, out_dir: str | os.PathLike) -> None:
    """Write the masks of an image and one picture of its overlays.

    Args:
        result: Result of :class:`ReferringInferencer`; its ``predictions`` get the file names.
        number: Of the image, which begins the names of its files.
        out_dir: Folder, made if missing.
    """
    out_dir, records, overlays = Path(out_dir), result['predictions'], result['overlays']
    stem = f'{number:04d}_{Path(records[0]["image"]).stem}'
    for index, (mask, record) in enumerate(zip(result['masks'], records, strict=True)):
        record['mask'] = f'masks/{stem}_{index}.png'
        write_image(out_dir / record['mask'], mask)
        if overlays:
            record['overlay'] = f'overlays/{stem}.png'
    if overlays:
        num_cols = int(np.ceil(np.sqrt(len(overlays))))
        write_image(out_dir / 'overlays' / f'{stem}.png', make_grid(overlays, num_cols))
