"""The images that a bank is mined from: those of the data set, or those of any folder."""

from __future__ import annotations

import numpy as np

from ..datasets.pool import ImagePool, folder_pool


class MinedImages:
    """The image table of a bank: first the candidates, then own images that are none.

    An expression's own image is needed for its similarity to it, also where negatives come from a
    folder. If the folder holds that very file (same name and size), it is one image, and never the
    negative of its own expressions.

    Args:
        own: Pool of the data set.
        folder: Folder of the negatives; None where they are the data set's own images.

    Attributes:
        ids: Image ids (I,); of a folder's images -1 - row, as ids of data sets are not negative.
        names: File names (I,).
        candidates: How many of the images, from the first on, can become negatives.
        own_rows: Row of every image of the data set.
    """

    def __init__(self, own: ImagePool, folder: str | None = None) -> None:
        if folder is None:
            self._parts = [(own, range(len(own)))]
            self.ids, self.names, self.candidates = own.ids, own.names, len(own)
            self.own_rows = np.arange(len(own))
            return
        pool = folder_pool(folder)
        found = [pool.find(image_id, own.path(row)) for row, image_id in enumerate(own.ids)]
        self.own_rows = np.array([-1 if row is None else row for row in found], np.int64)
        others = np.flatnonzero(self.own_rows < 0)
        self.own_rows[others] = len(pool) + np.arange(len(others))
        self._parts = [(pool, range(len(pool))), (own, others)]
        self.ids = np.concatenate([-1 - pool.ids, np.asarray(own.ids)[others]])
        self.names = np.concatenate([pool.names, np.asarray(own.names)[others]])
        self.candidates = len(pool)

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, row: int) -> str:
        """Path of the image in ``row``."""
        for pool, rows in self._parts:
            if row < len(rows):
                return pool.path(rows[row])
            row -= len(rows)
        raise IndexError(f'image row {row} is outside the table')
