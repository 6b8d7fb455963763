"""What the distance of a precision is measured on: every gradient of an update, by autograd on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.precision import losses_and_gradients


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_the_gradients_are_all_there_and_nearer_in_float32_than_in_bfloat16(rule: Any) -> None:
    cpu = torch.device("cpu")
    exact = losses_and_gradients(cpu, 3, "float32", rule, torch.float64)
    assert {"critic/loss", "actor/loss", "temperature/loss", "objective/loss"} <= exact.keys()
    assert {"critic gradient", "actor gradient", "temperature gradient", "objective0 gradient"} <= exact.keys()
    assert all(value.dtype == torch.float64 and value.norm() > 0 for value in exact.values())
    # Four million weights of actor and critics, counted by hand: the trunks' 1024×1024 matrices alone are three.
    assert exact["critic gradient"].numel() > 2 * 1024**2
    assert exact["actor gradient"].numel() > 1024**2

    def distance(name: str, precision: Any) -> float:
        rounded = losses_and_gradients(cpu, 3, precision, rule, torch.float32)[name].double()
        return float((rounded - exact[name]).norm() / exact[name].norm())

    for name in ("critic gradient", "objective0 gradient"):
        assert 0 < distance(name, "float32") < 0.1 * distance(name, "bfloat16") < 0.1
