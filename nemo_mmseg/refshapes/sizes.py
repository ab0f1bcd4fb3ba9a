"""What a word of size means: how an object compares with others of the same image.

An area is what is visible of an object, in pixels. At least 0.68 of each object is visible, so
what is ``MARGIN`` times as large by its visible part is the larger one as a whole, too.

Larger to everybody is what is 1.7 times as large, to somebody what is 1.25 times as large. The
generator keeps away from both: no expression hinges on a few pixels.
"""

MARGIN = 1.75  # as large everybody calls larger
_DOUBT = 1.2  # less than this nobody calls larger
_COMPARATIVES = ('smaller', 'larger')
_SUPERLATIVES = ('smallest', 'largest')


def of_size(areas: list[int], alike: list[int], size: str, strict: bool = False) -> list[int]:
    """Return which of some objects a word of size fits.

    ``'larger'`` means one of two that is larger than the other by ``MARGIN``, ``'largest'`` one of
    three or more that is larger than each other one by it, and ``'large'`` whatever is larger by
    it than the smallest. The words for small objects mean the same the other way round. The
    generous reader takes ``'larger'`` and ``'largest'`` for whatever is not clearly smaller than
    another, and ``'large'`` for what is a little larger than the smallest. Where the sizes tell
    nothing, any of the objects may be meant.

    Args:
        areas: Areas of all objects of the image.
        alike: Indexes of the objects that the rest of the description fits.
        size: A key of ``vocabulary.SIZE_WORDS``.
        strict: Whether the strict reader is asked, not the generous one.

    Returns:
        Indexes from ``alike``, in its order.
    """
    small = size.startswith('small')
    rank = {i: 1 / areas[i] if small else float(areas[i]) for i in alike}
    if size in ('small', 'large'):
        least = min(rank.values(), default=0)
        found = [i for i in alike if rank[i] >= (MARGIN if strict else _DOUBT) * least]
        return found if found or strict else list(alike)
    most = max(rank.values(), default=0)
    found = [i for i in alike if rank[i] * MARGIN > most]
    if not strict:
        return found
    enough = len(alike) == 2 if size in _COMPARATIVES else len(alike) > 2
    return found if enough and len(found) == 1 else []


def sizes_of(areas: list[int], alike: list[int], i: int, plural: bool = False) -> list[str]:
    """Return which sizes every reader calls an object's among some.

    Args:
        areas: Areas of all objects of the image.
        alike: Indexes of the objects that the rest of the description fits.
        i: One of them.
        plural: Whether several of them are to be named, not the object alone.

    Returns:
        Keys of ``vocabulary.SIZE_WORDS``.
    """
    compared = [areas[j] for j in alike]
    if max(compared) < MARGIN * min(compared):
        return []
    names = ('small', 'large') + (() if plural else _COMPARATIVES + _SUPERLATIVES)
    fitting = []
    for name in names:
        found = of_size(areas, alike, name, strict=True)
        enough = len(found) > 1 if plural else len(found) == 1
        if enough and i in found and found == of_size(areas, alike, name):
            fitting.append(name)
    return fitting
