"""How the pictures look: colors, markers and lines that survive gray print and color blindness, and their files."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably

# Okabe and Ito's palette, without its yellow, which is too light on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))

FORMATS = (".png", ".svg", ".pdf")
"""Endings of the picture files that can be written."""


def headless_pyplot() -> Any:
    """matplotlib's pyplot with a file backend, which needs no display.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
    """
    try:
        import matplotlib
    except ImportError:
        advice = "pip install matplotlib, or install this package with the extra [plot]"
        raise ImportError(f"matplotlib is missing: {advice}") from None
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # names are texts, and a $ in one begins no formula
    from matplotlib import pyplot

    return pyplot


def styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Color, marker and line by label, as arguments of ``Axes.plot``; the first 28 are all different.

    Neighbors differ in all three, and so do the first labels of one color, so that gray print and color-blind readers
    tell them apart.
    """
    found = {}
    for label, number in zip(dict.fromkeys(labels), itertools.count()):
        again, kind = divmod(number, len(_COLORS))
        line = _LINES[(kind + again) % len(_LINES)]
        marker = _MARKERS[(kind + 3 * again) % len(_MARKERS)]
        found[label] = {"color": _COLORS[kind], "marker": marker, "linestyle": line}
    return found


def in_legends(name: str) -> str:
    """A name as a label of matplotlib, which leaves names that begin with an underscore out of legends."""
    return f" {name}" if name.startswith("_") else name


def check_format(out: Path) -> None:
    """Checks that a picture can be written to a file of this name.

    Raises:
        UserError: its ending names no format.
    """
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"out must end in {', '.join(FORMATS)}, got {out}")


def save(figure: Any, out: Path) -> None:
    """Writes a figure in the format of the file's ending, atomically, and creates its folder."""
    check_format(out)
    kind = out.suffix.lower()[1:]
    buffer = io.BytesIO()
    # Without a date, the same figure is the same file.
    dated = {"svg": "Date", "pdf": "CreationDate"}
    undated = {dated[kind]: None} if kind in dated else None
    figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight", pad_inches=0.08, metadata=undated)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(out.resolve(), [buffer.getvalue()])


def in_thousands(frames: float, _: int) -> str:
    """A count of frames for an axis: 20k, or 1.5M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if abs(frames) >= size:
            return f"{frames / size:g}{letter}"
    return f"{frames:g}"
