"""Means and speeds against values computed by hand."""

from __future__ import annotations

import math
import time

import pytest
import torch

from curl_rl.runs.meters import MetricMeans, Speedometer


class Clock:
    """A clock that advances only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_each_metric_is_averaged_over_its_own_values() -> None:
    means = MetricMeans()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(10.0)})
    means.add({"a": torch.tensor(2.0)})
    means.add({"a": torch.tensor(6.0), "b": torch.tensor(20.0)})
    assert means.read() == {"a": 3.0, "b": 15.0}
    assert means.read() == {"a": 3.0, "b": 15.0}, "reading clears nothing"
    assert "a" in means
    means.clear()
    assert "a" not in means
    assert means.read() == {}
    means.add({"b": torch.tensor(4.0)})
    assert means.read() == {"b": 4.0}


def test_added_tensors_are_not_modified() -> None:
    means, value = MetricMeans(), torch.tensor(1.0)
    means.add({"a": value})
    means.add({"a": torch.tensor(5.0)})
    assert value == 1.0


def test_a_nan_stays_until_the_means_are_cleared() -> None:
    means = MetricMeans()
    for value in (1.0, math.nan, 2.0):
        means.add({"a": torch.tensor(value)})
    assert math.isnan(means.read()["a"])


def test_a_restored_state_continues_exactly() -> None:
    values = torch.randn(9, generator=torch.Generator().manual_seed(0))
    alone, before, after = MetricMeans(), MetricMeans(), MetricMeans()
    for value in values:
        alone.add({"a": value})
    for value in values[:4]:
        before.add({"a": value})
    state = before.state()
    before.add({"a": torch.tensor(1e9)})
    after.load(state, torch.device("cpu"))
    for value in values[4:]:
        after.add({"a": value})
    assert after.read() == alone.read()


def test_speeds_of_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    speed = Speedometer(frames=100, updates=10)
    clock.now += 4
    assert speed.read(300, 18) == {"speed/frames_per_second": 50.0, "speed/updates_per_second": 2.0}
    clock.now += 2
    assert speed.read(310, 18) == {"speed/frames_per_second": 5.0, "speed/updates_per_second": 0.0}


def test_paused_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    speed = Speedometer(frames=0, updates=0)
    clock.now += 1
    for _ in range(2):
        with speed.paused():
            clock.now += 100
    clock.now += 1
    assert speed.read(10, 4) == {"speed/frames_per_second": 5.0, "speed/updates_per_second": 2.0}


def test_zero_elapsed_time_does_not_divide_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert math.isfinite(Speedometer(0, 0).read(1, 1)["speed/frames_per_second"])
