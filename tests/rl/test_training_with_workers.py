"""Training with environments in other processes: resumed, overlapped with updates, several at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from curl_rl.rl.config import CheckpointConfig, RunConfig, load_preset
from curl_rl.rl.learner import Learner
from curl_rl.rl.loading import load_agent
from curl_rl.rl.training import TrainingFault, train
from curl_rl.runs import checkpoint
from curl_rl.runs.seeds import derived_seed


def tiny(run: Path, frames: int, *, overlap: bool = True, environments: int = 1) -> RunConfig:
    changes = {
        "training": {"random_steps": 8, "overlap": overlap, "environments": environments},
        "environment": {"size": 16, "stack": 2},
        "agent": {"crop": 14, "batch_size": 4, "hidden": 8, "encoder": {"filters": 2, "strides": [2, 1]}},
        "evaluation": {"every": 0},
    }
    return load_preset("cpu", "tiny-reach", {**changes, "frames": frames, "run": str(run), "device": "cpu"})


def make_tiny() -> Any:
    return envs.make("tiny-reach", size=16, stack=2)


@pytest.mark.parametrize(
    ("overlap", "environments", "stops"), [(True, 1, (33,)), (True, 3, (30, 90)), (False, 2, (70,))]
)
def test_a_run_that_is_stopped_in_an_episode_and_resumed_ends_the_same(
    tmp_path: Path, overlap: bool, environments: int, stops: tuple[int, ...]
) -> None:
    how = {"overlap": overlap, "environments": environments}
    train(tiny(tmp_path / "whole", 120, **how), make_tiny)
    for frames in (*stops, 120):
        train(tiny(tmp_path / "stopped", frames, **how), make_tiny)
    whole, stopped = (load_agent(tmp_path / name)[0].state_dict() for name in ("whole", "stopped"))
    for name, value in whole.items():
        assert torch.equal(value, stopped[name]), name


class BreaksOnce:
    """Makes an environment whose 20th step raises while a file exists."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __call__(self) -> Any:
        environment, trap, count = make_tiny(), self.trap, 0
        step = environment.step

        def breaking(action: Any) -> Any:
            nonlocal count
            count += 1
            if count == 20 and trap.exists():
                raise OSError("the simulator lost its licence")
            return step(action)

        environment.step = breaking
        return environment


def test_a_fault_during_an_overlapped_update_leaves_the_last_checkpoint_and_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "trap").touch()

    def config(name: str) -> RunConfig:
        return replace(tiny(tmp_path / name, 40), checkpoint=CheckpointConfig(every=5))

    with pytest.raises(TrainingFault) as fault:
        train(config("broken"), BreaksOnce(tmp_path / "trap"))
    line = str(fault.value)
    assert "the simulator lost its licence; the last checkpoint is intact: fix the environment and start" in line
    assert "\n" not in line
    assert len(list((tmp_path / "broken" / "checkpoints").glob("*.ckpt"))) == 2
    (tmp_path / "trap").unlink()
    for name in ("broken", "alone"):
        train(config(name), BreaksOnce(tmp_path / "trap"))
    broken, alone = (load_agent(tmp_path / name)[0].state_dict() for name in ("broken", "alone"))
    for name, value in alone.items():
        assert torch.equal(value, broken[name]), name


@pytest.mark.parametrize(
    ("overlap", "environments", "known"),
    [
        (False, 1, list(range(9, 41))),  # the ninth step is the first that is not random
        (True, 1, list(range(8, 40))),
        (False, 3, [9, *(n for n in range(12, 43, 3) for _ in range(3))]),  # steps 7, 8, 9: one of them is not random
        (True, 3, [6, *(n for n in range(9, 40, 3) for _ in range(3))]),
    ],
)
def test_an_update_a_step_with_or_without_the_newest_transitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool, environments: int, known: list[int]
) -> None:
    seen = []
    update = Learner.update

    def noting(self: Learner, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        seen.append(len(self.replay))
        return update(self, diagnose=diagnose)

    monkeypatch.setattr(Learner, "update", noting)
    train(tiny(tmp_path / "run", 40, overlap=overlap, environments=environments), make_tiny)
    assert seen == known


def test_several_environments_play_the_episodes_that_one_plays_with_the_same_actions(tmp_path: Path) -> None:
    """The oracle is tiny-reach itself, played with the run's recorded actions and seeds."""
    config = tiny(tmp_path / "run", 90, environments=3)
    train(config, make_tiny)
    _, found = checkpoint.load_newest(tmp_path / "run" / "checkpoints", read_only=True) or (None, {})
    under_way = found["progress"]["under_way"]
    assert len({episode["number"] for episode in under_way.values()}) == len(under_way) >= 2
    for episode in under_way.values():
        environment = make_tiny()
        observation, _ = environment.reset(seed=derived_seed(config.seed, "training episode", episode["number"]))
        total = 0.0
        for action in episode["actions"]:
            observation, reward, *_ = environment.step(action.numpy())
            total += reward
        assert np.array_equal(observation, episode["observation"].numpy())
        assert total == pytest.approx(episode["total"])
