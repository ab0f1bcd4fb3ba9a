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

from nemo_mmseg.datasets.transforms.loading import read_image
from nemo_mmseg.mining.requirements import held_out_images
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.visualization.drawing import add_caption, fit_image, make_grid
from nemo_mmseg.visualization.page import figure_png, html_table, image_tag, picture_tag, write_page

HEAD = (
    'setting',
    'left: min',
    'left: median',
    'used: min',
    'used: median',
    'empty, %',
    'too small, %',
    'reach the end, %',
)
NOTES = (
    'left: stored images that neither a threshold nor a leak guard drops; used: at most top_k of '
    'them. empty, too small: share of the expressions with no image in the band, or with fewer '
    'than the {needed} negatives of a mosaic. reach the end: share of the bands that the {stored} '
    'stored images do not fill though the pool has more (mine with a larger keep).'
)


_SIDE = 150  # of the small pictures, in pixels
_COLUMNS = 9  # 3 too close, 4 used, 2 too far
_BLANK = np.full((1, _SIDE, 3), 255, np.uint8)
_COLORS = {
    'too close': (140, 40, 40),
    'used': (30, 100, 50),
    'too far': (90, 90, 90),
    'too alike': (150, 80, 20),
}


@dataclass(frozen=True)
class RuleSummary:
    """What one setting leaves of a bank.

    Attributes:
        rule: The setting.
        left: (E,) stored images that neither a threshold nor the leak guard drops.
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
    def truncated(self) -> float:
        """Share of the bands that end with what is stored, not with what there is."""
        return float((self.used < self.rule.top_k).mean()) if self.more else 0.0

    def cells(self) -> list[str]:
        """A row of the table; see ``HEAD``."""
        numbers = [f'{f(v):g}' for v in (self.left, self.used) for f in (np.min, np.median)]
        shares = [f'{100 * v:.1f}' for v in (self.empty, self.too_small, self.truncated)]
        return [str(self.rule), *numbers, *shares]


def default_taus(bank: NegativeBank) -> dict[str, list[float]]:
    """Values of tau worth a look, by mode; the absolute ones follow this bank's similarities."""
    own = [bank.row(int(s))[2] for s in bank.sent_ids[:: max(1, len(bank) // 2000)]]
    quartiles = np.quantile(own, [0.25, 0.5, 0.75]).round(3).tolist()
    return dict(
        relative=[0.9, 0.95, 1.0],
        margin=[0.02, 0.05, 0.1],
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


def refine_rules(
    own: Iterable[BandRule], top_ks: Sequence[int] = (), i2i: Sequence[float] = ()
) -> list[BandRule]:
    """A config's settings, and those with another size or image-to-image threshold.

    Args:
        own: The config's settings.
        top_ks: Sizes of the band in place of theirs; theirs where there are none.
        i2i: Image-to-image thresholds beside theirs.

    Returns:
        The rules, the config's own first.

    Raises:
        ValueError: A setting makes no sense; see :meth:`BandRule.check`.
    """
    rules = list(own)
    for rule in list(rules):
        for top_k, most in product(top_ks or [rule.top_k], [rule.i2i_sim_thres, *i2i]):
            rules.append(rule._replace(top_k=top_k, i2i_sim_thres=most))
            rules[-1].check()
    return list(dict.fromkeys(rules))


def summarize_rules(
    bank: NegativeBank,
    rules: Iterable[BandRule],
    needed: int = 3,
    without: np.ndarray | None = None,
) -> list[RuleSummary]:
    """Count what settings leave.

    Args:
        bank: The bank.
        rules: The settings.
        needed: Negatives of a mosaic. Defaults to 3, those of a 2x2 grid.
        without: Which images (I,) bool are no negatives whatever their scores, see
            :func:`~nemo_mmseg.mining.wanted.held_out_images`. None for none.
    """
    rules, more = list(rules), bank.stored < bank.candidates - 1
    # Another top_k needs no second look at the bank.
    keys = list(dict.fromkeys(rule._replace(top_k=1) for rule in rules))
    left = dict(zip(keys, bank.left(keys, without)))
    summaries = []
    for rule in rules:
        most = left[rule._replace(top_k=1)]
        summaries.append(RuleSummary(rule, most, np.minimum(most, rule.top_k), needed, more))
    return summaries


def plot_summaries(summaries: Sequence[RuleSummary], stored: int) -> Figure:
    """How many of the stored images each threshold drops (boxes), and the shares that are too few.

    Args:
        summaries: Settings that differ in ``top_k`` alone have one line.
        stored: Images that the bank stores an expression.
    """
    shown = list({s.rule._replace(top_k=0): s for s in summaries}.values())
    figure = Figure(figsize=(11, 0.32 * len(shown) + 1.6), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(shown))[::-1]
    labels = [str(s.rule).replace(f', top_k={s.rule.top_k}', '') for s in shown]
    dropped = [stored - s.left for s in shown]
    left.boxplot(dropped, positions=places, vert=False, whis=(5, 95), showfliers=False)
    left.set_yticks(places, labels, fontsize=8)
    left.set_xlabel('boxes: quartiles; lines: 5 to 95 % of the expressions', fontsize=8)
    left.set(xscale='symlog', xlim=(-0.2, None))
    left.set_title(f'dropped of the {stored} stored images', fontsize=9)
    right.barh(places, [100 * s.too_small for s in shown], color='#bbbbbb', label='too small')
    right.barh(places, [100 * s.empty for s in shown], color='#c44e52', height=0.4, label='empty')
    right.set_xlim(0, max(1.0, 105 * max(s.too_small for s in shown)))
    right.set_title('bands, per cent of the expressions', fontsize=9)
    right.legend()
    return figure


def shown_expressions(dataset: Any, number: int) -> list[tuple[int, str, str]]:
    """Expressions spread over a data set, at most ``number``: sentence id, text, path of image."""
    sent_ids, texts, rows = dataset.expressions()
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(number, len(texts))).astype(int))
    return [(int(sent_ids[i]), texts[i], dataset.pool.path(rows[i])) for i in chosen]


def own_tile(bank: NegativeBank, sent_id: int, path: str) -> np.ndarray:
    """The own image of an expression as a small picture (H, W, 3) uint8."""
    return _tile(path, f'own image\n{bank.row(sent_id)[2]:.3f}')


def edge_tiles(
    wanted: Any, bank: NegativeBank, sent_id: int, rule: BandRule
) -> tuple[str, list[np.ndarray]]:
    """The images at the edges of an expression's band.

    Args:
        wanted: A :class:`nemo_mmseg.mining.WantedBank`.
        bank: Its bank.
        sent_id: Sentence id of the expression.
        rule: The setting.

    Returns:
        A sentence of the sizes, and small pictures (H, W, 3) uint8, each with its rank and its
        similarity to the expression: the last 3 images above tau, the first and last 2 that are
        used, and the first 2 that are too far. Groups have a fixed number of pictures, blank ones
        where there are fewer images, so that settings can be compared line by line. With
        ``i2i_sim_thres`` follow the images at its edge, each with its cosine to the own image: the
        2 used that are most alike, and the 2 dropped that are least alike. Images that the mosaic's
        leak guard drops are neither used nor too alike.
    """
    images = getattr(wanted.mosaic, 'images', None)
    own_pool = wanted.dataset.pool
    negatives = own_pool if images is None else wanted.mosaic.negatives(own_pool)
    rows, similarities, _ = bank.row(sent_id)
    leaked = held_out_images(wanted, bank)
    guarded = leaked is not None
    band = (
        wanted.mosaic.leak_guard.band(bank, sent_id, rule) if guarded else bank.band(sent_id, *rule)
    )
    used = np.flatnonzero(np.isin(rows, band.rows))
    # A band that is not full ends with what is stored.
    end = int(used[-1]) + 1 if len(used) == rule.top_k else len(rows)
    held_out = leaked[rows[:end]] if guarded else np.zeros(end, bool)

    def tiles(name: str, members: Sequence[int], number: int, cosines: Any = None) -> list:
        found = []
        for at in members:
            value = similarities[at] if cosines is None else cosines[at]
            path = negatives.path_of(bank.image_names[rows[at]])
            caption = f'{name}, rank {at + 1}\n{"" if cosines is None else "cosine "}{value:.3f}'
            found.append(_tile(path, caption, _COLORS[name]))
        return found + [_BLANK] * (number - len(found))

    pictures = [
        *tiles('too close', range(max(0, band.above - 3), band.above), 3),
        *tiles('used', used if len(used) <= 4 else [*used[:2], *used[-2:]], 4),
        *tiles('too far', range(end, min(end + 2, len(rows))), 2),
    ]
    sizes = f'{band.above} too close, {len(used)} used, {len(rows) - end} stored below'
    if guarded:
        sizes += f'; {held_out[band.above :].sum()} between them held out by the leak guard'
    if rule.i2i_sim_thres is not None:
        own = bank.image_vectors[bank.image_row[bank.sent_ids.searchsorted(sent_id)]]
        cosines = bank.image_vectors[rows[:end]].astype(np.float64) @ own.astype(np.float64)
        dropped = np.flatnonzero(np.isin(rows[:end], band.dropped) & ~held_out)
        sizes += f'; {len(dropped)} between them too alike'
        pictures += tiles('used', used[np.argsort(-cosines[used])][:2], 2, cosines)
        pictures += tiles('too alike', dropped[np.argsort(cosines[dropped])][:2], 2, cosines)
    return sizes, pictures


def _tile(path: str, caption: str, color: Sequence[int] = (30, 30, 30)) -> np.ndarray:
    """A picture as wide as all others, a high one with white beside it."""
    image = fit_image(np.ascontiguousarray(read_image(path)[..., ::-1]), _SIDE)
    wide = np.full((len(image), _SIDE, 3), 255, np.uint8)
    wide[:, : image.shape[1]] = image
    return add_caption(wide, caption, background=color, font_size=11, num_lines=2)


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
    needed = summaries[0].needed
    notes = NOTES.format(needed=needed, stored=bank.stored)
    parts = [
        f'<p>{html.escape(str(bank.path))}: {len(bank)} expressions, {bank.candidates} images that '
        f'can be negatives, {bank.stored} stored an expression.</p><h2>What is left</h2>',
        html_table(HEAD, [s.cells() for s in summaries]),
        f'<p>{notes}</p>',
        image_tag(figure_png(plot_summaries(summaries, bank.stored)), 'png', 'what is left'),
        '<h2>At the edges</h2><p>A good threshold drops the images that show what the expression '
        'describes, and no others: the last ones too close should show it, the first used ones '
        'should not. Above each image its similarity to the expression.</p>',
    ]
    for sent_id, text, image in shown_expressions(wanted.dataset, number):
        own = picture_tag(own_tile(bank, sent_id, image), text)
        parts.append(f'<h3>{html.escape(text)}</h3>{own}')
        for summary in summaries:
            sizes, tiles = edge_tiles(wanted, bank, sent_id, summary.rule)
            parts.append(f'<p><b>{html.escape(str(summary.rule))}</b>: {sizes}</p>')
            parts.append(picture_tag(make_grid(tiles, _COLUMNS), text))
    write_page(path, f'Bank {bank.metadata.get("dataset")}', '\n'.join(parts))
