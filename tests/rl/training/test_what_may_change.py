"""What a resumed run may change: its weights are those of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from curl_rl.rl.config import CheckpointConfig, EvaluationConfig, LogConfig, UserError, read_config
from curl_rl.rl.replay import ReplayConfig
from curl_rl.rl.training import train
from curl_rl.runs.signals import Stopped
from helpers.corridor import Corridor, at, differing, networks, resumed, rows, state, terminate, tiny, trained

OTHER_SCHEDULES: list[dict[str, Any]] = [
    {"evaluation": EvaluationConfig(every=7, episodes=2)},
    {"evaluation": EvaluationConfig(every=0, episodes=2)},
    {"checkpoint": CheckpointConfig(every=3, keep=1)},
    {"evaluation": EvaluationConfig(every=20, episodes=2, video=False), "log": LogConfig(every=4, images_every=0)},
]


@pytest.mark.parametrize("change", OTHER_SCHEDULES)
def test_the_weights_do_not_depend_on_when_a_run_is_evaluated_saved_and_logged(
    undisturbed: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    found = networks(trained(tiny(tmp_path / "run", **change)))
    assert differing(networks(undisturbed), found) == []


class Shared(Corridor):
    """Draws from the global generators, which evaluation and training share."""

    def step(self, action: npt.NDArray[np.float32]) -> Any:
        self.place += np.random.normal() + float(torch.rand(()))
        return super().step(action)


def test_an_evaluation_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    def weights(name: str, every: int) -> dict[str, Any]:
        np.random.seed(0)
        torch.manual_seed(0)
        config = tiny(tmp_path / name, evaluation=EvaluationConfig(every=every, episodes=2))
        return networks(train(config, Shared))

    rarely = weights("rarely", 50)
    assert differing(rarely, weights("often", 6)) == []
    assert differing(rarely, weights("never", 0)) == []


@pytest.mark.parametrize("change", OTHER_SCHEDULES)
def test_a_run_resumes_with_another_schedule_and_the_same_weights(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    config = tiny(tmp_path / "run")
    with pytest.raises(Stopped):
        trained(config, at(17, terminate))
    stopped_at = state(tmp_path / "run")["/progress/frames"]
    resumed(replace(config, **change))
    assert differing(networks(undisturbed), networks(tmp_path / "run")) == []
    written = read_config(tmp_path / "run" / "config.yaml")
    assert all(getattr(written, section) == value for section, value in change.items())
    (change_line,) = (tmp_path / "run" / "changes.jsonl").read_text().splitlines()
    recorded = json.loads(change_line)
    assert recorded["frames"] == stopped_at
    said = [line for line in capsys.readouterr().err.splitlines() if "resumed with other settings: " in line]
    words = "; ".join(f"{name}: {old} → {new}" for name, (old, new) in recorded["changed"].items())
    assert said == [f"resumed with other settings: {words}"]
    # By hand: the fields in which the change differs from the settings of `tiny`.
    expected = {
        f"{section}.{name}": [vars(getattr(config, section))[name], new]
        for section, value in change.items()
        for name, new in vars(value).items()
        if new != vars(getattr(config, section))[name]
    }
    assert recorded["changed"] == expected


def test_a_complete_run_that_was_never_evaluated_is_evaluated_on_demand(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0, episodes=2))
    before = networks(trained(config))
    resumed(replace(config, evaluation=EvaluationConfig(every=20, episodes=2)))
    frames = state(tmp_path / "run")["/progress/frames"]
    assert [row["frames"] for row in rows(tmp_path / "run") if "evaluation/return_mean" in row] == [frames]
    assert differing(before, networks(tmp_path / "run")) == []


@pytest.mark.parametrize(
    ("make", "change", "line"),
    [
        (
            Corridor,
            {"seed": 4, "checkpoint": CheckpointConfig(every=9)},
            r"\(seed: 3 → 4\); choose another --run .*--fresh",
        ),
        (Corridor, {"evaluation": EvaluationConfig(every=5, episodes=3)}, r"\(evaluation.episodes: 2 → 3\)"),
        (None, {"evaluation": EvaluationConfig(every=5, episodes=2)}, "no display"),
    ],
)
def test_a_run_that_cannot_be_resumed_keeps_its_settings(
    undisturbed: Path, tmp_path: Path, make: Callable[[], Corridor] | None, change: dict[str, Any], line: str
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}

    def without_display() -> Corridor:
        raise UserError("no display")

    with pytest.raises(UserError, match=line):
        train(tiny(run, **change), make or without_display)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"} == before


def test_damaged_checkpoints_leave_the_settings_as_they_were(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    for path in (run / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"nothing")
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="none of the 2 checkpoints"):
        trained(tiny(run, frames=90))
    assert (run / "config.yaml").read_bytes() == before
    assert not (run / "changes.jsonl").exists()


def test_a_moved_run_and_a_moved_replay_resume(tmp_path: Path, undisturbed: Path) -> None:
    with pytest.raises(Stopped):
        trained(tiny(tmp_path / "run"), at(17, terminate))
    (tmp_path / "run").rename(tmp_path / "moved to")
    resumed(tiny(tmp_path / "moved to", replay=ReplayConfig(capacity=20, storage="disk")))
    assert differing(networks(undisturbed), networks(tmp_path / "moved to")) == []
    (line,) = (tmp_path / "moved to" / "changes.jsonl").read_text().splitlines()
    assert json.loads(line)["changed"] == {"replay.storage": ["auto", "disk"]}


def test_the_command_that_a_run_prints_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tiny(tmp_path / "my run's", frames=10, evaluation=EvaluationConfig(every=0)))
    found = re.search(r"play it with: (.*)", capsys.readouterr().err)
    assert found is not None
    assert shlex.split(found[1]) == ["python", "scripts/evaluate_agent.py", str(run)]
