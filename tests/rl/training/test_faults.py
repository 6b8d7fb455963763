"""Losses and environments that fail, disks that fill up: the message, and the saved state."""

from __future__ import annotations

import errno
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.rl import training
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.config import (
    CheckpointConfig,
    EvaluationConfig,
    LogConfig,
    UserError,
)
from curl_rl.rl.guard import EnvironmentGuard
from curl_rl.rl.training import TrainingFault, train
from curl_rl.runs import checkpoint
from curl_rl.runs.logger import Logger
from curl_rl.runs.signals import Stopped
from helpers.corridor import (
    Corridor,
    assert_same_run,
    at,
    differing,
    environments,
    networks,
    resumed,
    state,
    terminate,
    tiny,
    trained,
)


def test_a_broken_environment_saves_and_the_run_resumes_bit_for_bit(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")

    def broken() -> None:
        raise RuntimeError("the renderer\nis gone")

    with pytest.raises(TrainingFault) as fault:
        trained(config, at(17, broken))
    line = str(fault.value)
    assert re.search(r"\Astopped at \d+ frames \(update 10\): the renderer is gone; the run is saved: fix the", line)
    assert "\n" not in line
    assert "RuntimeError: the renderer" in (tmp_path / "run" / "fault.txt").read_text()
    assert state(tmp_path / "run")["/progress/agent_steps"] == 16
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("place", ["training", "evaluation"])
def test_an_environment_that_breaks_in_reset(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    config = tiny(tmp_path / "run")
    made: list[Corridor] = []
    reset = Corridor.reset

    def breaking(env: Corridor, **named: Any) -> Any:
        if env is made[0 if place == "training" else 1] and env.episodes == 5:
            raise OSError("no more licences")
        return reset(env, **named)

    make = environments()
    with monkeypatch.context() as patch:
        patch.setattr(Corridor, "reset", breaking)
        with pytest.raises(TrainingFault, match="no more licences; the run is saved: fix the environment"):
            train(config, lambda: made.append(make()) or made[-1])  # type: ignore[func-returns-value]
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_reward_that_is_not_a_number(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, step = tiny(tmp_path / "run"), Corridor.step

    def nan(env: Corridor, action: npt.NDArray[np.float32]) -> Any:
        observation, reward, *rest = step(env, action)
        return observation, math.nan if env.count == 20 else reward, *rest

    with monkeypatch.context() as patch:
        patch.setattr(Corridor, "step", nan)
        with pytest.raises(TrainingFault, match="reward must be finite, got nan; the run is saved"):
            trained(config)
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_an_environment_that_fails_while_its_episode_is_replayed(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    with pytest.raises(Stopped):
        trained(config, at(18, terminate))

    def broken() -> None:
        raise RuntimeError("no display")

    with pytest.raises(TrainingFault, match="no display; the run is unchanged"):
        trained(config, at(1, broken))
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_diverging_networks_overwrite_no_checkpoint(tmp_path: Path) -> None:
    agent = AgentConfig(
        batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4), critic_lr=1e30, actor_lr=1e30
    )
    config = tiny(tmp_path / "run", agent=agent, checkpoint=CheckpointConfig(every=2), evaluation=EvaluationConfig(0))
    with pytest.raises(TrainingFault) as fault:
        trained(config)
    assert re.search(
        r"stopped at \d+ frames \(update \d\): .*; the last checkpoint predates it; try a lower", str(fault.value)
    )
    assert "\n" not in str(fault.value)
    assert "fix the environment" not in str(fault.value)
    weights = [value for value in networks(tmp_path / "run").values() if isinstance(value, torch.Tensor)]
    assert all(value.isfinite().all() for value in weights)


def test_before_the_first_checkpoint_the_advice_names_what_may_not_change(tmp_path: Path) -> None:
    agent = AgentConfig(
        batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4), critic_lr=1e30, actor_lr=1e30
    )
    config = tiny(tmp_path / "run", agent=agent, evaluation=EvaluationConfig(0), checkpoint=CheckpointConfig(every=90))
    with pytest.raises(TrainingFault, match=r"; nothing was saved yet; try a lower learning rate, with --fresh or"):
        trained(config)
    # As advised.
    slower = replace(config, frames=20, agent=replace(agent, critic_lr=1e-3, actor_lr=1e-3))
    with pytest.raises(UserError, match="agent.actor_lr: 1e[+]30 → 0.001"):
        trained(slower)
    train(slower, environments(), fresh=True)


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_nan_in_a_loss_or_a_weight_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    update = Agent.update

    def diverging(agent: Agent, inputs: Any, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        metrics = update(agent, inputs, diagnose=diagnose)
        if agent.updates == 11:
            if what == "loss":
                metrics["critic/loss"] = torch.tensor(math.nan)
            else:
                agent.log_alpha.data.fill_(math.inf)
        return metrics

    monkeypatch.setattr(Agent, "update", diverging)
    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    config = tiny(tmp_path / "run", checkpoint=CheckpointConfig(every=1), log=LogConfig(every=1000))
    name = "critic/loss" if what == "loss" else "log_alpha"
    with pytest.raises(TrainingFault, match=f"no longer finite: {name}; the last checkpoint predates it"):
        trained(config)
    assert state(tmp_path / "run")["/agent/updates"] == 10


def test_a_first_observation_that_the_replay_refuses_is_reported_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset, episodes = Corridor.reset, itertools.count()

    def torn(env: Corridor, **named: Any) -> Any:
        observation, info = reset(env, **named)
        if next(episodes) > 4:
            observation[0, 0, 0] ^= 1  # the stack is no longer one frame repeated
        return observation, info

    for _ in range(2):
        monkeypatch.setattr(Corridor, "reset", torn)
        with pytest.raises(TrainingFault, match="observation is not one frame repeated"):
            train(tiny(tmp_path, evaluation=EvaluationConfig(every=0)), environments())


def test_too_little_memory_in_an_update_names_the_settings_to_lower(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, count = Agent.update, itertools.count()

    def exhausting(agent: Any, inputs: Any, *, diagnose: bool = False) -> Any:
        if next(count) == 17:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(agent, inputs, diagnose=diagnose)

    config = tiny(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training, "estimated_time", lambda *_: "no estimate")
        patch.setattr(Agent, "update", exhausting)
        with pytest.raises(TrainingFault, match=r"CUDA out of memory; .*agent\.batch_size"):
            trained(config)
    assert differing(state(undisturbed), state(resumed(config))) == []


def test_too_little_memory_at_the_start_is_the_users_to_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "Replay", exhausted)
    with pytest.raises(UserError, match=r"cpu has too little memory for this run: lower agent\.batch_size"):
        trained(tiny(tmp_path))


def test_a_full_disk_keeps_the_earlier_checkpoint(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, write, saves = tiny(tmp_path / "run"), checkpoint._write, iter(range(1, 100))

    def full(file: Any, *arguments: Any) -> None:
        if next(saves) == 3:
            file.write(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(TrainingFault) as fault:
            trained(config)
    assert "No space left on device" in str(fault.value)
    assert "free some disk space and start the same command again" in str(fault.value)
    assert "\n" not in str(fault.value)
    assert 28 <= state(tmp_path / "run")["/progress/frames"] < 42
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_broken_environment_on_a_full_disk_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        monkeypatch.setattr(checkpoint, "_write", full)
        raise RuntimeError("the renderer is gone")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = "renderer is gone; the last checkpoint is intact; a new one could not be written"
    with pytest.raises(TrainingFault, match=message):
        trained(tiny(tmp_path / "run"), at(17, broken))


def test_the_environments_are_closed_after_a_fault(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Closing(Corridor):
        def close(self) -> None:
            closed.append(True)

        def step(self, action: npt.NDArray[np.float32]) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(TrainingFault):
        train(tiny(tmp_path / "run"), Closing)
    assert len(closed) == 2


def test_a_row_of_an_episode_that_finds_no_room_is_the_disks_fault_and_not_the_environments(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is taken but its update is not: a run saved here would resume without that update."""
    config, scalars, episodes = tiny(tmp_path / "run"), Logger.scalars, itertools.count()

    def full(logger: Logger, frames: int, metrics: Any) -> dict[str, float]:
        if "episode/return" in metrics and next(episodes) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return scalars(logger, frames, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Logger, "scalars", full)
        with pytest.raises(
            TrainingFault, match="No space left on device; nothing that was saved is lost: free some disk"
        ):
            trained(config)
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("environments", [1, 2])
def test_a_step_that_cannot_be_undone_goes_back_to_the_last_checkpoint(tmp_path: Path, environments: int) -> None:
    """One of two environments has taken its step when the other's is refused; with overlap an update has run too."""
    session = SimpleNamespace(directory=tmp_path, fail=lambda error, advice: said.append(advice) or 1 / 0)
    said: list[str] = []
    generator = torch.Generator()
    guard = EnvironmentGuard(session, lambda: said.append("saved"), generator)  # type: ignore[arg-type]
    before = generator.get_state()
    torch.rand(3, generator=generator)
    guard.can_undo = environments == 1
    with pytest.raises(ZeroDivisionError), guard:
        raise RuntimeError("the renderer is gone")
    assert torch.equal(generator.get_state(), before), "the same numbers are drawn again"
    remedy = "fix the environment and start the same command again"
    saved, kept = ["saved", f"the run is saved: {remedy}"], [f"nothing was saved yet: {remedy}"]
    assert said == (saved if environments == 1 else kept)


def test_a_guard_passes_on_errors_that_are_not_the_environments(tmp_path: Path) -> None:
    session = SimpleNamespace(directory=tmp_path)
    guard = EnvironmentGuard(session, lambda: None, torch.Generator())  # type: ignore[arg-type]
    for error in (KeyboardInterrupt(), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(type(error)), guard:
            raise error
