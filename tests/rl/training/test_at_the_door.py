"""Refusals before a run begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from curl_rl.rl.config import (
    EnvironmentConfig,
    UserError,
)
from curl_rl.rl.replay import ReplayConfig
from curl_rl.rl.training import train
from helpers.corridor import REPEAT, SIZE, STACK, Corridor, tiny, trained


class Floats(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 1, (3 * STACK, SIZE, SIZE), np.float32)


class Wide(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)


class Buttons(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)


class Long(Corridor):
    max_episode_steps = 21


class FloatPictures(Corridor):
    """Its space promises bytes."""

    def picture(self) -> Any:
        return super().picture() / 255


class Bare(Corridor):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Unready(Corridor):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise KeyError("no level")


LIMITED = EnvironmentConfig(size=SIZE, stack=STACK, action_repeat=REPEAT, max_episode_steps=7)


@pytest.mark.parametrize(
    ("make", "change", "line"),
    [
        (Floats, {}, "observations must be uint8"),
        (Wide, {}, "actions must be in .-1, 1."),
        (Buttons, {}, "actions must be vectors of real numbers"),
        (Long, {}, "replay.capacity 20 is smaller than an episode of corridor: 21 agent steps"),
        (Corridor, {"environment": EnvironmentConfig(size=SIZE, stack=4)}, "environment.stack 4 does not divide the 6"),
        (FloatPictures, {}, r"observation must be uint8 \(6, 10, 10\), got float64 \(6, 10, 10\)$"),
        (Bare, {}, r"reset must return \(observation, info\), got a ndarray"),
        (Unready, {}, "reset raised KeyError: 'no level'"),
        (Corridor, {"environment": LIMITED}, "environment.max_episode_steps must be .*, got 7, .* states none"),
        (Long, {"environment": LIMITED, "replay": ReplayConfig(50)}, "got 7, .* states 21 agent steps"),
        (Corridor, {"device": "cuda:99"}, "device cuda:99 not found: PyTorch sees"),
    ],
)
def test_an_untrainable_run_is_refused_before_anything_is_written(
    tmp_path: Path, make: Callable[[], Corridor], change: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        train(tiny(tmp_path / "run", **change), make)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("free", [10, 20_000])
def test_a_disk_without_room_is_refused_and_the_corrected_command_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    # The replay's file needs 20 + 1 + 2 + 1 frames of 300 bytes; the rest is for the checkpoints.
    config = tiny(tmp_path / "run", replay=ReplayConfig(capacity=20, storage="disk"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=free, used=0, free=free))
        with pytest.raises(UserError, match="lower replay.capacity") as refused:
            trained(config)
    assert ("replay.storage" in str(refused.value)) == (free == 10)
    trained(replace(config, replay=ReplayConfig(capacity=19), frames=20))


def test_damaged_rows_are_one_clear_line(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics.jsonl, line 1: must be a JSON object"):
        trained(replace(config, frames=30))


def test_a_disk_without_room_for_the_checkpoints_is_noticed_before_a_run_is_set_aside(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    present = sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file())
    full = SimpleNamespace(total=0, used=0, free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"the disk of .* has 0.0 GB free, .*: free some space, lower replay.capacity"):
        train(tiny(run), Corridor, fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    # What a resumed run has already counts: with room for the difference it goes on.
    full.free = 20 * 300 + 200_000 - present
    assert full.free > 0
    trained(tiny(run, frames=64))


@pytest.mark.parametrize("limit", [None, 21])
def test_an_environment_without_a_time_limit_is_remarked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: int | None
) -> None:
    class Limited(Corridor):
        max_episode_steps = limit

    train(tiny(tmp_path / "run", frames=2, replay=ReplayConfig(capacity=30)), Limited)
    remarks = [line for line in capsys.readouterr().err.splitlines() if "time limit" in line]
    assert remarks == (
        []
        if limit
        else [
            "corridor states no time limit: if an episode of it may never end, set --environment.max_episode_steps, "
            "in environment steps"
        ]
    )


class Endless(Corridor):
    """Never ends by itself, and shows nothing."""

    def reset(self, **named: Any) -> Any:
        result = super().reset(**named)
        self.length = 10**9
        return result

    def picture(self) -> np.ndarray:
        return np.zeros((3, SIZE, SIZE), np.uint8)


def test_a_picture_that_shows_nothing_is_warned_about_once_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def make() -> gymnasium.Env:
        limited = gymnasium.wrappers.TimeLimit(Endless(), 11)
        return limited

    train(tiny(tmp_path / "run", frames=60, replay=ReplayConfig(capacity=30)), make)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warned == ["warning: the pictures of 11 agent steps are black: does render() draw in the right range?"]
