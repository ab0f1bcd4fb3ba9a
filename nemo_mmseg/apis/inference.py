"""Builds the network of a config and fills it from a checkpoint."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image, ImageOps
from torch import nn

from nemo_mmseg.compat import mmengine_globals
from nemo_mmseg.datasets.transforms.loading import read_image
from nemo_mmseg.evaluation.predictions import (
    describe_mask,
    mask_scores,
    resize_mask,
    write_image,
    write_json,
)
from nemo_mmseg.models.converters.rename import Renamed, describe, differences
from nemo_mmseg.utils.checkpoint import read_checkpoint
from nemo_mmseg.utils.config import find_config, leaf_datasets
from nemo_mmseg.visualization.drawing import add_caption, draw_mask, make_grid


def load_model(
    cfg: Config, weights: str | os.PathLike | None = None, device: str | None = None
) -> nn.Module:
    """Builds the network of a config, ready for inference.

    Args:
        cfg: Config with `model`.
        weights: Checkpoint of a run, or a plain state dict. Only tensors, plain containers and
            MMEngine's own records are unpickled. None leaves the network as its `init_weights`
            makes it, untrained.
        device: E.g. `'cuda:0'`; None takes a GPU if there is one.

    Returns:
        The network in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds other things, or does not fit the network.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    # built anew from a copy: registries take settings out of the dicts they build from
    model = MODELS.build(Config(dict(model=cfg.model)).model)
    if weights is None:
        warnings.warn('no weights given: the network is untrained, and its masks mean nothing')
        model.init_weights()
    else:
        fill_model(model, weights)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def fill_model(model: nn.Module, weights: str | os.PathLike) -> None:
    """Loads a checkpoint strictly.

    Args:
        model: Changed in place.
        weights: See `load_model`.
    """
    content = read_checkpoint(weights, allow=mmengine_globals())
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f'{weights} holds no state dict')
    # distributed runs save the names of their wrapper
    state = {str(name).removeprefix('module.'): value for name, value in state.items()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        same_names = Renamed(state, {name: name for name in state}, {})
        reason = describe(differences(same_names, shapes, state, {})) or str(error)
        raise ValueError(f'{weights} does not fit the network of the config: {reason}') from error


ImageInput = str | os.PathLike | np.ndarray | Image.Image
# what a test pipeline does that has been done, or cannot be done, here
LOADING = ('LoadReferringImage', 'LoadImageFromFile', 'LoadReferentMask', 'LoadAnnotations')


class ReferringInferencer:
    """Segments what expressions describe, with the network of a config.

    Images are prepared by the config's test pipeline and masks are made by its test protocol. All
    expressions of an image go through the network together, so a network whose visual encoder does
    not look at the text encodes the image once.

    Example:
        >>> inferencer = ReferringInferencer('cris_r50_8xb8-50e_refcoco-416x416', 'best.pth')
        >>> result = inferencer('street.jpg', ['the red car', 'the man on the left'])
        >>> result['masks'].shape, result['scores']

    Args:
        model: Path of a config, name of one of this package's configs, or a `Config`.
        weights: Checkpoint, see `load_model`; None leaves the network untrained.
        device: E.g. `'cuda:0'`; None takes a GPU if there is one.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
    ) -> None:
        self.cfg = model if isinstance(model, Config) else Config.fromfile(find_config(str(model)))
        self.pipeline = build_pipeline(self.cfg)
        self.model = load_model(self.cfg, weights, device)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        expressions: str | Sequence[str] | Sequence[Sequence[str]],
        out_dir: str | os.PathLike | None = None,
        batch_size: int = 1,
        draw: bool = True,
    ) -> dict | list[dict]:
        """Segments one image or several.

        Args:
            images: An image or a list of images: path, (H, W, 3) uint8 array in BGR order as mmcv
                reads it, or PIL image.
            expressions: For one image an expression or a list of them; for a list of images a list
                with the same for each image, or one expression for all.
            out_dir: Folder for masks, overlays and `predictions.json`; None writes nothing.
            batch_size: Images that go through the network together, if the pipeline makes them the
                same size. Defaults to 1.
            draw: Whether to draw overlays. Defaults to True.

        Returns:
            For one image a dict, for a list a list of them:

            * `expressions`: N sentences;
            * `masks`: (N, H, W) bool, at the image's size;
            * `scores`: (N,) float32, mean foreground probability over the mask, 0 if it is empty;
            * `overlays`: N (H', W, 3) uint8 RGB pictures (empty without `draw`);
            * `predictions`: N dicts for JSON: `image`, `expression`, `score`, `area`, `bbox`,
              `rle`, and with `out_dir` the files `mask` and `overlay`.
        """
        single = not isinstance(images, (list, tuple))
        images = [images] if single else list(images)
        sentences = match_expressions(expressions, len(images), single)
        jobs = [
            self._prepare(index, image, several)
            for index, (image, several) in enumerate(zip(images, sentences, strict=True))
        ]
        results = []
        for batch in _batches(jobs, batch_size):
            with torch.no_grad():
                samples = self.model.test_step(
                    dict(
                        inputs=[job['packed']['inputs'] for job in batch],
                        data_samples=[job['packed']['data_samples'] for job in batch],
                    )
                )
            results += [_collect(job, s, draw) for job, s in zip(batch, samples, strict=True)]
        if out_dir is not None:
            write_results(results, out_dir)
        return results[0] if single else results

    def _prepare(self, index: int, image: ImageInput, expressions: list[str]) -> dict:
        """Reads an image and runs the test pipeline on it."""
        array, name = load_image(image, index)
        item = dict(
            img=array,
            img_path=name,
            img_shape=array.shape[:2],
            ori_shape=array.shape[:2],
            height=array.shape[0],
            width=array.shape[1],
            expressions=list(expressions),
            sent_ids=list(range(len(expressions))),
            ref_ids=list(range(len(expressions))),
            seg_fields=[],
            reduce_zero_label=False,
        )
        return dict(name=name, image=array, packed=self.pipeline(item), expressions=expressions)


def build_pipeline(cfg: Config) -> Compose:
    """The test pipeline of a config without the loading of image and mask.

    Raises:
        ValueError: If the config has none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        raise ValueError('the config has no test_dataloader whose pipeline prepares images')
    pipeline = next(leaf_datasets(loader['dataset'])).get('pipeline')
    if not pipeline:
        raise ValueError('the data set of test_dataloader has no pipeline')
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return Compose([step for step in pipeline if step['type'].split('.')[-1] not in LOADING])


def load_image(image: ImageInput, index: int = 0) -> tuple[np.ndarray, str]:
    """An image as an array, and what to call it.

    Args:
        image: Path, array or PIL image.
        index: Number that names an image without a path.

    Returns:
        (H, W, 3) uint8 BGR, and the path or `image_<index>`.

    Raises:
        TypeError, ValueError: If it is something else.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(str(image)), str(image)
    name = f'image_{index}'
    if isinstance(image, Image.Image):
        # as OpenCV does with files: turned as the camera was held
        rgb = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
        return np.ascontiguousarray(rgb[..., ::-1]), name
    if not isinstance(image, np.ndarray):
        raise TypeError(f'{name} must be a path, an array or a PIL image, not {type(image)}')
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f'{name} must be (H, W, 3) uint8 in BGR order, not {image.shape} {image.dtype}'
        )
    return image, name


def match_expressions(
    expressions: str | Sequence, num_images: int, single: bool
) -> list[list[str]]:
    """A list of expressions for each image.

    Args:
        expressions: See `ReferringInferencer.__call__`.
        num_images: Number of images.
        single: Whether one image was given, and not a list.

    Raises:
        ValueError: If the numbers differ, or an expression is empty.
        TypeError: If an expression is no string.
    """
    if isinstance(expressions, str):
        lists = [[expressions]] * num_images
    elif single:
        lists = [list(expressions)]
    else:
        lists = [[item] if isinstance(item, str) else list(item) for item in expressions]
    if len(lists) != num_images:
        raise ValueError(f'{num_images} images, but expressions for {len(lists)}')
    for index, several in enumerate(lists):
        if not several:
            raise ValueError(f'no expression for image {index}')
        for expression in several:
            if not isinstance(expression, str):
                raise TypeError(f'an expression of image {index} is no string: {expression!r}')
            if not expression.strip():
                raise ValueError(f'an expression of image {index} is empty')
    return lists


def _batches(jobs: Sequence[dict], batch_size: int) -> Iterator[list[dict]]:
    """Runs of at most `batch_size` images whose inputs have one size."""
    batch: list[dict] = []
    for job in jobs:
        shape = job['packed']['inputs'].shape
        if batch and (len(batch) >= batch_size or batch[0]['packed']['inputs'].shape != shape):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _collect(job: dict, sample: object, draw: bool) -> dict:
    """The result of one image."""
    found = sample.pred_sem_seg.data > 0
    shape = job['image'].shape[:2]
    scores = mask_scores(found, sample.seg_logits.data)
    masks = np.stack([resize_mask(mask, shape) for mask in found.cpu().numpy()])
    overlays = []
    if draw:
        image = job['image'][..., ::-1]
        overlays = [
            add_caption(draw_mask(image, mask), f'{expression}\nscore {score:.2f}')
            for mask, expression, score in zip(masks, job['expressions'], scores, strict=True)
        ]
    predictions = [
        dict(image=job['name'], expression=expression, score=score, **describe_mask(mask))
        for mask, expression, score in zip(masks, job['expressions'], scores, strict=True)
    ]
    return dict(
        expressions=list(job['expressions']),
        masks=masks,
        scores=np.array(scores, dtype=np.float32),
        overlays=overlays,
        predictions=predictions,
    )


def write_results(results: Sequence[dict], out_dir: str | os.PathLike) -> None:
    """Writes masks, one overlay picture an image, and `predictions.json` last.

    Args:
        results: Dicts of `ReferringInferencer.__call__`; their `predictions` get the file names.
        out_dir: Folder, made if missing.
    """
    out_dir = Path(out_dir)
    for number, result in enumerate(results):
        stem = f'{number:04d}_{Path(result["predictions"][0]["image"]).stem}'
        for index, (mask, record) in enumerate(
            zip(result['masks'], result['predictions'], strict=True)
        ):
            record['mask'] = f'masks/{stem}_{index}.png'
            write_image(out_dir / record['mask'], mask)
            if result['overlays']:
                record['overlay'] = f'overlays/{stem}.png'
        if result['overlays']:
            num_cols = int(np.ceil(np.sqrt(len(result['overlays']))))
            write_image(
                out_dir / 'overlays' / f'{stem}.png', make_grid(result['overlays'], num_cols)
            )
    records = [record for result in results for record in result['predictions']]
    write_json(out_dir / 'predictions.json', dict(predictions=records))
