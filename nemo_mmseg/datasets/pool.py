"""The images of a split, from which transforms draw other images."""

from __future__ import annotations

import os.path as osp

import numpy as np


class ImagePool:
    """Images of a data set by row, in rising order of their ids.

    It pickles, and workers share its arrays.

    Args:
        root: Folder of the images.
        ids: Image ids (I,), rising.
        names: File names (I,) inside ``root``.
        fingerprint: Digest of the data set the pool belongs to; a bank is checked against it.
    """

    def __init__(self, root: str, ids: list[int], names: list[str], fingerprint: str) -> None:
        self.root = str(root)
        # Arrays, not lists: reading a list in a forked worker copies its pages.
        self.ids = np.asarray(ids, dtype=np.int64)
        self.names = np.asarray(names, dtype=np.str_)
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str:
        """Path of the image in ``row``."""
        return self.path_of(self.names[row])

    def path_of(self, name: str) -> str:
        """Path of the image with this file name."""
        return osp.join(self.root, str(name))

    def row_of(self, image_id: int) -> int:
        """Row of an image id.

        Raises:
            KeyError: The pool has no such image.
        """
        row = int(np.searchsorted(self.ids, image_id))
        if row == len(self.ids) or self.ids[row] != image_id:
            raise KeyError(f'image {image_id} is not in the pool')
        return row
