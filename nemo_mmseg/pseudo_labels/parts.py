"""Annotations that are made image by image, and kept on the way: a run that was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from nemo_mmseg.utils.atomic_write import write_text
from nemo_mmseg.utils.fileio import load_json

from .annotations import LabelledImage

# Images whose annotations become one file, when the first of the next ones is done. A killed run
# loses no more, and what was in work.
BLOCK_SIZE = 64


def in_parts(
    images: Sequence[LabelledImage],
    make: Callable[[Sequence[LabelledImage]], Iterable[list[dict]]],
    folder: Path,
    what: str,
    progress: bool,
) -> list[dict]:
    """Make the annotations of images, but for those that a killed run has left.

    Args:
        images: The images.
        make: Called with those that are to do. Yields the annotations of one image after the other,
            at least one each; images without any are passed over.
        folder: Where the parts are kept, for these images and this way of making annotations alone.
        what: What is made, for the progress bar.
        progress: Whether to show it.

    Returns:
        All annotations, in the order of the images.
    """
    blocks = {image.image_id: place // BLOCK_SIZE for place, image in enumerate(images)}
    files = [folder / f'part-{block:06d}.json' for block in range(max(blocks.values()) + 1)]
    todo = [image for image in images if not files[blocks[image.image_id]].is_file()]
    bar = tqdm(make(todo), what, len(todo), disable=not progress)
    for block, found in groupby(bar, lambda of_image: blocks[of_image[0]['image_id']]):
        write_text(files[block], json.dumps([one for of_image in found for one in of_image]))
    return [one for file in files if file.is_file() for one in load_json(file)]
