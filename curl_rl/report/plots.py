"""Pictures of learning curves, performance profiles and probabilities of improvement.

They need matplotlib, from the extra ``plot``.
"""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from curl_rl.report.comparison import Comparison, improvement_of, profile_of
from curl_rl.report.curves import Curve
from curl_rl.report.published import Published, published_results
from curl_rl.report.statistics import CONFIDENCE, Array, bootstrap_interval, interquartile_mean
from curl_rl.report.style import headless_pyplot, in_legends, in_thousands, save, styles
from curl_rl.runs.errors import UserError

Center = Literal["mean", "iqm"]
"""What a line shows of the seeds: their mean, or their interquartile mean."""

_MOST_COLUMNS = 3
_ENOUGH = 5  # seeds: the interval of fewer is little more than their range
_BELOW_THE_AXIS = 34  # points, for its numbers and its name
_BESIDE = 7  # points
_LONGEST_LINE = 60  # characters of a legend as wide as its panel
_INTERVAL = f"{100 * CONFIDENCE:.0f} % bootstrap interval"
_LEGEND: Mapping[str, Any] = {"fontsize": "small", "frameon": False, "handlelength": 3.5}
_ONE_SEED = "_one seed"  # matplotlib leaves names that begin like this out of a legend
_PUBLISHED_MARKERS = ("*", "p", "h", "<", ">", "8", "d")


def draw_curves(
    curves: Sequence[Curve], out: Path, *, center: Center = "mean", published: Collection[str] = ()
) -> None:
    """Draws learning curves, one panel per task: a line per kind of run, over the seeds, in its bootstrap interval.

    The line ends at the last evaluation that all seeds have; seeds that have got further go on as thin lines of their
    own. The random policy is dotted. Panels with the same legend share one.

    Args:
        curves: the result of :func:`~curl_rl.report.curves.read_curves`.
        out: the image file to write, of a format in :data:`~curl_rl.report.style.FORMATS`.
        center: the mean over the seeds, or their interquartile mean.
        published: methods whose published results are drawn in, within the frames of the panel.

    Raises:
        ValueError: the seeds of a curve have no evaluation at the same frames.
    """
    pyplot = headless_pyplot()
    panels: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        panels[curve.env].append(curve)
    looks = styles(curve.label for curve in curves)
    columns = min(len(panels), _MOST_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure, axes = pyplot.subplots(rows, columns, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (env, of_env) in zip(axes.flat, panels.items(), strict=False):
        for curve in of_env:
            _draw_curve(axis, curve, center, looks[curve.label])
        random = [value for curve in of_env for value in curve.random_returns]
        if random:
            axis.axhline(sum(random) / len(random), color="gray", linestyle=":", label="random policy")
        _draw_published(axis, env, of_env, published)
        over = {"mean": "mean over seeds", "iqm": "interquartile mean"}[center]
        axis.set(title=env, xlabel="environment frames", ylabel=f"return, {over}")
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        axis.xaxis.set_major_formatter(in_thousands)
    legends = [_legend_of(axis, map(_seeds, of_env)) for axis, of_env in zip(axes.flat, panels.values(), strict=False)]
    if len(panels) > 1 and all(legend.labels == legends[0].labels for legend in legends):
        figure.legend(*legends[0], loc="outside lower center", ncols=columns, **_LEGEND)
        below = [0] * (rows - 1) + [legends[0].lines_in(columns)]
    else:
        for axis, legend in zip(axes.flat, legends, strict=False):
            _put_below(axis, legend)
        below = [max(one.lines_in(1) for one in legends[row * columns : (row + 1) * columns]) for row in range(rows)]
    figure.set_size_inches(5.2 * columns, 3.5 * rows + 0.19 * sum(below))
    save(figure, out)


def _draw_curve(axis: Any, curve: Curve, center: Center, look: dict[str, Any]) -> None:
    frames = curve.common_frames()
    if not frames:
        raise ValueError(
            f"the seeds of {curve.env}, {curve.label} have no evaluation at the same frames: name them separately"
        )
    returns = curve.matrix(frames)
    statistic = _mean if center == "mean" else interquartile_mean
    every = max(1, len(frames) // 12)
    axis.plot(frames, statistic(returns), label=_name(curve), markersize=4.5, markevery=every, **look)
    interval = bootstrap_interval(lambda tasks: statistic(tasks[0]), [returns])
    if interval is not None:
        axis.fill_between(frames, *interval, color=look["color"], alpha=0.2, linewidth=0)
    for of_seed in curve.seeds.values():
        further = [at for at in sorted(of_seed) if at >= frames[-1]]
        if len(further) > 1:
            returns_there = [of_seed[at] for at in further]
            axis.plot(further, returns_there, color=look["color"], linewidth=0.7, alpha=0.6, label=_ONE_SEED)


def _mean(returns: Array) -> Array:
    return np.asarray(returns.mean(axis=0))


def _name(curve: Curve) -> str:
    """The label with the number of seeds, and what a reader must know of them."""
    count = len(curve.seeds)
    marks = [f"{count} seeds" if count > 1 else "1 seed, no interval"]
    if curve.unfinished:
        marks.append(f"{len(curve.unfinished)} unfinished" if count > 1 else "unfinished")
    return in_legends(f"{curve.label} ({', '.join(marks)})")


def _draw_published(axis: Any, env: str, curves: list[Curve], methods: Collection[str]) -> None:
    """Draws the published results on a task as points with their standard deviation; hollow: another action repeat."""
    end = max(max([*curve.frames(), *curve.budgets.values()]) for curve in curves)
    repeats = {curve.action_repeat for curve in curves}
    results = [row for row in published_results() if row.task == env and row.method in methods and row.frames <= end]
    by_method: dict[str, list[Published]] = defaultdict(list)
    for row in results:
        by_method[row.method].append(row)
    for number, of_method in enumerate(by_method.values()):
        repeat = of_method[0].action_repeat
        same = repeats == {repeat}
        axis.errorbar(
            [row.frames for row in of_method],
            [row.mean for row in of_method],
            yerr=[row.std or 0 for row in of_method],
            label=_published_name(of_method[0], same=same),
            color="#444444",
            marker=_PUBLISHED_MARKERS[number % len(_PUBLISHED_MARKERS)],
            markerfacecolor="#444444" if same else "white",
            markersize=8,
            linestyle="none",
            capsize=3,
            zorder=4,
            # Side by side: many methods are published at the same frames.
            transform=_moved(axis, axis.transData, _BESIDE * ((number + 1) // 2) * (-1) ** number, 0),
        )
        # Moved points do not count for the limits by themselves.
        ends = [(row.frames, row.mean + side * (row.std or 0)) for row in of_method for side in (-1, 1)]
        axis.update_datalim(ends)
    axis.autoscale_view()


def _published_name(row: Published, *, same: bool) -> str:
    seeds = [f"{row.seeds} seeds"] if row.seeds else []
    spread = ["± standard deviation"] if row.std is not None else ["spread not published"]
    other = f"action repeat {row.action_repeat}" if row.action_repeat else "action repeat not stated"
    return f"{row.method}, published ({', '.join([*seeds, *spread, *([] if same else [other])])})"


def draw_profiles(comparison: Comparison, out: Path) -> None:
    """Draws performance profiles: the fraction of runs that return more than each value, in its bootstrap interval."""
    pyplot = headless_pyplot()
    figure, axis = pyplot.subplots(figsize=(6.4, 4.8), layout="constrained")
    returns = np.unique(np.concatenate([values for tasks in comparison.scores.values() for values in tasks]))
    thresholds = np.array([min(0.0, 1.05 * returns[0]), *returns, 1.05 * returns[-1]])  # it changes at returns only
    for label, look in styles(comparison.scores).items():
        profile = profile_of(comparison, label, thresholds)
        style = {**look, "marker": None, "drawstyle": "steps-post"}
        axis.plot(thresholds, profile.value, label=in_legends(f"{label} ({comparison.counted(label)})"), **style)
        if profile.interval is not None:
            axis.fill_between(thresholds, *profile.interval, color=look["color"], alpha=0.2, linewidth=0, step="post")
    axis.set(
        title=_where(comparison),
        xlabel="return τ",
        ylabel="fraction of runs with a return above τ",
        ylim=(-0.02, 1.02),
    )
    _put_below(axis, _legend_of(axis, (len(values) for tasks in comparison.scores.values() for values in tasks)))
    save(figure, out)


def draw_improvement(comparison: Comparison, out: Path) -> None:
    """Draws the probability that a run of one kind returns more than one of another, for every two kinds.

    Raises:
        UserError: there is only one kind.
    """
    pyplot = headless_pyplot()
    labels = list(comparison.scores)
    if len(labels) < 2:
        raise UserError(f"improvement compares kinds of run, and all of these are {labels[0]}: name runs of two kinds")
    pairs = [(first, second) for place, first in enumerate(labels) for second in labels[place + 1 :]]
    estimates = [improvement_of(comparison, first, second) for first, second in pairs]
    names = [
        "\n".join(
            [*textwrap.wrap(first, _LONGEST_LINE), *textwrap.wrap(f"> {second}", _LONGEST_LINE)]
            + ([] if found.interval else ["(one seed, no interval)"])
        )
        for (first, second), found in zip(pairs, estimates, strict=True)
    ]
    tallest = max(name.count("\n") + 1 for name in names)
    # The panel is all of the figure, which grows by the names when it is saved: they take no room from the panel.
    figure = pyplot.figure(figsize=(5.6, (0.25 + 0.14 * tallest) * len(pairs)))
    axis = figure.add_axes((0, 0, 1, 1))
    for row, found in enumerate(estimates):
        value = float(found.value)
        error = None if found.interval is None else [[value - found.interval[0]], [found.interval[1] - value]]
        axis.errorbar([value], [row], xerr=error, color="#0072B2", marker="o", capsize=4, linestyle="none")
    axis.axvline(0.5, color="gray", linestyle=":")
    axis.set_yticks(range(len(pairs)), names, fontsize="small")
    axis.set(
        title=_where(comparison),
        xlabel=f"probability that a run of the first returns more ({_INTERVAL})",
        xlim=(-0.02, 1.02),
        ylim=(len(pairs) - 0.5, -0.5),
    )
    axis.grid(alpha=0.3)
    save(figure, out)


def _where(comparison: Comparison) -> str:
    tasks = comparison.tasks
    named = ", ".join(tasks) if len(tasks) < 3 else f"{len(tasks)} tasks"
    return f"{named} at {comparison.frames:,} frames"


def _seeds(curve: Curve) -> int:
    return len(curve.seeds)


class _Legend(NamedTuple):
    """The entries of a legend."""

    handles: list[Any]
    labels: list[str]

    def lines_in(self, columns: int) -> int:
        """The height in lines of text, with the entries in so many columns."""
        heights = [label.count("\n") + 1 for label in self.labels]
        each = math.ceil(len(heights) / columns)
        return max(sum(heights[first : first + each]) for first in range(0, len(heights), each))


def _legend_of(axis: Any, seeds: Iterable[int]) -> _Legend:
    """The legend of a panel, with what bands and thin lines are, if there are any.

    Args:
        axis: the panel.
        seeds: how many each of its lines has.
    """
    axis.grid(alpha=0.3)
    from matplotlib.collections import PolyCollection

    handles, labels = axis.get_legend_handles_labels()
    alone = [line for line in axis.lines if line.get_label() == _ONE_SEED]
    if alone:
        handles.append(headless_pyplot().Line2D([], [], color="gray", linewidth=0.7))
        labels.append("thin line: one seed that has got further")
    if any(isinstance(band, PolyCollection) for band in axis.collections):
        handles.append(headless_pyplot().Rectangle((0, 0), 1, 1, color="gray", alpha=0.3, linewidth=0))
        few = any(1 < count < _ENOUGH for count in seeds)
        labels.append(f"band: {_INTERVAL}" + (f" (too narrow below {_ENOUGH} seeds)" if few else ""))
    return _Legend(handles, [textwrap.fill(label, _LONGEST_LINE) for label in labels])


def _put_below(axis: Any, legend: _Legend) -> None:
    """Puts a legend below its panel, where it covers no curve."""
    place = _moved(axis, axis.transAxes, 0, -_BELOW_THE_AXIS)
    axis.legend(*legend, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=place, **_LEGEND)


def _moved(axis: Any, place: Any, right: float, up: float) -> Any:
    """The transform ``place``, moved by points of 1/72 inch."""
    from matplotlib.transforms import ScaledTranslation

    return place + ScaledTranslation(right / 72, up / 72, axis.figure.dpi_scale_trans)
