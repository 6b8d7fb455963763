"""Kinds of run compared at one number of frames, over the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curl_rl.report.curves import Curve
from curl_rl.report.statistics import Array, bootstrap_interval, performance_profile, probability_of_improvement
from curl_rl.runs.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """A statistic and its bootstrap interval."""

    value: Array
    interval: tuple[Array, Array] | None
    """Lower and upper end; None if a task has a single run."""


@dataclass(frozen=True)
class Comparison:
    """The returns of several kinds of run."""

    frames: int
    """The environment frames at which they are compared."""
    tasks: list[str]
    scores: dict[str, list[Array]]
    """By label: the returns ``(seeds,)`` on each of the tasks."""

    def counted(self, label: str) -> str:
        """The number of seeds of a kind of run, in words."""
        counts = sorted({len(values) for values in self.scores[label]})
        if counts == [1]:
            return "1 seed, no interval"
        seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        return f"{seeds}, no interval" if counts[0] == 1 else seeds


def compare(curves: Sequence[Curve], frames: int | None = None) -> Comparison:
    """The returns of all curves at ``frames``, by default the last frames at which all seeds of all were evaluated.

    Raises:
        UserError: the kinds of run have different tasks, or a seed was not evaluated there.
    """
    tasks = sorted({curve.env for curve in curves})
    by_label: dict[str, dict[str, Curve]] = {}
    for curve in curves:
        by_label.setdefault(curve.label, {})[curve.env] = curve
    for label, of_label in by_label.items():
        if missing := [task for task in tasks if task not in of_label]:
            raise UserError(
                f"the tasks must be the same for all kinds of run, and {label} has no run of {missing[0]}: name the "
                "runs of one task, or of fewer kinds"
            )
    common = sorted(set.intersection(*(set(curve.common_frames()) for curve in curves)))
    if not common:
        ends = ", ".join(dict.fromkeys(f"{curve.label} on {curve.env} at {_few(curve.frames())}" for curve in curves))
        raise UserError(f"the runs must have an evaluation at the same frames, got {ends}: name fewer of them")
    if frames is None:
        frames = common[-1]
    if frames not in common:
        lacking = next(curve for curve in curves if frames not in curve.common_frames())
        raise UserError(
            f"at must be frames at which every run was evaluated, got {frames}; {lacking.env}, {lacking.label} has "
            f"{_few(lacking.common_frames())}, and all have in common {_few(common)}"
        )
    scores = {label: [of_label[task].matrix([frames])[:, 0] for task in tasks] for label, of_label in by_label.items()}
    return Comparison(frames, tasks, scores)


def profile_of(comparison: Comparison, label: str, thresholds: Array) -> Estimate:
    """The performance profile of one kind of run at ``thresholds``, ``(T,)``."""
    scores = comparison.scores[label]
    interval = bootstrap_interval(lambda tasks: performance_profile(tasks, thresholds), scores)
    return Estimate(performance_profile(scores, thresholds), interval)


def improvement_of(comparison: Comparison, first: str, second: str) -> Estimate:
    """The probability that a run of the kind ``first`` returns more than one of ``second``."""
    ours, theirs = comparison.scores[first], comparison.scores[second]
    value = probability_of_improvement(ours, theirs)
    return Estimate(np.asarray(value), bootstrap_interval(probability_of_improvement, ours, theirs))


def _few(frames: Sequence[int]) -> str:
    """Some frame counts, in words."""
    shown = [f"{at:,}" for at in frames]
    return "none" if not shown else ", ".join(shown if len(shown) < 6 else [*shown[:2], "...", *shown[-2:]])
