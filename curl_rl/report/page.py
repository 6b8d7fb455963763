"""Pages of HTML that are one file: pictures and videos are in it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Kind = Literal["png", "gif", "svg+xml"]

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1120px; margin: 0 auto;
  padding: 1.5rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.4rem; margin-top: 3rem; border-bottom: 2px solid #0072b2; }
h3 { font-size: 1.1rem; margin-top: 2rem; } h4 { margin: 1rem 0 .3rem; font-weight: 600; color: #555; }
nav { background: #f3f6f9; padding: .6rem 1rem; border-radius: 6px; } nav a { margin-right: 1.2em; }
a { color: #00588a; text-decoration: none; }
figure { margin: 1rem 0; } figcaption, .note { color: #555; font-size: .9rem; }
.note { border-left: 4px solid #bbb; padding: .2rem .8rem; }
.fault { border-left: 5px solid #d55e00; background: #fdf3ec; padding: .4rem 1rem; margin: 1rem 0; }
.sound { border-left: 5px solid #009e73; background: #eef8f4; padding: .4rem 1rem; }
img { max-width: 100%; height: auto; } img.pixels { image-rendering: pixelated; }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; } .row figure { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2rem .9rem .2rem 0; }
th { text-align: left; border-bottom: 1px solid #999; } th:empty { border: 0; padding: 0; }
td { border-bottom: 1px solid #e5e5e5; overflow-wrap: break-word; }
.numbers th, .numbers td { text-align: right; } .scroll { max-height: 26rem; overflow: auto; }
pre { background: #f5f5f5; padding: .8rem; overflow: auto; max-height: 30rem; font-size: .82rem; }
summary { cursor: pointer; color: #00588a; }
"""
# The browser itself refuses whatever a page would load from elsewhere or run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass
class Section:
    """A section of a page, to which HTML is added piece by piece."""

    title: str
    pieces: list[str] = field(default_factory=list)

    def text(self, words: str) -> None:
        """Adds a paragraph."""
        self.pieces.append(f"<p>{html.escape(words)}</p>")

    def note(self, words: str) -> None:
        """Adds a remark, such as why something is missing."""
        self.pieces.append(f'<p class="note">{html.escape(words)}</p>')

    def heading(self, words: str, *, small: bool = False) -> None:
        """Begins a part of the section, or a ``small`` one of such a part."""
        level = "h4" if small else "h3"
        self.pieces.append(f"<{level}>{html.escape(words)}</{level}>")

    def box(self, kind: Literal["fault", "sound"], title: str, lines: Iterable[str]) -> None:
        """Adds a colored box."""
        body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        self.pieces.append(f'<div class="{kind}"><strong>{html.escape(title)}</strong>{body}</div>')

    def table(self, rows: Sequence[Sequence[str]], *, numbers: bool = False) -> None:
        """Adds a table, whose first row is the heading; without one, the row is empty."""
        heading, *body = rows
        cells = [("th", heading), *(("td", row) for row in body)]
        lines = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in cells)
        kind = ' class="numbers"' if numbers else ""
        self.pieces.append(
            f'<div class="scroll"><table{kind}>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
        )

    def folded(self, title: str, text: str) -> None:
        """Adds a long text that is shown on a click."""
        self.pieces.append(f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>")

    def figure(self, *figures: str) -> None:
        """Adds one or several results of :func:`figure`, side by side."""
        self.pieces.append(f'<div class="row">{"".join(figures)}</div>')


def figure(content: bytes, kind: Kind, caption: str, *, width: int | None = None, captioned: bool = True) -> str:
    """A picture with its caption.

    Args:
        content: the encoded picture.
        kind: its format.
        caption: one line, which also stands for the picture where it cannot be seen.
        width: of the picture on the page, in pixels; its pixels are shown as squares. None: its own size.
        captioned: print the caption below the picture.
    """
    data = base64.b64encode(content).decode()
    shown = f' class="pixels" style="width: {width}px"' if width else ""
    words = html.escape(caption, quote=True)
    image = f'<img{shown} src="data:image/{kind};base64,{data}" alt="{words}">'
    below = f"<figcaption>{words}</figcaption>" if captioned else ""
    return f"<figure>{image}{below}</figure>"


def png(picture: Tensor | np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A picture, ``(3, H, W)`` as a tensor or ``(H, W, 3)`` as an array, both uint8, as PNG."""
    pixels = picture.permute(1, 2, 0).to(torch.uint8).cpu().numpy() if isinstance(picture, Tensor) else picture
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page, with links to its sections if there are several."""
    links = "".join(f'<a href="#s{number}">{html.escape(one.title)}</a>' for number, one in enumerate(sections))
    navigation = f"<nav>{links}</nav>\n" if len(sections) > 1 else ""
    parts = [
        f'<section id="s{number}"><h2>{html.escape(one.title)}</h2>\n{chr(10).join(one.pieces)}</section>'
        for number, one in enumerate(sections)
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{navigation}{chr(10).join(parts)}\n</body></html>\n"
    )
