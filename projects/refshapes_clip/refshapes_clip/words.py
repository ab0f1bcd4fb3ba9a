"""The words of RefShapes' expressions, and a byte-pair file in which each is one token."""

import gzip
from collections import Counter
from collections.abc import Iterable

from nemo_mmseg.refshapes.vocabulary import (
    CATEGORIES,
    COLOUR_WORDS,
    COLOURS,
    HYPERNYMS,
    PLURALS,
    SIZE_WORDS,
)

NOUNS = tuple(n for nouns in CATEGORIES.values() for n in nouns)
COLOUR_NAMES = tuple(dict.fromkeys([*COLOURS, *(w for ws in COLOUR_WORDS.values() for w in ws)]))
SIZE_NAMES = tuple(dict.fromkeys(w for words in SIZE_WORDS.values() for w in words))
TEXTURE_NAMES = ('striped', 'checkered', 'dotted', 'outlined', 'plain', 'solid')
TAILS = ('stripes', 'checks', 'dots', 'outline', 'outlines')
SIDES = ('left', 'right', 'top', 'bottom')
OTHERS = (
    'a an the and with in half two that which is are on at of to from by middle center corner '
    'leftmost rightmost topmost highest lowest farthest closest nearest second third above over '
    'below under beneath between front behind partly hidden'
).split()

NOUN_PLURALS = tuple(PLURALS.get(noun, noun + 's') for noun in NOUNS)
# Words that a false copy of a sentence has others for, within their group. No sizes: where one star
# is "the larger star", another one is "the smaller star".
CHANGEABLE = (NOUNS, NOUN_PLURALS, COLOUR_NAMES, TEXTURE_NAMES, TAILS, SIDES)


def all_words() -> list[str]:
    """Return every word that an expression can hold, in a fixed order."""
    plurals = [PLURALS.get(n, n + 's') for n in (*NOUNS, *HYPERNYMS)]
    groups = (NOUNS, HYPERNYMS, plurals, COLOUR_NAMES, SIZE_NAMES, TEXTURE_NAMES, TAILS, SIDES)
    return list(dict.fromkeys([w for group in groups for w in group] + OTHERS))


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges (Sennrich et al., 2016) until every word is one token.

    Args:
        words: Lower-case words of ASCII letters.

    Returns:
        The merges in the order in which they are applied.
    """
    pieces = {word: [*word[:-1], word[-1] + '</w>'] for word in words}
    merges = []
    while True:
        pairs = Counter(p for parts in pieces.values() for p in zip(parts, parts[1:]))
        if not pairs:
            return merges
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for word, parts in pieces.items():
            merged, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == best:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            pieces[word] = merged


def bpe_file(words: Iterable[str]) -> tuple[bytes, int]:
    """Write a vocabulary in the format of open_clip's ``SimpleTokenizer(bpe_path=...)``.

    Args:
        words: The words that become one token each.

    Returns:
        The gzipped file (the same bytes each time), and the size of the vocabulary.
    """
    merges = learn_merges(words)
    lines = ['#version: 0.2', *(' '.join(pair) for pair in merges)]
    packed = gzip.compress('\n'.join(lines).encode(), mtime=0)
    return packed, 2 * 256 + len(merges) + 2
