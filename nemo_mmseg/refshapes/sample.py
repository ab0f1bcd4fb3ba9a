"""One RefShapes sample: a scene and its references, by (seed, flavour, split, index)."""

from dataclasses import dataclass

import numpy as np

from .expressions import expressions_for
from .groups import groups_for, nothing_for
from .scene import Scene, sample_scene
from .vocabulary import FLAVOURS, GENERALIZED, SPLITS

# How often a distractor looks exactly as another object: only places tell those apart.
_EXACT = {'refshapes': 0.3, 'refshapes+': 0.0, 'refshapesg': 0.2, 'grefshapes': 0.3}


@dataclass
class Sample:
    """A scene and what is said about it.

    Attributes:
        scene: The scene, painted.
        references: Pairs (index of the target, three pairs of expression and meaning). In the
            generalised flavour the first is a tuple of indexes, rising, empty where nothing is
            described, and one to three expressions share it.
    """

    scene: Scene
    references: list[tuple[int | tuple[int, ...], list[tuple[str, dict]]]]


def _wanted(split: str, rng: np.random.Generator) -> int:
    """How many references an image gets, if as many objects can be told apart in words."""
    return int(rng.choice([1, 2, 3, 4], p=[0.1, 0.4, 0.35, 0.15])) if split != 'testB' else 3


def _single(scene: Scene, split: str, flavour: str, rng: np.random.Generator, count: int) -> list:
    """References to single objects."""
    names = [o.category for o in scene.objects]
    rivals = np.array([names.count(n) - 1 for n in names])
    if split == 'testB':
        candidates = np.flatnonzero(rivals >= 3)
    else:
        candidates = np.arange(len(names))
    weights = np.where(rivals[candidates] > 0, 1.0, 0.05)
    order = rng.choice(
        candidates, len(candidates), replace=False, p=weights / weights.sum()
    ).tolist()
    wanted = _wanted(split, rng)
    references = []
    for i in order:
        said = expressions_for(scene, i, flavour, rng, count)
        if len(said) == count:
            references.append((i, said))
        if len(references) == wanted:
            break
    return references


def _generalized(
    scene: Scene, split: str, flavour: str, rng: np.random.Generator, count: int
) -> list:
    """References to one object, to several and to none; no reference where a kind is missing.

    About half of the expressions are about one object, a third about several, a seventh about none.
    """
    told_apart_by = ('refshapes', 'refshapes+')[int(rng.integers(2))]
    single = [((i,), said) for i, said in _single(scene, split, told_apart_by, rng, count)][:2]
    several = groups_for(scene, rng, sets=2, count=max(1, count - 1))
    nothing = nothing_for(scene, rng, count=1 + int(rng.random() < 0.5))
    if not (single and several and nothing):
        return []
    return [*single, *several, ((), nothing)]


def make_sample(
    seed: int,
    flavour: str,
    split: str,
    index: int,
    canvas: tuple[int, int] | None = None,
    count: int = 3,
) -> Sample:
    """Make a sample; the same arguments give the same sample, whatever else was made before.

    Args:
        seed: Seed of the data set.
        flavour: One of ``vocabulary.FLAVOURS``.
        split: One of ``vocabulary.SPLITS``.
        index: Number of the image in the split.
        canvas: Size (width, height) in pixels; by default varied.
        count: Expressions of each reference.

    Returns:
        The sample, with at least one reference.
    """
    key = [seed, FLAVOURS.index(flavour), SPLITS.index(split), index]
    rng = np.random.default_rng(np.random.SeedSequence(key))
    while True:
        scene = sample_scene(split, _EXACT[flavour], rng, canvas)
        find = _generalized if flavour == GENERALIZED else _single
        references = find(scene, split, flavour, rng, count)
        if references:
            return Sample(scene, references)
