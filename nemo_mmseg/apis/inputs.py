"""What is given to a network for inference: images and expressions, as items of its pipeline."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import Compose, LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from nemo_mmseg.datasets.transforms.loading import (
    LoadReferentBoxes,
    LoadReferentMask,
    LoadReferringImage,
)
from nemo_mmseg.utils.config import leaf_datasets
from nemo_mmseg.utils.faults import is_text
from nemo_mmseg.utils.images import bgr_array, decode_image, orientation_of, read_content

ImageInput = str | os.PathLike | np.ndarray | Image.Image
Images = ImageInput | Sequence[ImageInput]
Expressions = str | Sequence[str] | Sequence[Sequence[str]]
# Ends of the names of image files in a folder.
SUFFIXES = '.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif'
# Transforms of a test pipeline that read what is given here, or what is not known here.
LOADING = (
    LoadImageFromFile, LoadReferringImage, LoadReferentMask, LoadReferentBoxes, LoadAnnotations,
)  # fmt: skip


def test_pipeline_of(cfg: Config) -> list[dict]:
    """Return the test pipeline of a config.

    Raises:
        ValueError: The config has none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    pipeline = next(leaf_datasets(loader.get('dataset', {}))).get('pipeline')
    if not pipeline:
        raise ValueError('the config has no test_dataloader with a pipeline to prepare images')
    return pipeline


def build_pipeline(cfg: Config) -> Compose:
    """Build the test pipeline of a config without the loading of image and mask.

    Raises:
        ValueError: The config has none, or one with a transform or an option that there is not.
    """
    pipeline = test_pipeline_of(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    try:
        steps = Compose(pipeline).transforms
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'the test pipeline cannot be built: {error}') from error
    return Compose([step for step in steps if not isinstance(step, LOADING)])


def is_single(images: Images) -> bool:
    """Whether one image is meant, and not a list of them or a folder."""
    return not isinstance(images, (list, tuple)) and not _is_folder(images)


def _is_folder(images: Images) -> bool:
    return isinstance(images, (str, os.PathLike)) and os.path.isdir(images)


def list_images(images: Images) -> list[ImageInput]:
    """Return the images that are meant: those of a list, of a folder, or the one.

    Raises:
        ValueError: A folder has no file whose name ends as that of an image does.
    """
    if is_single(images):
        return [images]
    if not _is_folder(images):
        return list(images)
    found = [path for path in Path(images).iterdir() if path.suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f'the folder {images} has no image files ({", ".join(SUFFIXES)})')
    return sorted(found)


def iterate_items(
    images: Images, expressions: Expressions, errors: list[str] | None = None
) -> Iterator[dict]:
    """Join images with their expressions; an image is read when its turn comes.

    Args:
        images: See :class:`~.inference.ReferringInferencer`.
        expressions: See :class:`~.inference.ReferringInferencer`.
        errors: Gets a line for each image that is missing or cannot be read, which is then left
            out. Defaults to None: the first one raises.

    Returns:
        An item for each image, as the test pipeline takes it after loading.

    Raises:
        FileNotFoundError: An image is missing; when its turn comes, as the next.
        ValueError: An image cannot be read or is none. At once: the numbers of images and of lists
            of expressions differ, an expression is empty or no string, or a folder has no images.
    """
    found = list_images(images)
    if isinstance(expressions, str):
        lists = [[expressions]] * len(found)
    elif is_single(images) or _is_folder(images):
        lists = [list(expressions)] * len(found)
    else:
        lists = [[item] if isinstance(item, str) else list(item) for item in expressions]
    if len(lists) != len(found):
        raise ValueError(f'{len(found)} images, but expressions for {len(lists)}')
    for index, texts in enumerate(lists):
        if not texts or not all(isinstance(text, str) and is_text(text) for text in texts):
            raise ValueError(f'image {index} needs expressions of one word or more, not {texts!r}')
    return _read_items(found, lists, errors)


def _read_items(
    images: Sequence[ImageInput], lists: Sequence[list[str]], errors: list[str] | None
) -> Iterator[dict]:
    for index, (image, texts) in enumerate(zip(images, lists)):
        try:
            item = make_item(image, texts, index)
        except (OSError, ValueError) as error:
            if errors is None:
                raise
            errors.append(' '.join(str(error).split()))
        else:
            yield item


def make_item(image: ImageInput, expressions: list[str], index: int = 0) -> dict:
    """Read an image; return it with its expressions, as the test pipeline takes it after loading.

    Args:
        image: See :class:`~.inference.ReferringInferencer`.
        expressions: One or more.
        index: Number that names an image without a path.

    Raises:
        FileNotFoundError: The image is missing.
        ValueError: It cannot be read, or is none.
    """
    array, name = load_image(image, index)
    height, width, _ = array.shape
    sizes = dict(img_shape=(height, width), ori_shape=(height, width))
    sizes |= dict(height=height, width=width)
    numbers = list(range(len(expressions)))
    ids = dict(expressions=expressions, sent_ids=numbers, ref_ids=numbers)
    return dict(img=array, img_path=name, seg_fields=[], **sizes, **ids)


def load_image(image: ImageInput, index: int = 0) -> tuple[np.ndarray, str]:
    """Return an image as an array ``(H, W, 3)`` uint8 BGR, and its path or ``image_<index>``.

    The pixels are those that the file stores; see :mod:`nemo_mmseg.utils.images`. Where viewers
    show them turned by an EXIF tag, a warning says so.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image.
    """
    if isinstance(image, Image.Image) and image.format == 'TIFF' and image.filename:
        image = image.filename  # Pillow would turn the pixels of this format
    if isinstance(image, (str, os.PathLike)):
        name = str(image)
        content = read_content(name)
        array = decode_image(content, name)
        _warn_if_turned(name, orientation_of(content))
        return array, name
    name = f'image_{index}'
    if isinstance(image, Image.Image):
        try:
            array = bgr_array(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f'cannot read the image {name}: {error}') from error
        _warn_if_turned(name, orientation_of(image))
        return array, name
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=-1)
    if array.dtype != np.uint8 or array.shape[2:] != (3,) or not array.size:
        wanted = 'a path, a PIL image or an array (H, W, 3) uint8 in BGR order'
        raise ValueError(f'{name} must be {wanted}, not {type(image)} {array.shape} {array.dtype}')
    return array, name


def _warn_if_turned(name: str, orientation: int) -> None:
    if orientation != 1:
        warnings.warn(
            f'{name} has EXIF orientation {orientation}: viewers turn it, but its masks are those '
            'of the pixels as they are stored. For the picture as it is shown, give '
            'PIL.ImageOps.exif_transpose(PIL.Image.open(path))'
        )
