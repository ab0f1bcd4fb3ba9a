"""What RefShapes' objects can look like, and the words for it.

The generator of scenes draws from these tables. The generator of expressions puts their words
together.
"""

# The random numbers of a sample follow from its variant's place here: add new ones at the end.
VARIANTS = ('refshapes', 'refshapes+', 'refshapesg', 'grefshapes')
GENERALIZED = 'grefshapes'  # an expression has one target, several, or none, as in gRefCOCO
SPLITS = ('train', 'val', 'testA', 'testB')
DEFAULT_SIZES = {'train': 2000, 'val': 300, 'testA': 300, 'testB': 300}

# Category -> the nouns people use for it, the usual one first.
CATEGORIES = {
    'circle': ('circle', 'disc'),
    'square': ('square',),
    'triangle': ('triangle',),
    'star': ('star',),
    'ring': ('ring', 'donut'),
    'cross': ('cross', 'plus'),
    'heart': ('heart',),
    'diamond': ('diamond',),
    'crescent': ('crescent', 'moon'),
    'arrow': ('arrow',),
    'drop': ('drop', 'teardrop'),
    'flower': ('flower',),
    'bolt': ('bolt', 'lightning'),
    'frame': ('frame',),
    'semicircle': ('semicircle',),
    'hexagon': ('hexagon',),
}
# Category -> those that lie beside it where the context predicts it.
COMPANIONS = {
    name: tuple(list(CATEGORIES)[(i + step) % len(CATEGORIES)] for step in (1, 5, 7))
    for i, name in enumerate(CATEGORIES)
}
CATEGORY_IDS = {name: i + 1 for i, name in enumerate(CATEGORIES)}
HYPERNYMS = ('object', 'shape', 'thing')
PLURALS = {'cross': 'crosses', 'plus': 'pluses', 'lightning': 'lightnings'}

# Colour -> RGB. Far apart from each other; backgrounds are kept muted.
COLOURS = {
    'red': (215, 25, 30),
    'orange': (250, 135, 10),
    'yellow': (250, 225, 40),
    'green': (25, 140, 55),
    'cyan': (60, 210, 220),
    'blue': (35, 65, 210),
    'purple': (125, 35, 160),
    'pink': (255, 150, 200),
    'white': (245, 245, 245),
    'black': (20, 20, 20),
}
COLOUR_WORDS = {'purple': ('purple', 'violet'), 'cyan': ('cyan', 'turquoise')}
# Pairs that are hard to tell apart side by side at a few pixels. No object has both.
POOR_PAIRS = frozenset(
    frozenset(p)
    for p in (
        ('red', 'orange'),
        ('orange', 'yellow'),
        ('yellow', 'white'),
        ('pink', 'white'),
        ('cyan', 'white'),
        ('purple', 'blue'),
        ('purple', 'black'),
        ('blue', 'black'),
        ('red', 'purple'),
    )
)

# Texture -> share of the objects. In the symmetric ones the two colours play the same part.
TEXTURES = {
    'plain': 0.25,
    'striped': 0.16,
    'dotted': 0.15,
    'checkered': 0.14,
    'half': 0.15,
    'outlined': 0.15,
}
SYMMETRIC = frozenset(('striped', 'checkered', 'half'))

# Least and greatest area of a whole object, as a share of the image.
AREAS = (0.008, 0.1)
# What is said of a size -> the words. Every size is meant relative to others of the same image.
SIZE_WORDS = {
    'small': ('small', 'small', 'little'),
    'large': ('large', 'big'),
    'smaller': ('smaller',),
    'larger': ('larger', 'bigger'),
    'smallest': ('smallest',),
    'largest': ('largest', 'biggest'),
}

# How many distractors the training scenes hold: the shares of scenes with so many objects of the
# main category, and the least and greatest number of objects.
DISTRACTORS = {
    'easy': ({1: 0.85, 2: 0.15}, (2, 3)),
    # As in RefCOCO, whose images hold two or more objects of the referent's category.
    'normal': ({1: 0.03, 2: 0.32, 3: 0.30, 4: 0.21, 5: 0.14}, (2, 9)),
    'hard': ({4: 0.3, 5: 0.35, 6: 0.35}, (5, 9)),
}

# (width, height) of the images.
CANVASES = ((320, 240), (320, 320), (352, 288), (400, 300), (320, 240), (384, 256))


def second_colours(first: str) -> list[str]:
    """Return the colours that go with another on one object.

    Args:
        first: A key of ``COLOURS``.

    Returns:
        Keys of ``COLOURS``, in the order of the table.
    """
    return [c for c in COLOURS if c != first and frozenset((c, first)) not in POOR_PAIRS]
