"""The page of the web demo: what it shows, and what happens when its controls are used."""

import base64
import html
import io
import os
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from nemo_mmseg.webdemo import (
    MosaicBrowser,
    MosaicView,
    PictureSegmenter,
    SegmentedPicture,
    Tile,
)

os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')  # the page calls nobody
import gradio as gr  # noqa: E402

MAX_FILE = '30mb'
# Gradio's own fonts come from the web.
THEME = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
CSS = """
.trouble {border-left: 4px solid #c0392b; padding: .5rem .8rem; background: #c0392b1a}
.trouble p {margin: 0}
table:is(.answers, .ranking) {width: 100%; font-size: .9rem}
table:is(.answers, .ranking), :is(.answers, .ranking) :is(thead, tbody, tr) {border: 0 !important}
:is(.answers, .ranking) :is(td, th) {border: 0 !important; text-align: left;
  border-bottom: 1px solid #8884 !important; padding: .3rem .5rem !important}
table.ranking :is(td, th) {white-space: nowrap}
.ranking-box {max-height: 30rem; overflow: auto}
table.ranking tr.in-band {background: #1e643222}
.chosen {font-weight: 700}
.tiles {display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr))}
.tiles figure {margin: 0; border: 1px solid #8884; border-radius: .3rem; overflow: hidden}
.tiles img {width: 100%; height: 8rem; object-fit: contain; display: block; margin: 0}
.tiles figcaption {margin: 0; padding: .2rem .4rem; color: #fff; font-size: .8rem}
.tiles.large {grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr))}
.tiles.large img {height: auto}
.tiles.large figcaption {font-size: .9rem}
#mosaic img {width: 100%; height: 100%; object-fit: contain}
"""
# Of the captions: what the image of a ranking is -> colour.
COLORS = {
    'above tau': '#8c2828',
    'in the band': '#1e6432',
    'too alike': '#965014',
    'held back': '#464682',
    'below the band': '#5a5a5a',
}
# Rows of a ranking above tau that are shown.
ROWS_ABOVE = 10
TAU_MEANS = {
    'relative': "share of the expression's similarity to its own image",
    'margin': "distance below the expression's similarity to its own image",
    'absolute': 'similarity',
    'rank': 'images dropped from the top of the ranking',
}


def trouble(message: str) -> str:
    """Return a message for the person at the page, as HTML."""
    text = html.escape(message[:1].upper() + message[1:])
    return f'<div class="trouble" role="alert"><p>{text}</p></div>'


def told(
    function: Callable[..., list], num_outputs: int, failed: object = None
) -> Callable[..., list]:
    """Let a handler of the page end with a message where it fails.

    Args:
        function: Returns the values of the outputs.
        num_outputs: How many it returns.
        failed: What the outputs then become; empty by default.

    Returns:
        The same, with the message as the first output.
    """

    def run(*inputs: object) -> list:
        try:
            return ['', *function(*inputs)]
        except ValueError as error:
            return [trouble(str(error)), *[failed] * num_outputs]
        # The page never shows a traceback or a folder of the server, and the server goes on.
        except Exception:
            traceback.print_exc()
            message = 'this went wrong on the server; its log says why'
            return [trouble(message), *[failed] * num_outputs]

    return run


def answers_table(answer: SegmentedPicture) -> str:
    """Return expressions, verdicts and sizes as an HTML table."""
    rows = ''
    for record, verdict in zip(answer.records, answer.verdicts, strict=True):
        share = record['area'] / (record['rle']['size'][0] * record['rle']['size'][1])
        cells = record['expression'], verdict, f'{100 * share:.1f} %'
        rows += ''.join(['<tr>', *(f'<td>{html.escape(cell)}</td>' for cell in cells), '</tr>'])
    head = '<tr><th>expression</th><th>answer</th><th>share of the picture</th></tr>'
    return f'<table class="answers">{head}{rows}</table>'


def ranking_table(view: MosaicView) -> str:
    """Return the ranking near the band as an HTML table; rows of the band are marked."""
    rows = ''
    hidden = max(0, sum(one.state == 'above tau' for one in view.candidates) - ROWS_ABOVE)
    for one in view.candidates[hidden:]:
        marks = ['in-band'] * (one.state == 'in the band') + ['chosen'] * one.chosen
        state = f'{one.state}, in the mosaic' if one.chosen else one.state
        cells = str(one.rank), f'{one.similarity:.3f}', state, one.name
        cells = ''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)
        rows += f'<tr class="{" ".join(marks)}">{cells}</tr>'
    head = '<tr><th>rank</th><th>similarity</th><th></th><th>image</th></tr>'
    more = f'<p>{hidden} more images are above tau.</p>' if hidden else ''
    table = f'<div class="ranking-box"><table class="ranking">{head}{rows}</table></div>'
    return f'<h3>The ranking</h3>{more}{table}'


def figure(picture: np.ndarray, caption: str, color: str) -> str:
    """Return a picture (H, W, 3) uint8 RGB over a caption of several lines as HTML."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, 'JPEG', quality=90)
    source = f'data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}'
    text = html.escape(caption).replace('\n', '<br>')
    caption = f'<figcaption style="background:{color}">{text}</figcaption>'
    return f'<figure><img src="{source}" alt="">{caption}</figure>'


def overlays_html(answer: SegmentedPicture) -> str:
    """Return the picture with each mask as HTML."""
    figures = [
        figure(overlay, f'{record["expression"]}\n{verdict}', COLORS['below the band'])
        for overlay, record, verdict in zip(
            answer.overlays, answer.records, answer.verdicts, strict=True
        )
    ]
    return f'<div class="tiles large">{"".join(figures)}</div>'


def tiles_html(title: str, tiles: Sequence[Tile]) -> str:
    """Return images of a ranking as HTML; nothing where there are none."""
    figures = ''
    for tile in tiles:
        one = tile.candidate
        text = f'rank {one.rank}, {one.similarity:.3f}\n{one.state}' if one else 'random'
        figures += figure(tile.picture, text, COLORS[one.state if one else 'below the band'])
    return f'<h3>{title}</h3><div class="tiles">{figures}</div>' if figures else ''


def describe_view(view: MosaicView) -> str:
    """Say in words what a band leaves and where the mosaic is from, as Markdown."""
    counts = [
        f'{sum(one.state == state for one in view.candidates)} {state}'
        for state in ('above tau', 'in the band', 'too alike', 'held back')
    ]
    own = f'Similarity to its own image: {view.own_similarity:.3f}.'
    text = f'{own} {", ".join(counts[:2] + [c for c in counts[2:] if c[0] != "0"])} ({view.rule}).'
    if view.epoch is None:
        return f'{text}\n\nNo epoch near here shows this expression in a mined mosaic.'
    filled = view.record['num_filled']
    text += f'\n\nThe mosaic is sample {view.index} of epoch {view.epoch} (both from 0).'
    return text + (f' The band is too small: {filled} cells are random.' if filled else '')


def picture_tab(segment: PictureSegmenter, about: str, examples: list[list[str]]) -> None:
    """Lay out the tab of own pictures."""

    def answer(path: str | None, text: str) -> list:
        found = segment(path, text)
        return [answers_table(found) + overlays_html(found), [str(file) for file in found.files]]

    if about:
        with gr.Accordion('What this network can do', open=False):
            gr.Markdown(about)
    with gr.Row():
        with gr.Column():
            picture = gr.Image(
                label='Picture', sources=['upload', 'webcam', 'clipboard'], type='filepath',
                height=320, elem_id='picture', webcam_options=gr.WebcamOptions(mirror=False),
            )  # fmt: skip
            # The file as it was uploaded: `segment` decodes it, by this package's rules.
            picture.preprocess = lambda payload: payload and payload.path
            text = gr.Textbox(
                label='Expressions, one a line', lines=3, elem_id='expressions',
                placeholder='the red car\nthe man on the left',
            )  # fmt: skip
            button = gr.Button('Segment', variant='primary', elem_id='segment')
        with gr.Column():
            message = gr.HTML(elem_id='picture-message')
            answers = gr.HTML(elem_id='answers')
            files = gr.File(
                label='Masks as PNG, all answers as JSON', file_count='multiple',
                interactive=False, elem_id='files',
            )  # fmt: skip
    if examples:  # below the answers, which on a phone come right after the button
        gr.Examples(examples, [picture, text], cache_examples=False)
    outputs = [answers, files]
    button.click(
        told(answer, len(outputs)), [picture, text], [message, *outputs], concurrency_limit=1
    )


def find_expressions(browser: MosaicBrowser, words: str) -> list:
    """Return the list of expressions that hold some words; the first one is chosen."""
    found = browser.find(words)
    if not found:
        raise ValueError(f'no expression holds "{words}"')
    return [gr.update(choices=found, value=found[0][1])]


def show_mosaic(
    browser: MosaicBrowser, number: int | None, tau: float, top_k: float, seed: float, epoch: float
) -> list:
    """Return note, mosaic, negatives and ranking of an expression, see :class:`MosaicBrowser`."""
    if number is None:
        raise ValueError('choose an expression')
    if seed is None or epoch is None or seed < 0 or epoch < 0:
        raise ValueError('seed and epoch are whole numbers from 0 on')
    view = browser.show(int(number), tau, int(top_k), int(seed), int(epoch))
    negatives = tiles_html('Its negatives', view.negatives)
    edges = tiles_html('At the edges of the band', view.ranking)
    return [describe_view(view), view.mosaic, negatives, edges + ranking_table(view)]


def mosaic_controls(browser: MosaicBrowser) -> list[gr.components.Component]:
    """Lay out what an expression, a band and a sample are chosen by; the search is the first."""
    rule, (low, high), listed = browser.rule, browser.tau_range, browser.find()
    words = gr.Textbox(label='Search', placeholder='red star', elem_id='search')
    expression = gr.Dropdown(
        listed, value=listed[0][1], label='Expression (sentence id)',
        elem_id='expression', filterable=False,
    )  # fmt: skip
    tau = gr.Slider(
        low, high, high if rule.tau is None else rule.tau,
        step=1 if rule.tau_mode == 'rank' else 0.005, elem_id='tau',
        label=f'tau: {TAU_MEANS[rule.tau_mode]}',
    )  # fmt: skip
    most = max(rule.top_k, browser.sources[0].bank.stored)
    top_k = gr.Slider(
        1, most, rule.top_k, step=1, elem_id='top-k', label='top_k: images in the band'
    )
    with gr.Row():
        seed = gr.Number(browser.seed, precision=0, label='Seed', elem_id='seed', min_width=90)
        epoch = gr.Number(0, precision=0, label='From epoch', elem_id='epoch', min_width=90)
    return [words, expression, tau, top_k, seed, epoch]


def mosaic_tab(browser: MosaicBrowser, tab: gr.Tab) -> None:
    """Lay out the tab of mosaics, which is filled when it is first looked at."""
    with gr.Row():
        with gr.Column():
            words, *inputs = mosaic_controls(browser)
        with gr.Column():
            message = gr.HTML(elem_id='mosaic-message')
            note = gr.Markdown(elem_id='note')
            mosaic = gr.Image(
                label='The mosaic', show_label=False, elem_id='mosaic', format='png', height=420,
                interactive=False, buttons=['download', 'fullscreen'],
            )  # fmt: skip
            negatives = gr.HTML(elem_id='negatives')
    ranking = gr.HTML(elem_id='ranking')
    outputs = [note, mosaic, negatives, ranking]
    gr.on(
        [tab.select, *(one.change for one in inputs)],
        told(partial(show_mosaic, browser), len(outputs)), inputs, [message, *outputs],
        trigger_mode='always_last', concurrency_limit=1, show_progress='minimal',
    )  # fmt: skip
    # An empty expression would change, too, and its message replace that of the search.
    find = told(partial(find_expressions, browser), 1, failed=gr.skip())
    words.submit(find, words, [message, inputs[0]])


def build_page(
    segment: PictureSegmenter,
    browser: MosaicBrowser | str,
    about: str = '',
    examples: list[list[str]] | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        segment: Answers for pictures.
        browser: Shows mosaics; or why there are none.
        about: What the network can do, as Markdown.
        examples: Pairs of a picture's path and expressions.
    """
    with gr.Blocks(title='nemo_mmseg', analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown('# Referring image segmentation\nGive a picture and what to look for in it.')
        with gr.Tab('Your picture'):
            picture_tab(segment, about, examples or [])
        with gr.Tab('Mosaics') as tab:
            if isinstance(browser, str):
                gr.HTML(trouble(browser), elem_id='mosaic-message')
            else:
                mosaic_tab(browser, tab)
    return page


def serve(page: gr.Blocks, host: str, port: int | None, **options: object) -> tuple:
    """Serve the page.

    Args:
        page: Of :func:`build_page`.
        host: Address to listen at.
        port: Its port; None for a free one.
        **options: Others of gradio's ``launch``.

    Returns:
        What ``launch`` does: the application, and its local and public address.
    """
    return page.launch(
        server_name=host, server_port=port, max_file_size=MAX_FILE, theme=THEME, css=CSS,
        footer_links=[], ssr_mode=False, **options,
    )  # fmt: skip
