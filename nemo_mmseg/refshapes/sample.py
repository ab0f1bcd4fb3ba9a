"""One sample of RefShapes, a scene and its references, as a function of seed and number."""

from dataclasses import dataclass

import numpy as np

from .expressions import Expression, expressions_for
from .groups import group_expressions, no_target_expressions
from .scene import Scene, sample_scene
from .vocabulary import GENERALIZED, SPLITS, VARIANTS

# Indexes of the targets, rising, and the expressions that describe them.
Reference = tuple[tuple[int, ...], list[Expression]]

_EXPRESSIONS = 3  # per object that is described
# Share of the distractors with the colours and the texture of another object: only places and sizes
# tell those apart.
_EXACT = {'refshapes': 0.3, 'refshapes+': 0.0, 'refshapesg': 0.2, 'grefshapes': 0.3}


@dataclass
class Sample:
    """A scene and what is said about it.

    Attributes:
        scene: The scene.
        references: Pairs of targets (a tuple of rising indexes of objects) and expressions (pairs
            of words and meaning). A reference has one target. In the generalized variant it has
            one, several or none.
    """

    scene: Scene
    references: list[Reference]


def _single_references(
    scene: Scene, split: str, variant: str, rng: np.random.Generator
) -> list[Reference]:
    """Draw references to single objects, most of which have distractors.

    In a scene about one category, to objects of that one.
    """
    names = [o.category for o in scene.objects]
    distractors = np.array([names.count(name) - 1 for name in names])
    about = np.array([scene.main in (None, name) for name in names])
    candidates = np.flatnonzero(about & (distractors >= (3 if split == 'testB' else 0)))
    weights = np.where(distractors[candidates] > 0, 1.0, 0.05)
    order = rng.choice(candidates, len(candidates), replace=False, p=weights / weights.sum())
    wanted = 3 if split == 'testB' else int(rng.choice([1, 2, 3, 4], p=[0.1, 0.4, 0.35, 0.15]))
    references = []
    for i in order.tolist():
        expressions = expressions_for(scene, i, variant, rng, _EXPRESSIONS)
        if len(expressions) == _EXPRESSIONS:
            references.append(((i,), expressions))
        if len(references) == wanted:
            break
    return references


def _generalized_references(scene: Scene, split: str, rng: np.random.Generator) -> list[Reference]:
    """Draw references to one object, to several and to none; no reference where a kind is missing.

    About half of the expressions have one target, a third several, a seventh none.
    """
    variant = ('refshapes', 'refshapes+')[int(rng.integers(2))]
    single = _single_references(scene, split, variant, rng)[:2]
    several = group_expressions(scene, rng, sets=2, count=_EXPRESSIONS - 1)
    no_target = no_target_expressions(scene, rng, count=1 + int(rng.random() < 0.5))
    if not (single and several and no_target):
        return []
    return [*single, *several, ((), no_target)]


def make_sample(
    seed: int,
    variant: str,
    split: str,
    index: int,
    distractors: str = 'normal',
    context: float = 0.0,
) -> Sample:
    """Make a sample. The same arguments give the same sample, whatever else was made before.

    ``distractors`` and ``context`` change training samples alone. What trains on scenes whose
    context is a shortcut is tested on scenes without it, and all settings by the same scenes.

    Args:
        seed: Seed of the data set.
        variant: One of ``vocabulary.VARIANTS``.
        split: One of ``vocabulary.SPLITS``.
        index: Number of the image in the split.
        distractors: How many objects of the referent's category a training scene holds, a key of
            ``vocabulary.DISTRACTORS``.
        context: How far the context of a training scene predicts the category of the referent, 0
            to 1: the probability that a scene is about one category. Kind and tint of the
            background are then the category's, the companions are of three categories that go
            with it, and references to single objects are to objects of the category.

    Returns:
        The sample, with at least one reference.
    """
    key = [seed, VARIANTS.index(variant), SPLITS.index(split), index]
    rng = np.random.default_rng(np.random.SeedSequence(key))
    knobs = (distractors, context) if split == 'train' else ()
    references = []
    while not references:
        scene = sample_scene(split, _EXACT[variant], rng, *knobs)
        if variant == GENERALIZED:
            references = _generalized_references(scene, split, rng)
        else:
            references = _single_references(scene, split, variant, rng)
    return Sample(scene, references)
