"""The effect of bfloat16 on a trained agent's gradients: sums by hand, and properties that must hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.rl.loading import load_learner
from curl_rl.runs.compute import resolve_precision
from helpers.tiny_reach import train_on_tiny_reach

FLAGS = (
    "--frames 40 --environment.size 16 --agent.crop 14 --agent.batch_size 6 --agent.encoder.filters 4 "
    "--agent.encoder.strides [2,1] --agent.encoder.latent 5"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_tiny_reach(tmp_path_factory.mktemp("runs") / "run", FLAGS)


def test_distances_are_those_of_all_gradients_kept(script: Any) -> None:
    generator = np.random.default_rng(0)
    exact = generator.normal(1.0, 2.0, (7, 11))
    rounded = exact + generator.normal(0.1, 0.3, exact.shape)
    sums = script.Sums(torch.zeros(11, dtype=torch.float64))
    for pair in zip(exact, rounded, strict=True):
        sums.add(*map(torch.from_numpy, pair))
    length = np.sqrt((exact**2).sum(1).mean())
    differences = rounded - exact
    distance = np.sqrt((differences**2).sum(1).mean())
    expected = (
        distance / length,
        np.sqrt(exact.var(0, ddof=1).sum()) / length,
        np.linalg.norm(differences.mean(0)) / length,
        np.sqrt(differences.var(0, ddof=1).sum() / 7) / length,
    )
    assert sums.distances() == pytest.approx(expected, rel=1e-12)


def test_a_common_error_exceeds_chance_and_noise_does_not(script: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    noisy, biased = (script.Sums(torch.zeros(50, dtype=torch.float64)) for _ in range(2))
    for _ in range(400):
        exact, noise = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
        noisy.add(exact, exact + 0.1 * noise)
        biased.add(exact, exact + 0.1 * noise + 0.05)
    found = noisy.distances()
    assert found.by_chance == pytest.approx(0.1 / 20, rel=0.05)  # √400
    assert found.common == pytest.approx(found.by_chance, rel=0.3)
    assert biased.distances().common == pytest.approx(0.05, rel=0.05)
    assert biased.distances().by_chance == pytest.approx(0.1 / 20, rel=0.05)


def test_a_part_without_a_gradient_is_not_an_error(script: Any) -> None:
    sums = script.Sums(torch.zeros(3))
    for _ in range(2):
        sums.add(torch.zeros(3), torch.zeros(3))
    assert all(np.isnan(sums.distances()))


def test_gradients_have_the_requested_precision_and_weights_are_not_changed(script: Any, run: Path) -> None:
    learner, _ = load_learner(run, "cpu")
    agent = learner.agent
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    inputs = agent.draw(learner.sample(), learner.generator)
    first, rounded, again = (
        script.gradients(agent, inputs, precision) for precision in ("float32", "bfloat16", "float32")
    )
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    assert first.keys() == {
        "encoder.convolutions | critic",
        "encoder.projection | critic",
        "critic | critic",
        "actor_projection | actor",
        "actor | actor",
        "log_alpha | temperature",
        "encoder.convolutions | objective0",
        "encoder.projection | objective0",
        "objective | objective0",
    }
    for part, gradient in first.items():
        assert torch.equal(gradient, again[part]), part
        error = (rounded[part] - gradient).norm() / gradient.norm()
        assert 1e-5 < error < 0.3, part


@pytest.mark.skipif(resolve_precision("auto", torch.device("cpu")) == "float32", reason="no units for bfloat16")
def test_the_table_has_a_line_for_each_part(command: Any, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--run", run, "--batches", 2, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run}: tiny-reach, 2 batches of 6, on cpu"
    assert len(lines) == 3 + 9
    assert all(re.fullmatch(r"\| [\w.]+ \| \w+ (\| [\d.]+% ){4}\|", line) for line in lines[3:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batches", 1), "--batches must be at least 2, got 1"),
        ((), "nowhere is not a run directory (config.yaml is missing)"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    command: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...], message: str
) -> None:
    assert command("--run", "nowhere", *arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
