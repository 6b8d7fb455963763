"""Meters of a run in progress: means of its metrics, and its speed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class MetricMeans:
    """Means of scalar metrics since the last clear; the sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Adds one value of each of these metrics."""
        known = [name for name in metrics if name in self._sums]
        if known:
            # One kernel on a GPU, where few fit in the time a captured update takes.
            sums = torch._foreach_add([self._sums[name] for name in known], [metrics[name] for name in known])
            self._sums.update(zip(known, sums, strict=True))
        for name, value in metrics.items():
            self._sums.setdefault(name, value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means by name, fetched from the device in one transfer."""
        if not self._sums:
            return {}
        totals = torch.stack([value.double() for value in self._sums.values()]).tolist()
        return {name: total / self._counts[name] for name, total in zip(self._sums, totals, strict=True)}

    def clear(self) -> None:
        """Resets all means."""
        self._sums.clear()
        self._counts.clear()

    def state(self) -> dict[str, Any]:
        """The state from which :meth:`load` continues exactly."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Restores a :meth:`state`."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])


class Speedometer:
    """Frames (or other units) and updates per second of a run, excluding paused time."""

    def __init__(self, frames: int, updates: int, unit: str = "frames") -> None:
        self._unit = unit
        self._since, self._frames, self._updates = time.perf_counter(), frames, updates

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time spent inside the block."""
        begin = time.perf_counter()
        yield
        self._since += time.perf_counter() - begin

    def read(self, frames: int, updates: int) -> dict[str, float]:
        """Speeds since the last call, given the total frames and updates so far."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        speeds = {
            f"speed/{self._unit}_per_second": (frames - self._frames) / seconds,
            "speed/updates_per_second": (updates - self._updates) / seconds,
        }
        self._since, self._frames, self._updates = now, frames, updates
        return speeds
