"""What a bank leaves under many settings, in numbers and in pictures, to choose tau by looking."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..datasets.transforms.load_referring_image import read_image
from ..mining.band import BandRule
from ..mining.bank import NegativeBank
from .drawing import add_caption, fit_image, make_grid
from .page import figure_png, html_table, image_tag, picture_tag, write_page

HEAD = (
    'setting',
    'left: min',
    'median',
    'used: min',
    'median',
    'empty, %',
    'too small, %',
    'reach the end, %',
)
NOTES = (
    'left: stored images that no threshold drops; used: at most top_k of them. empty, too small: '
    'share of the expressions with no image in the band, or with fewer than the {needed} negatives '
    'of a mosaic. reach the end: share of the bands that the {stored} stored images do not fill '
    'though the pool has more (mine with a larger keep).'
)


@dataclass(frozen=True)
class RuleSummary:
    """What one setting leaves of a bank.

    Attributes:
        rule: The setting.
        left: (E,) stored images that no threshold drops.
        used: (E,) images in the band, at most ``top_k``.
        needed: Negatives of a mosaic.
        more: Whether the pool has more images than are stored.
    """

    rule: BandRule
    left: np.ndarray
    used: np.ndarray
    needed: int
    more: bool

    @property
    def empty(self) -> float:
        """Share of the expressions whose band is empty."""
        return float((self.used == 0).mean())

    @property
    def too_small(self) -> float:
        """Share of the expressions with fewer images in the band than a mosaic needs."""
        return float((self.used < self.needed).mean())

    @property
    def exhausted(self) -> float:
        """Share of the bands that end with what is stored, not with what there is."""
        return float((self.used < self.rule.top_k).mean()) if self.more else 0.0

    def cells(self) -> list[str]:
        """A row of the table; see ``HEAD``."""
        numbers = [f'{f(v):g}' for v in (self.left, self.used) for f in (np.min, np.median)]
        shares = [f'{100 * v:.1f}' for v in (self.empty, self.too_small, self.exhausted)]
        return [str(self.rule), *numbers, *shares]


def default_taus(bank: NegativeBank) -> dict[str, list[float]]:
    """Values of tau worth a look, by mode; the absolute ones follow this bank's similarities."""
    own = [bank.row(int(s))[2] for s in bank.sent_ids[:: max(1, len(bank) // 2000)]]
    quartiles = np.quantile(own, [0.25, 0.5, 0.75]).round(3).tolist()
    return dict(
        relative=[0.9, 0.95, 1.0],
        margin=[0.0, 0.02, 0.05],
        absolute=list(dict.fromkeys(quartiles)),
        rank=[0, 10, 50],
    )


def make_rules(
    taus: dict[str, Sequence[float]],
    top_ks: Sequence[int] = (100,),
    i2i: Sequence[float | None] = (None,),
    keep: int | None = None,
) -> list[BandRule]:
    """All combinations of settings.

    Args:
        taus: By mode the values of tau.
        top_ks: Sizes of the band.
        i2i: Image-to-image thresholds, None for none.
        keep: Images that the bank stores an expression; ranks from there on are left out.

    Returns:
        The rules.

    Raises:
        ValueError: A setting makes no sense; see :meth:`BandRule.check`.
    """
    rules = []
    for mode, values in taus.items():
        for tau, top_k, most in product(values, top_ks, i2i):
            tau = int(tau) if mode == 'rank' and tau == int(tau) else tau
            rule = BandRule(tau, mode, top_k, most)
            rule.check()
            if mode != 'rank' or keep is None or tau < keep:
                rules.append(rule)
    return rules


def summarize_rules(
    bank: NegativeBank, rules: Iterable[BandRule], needed: int = 3
) -> list[RuleSummary]:
    """Count what settings leave.

    Args:
        bank: The bank.
        rules: The settings.
        needed: Negatives of a mosaic. Defaults to 3, those of a 2x2 grid.
    """
    more, left = bank.stored < bank.candidates - 1, {}
    summaries = []
    for rule in rules:
        key = rule._replace(top_k=bank.stored)
        if key not in left:  # sizes for another top_k need no second look at the bank
            left[key] = bank.band_sizes(*key)
        used = np.minimum(left[key], rule.top_k)
        summaries.append(RuleSummary(rule, left[key], used, needed, more))
    return summaries


def plot_summaries(summaries: Sequence[RuleSummary]) -> Figure:
    """How many stored images each threshold leaves (boxes), and the shares that are too few."""
    shown = list({s.rule._replace(top_k=0): s for s in summaries}.values())
    figure = Figure(figsize=(11, 0.32 * len(shown) + 1.6), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(shown))[::-1]
    labels = [str(s.rule).replace(f', top_k={s.rule.top_k}', '') for s in shown]
    left.boxplot([s.left for s in shown], positions=places, vert=False, whis=(0, 100))
    left.set_yticks(places, labels, fontsize=8)
    left.set(title='stored images left, by expression', xscale='symlog', xlim=(-0.2, None))
    right.barh(places, [100 * s.too_small for s in shown], color='#bbbbbb', label='too small')
    right.barh(places, [100 * s.empty for s in shown], color='#c44e52', label='empty')
    right.set(title='bands, per cent of the expressions', xlim=(0, 100))
    right.legend()
    return figure


def edge_tiles(wanted: Any, bank: NegativeBank, at: int, rule: BandRule) -> tuple[str, list]:
    """The images at the edges of an expression's band.

    Args:
        wanted: A :class:`nemo_mmseg.mining.WantedBank`.
        bank: Its bank.
        at: Number of the expression in ``dataset.expressions()``.
        rule: The setting.

    Returns:
        A sentence of the sizes, and small pictures (H, W, 3) uint8: the own image, the last images
        that are too close, the first and last that are used, and the first that are too far.
    """
    sent_ids, _, own_rows = wanted.dataset.expressions()
    own_pool = wanted.dataset.pool
    images = getattr(wanted.mosaic, 'images', None)
    negatives = own_pool if images is None else wanted.mosaic.negatives(own_pool)
    rows, similarities, own = bank.row(int(sent_ids[at]))
    band = bank.band(int(sent_ids[at]), *rule)
    used = np.flatnonzero(np.isin(rows, band.rows))
    end = band.above + len(band.rows) + len(band.dropped)
    dropped = np.flatnonzero(np.isin(rows[:end], [*rows[: band.above], *band.dropped]))
    groups = {
        'too close': dropped[-3:],
        'used': used if len(used) <= 4 else [*used[:2], *used[-2:]],
        'too far': range(end, min(end + 2, len(rows))),
    }
    tiles = [_tile(own_pool.path(own_rows[at]), f'own image\n{own:.3f}')]
    for name, members in groups.items():
        for member in members:
            path = negatives.path_of(bank.image_names[rows[member]])
            caption = f'{name}, rank {member + 1}\n{float(similarities[member]):.3f}'
            tiles.append(_tile(path, caption))
    sizes = f'{len(dropped)} too close, {len(band.rows)} used, {len(rows) - end} stored below'
    return sizes, tiles


def _tile(path: str, caption: str) -> np.ndarray:
    image = np.ascontiguousarray(read_image(path)[..., ::-1])
    return add_caption(fit_image(image, 150), caption, font_size=11, num_lines=2)


def chosen_expressions(total: int, number: int) -> np.ndarray:
    """Numbers of expressions spread over a data set, rising, at most ``number``."""
    return np.unique(np.linspace(0, total - 1, min(number, total)).astype(int))


def write_bank_page(
    path: str | os.PathLike,
    wanted: Any,
    bank: NegativeBank,
    summaries: Sequence[RuleSummary],
    number: int = 4,
) -> None:
    """Write the page about a bank: table, plot, and the bands' edges for some expressions.

    Args:
        path: File to write.
        wanted: The mosaic and data set of the bank.
        bank: The bank.
        summaries: Of :func:`summarize_rules`, in the order in which they are shown.
        number: Expressions whose bands are shown. Defaults to 4.
    """
    _, texts, _ = wanted.dataset.expressions()
    needed = summaries[0].needed
    notes = NOTES.format(needed=needed, stored=bank.stored)
    parts = [
        f'<p>{html.escape(str(bank.path))}: {len(bank)} expressions, {bank.candidates} images that '
        f'can be negatives, {bank.stored} stored an expression.</p><h2>What is left</h2>',
        html_table(HEAD, [s.cells() for s in summaries]),
        f'<p>{notes}</p>',
        image_tag(figure_png(plot_summaries(summaries)), 'png', 'what is left'),
        '<h2>At the edges</h2><p>A good threshold drops the images that show what the expression '
        'describes, and no others: the last ones too close should show it, the first used ones '
        '.</p>',
    ]
    for at in chosen_expressions(len(texts), number):
        parts.append(f'<h3>{html.escape(texts[at])}</h3>')
        for summary in summaries:
            sizes, tiles = edge_tiles(wanted, bank, int(at), summary.rule)
            parts.append(f'<p><b>{html.escape(str(summary.rule))}</b>: {sizes}</p>')
            parts.append(picture_tag(make_grid(tiles, len(tiles)), texts[at]))
    write_page(path, f'Bank {bank.metadata.get("dataset")}', '\n'.join(parts))
