"""Tables of returns as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curl_rl.report.curves import Curve
from curl_rl.report.statistics import bootstrap_interval, frames_to_reach, task_mean

Table = list[list[str]]
"""A header and rows of the same length."""


@dataclass(frozen=True)
class Cell:
    """The returns of the seeds of one kind of run at one frame count."""

    seeds: int
    mean: float
    std: float | None
    """Standard deviation over seeds, with ``seeds - 1`` in the denominator; None for one seed."""
    interval: tuple[float, float] | None
    """Bootstrap interval of the mean; None for one seed."""
    hours: float | None
    """Mean time of a run until then, pauses included; None if unknown."""


def cell_at(curve: Curve, frames: int) -> Cell | None:
    """The returns of a curve at ``frames``, of the seeds evaluated there; None if there are none."""
    returns = np.array(curve.returns_at(frames), dtype=float)
    if not len(returns):
        return None
    interval = bootstrap_interval(task_mean, [returns])
    seconds = [times[frames] for times in curve.seconds.values() if frames in times]
    return Cell(
        seeds=len(returns),
        mean=float(returns.mean()),
        std=float(returns.std(ddof=1)) if len(returns) > 1 else None,
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        hours=sum(seconds) / len(seconds) / 3600 if seconds else None,
    )


def in_words(cell: Cell) -> str:
    """A cell of a Markdown table: mean ± standard deviation [interval], seeds, hours."""
    spread = "" if cell.std is None else f" ± {rounded(cell.std)}"
    interval = "" if cell.interval is None else f" [{rounded(cell.interval[0])}, {rounded(cell.interval[1])}]"
    notes = [f"{cell.seeds} seeds" if cell.seeds > 1 else "1 seed, no interval"]
    if cell.hours is not None:
        notes.append(f"{cell.hours:.1f} h" if cell.hours >= 0.1 else f"{cell.hours * 60:.1f} min")
    return f"{rounded(cell.mean)}{spread}{interval} ({', '.join(notes)})"


def efficiency_table(curves: Sequence[Curve], budgets: Sequence[int], level: float | None = None) -> Table:
    """A row per kind of run and task: returns at each budget, their mean over the curve, and the frames to ``level``.

    Args:
        curves: the runs.
        budgets: environment frames.
        level: a return; the table gains a column with the median over seeds of the frames at the first evaluation that
            reached it.
    """
    reach = [] if level is None else [f"frames to {level:g}"]
    table = [["task", "kind of run", *(f"{budget:,} frames" for budget in budgets), "mean of the curve", *reach]]
    for curve in curves:
        frames = curve.common_frames()
        whole = f"{rounded(float(curve.matrix(frames).mean()))} (to {frames[-1]:,})" if frames else "–"
        row = [curve.env, curve.label, *(_at_budget(curve, budget) for budget in budgets), whole]
        table.append(row if level is None else [*row, _reached(curve, level)])
    return table


def _at_budget(curve: Curve, budget: int) -> str:
    cell = cell_at(curve, budget)
    if cell is not None:
        missing = len(curve.seeds) - cell.seeds
        return in_words(cell) + (f"; {missing} of {len(curve.seeds)} seeds not there" if missing else "")
    return missing_in_words(curve, budget)


def missing_in_words(curve: Curve, frames: int) -> str:
    """Why a curve has no return at ``frames``."""
    last = curve.frames()[-1]
    return f"– (evaluated to {last:,})" if last < frames else "– (not evaluated there)"


def _reached(curve: Curve, level: float) -> str:
    frames = [frames_to_reach(returns, level) for returns in curve.seeds.values()]
    reached = sum(map(math.isfinite, frames))
    # The lower of the two middle ones if their number is even, so that one of them may be infinite.
    middle = sorted(frames)[(len(frames) - 1) // 2]
    return f"{f'{middle:,.0f}' if math.isfinite(middle) else '–'} ({reached} of {len(frames)} seeds)"


def rounded(value: float) -> str:
    """Three significant digits, and whole numbers from 100 on, without a negative zero."""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text


def as_markdown(table: Table) -> str:
    """The table in Markdown, with a line break at the end."""
    head, *rows = [[text.replace("|", "\\|") for text in row] for row in table]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(table: Table) -> str:
    """The table as CSV, with a line break at the end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue()
