"""The checks of a run against its environment: here, the objective's needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.objectives.method import Method
from curl_rl.rl.checks import check_environment
from curl_rl.rl.config import RunConfig
from curl_rl.runs.errors import UserError
from helpers.corridor import Corridor, tiny
from helpers.dummy_objectives import DUMMIES


def with_objective(name: Any, directory: Path, register: Callable[[Method], None]) -> RunConfig:
    register(DUMMIES[name])
    config = tiny(directory)
    return replace(config, agent=replace(config.agent, objective=name))


def test_an_objective_that_needs_actions_is_tried_with_the_environments(
    tmp_path: Path, register: Callable[[Method], None]
) -> None:
    config = with_objective("dynamics", tmp_path / "run", register)
    check_environment(config, Corridor(), torch.device("cpu"))  # actions of another size would not fit its layers


def test_an_objective_that_needs_labels_is_refused_before_anything_is_written(
    tmp_path: Path, register: Callable[[Method], None]
) -> None:
    config = with_objective("labeled", tmp_path / "run", register)
    with pytest.raises(UserError, match="^agent.objective labeled needs labels, which a replay does not have: take"):
        check_environment(config, Corridor(), torch.device("cpu"))
    assert not (tmp_path / "run").exists()
