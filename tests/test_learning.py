"""Does it learn? The oracle is the environment: what a blind, a random and a constant agent cannot reach.

`envs.tiny` states the returns, and tests/envs/test_tiny.py shows that no agent that does not look reaches the baseline.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import envs
from curl_rl.config import load_preset
from curl_rl.logger import read_metrics
from curl_rl.training import Environment, train
from envs.tiny import BASELINE_RETURN, SOLVED_RETURN


def evaluation_returns(directory: Path, preset: str, seed: int, objective: str | None = None) -> list[float]:
    """Trains tiny-reach with the preset; the evaluation returns, from before the first update to the last."""
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
    rows = read_metrics(directory / "metrics.jsonl")
    return [row["evaluation/return_mean"] for row in rows if "evaluation/return_mean" in row]


def test_the_cpu_preset_solves_tiny_reach_in_about_a_minute(tmp_path: Path) -> None:
    returns = evaluation_returns(tmp_path, "cpu", seed=1)
    assert returns[0] < BASELINE_RETURN
    assert returns[-1] > SOLVED_RETURN


@pytest.mark.slow
@pytest.mark.parametrize("objective", [None, "none"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("preset", ["curl", "official", "sac", "cpu"])
def test_every_preset_solves_tiny_reach(tmp_path: Path, preset: str, seed: int, objective: str | None) -> None:
    assert evaluation_returns(tmp_path, preset, seed, objective)[-1] > SOLVED_RETURN
