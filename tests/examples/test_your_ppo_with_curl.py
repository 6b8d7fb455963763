"""The loop learns with the loss; tests/test_docs.py checks the lines marked as the loss."""

from __future__ import annotations

import re

import pytest
import torch

from envs.tiny import SOLVED_RETURN
from examples import your_ppo_with_curl as example


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    monkeypatch.setattr("sys.argv", ["your_ppo_with_curl.py", *arguments])
    example.main()
    return capsys.readouterr().out.splitlines()


def test_the_program_says_how_it_learns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(monkeypatch, capsys, "--steps", "80", "--rollout", "40")
    assert len(printed) == 3
    assert re.fullmatch(r"    80 steps: return +\d+\.\d; loss -?\d+\.\d\d", printed[-1])


def test_advantages_are_the_weighted_sums_of_temporal_differences() -> None:
    """Equation 16 of the paper, summed out step by step; an episode's end cuts the sum and the bootstrap."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.rand(6, generator=generator) for _ in range(2))
    ended = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    found = example.advantages_of(rewards, values, ended, torch.tensor(0.5))
    following = [*values.tolist()[1:], 0.5]
    deltas = [float(rewards[t]) + example.GAMMA * following[t] * (t != 2) - float(values[t]) for t in range(6)]
    decay = example.GAMMA * example.GAE_LAMBDA
    expected = []
    for t in range(6):
        last = 3 if t < 3 else 6
        expected.append(sum(decay ** (step - t) * deltas[step] for step in range(t, last)))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_program_learns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    last = run(monkeypatch, capsys)[-1]
    assert float(re.findall(r"return +([\d.]+);", last)[-1]) > SOLVED_RETURN
