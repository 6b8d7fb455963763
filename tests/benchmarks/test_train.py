"""The measuring of whole training, tried on a task that takes no time."""

from __future__ import annotations

import pytest
import torch

from benchmarks import train
from curl_rl.rl.config import load_preset


@pytest.mark.parametrize("environments", [1, 2])
def test_frames_are_those_of_the_steps_that_were_timed(monkeypatch: pytest.MonkeyPatch, environments: int) -> None:
    monkeypatch.setattr(train, "_ENOUGH_SECONDS", 0.0)
    changes = {
        "training": {"random_steps": train._RANDOM_STEPS, "environments": environments},
        "replay": {"capacity": 100},
        "environment": {"size": 20, "action_repeat": 5},  # of an episode of 25
        "agent": {"crop": 16, "batch_size": 4},
    }
    config = load_preset("cpu", "tiny-reach", changes)
    with train._trainer(config, torch.device("cpu")) as trainer:
        windows = train._timed_steps(trainer, 11, torch.device("cpu"))
        # Eleven by five windows is 2.2, and the next even number 4, in which two environments step together as well.
        assert [window.agent_steps for window in windows] == [4] * 5
        assert [window.frames for window in windows] == [20] * 5
        assert trainer.agent.updates == train._WARM_UP + 20
        assert all(window.seconds > 0 for window in windows)


def test_the_parts_of_the_time_are_all_there_and_no_more_than_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_ENOUGH_SECONDS", 0.0)
    changes = {
        "training": {"random_steps": train._RANDOM_STEPS},
        "replay": {"capacity": 100},
        "environment": {"size": 20, "action_repeat": 2},
        "agent": {"crop": 16, "batch_size": 4},
        "log": {"every": 8},
    }
    with train._trainer(load_preset("cpu", "tiny-reach", changes), torch.device("cpu")) as trainer:
        parts = train._watch(trainer, torch.device("cpu"))
        seconds = sum(window.seconds for window in train._timed_steps(trainer, 12, torch.device("cpu"), parts))
        logged = (trainer.session.directory / "metrics.jsonl").read_text()
    assert set(parts) == {"act", "step", "render", "store", "sample", "crop", "update", "log"}
    assert all(part > 0 for part in parts.values())
    assert sum(parts.values()) <= seconds
    assert '"critic/loss"' in logged, "the log's own work is part of the time"
