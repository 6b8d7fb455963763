"""The agent's generators: saved, restored, and reseeded on another kind of device."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from curl_rl.rl.generators import Generators

CPU = torch.device("cpu")


def draw(generators: Generators) -> list[Any]:
    return [
        torch.rand(2, generator=generators.agent).tolist(),
        torch.rand(2, generator=generators.replay).tolist(),
        random.random(),
    ]


def test_restored_generators_continue_where_they_were_saved() -> None:
    generators = Generators(1, CPU, CPU)
    draw(generators)
    state = generators.state()
    expected = draw(generators)
    other = Generators(1, CPU, CPU)
    other.load(state, frames=100)
    assert draw(other) == expected


def test_each_purpose_and_each_run_draws_different_numbers() -> None:
    first, second = draw(Generators(1, CPU, CPU))[:2], draw(Generators(2, CPU, CPU))[:2]
    assert len({tuple(numbers) for numbers in (*first, *second)}) == 4


def test_another_kind_of_device_reseeds_differently_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    state = Generators(1, CPU, CPU).state()
    state["generators"]["devices"] = ["cuda", "cuda"]
    drawn = []
    for frames in (0, 100, 200, 100):
        generators = Generators(1, CPU, CPU)
        generators.load(state, frames)
        drawn.append(draw(generators)[:2])
    assert (
        capsys.readouterr().err.count("resumed on another kind of device: random numbers will differ from here on") == 4
    )
    assert drawn[1] == drawn[3]
    assert len({str(numbers) for numbers in drawn}) == 3
