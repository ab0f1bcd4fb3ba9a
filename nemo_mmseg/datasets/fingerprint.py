"""A split is recognised by what it holds: mirrors give the published names to other splits.

A fingerprint is the counts of a split and a digest of its sentence ids. The counts are compared
with the published ones. Digests of the published splits are not known to this package, which ships
no annotations: `check_data.py` prints the digest, so that two copies of a split can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .refer import Reference


@dataclass(frozen=True)
class SplitCounts:
    """How many references, expressions and images a split has; None where it is not known."""

    references: int | None
    expressions: int | None = None
    images: int | None = None

    def __str__(self) -> str:
        known = {name: count for name, count in vars(self).items() if count is not None}
        return ', '.join(f'{count} {name}' for name, count in known.items())

    def differs(self, other: SplitCounts) -> bool:
        """Whether a count that both know differs."""
        pairs = zip(vars(self).values(), vars(other).values())
        return any(a != b for a, b in pairs if a is not None and b is not None)


# Folder and name of the split file -> split -> counts, as published. References and images: the
# catalogue of TensorFlow Datasets and the cards of jxu124/refcoco*. Expressions: FlagEval's page
# (RefCOCO); for the others those that are commonly given, whose sums are the 21,373 and 14,498 that
# the card of Ref-L4 has.
PUBLISHED_SPLITS: dict[str, dict[str, SplitCounts]] = {
    'refcoco/refs(unc)': dict(
        train=SplitCounts(42404, 120624, 16994),
        val=SplitCounts(3811, 10834, 1500),
        testA=SplitCounts(1975, 5657, 750),
        testB=SplitCounts(1810, 5095, 750),
    ),
    'refcoco+/refs(unc)': dict(
        train=SplitCounts(42278),
        val=SplitCounts(3805, 10758, 1500),
        testA=SplitCounts(1975, 5726, 750),
        testB=SplitCounts(1798, 4889, 750),
    ),
    'refcocog/refs(umd)': dict(
        train=SplitCounts(42226),
        val=SplitCounts(2573, 4896, 1300),
        test=SplitCounts(5023, 9602, 2600),
    ),
    'refcocog/refs(google)': dict(
        train=SplitCounts(44822, None, 24698), val=SplitCounts(5000, None, 4650)
    ),
    # 259,859 in all. (The 278,232 of the paper include some that the authors hold back.)
    'grefcoco/grefs(unc)': dict(
        train=SplitCounts(None, 209344),
        val=SplitCounts(None, 16870),
        testA=SplitCounts(None, 18712),
        testB=SplitCounts(None, 14933),
    ),
    'refcoco-m': dict(val=SplitCounts(2080, 5598, 1190)),
}
# Splits of mirrors that are not what their name says.
MIRRORS = {
    8811: "lmms-lab/RefCOCO's 'val': as many as the val of UNC and 5,000 more",
    7573: "lmms-lab/RefCOCOg's 'val': as many as the val of UMD and 5,000 more",
    5000: "lmms-lab/RefCOCO's 'test', or a split of Google",
}


@dataclass(frozen=True)
class Fingerprint:
    """Counts of a split, and a digest of its sentence ids.

    Attributes:
        counts: Numbers of references, expressions and images.
        digest: First 16 hexadecimal digits of the SHA-256 of the sorted sentence ids, each as a
            decimal number, joined by newlines.
    """

    counts: SplitCounts
    digest: str

    @classmethod
    def of(cls, references: Sequence[Reference]) -> Fingerprint:
        """Take the fingerprint of some references."""
        ids = sorted(sent_id for reference in references for sent_id in reference.sent_ids)
        images = {reference.image['id'] for reference in references}
        text = '\n'.join(map(str, ids))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(SplitCounts(len(references), len(ids), len(images)), digest)

    def __str__(self) -> str:
        known = ' and '.join(self.same_counts())
        told = f'the counts of {known}' if known else 'the counts of no published split'
        return f'{self.counts}; sentence ids {self.digest}; {told}'

    def same_counts(self) -> list[str]:
        """Name the published splits that have these counts."""
        return [
            f'{name} {split}'
            for name, splits in PUBLISHED_SPLITS.items()
            for split, counts in splits.items()
            if not counts.differs(self.counts)
        ]

    def remark(self, name: str, split: str) -> str | None:
        """Say what a split is, where its counts are not the published ones.

        Args:
            name: Key of :data:`PUBLISHED_SPLITS`; one that is none has no published counts.
            split: What the data set calls the split.

        Returns:
            The remark, or None if nothing is known against the name.
        """
        expected = PUBLISHED_SPLITS.get(name, {}).get(split)
        if expected is None or not expected.differs(self.counts):
            return None
        known = ' and '.join(self.same_counts()) or MIRRORS.get(self.counts.references)
        told = f'; by its counts it is {known}' if known else ''
        return f'{self.counts}, but {expected} were published{told}'
