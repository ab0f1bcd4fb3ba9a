"""Scene graphs: those beside a data set, and those that tests write by hand."""

from __future__ import annotations

import json
from pathlib import Path


def load_scenes(split_file: str | Path) -> dict[int, dict]:
    """Read the scene graphs beside the references of a variant.

    Args:
        split_file: ``.../refshapes+/refs(unc).p`` or ``.../grefshapes/grefs(unc).json``.

    Returns:
        Image id -> scene with ``objects``, ``width`` and ``height``.
    """
    scenes = json.loads(Path(split_file).with_name('scenes.json').read_text())['scenes']
    return {int(image_id): scene for image_id, scene in scenes.items()}


def thing(
    category: str,
    colour: str = 'red',
    texture: str = 'plain',
    second: str | None = None,
    area: float = 1000,
    at: tuple = (0, 0),
    covers: dict | None = None,
    **more,
) -> dict:
    """Return an object of a scene graph."""
    return dict(category=category, colour=colour, texture=texture, second=second, area=area,
                center=at, covers=covers or {}, **more)  # fmt: skip
