"""Pretraining runs on pictures of noise, and comparisons of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.pretraining.watchers import Watcher
from curl_rl.runs import checkpoint
from curl_rl.runs.logger import read_metrics
from helpers.noise_source import REMEDIES, NoiseSource, Plan


def trainer(plan: Plan, source: NoiseSource | None = None, watchers: Sequence[Watcher] = ()) -> Pretrainer:
    plan.directory.mkdir(parents=True, exist_ok=True)
    source = source or NoiseSource()
    return Pretrainer(plan, torch.device("cpu"), source, watchers, remedies=REMEDIES, next_step="use it")


def train(plan: Plan, source: NoiseSource | None = None, watchers: Sequence[Watcher] = ()) -> Pretrainer:
    run = trainer(plan, source, watchers)
    with contextlib.closing(run):
        run.run()
    return run


def train_until_killed(plan: Plan, prepare: Callable[[], object], source: NoiseSource | None = None) -> None:
    """Trains in a child process until it kills itself with SIGKILL; ``prepare`` runs there first."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            train(plan, source)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child was to be killed, and ended by itself"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(patch: pytest.MonkeyPatch, number: int, happening: Callable[[], object]) -> None:
    """Calls ``happening`` after that step."""
    original = Pretrainer.step

    def step(self: Pretrainer, batch: Any) -> None:
        original(self, batch)
        if self.learner.steps == number:
            happening()

    patch.setattr(Pretrainer, "step", step)


def networks(directory: Path) -> dict[str, Tensor]:
    found = checkpoint.load_newest(directory / "checkpoints", read_only=True)
    assert found is not None
    weights: dict[str, Tensor] = found[1]["learner"]["networks"]
    return weights


def rows(directory: Path, axis: str = "pictures") -> list[dict[str, Any]]:
    """The rows of metrics, without timings."""
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(directory / "metrics.jsonl", axis)
    ]


def assert_same_networks(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def assert_same_run(one: Path, other: Path, axis: str = "pictures") -> None:
    assert_same_networks(networks(one), networks(other))
    assert rows(one, axis) == rows(other, axis)
