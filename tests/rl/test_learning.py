"""Does it learn? The oracle is the environment, with returns that blind, random and constant agents cannot reach.

`envs.tiny` states the returns, and tests/envs/test_tiny.py shows that no blind agent reaches the baseline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import envs
from curl_rl.rl.config import load_preset
from curl_rl.rl.training import train
from curl_rl.rl.workers import Environment
from curl_rl.runs.logger import read_metrics
from envs.tiny import BASELINE_RETURN, SOLVED_RETURN


def train_tiny_reach(directory: Path, preset: str, seed: int, objective: str | None = None) -> list[dict[str, Any]]:
    """Trains with the preset at its full budget, and returns the rows of metrics."""
    config = load_preset(
        preset,
        "tiny-reach",
        {"seed": seed, "run": str(directory), "compute": {"threads": 1}}
        | ({"agent": {"objective": objective}} if objective else {}),
    )
    e = config.environment

    def make() -> Environment:
        return envs.make(config.env, size=e.size, stack=e.stack, action_repeat=e.action_repeat, quality=e.quality)

    train(config, make)
    return read_metrics(directory / "metrics.jsonl")


def values(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def test_the_cpu_preset_solves_tiny_reach_in_about_a_minute(tmp_path: Path) -> None:
    rows = train_tiny_reach(tmp_path, "cpu", seed=1)
    returns = values(rows, "evaluation/return_mean")
    assert returns[0] < BASELINE_RETURN
    assert returns[-1] > SOLVED_RETURN
    # The contrastive task is learned as well: guessing finds one key in 64.
    accuracy = values(rows, "objective/accuracy")
    assert accuracy[0] < 0.5 < accuracy[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("preset", "objective"), [("curl", None), ("official", None), ("sac", None), ("cpu", None), ("cpu", "none")]
)
def test_every_preset_solves_tiny_reach(tmp_path: Path, preset: str, seed: int, objective: str | None) -> None:
    rows = train_tiny_reach(tmp_path, preset, seed, objective)
    assert values(rows, "evaluation/return_mean")[-1] > SOLVED_RETURN
