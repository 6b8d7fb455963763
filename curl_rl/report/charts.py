"""Charts of a single run, as SVG: its curves, and maps of its embeddings. They need matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from curl_rl.report.diagnosis import Series
from curl_rl.report.style import headless_pyplot, in_legends, in_thousands, styles

_COLUMNS = 3
_COLOR = "#0072B2"
_MOST_CLASSES = 10


def curve_charts(series: Mapping[str, Series], axis: str) -> bytes:
    """One panel per series, over ``axis``."""
    pyplot = headless_pyplot()
    columns = min(len(series), _COLUMNS)
    rows = math.ceil(len(series) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.6 * columns, 2.1 * rows), squeeze=False)
    _space(figure, rows, columns)
    for panel in axes.flat[len(series) :]:
        panel.set_visible(False)
    for panel, (name, (counts, values)) in zip(axes.flat, series.items(), strict=False):
        panel.plot(counts, values, color=_COLOR, linewidth=1.3, marker="o" if len(counts) < 20 else None, markersize=3)
        panel.set_title(name, fontsize="medium")
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_formatter(in_thousands)
        panel.tick_params(labelsize="small")
    for panel in axes.flat[max(len(series) - columns, 0) : len(series)]:  # the lowest panel of each column
        panel.set_xlabel(axis, fontsize="small")
    return _svg(figure)


def embedding_maps(coordinates: Tensor, shares: Tensor, colors: Mapping[str, Tensor]) -> bytes:
    """One scatter plot of ``(N, 2)`` coordinates per coloring, ``(N,)`` numbers by name; ``shares`` of the variance."""
    pyplot = headless_pyplot()
    columns = min(len(colors), _COLUMNS)
    rows = math.ceil(len(colors) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.7 * columns, 3.0 * rows), squeeze=False)
    _space(figure, rows, columns)
    for panel in axes.flat[len(colors) :]:
        panel.set_visible(False)
    x, y = coordinates.numpy().T
    for panel, (name, values) in zip(axes.flat, colors.items(), strict=False):
        dots = panel.scatter(x, y, c=values.numpy(), cmap="viridis", s=10)
        figure.colorbar(dots, ax=panel)
        panel.set_title(name, fontsize="medium")
        _without_ticks(panel, shares)
    return _svg(figure)


def class_map(coordinates: Tensor, shares: Tensor, labels: Tensor, names: Sequence[str]) -> bytes:
    """A scatter plot of ``(N, 2)`` coordinates, colored by ``(N,)`` class; of many classes, the first ones."""
    pyplot = headless_pyplot()
    figure, panel = pyplot.subplots(figsize=(7.4, 5.0), layout="constrained")
    x, y = coordinates.numpy().T
    of_class = labels.cpu().numpy()
    rest = of_class >= _MOST_CLASSES
    if rest.any():
        panel.scatter(x[rest], y[rest], s=9, color="#cccccc", label="others")
    looks = list(styles(map(str, range(_MOST_CLASSES))).values())
    for number in map(int, np.unique(of_class[~rest])):
        own, look = of_class == number, looks[number]
        panel.scatter(x[own], y[own], s=16, color=look["color"], marker=look["marker"], label=in_legends(names[number]))
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _without_ticks(panel, shares)
    return _svg(figure)


def _space(figure: Any, rows: int, columns: int) -> None:
    """Leaves room for tick labels. A layout engine would draw every panel a second time to measure them."""
    width, height = figure.get_size_inches()
    left, right, below, above = 0.65, 0.12, 0.45, 0.3  # inches around each panel
    across, down = width / columns - left - right, height / rows - below - above
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=below / height,
        top=1 - above / height,
        wspace=(left + right) / across,
        hspace=(below + above) / down,
    )


def _without_ticks(panel: Any, shares: Tensor) -> None:
    """The unit of a principal component says nothing; its share of the variance does."""
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(f"component 1 ({shares[0]:.0%})", fontsize="small")
    panel.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize="small")


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with headless_pyplot().rc_context({"svg.hashsalt": "curl_rl"}):  # the same figure is the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    headless_pyplot().close(figure)
    return buffer.getvalue()
