"""Self-contained HTML pages: pictures, plots and tables inside the file."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from nemo_mmseg.utils.atomic_write import write_text

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0
1rem;color:#222}} img{{max-width:100%}} table{{border-collapse:collapse}} td,th{{border:1px solid
#ccc;padding:.3rem .7rem}} td{{text-align:right}} td:first-child,th{{text-align:left}}
h2{{margin-top:2.5rem}} p{{max-width:55rem}} pre{{overflow-x:auto;background:#f4f4f4;padding:.7rem}}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def write_page(path: str | os.PathLike, title: str, body: str) -> None:
    """Write a page.

    Args:
        path: File to write; its folder is made.
        title: Its title, as text.
        body: What stands below the title, as HTML.
    """
    write_text(path, _PAGE.format(title=html.escape(title), body=body))


def image_tag(content: bytes, kind: str, title: str) -> str:
    """Return an HTML tag that holds an image file.

    Args:
        content: The file.
        kind: ``'png'`` or ``'jpeg'``.
        title: Text for those who cannot see it.
    """
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/{kind};base64,{data}">'


def picture_tag(image: np.ndarray, title: str) -> str:
    """Return a tag that holds an array (H, W, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=85)
    return image_tag(buffer.getvalue(), 'jpeg', title)


def figure_png(figure: Figure) -> bytes:
    """Return a matplotlib figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; texts are escaped."""
    lines = [''.join(f'<th>{html.escape(str(cell))}</th>' for cell in head)]
    lines += [''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row) for row in rows]
    return '<table>' + ''.join(f'<tr>{line}</tr>' for line in lines) + '</table>'
