"""Statistics over few runs: interquartile mean, stratified bootstrap, performance profile, probability of improvement.

The definitions are those of "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (Agarwal et al.
2021, arXiv 2108.13264). Scores come as one array per task, whose first axis counts the runs (seeds) of that task; tasks
may differ in their number of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Tasks: TypeAlias = Sequence[Array]
"""Scores by task: arrays of shape ``(runs, ...)``, all of the same shape behind the first axis."""

REPETITIONS = 2000
"""Resamples of a bootstrap interval."""
CONFIDENCE = 0.95


def interquartile_mean(values: Array) -> Array:
    """Mean over the first axis without the lowest and the highest quarter, ``(N, ...) -> (...)``.

    ``N // 4`` values are left out at either end, so with fewer than four values it is the mean.
    """
    cut = len(values) // 4
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0))


def task_mean(tasks: Tasks) -> Array:
    """Mean over runs, then over tasks, so that every task counts alike."""
    return np.asarray(np.mean([values.mean(axis=0) for values in tasks], axis=0))


def pooled_interquartile_mean(tasks: Tasks) -> Array:
    """Interquartile mean of the runs of all tasks together."""
    return interquartile_mean(np.concatenate(list(tasks)))


def performance_profile(tasks: Tasks, thresholds: Array) -> Array:
    """Fraction of runs that score above each threshold (section 4.2), averaged over tasks.

    Args:
        tasks: scores ``(runs,)`` by task.
        thresholds: ``(T,)``.

    Returns:
        ``(T,)``, falling from 1 to 0.
    """
    return np.asarray(np.mean([(values[:, None] > thresholds).mean(axis=0) for values in tasks], axis=0))


def probability_of_improvement(first: Tasks, second: Tasks) -> Array:
    """Probability that a run of ``first`` scores above one of ``second`` on a task drawn at random (section 4.3).

    On each task this is Mann and Whitney's U divided by the number of pairs; a tie counts one half.

    Args:
        first: scores ``(runs,)`` by task.
        second: scores of the other algorithm, on the same tasks in the same order.
    """
    pairs = [np.sign(ours[:, None] - theirs).mean() for ours, theirs in zip(first, second, strict=True)]
    return np.asarray((1 + np.mean(pairs)) / 2)


def bootstrap_interval(
    statistic: Callable[..., Array],
    *samples: Tasks,
    repetitions: int = REPETITIONS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[Array, Array] | None:
    """Percentile interval of a statistic by stratified bootstrap.

    Every resample draws the runs of each task anew, with replacement, from the runs of that task. All values of a run
    (such as the points of its curve) stay together.

    Args:
        statistic: called with the resampled ``samples``.
        samples: scores by task; several for a statistic that compares algorithms, which are resampled independently.
        repetitions: resamples.
        confidence: probability within the interval.
        seed: of the resampling, so that the same runs give the same interval.

    Returns:
        Lower and upper end, of the statistic's shape; None if a task has a single run, from which no spread follows.
    """
    if any(len(values) < 2 for tasks in samples for values in tasks):
        return None
    generator = np.random.default_rng(seed)
    draws = [
        statistic(
            *([values[generator.integers(len(values), size=len(values))] for values in tasks] for tasks in samples)
        )
        for _ in range(repetitions)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.stack(draws), [tail, 1 - tail], axis=0)
    return low, high


def frames_to_reach(curve: dict[int, float], level: float) -> float:
    """Frames at the first evaluation with a return of at least ``level``; infinite if there is none."""
    return min((at for at, value in curve.items() if value >= level), default=float("inf"))
