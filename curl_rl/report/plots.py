"""Plots of results. They need matplotlib, from the extra ``plot``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from curl_rl.report.curves import Curve


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
    from matplotlib import pyplot

    return pyplot


def draw_curves(curves: list[Curve], out: Path) -> None:
    """Draws one panel per task: mean and range over seeds of each kind of run, and the random policy, dotted.

    Args:
        curves: the result of :func:`~curl_rl.report.curves.read_curves`.
        out: the image file to write: ``.png``, ``.svg``, ``.pdf``.
    """
    pyplot = headless_pyplot()
    panels: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        panels[curve.env].append(curve)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False)
    for axis, (env, of_env) in zip(axes[0], panels.items(), strict=True):
        for curve in of_env:
            frames = curve.frames()
            returns = [curve.returns_at(at) for at in frames]
            seeds = f"{len(curve.seeds)} seed{'s' if len(curve.seeds) > 1 else ''}"
            (line,) = axis.plot(frames, [fmean(values) for values in returns], label=f"{curve.label} ({seeds})")
            axis.fill_between(frames, [*map(min, returns)], [*map(max, returns)], color=line.get_color(), alpha=0.2)
        random = [value for curve in of_env for value in curve.random_returns]
        if random:
            axis.axhline(sum(random) / len(random), color="gray", linestyle=":", label="random policy")
        axis.set(title=env, xlabel="environment frames", ylabel="return of the deterministic policy")
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
