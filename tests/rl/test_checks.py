"""What is known of a run once its environment is at hand: of an objective's needs, here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curl_rl.objectives import METHODS, CurlConfig, Method, Objective
from curl_rl.rl.checks import check_environment
from curl_rl.runs.errors import UserError
from helpers import forward_model
from helpers.corridor import Corridor, tiny


def test_an_objective_that_needs_actions_is_let_in_and_tried_out_with_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "forward_model", forward_model.METHOD)
    config = tiny(tmp_path / "run")
    config = replace(config, agent=replace(config.agent, objective="forward_model"))
    check_environment(config, Corridor(), torch.device("cpu"))  # the objective checks the actions' shape


def test_an_objective_that_needs_labels_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Supervised(Objective):
        needs = frozenset({"labels"})

    method = Method("supervised", Supervised, CurlConfig, paper="none", summary="None.")
    monkeypatch.setitem(METHODS, "supervised", method)
    config = tiny(tmp_path / "run")
    config = replace(config, agent=replace(config.agent, objective="supervised"))
    with pytest.raises(UserError, match="^agent.objective supervised needs labels, which a replay does not have: take"):
        check_environment(config, Corridor(), torch.device("cpu"))
    assert not (tmp_path / "run").exists()
