"""What a bank leaves under many settings of the band, in numbers and in pictures."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from html_page import figure_png, html_table, image_tag, picture_tag, write_page
from matplotlib.figure import Figure

from nemo_mmseg.datasets.base import BaseReferringDataset
from nemo_mmseg.datasets.requirements import BankRequirement
from nemo_mmseg.negatives.band import BandRule
from nemo_mmseg.negatives.bank import NegativeBank
from nemo_mmseg.negatives.pool import folder_pool
from nemo_mmseg.utils.images import read_image
from nemo_mmseg.visualization.drawing import add_caption, fit_image, make_grid

HEAD = (
    'setting',
    'remaining: min',
    'remaining: median',
    'used: min',
    'used: median',
    'empty, %',
    'too small, %',
    'truncated, %',
)
NOTES = (
    'remaining: stored images that neither a threshold nor a leak guard drops. used: at most top_k '
    'of them. empty, too small: share of the expressions with no image in the band, or with fewer '
    'than the {needed} negatives of a mosaic. truncated: share of the bands that the {stored} '
    'stored images do not fill though the pool has more (mine with a larger keep).'
)
SIDE = 150  # of the small pictures, in pixels
COLORS = {
    'target image': (30, 30, 30),
    'too close': (140, 40, 40),
    'used': (30, 100, 50),
    'too far': (90, 90, 90),
    'too alike': (150, 80, 20),
}


def rules_to_show(
    bands: Sequence[BandRule],
    bank: NegativeBank,
    taus: Mapping[str, Sequence[float]] | None = None,
    top_ks: Sequence[int] = (),
    i2i: Sequence[float] = (),
) -> list[BandRule]:
    """List settings worth a look, each once.

    Args:
        bands: The config's own settings, which come first; the same with other sizes and
            image-to-image thresholds follow.
        bank: The bank; ranks beyond what it stores are left out.
        taus: Values of tau by mode. None for usual ones; the absolute ones are quartiles of the
            similarities to the own images.
        top_ks: Sizes of the band; those of ``bands`` where there are none.
        i2i: Image-to-image thresholds beside none.

    Returns:
        The settings of the config, the refined ones, then all combinations of the others.

    Raises:
        ValueError: A setting makes no sense, see :class:`BandRule`.
    """
    if not taus:
        own = [bank.row(int(s))[2] for s in bank.sent_ids[:: max(1, len(bank) // 2000)]]
        quartiles = np.quantile(own, [0.25, 0.5, 0.75]).round(3).tolist()
        taus = dict(relative=[0.9, 0.95, 1.0], margin=[0.02, 0.05, 0.1], rank=[0, 10, 50])
        taus = dict(taus, absolute=quartiles)
    rules = list(bands)
    for band in bands:
        for top_k, most in product(top_ks or [band.top_k], [band.i2i_sim_thres, *i2i]):
            rules.append(replace(band, top_k=top_k, i2i_sim_thres=most))
    for mode, values in taus.items():
        for tau, top_k, most in product(values, top_ks or [bands[-1].top_k], [None, *i2i]):
            if mode != 'rank' or tau < bank.stored:
                rules.append(BandRule(tau, mode, top_k, most))
    return list(dict.fromkeys(rules))


@dataclass(frozen=True)
class RuleSummary:
    """What one setting leaves of a bank.

    Attributes:
        rule: The setting.
        remaining: (E,) stored images that neither a threshold nor the leak guard drops.
        needed: Negatives of a mosaic.
        more: Whether the pool has more images than are stored.
    """

    rule: BandRule
    remaining: np.ndarray
    needed: int
    more: bool

    @property
    def used(self) -> np.ndarray:
        """(E,) images in the band, at most ``top_k``."""
        return np.minimum(self.remaining, self.rule.top_k)

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
        """Share of the bands that the stored images do not fill though the pool has more."""
        return float((self.used < self.rule.top_k).mean()) if self.more else 0.0

    def cells(self) -> list[str]:
        """Return a row of the table, see ``HEAD``."""
        numbers = [f'{f(v):g}' for v in (self.remaining, self.used) for f in (np.min, np.median)]
        shares = [f'{100 * v:.1f}' for v in (self.empty, self.too_small, self.truncated)]
        return [str(self.rule), *numbers, *shares]


def summarize_rules(
    requirement: BankRequirement, bank: NegativeBank, rules: Iterable[BandRule]
) -> list[RuleSummary]:
    """Count what settings leave of a bank."""
    rules, more = list(rules), bank.stored < bank.num_candidates - 1
    # Another top_k needs no second look at the bank.
    keys = list(dict.fromkeys(replace(rule, top_k=1) for rule in rules))
    remaining = dict(zip(keys, bank.num_remaining(keys, requirement.held_out(bank))))
    needed = requirement.num_negatives
    return [RuleSummary(rule, remaining[replace(rule, top_k=1)], needed, more) for rule in rules]


def plot_summaries(summaries: Sequence[RuleSummary], stored: int) -> Figure:
    """Plot how many of the stored images each setting drops, and which bands are too small.

    Args:
        summaries: Settings that differ in ``top_k`` alone have one line.
        stored: Images that the bank stores per expression.
    """
    shown = list({replace(s.rule, top_k=1): s for s in summaries}.values())
    figure = Figure(figsize=(11, 0.32 * len(shown) + 1.6), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(shown))[::-1]
    labels = [str(s.rule).replace(f', top_k={s.rule.top_k}', '') for s in shown]
    dropped = [stored - s.remaining for s in shown]
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


@dataclass(frozen=True)
class EdgeImage:
    """An image of a ranking, near an edge of the band.

    Attributes:
        group: ``'too close'``, ``'used'``, ``'too far'`` or ``'too alike'``.
        rank: Its place in the ranking, from 1.
        path: Its file.
        score: Its similarity to the expression, or its cosine to the expression's own image, as
            text.
    """

    group: str
    rank: int
    path: str
    score: str


def band_edges(
    requirement: BankRequirement, bank: NegativeBank, sent_id: int, rule: BandRule
) -> tuple[str, list[EdgeImage | None]]:
    """Find the images at the edges of an expression's band.

    Args:
        requirement: Data set and leak guard of the bank.
        bank: The bank.
        sent_id: Sentence id of the expression.
        rule: The setting.

    Returns:
        A sentence of the sizes, and images: the last 3 above tau, the first and last 2 that are
        used, and the first 2 that are too far. With ``i2i_sim_thres`` follow those at its edge: the
        2 used that are most like the own image, and the 2 dropped that are least like it. Groups
        have a fixed size, filled with None, so that settings can be compared line by line.
    """
    folder = requirement.spec.images
    pool = requirement.dataset.pool if folder is None else folder_pool(folder)
    rows, similarities, _ = bank.row(sent_id)
    without = requirement.held_out(bank)
    band = bank.band(sent_id, rule, without=without)
    start, used = band.num_above, np.flatnonzero(np.isin(rows, band.rows))
    # A band that is not full ends with what is stored.
    end = int(used[-1]) + 1 if len(used) == rule.top_k else len(rows)

    def group(name: str, places: Iterable[int], number: int, scores: Sequence[str]) -> list:
        found = [
            EdgeImage(name, int(at) + 1, pool.path_of(bank.image_names[rows[at]]), scores[at])
            for at in places
        ]
        return found + [None] * (number - len(found))

    scores = [f'{value:.3f}' for value in similarities]
    images = [
        *group('too close', range(max(0, start - 3), start), 3, scores),
        *group('used', used if len(used) <= 4 else [*used[:2], *used[-2:]], 4, scores),
        *group('too far', range(end, min(end + 2, len(rows))), 2, scores),
    ]
    sizes = f'{start} too close, {len(used)} used, {len(rows) - end} stored below'
    if without is not None:
        sizes += f'; {without[rows[start:end]].sum()} between them held out by the leak guard'
    if rule.i2i_sim_thres is not None:
        own = bank.image_vectors[bank.image_row[bank.sent_ids.searchsorted(sent_id)]]
        cosines = bank.image_vectors[rows].astype(np.float64) @ own.astype(np.float64)
        dropped = np.flatnonzero(np.isin(rows, band.dropped))
        sizes += f'; {len(dropped)} between them too alike'
        scores = [f'cosine {value:.3f}' for value in cosines]
        images += group('used', used[np.argsort(-cosines[used])][:2], 2, scores)
        images += group('too alike', dropped[np.argsort(cosines[dropped])][:2], 2, scores)
    return sizes, images


def draw_tile(path: str, caption: str, color: Sequence[int]) -> np.ndarray:
    """Draw an image as a small picture (H, W, 3) uint8 RGB, as wide as all others."""
    image = fit_image(np.ascontiguousarray(read_image(path)[..., ::-1]), SIDE)
    wide = np.full((len(image), SIDE, 3), 255, np.uint8)
    wide[:, : image.shape[1]] = image
    return add_caption(wide, caption, background=color, font_size=11, num_lines=2)


def draw_edges(images: Sequence[EdgeImage | None]) -> list[np.ndarray]:
    """Draw images at the edges of a band; blank pictures for None."""
    blank = np.full((1, SIDE, 3), 255, np.uint8)
    return [
        draw_tile(one.path, f'{one.group}, rank {one.rank}\n{one.score}', COLORS[one.group])
        if one
        else blank
        for one in images
    ]


def draw_own_image(bank: NegativeBank, sent_id: int, path: str) -> np.ndarray:
    """Draw the own image of an expression, with its similarity to it."""
    return draw_tile(path, f'own image\n{bank.row(sent_id)[2]:.3f}', COLORS['target image'])


def shown_expressions(dataset: BaseReferringDataset, number: int) -> list[tuple[int, str, str]]:
    """Return sentence id, expression and path of the image, spread over a data set."""
    sent_ids, expressions, rows = dataset.expressions()
    last = len(expressions) - 1
    chosen = np.unique(np.linspace(0, last, min(number, last + 1)).astype(int))
    return [(int(sent_ids[i]), expressions[i], dataset.pool.path(rows[i])) for i in chosen]


def write_bank_page(
    path: str | os.PathLike,
    requirement: BankRequirement,
    bank: NegativeBank,
    summaries: Sequence[RuleSummary],
    number: int = 4,
) -> None:
    """Write the page about a bank: table, plot, and the bands' edges for some expressions.

    Args:
        path: File to write.
        requirement: Data set and leak guard of the bank.
        bank: The bank.
        summaries: Of :func:`summarize_rules`, in the order in which they are shown.
        number: Expressions whose bands are shown. Defaults to 4.
    """
    notes = NOTES.format(needed=requirement.num_negatives, stored=bank.stored)
    parts = [
        f'<p>{html.escape(str(bank.path))}: {len(bank)} expressions, {bank.num_candidates} images '
        f'that can be negatives, {bank.stored} stored per expression.</p><h2>What remains</h2>',
        html_table(HEAD, [s.cells() for s in summaries]),
        f'<p>{notes}</p>',
        image_tag(figure_png(plot_summaries(summaries, bank.stored)), 'png', 'what remains'),
        '<h2>At the edges</h2><p>A good threshold drops the images that show what the expression '
        'describes, and no others. The last ones too close should show it, the first used ones '
        'should not. Above each image stands its similarity to the expression.</p>',
    ]
    for sent_id, text, image in shown_expressions(requirement.dataset, number):
        own = picture_tag(draw_own_image(bank, sent_id, image), text)
        parts.append(f'<h3>{html.escape(text)}</h3>{own}')
        for summary in summaries:
            sizes, images = band_edges(requirement, bank, sent_id, summary.rule)
            parts.append(f'<p><b>{html.escape(str(summary.rule))}</b>: {sizes}</p>')
            parts.append(picture_tag(make_grid(draw_edges(images), 9), text))
    write_page(path, f'Bank {bank.metadata.get("dataset")}', '\n'.join(parts))
