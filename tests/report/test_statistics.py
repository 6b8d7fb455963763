"""The statistics against scipy, rliable where it is installed, and values worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from curl_rl.report.statistics import (
    bootstrap_interval,
    frames_to_reach,
    interquartile_mean,
    performance_profile,
    pooled_interquartile_mean,
    probability_of_improvement,
    task_mean,
)

stats = pytest.importorskip("scipy.stats")


def scores(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 100.0, size=shape)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 10, 13])
def test_interquartile_mean_is_scipys_trimmed_mean(count: int) -> None:
    values = scores(count, 3)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=0))


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 2.0, 1.0, -50.0])) == 1.5
    assert interquartile_mean(np.array([3.0, 1.0, 8.0])) == 4.0


def test_pooled_interquartile_mean_takes_the_runs_of_all_tasks() -> None:
    tasks = [np.array([0.0, 10.0]), np.array([20.0, 1000.0])]
    assert pooled_interquartile_mean(tasks) == 15


def test_every_task_counts_alike_in_the_mean() -> None:
    assert task_mean([np.array([1.0, 3.0]), np.array([10.0])]) == 6


def test_profile_is_the_empirical_survival_function() -> None:
    values, thresholds = scores(9), np.linspace(0, 600, 50)
    survival = stats.ecdf(values).sf.evaluate(thresholds)
    assert performance_profile([values], thresholds) == pytest.approx(survival)


def test_profile_by_hand_over_two_tasks() -> None:
    tasks = [np.array([1.0, 2.0]), np.array([3.0])]
    assert performance_profile(tasks, np.array([0.0, 1.0, 2.5, 3.0])).tolist() == [1, 0.75, 0.5, 0]


@pytest.mark.parametrize(("ours", "theirs"), [(5, 5), (3, 8), (1, 4)])
def test_probability_of_improvement_is_mann_and_whitneys_u(ours: int, theirs: int) -> None:
    first, second = np.round(scores(ours) / 50), np.round(scores(theirs, seed=1) / 50)  # rounded: with ties
    statistic = stats.mannwhitneyu(first, second).statistic
    assert probability_of_improvement([first], [second]) == pytest.approx(statistic / (ours * theirs))


def test_both_probabilities_of_improvement_add_up_to_one() -> None:
    first, second = list(scores(2, 6)), list(scores(2, 4, seed=1))
    both = probability_of_improvement(first, second) + probability_of_improvement(second, first)
    assert both == pytest.approx(1)
    assert probability_of_improvement(first, first) == 0.5


def all_resamples(values: np.ndarray) -> np.ndarray:
    return np.array([values[list(drawn)] for drawn in itertools.product(range(len(values)), repeat=len(values))])


def test_interval_is_that_of_all_resamples() -> None:
    """Of five runs there are 3,125 resamples, all of which can be listed."""
    values = scores(5)
    means = all_resamples(values).mean(axis=1)
    interval = bootstrap_interval(task_mean, [values], repetitions=20_000)
    assert interval is not None
    for found, tail in zip(interval, (0.025, 0.975), strict=True):
        low, high = np.quantile(means, [tail - 0.005, tail + 0.005])  # 0.001: the sampling error of the tail
        assert low <= found <= high


def test_interval_resamples_within_each_task() -> None:
    """Tasks with no spread of their own have none together, however far they lie apart."""
    interval = bootstrap_interval(task_mean, [np.full(4, 1.0), np.full(3, 500.0)])
    assert interval is not None
    assert [float(end) for end in interval] == [250.5, 250.5]


def test_interval_keeps_the_points_of_a_run_together() -> None:
    """The difference of two points is the same in every run, and so in every resample."""
    first = scores(6)
    values = np.stack([first, first + 7], axis=1)
    interval = bootstrap_interval(lambda tasks: task_mean([tasks[0][:, 1] - tasks[0][:, 0]]), [values])
    assert interval is not None
    assert [float(end) for end in interval] == pytest.approx([7, 7])


def test_samples_are_resampled_independently() -> None:
    """Were both drawn alike, an algorithm compared with itself would have no spread."""
    values = [scores(8)]
    interval = bootstrap_interval(lambda one, other: task_mean(one) - task_mean(other), values, values)
    assert interval is not None
    assert interval[0] < 0 < interval[1]


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """95 % for many runs; the percentile interval of twenty is a little narrow."""
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval(task_mean, [generator.normal(size=20)], repetitions=200, seed=trial)
        assert interval is not None
        hits += bool(interval[0] <= 0 <= interval[1])
    assert 0.88 * 200 < hits < 0.98 * 200


def test_one_run_of_a_task_gives_no_interval() -> None:
    assert bootstrap_interval(task_mean, [scores(5), scores(1)]) is None
    assert bootstrap_interval(probability_of_improvement, [scores(5)], [scores(1)]) is None


def test_the_same_runs_give_the_same_interval() -> None:
    one, again = (bootstrap_interval(task_mean, [scores(5)]) for _ in range(2))
    assert one == again


def test_frames_to_reach_a_return_are_those_of_the_first_evaluation_there() -> None:
    curve = {0: 1.0, 20: 6.0, 10: 5.0, 30: 2.0}
    assert frames_to_reach(curve, 5.0) == 10
    assert frames_to_reach(curve, 5.5) == 20
    assert frames_to_reach(curve, 7.0) == math.inf


# ---- rliable, with pandas below 3


def test_aggregates_are_those_of_rliable() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    values = scores(10, 6)
    tasks = list(values.T)
    assert task_mean(tasks) == pytest.approx(metrics.aggregate_mean(values))
    assert pooled_interquartile_mean(tasks) == pytest.approx(metrics.aggregate_iqm(values))
    other = scores(7, 6, seed=1)
    expected = metrics.probability_of_improvement(values, other)
    assert probability_of_improvement(tasks, list(other.T)) == pytest.approx(expected)


def test_profile_and_interval_are_those_of_rliable() -> None:
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    values, thresholds = scores(10, 6), np.linspace(0, 600, 7)
    tasks = list(values.T)
    profiles, _ = library.create_performance_profile({"x": values}, thresholds, reps=10)
    assert performance_profile(tasks, thresholds) == pytest.approx(profiles["x"])
    _, interval = library.get_interval_estimates(
        {"x": values}, lambda all_runs: np.array([metrics.aggregate_iqm(all_runs)]), reps=4000
    )
    ours = bootstrap_interval(pooled_interquartile_mean, tasks, repetitions=4000)
    assert ours is not None
    # Of the width, which is some 70, a tenth: both ends are quantiles of random resamples.
    width = float(ours[1] - ours[0])
    assert np.array([float(end) for end in ours]) == pytest.approx(interval["x"].ravel(), abs=width / 10)
