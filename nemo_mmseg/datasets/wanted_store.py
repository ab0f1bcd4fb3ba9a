"""A tile store that a config asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .pool import ImagePool
from .tile_store import TileSettings, TileStore


@dataclass(frozen=True)
class WantedStore:
    """Where a store lies and how it is made.

    Attributes:
        path: The file.
        pool: Its images.
        settings: Its tiles.
    """

    path: str
    pool: ImagePool
    settings: TileSettings

    def make(self, **options: Any) -> TileStore:
        """Make the store if it is missing, check it if it is there; see :func:`make_tile_store`."""
        from .tile_store_writer import make_tile_store

        return make_tile_store(self.pool, self.path, self.settings, **options)

    def check_if_there(self) -> None:
        """Refuse a store of other images or settings; see :meth:`TileStore.check`."""
        if Path(self.path).is_file():
            TileStore(self.path).check(self.pool, self.settings)
