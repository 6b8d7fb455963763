"""An agent and its replay loaded from a run's directory, against the saved state and the observed transitions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from curl_rl.rl.loading import load_agent, load_learner
from curl_rl.rl.replay import Replay
from curl_rl.runs import checkpoint
from curl_rl.runs.errors import UserError
from helpers.tiny_reach import train_on_tiny_reach

FLAGS = "--frames 60 --replay.capacity 50 --agent.n_step 1"


class Run(NamedTuple):
    directory: Path
    stored: list[tuple[Any, ...]]
    """The action, its reward, and the observation after it, for each agent step in order."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("runs") / "run"
    stored, add = [], Replay.add

    def seen(replay: Replay, action: Any, reward: float, next_observation: Any, **named: Any) -> None:
        stored.append((np.array(action), reward, next_observation.copy()))
        add(replay, action, reward, next_observation, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "add", seen)
        train_on_tiny_reach(directory, FLAGS)
    return Run(directory, stored)


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def saved_state(directory: Path) -> Any:
    found = checkpoint.load_newest(directory / "checkpoints", read_only=True)
    assert found is not None
    return found[1]


def test_the_agent_equals_the_saved_one(run: Run) -> None:
    agent, config, frames = load_agent(run.directory, "cpu")
    assert (frames, config.seed) == (60, 4)
    state = saved_state(run.directory)["agent"]
    assert agent.updates == state["updates"] == 40
    assert agent.state_dict().keys() == state["networks"].keys()
    for name, value in agent.state_dict().items():
        assert torch.equal(value, state["networks"][name]), name
    moments = state["optimizers"]["critic"]["state"]
    for number, own in agent.critic_optimizer.state_dict()["state"].items():
        assert torch.equal(own["exp_avg_sq"], moments[number]["exp_avg_sq"])


def test_the_replay_holds_the_runs_newest_transitions(run: Run) -> None:
    learner, config = load_learner(run.directory, "cpu")
    assert config.agent.batch_size == 4
    assert len(learner.replay) == 50  # its capacity; the run made 60 steps
    newest = {action.tobytes(): (reward, after) for action, reward, after in run.stored[-50:]}
    drawn = set()
    for _ in range(150):
        batch = learner.sample()
        for action, reward, after in zip(batch.action, batch.reward, batch.next_observation, strict=True):
            key = action.numpy().tobytes()
            assert reward.item() == pytest.approx(newest[key][0])
            assert np.array_equal(after.numpy(), newest[key][1])
            drawn.add(key)
    assert drawn == newest.keys()


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_the_replay_of_several_environments_is_restored_from_any_storage(tmp_path: Path, storage: str) -> None:
    more = f"--training.environments 2 --replay.storage {storage}"
    directory = train_on_tiny_reach(tmp_path / "run", f"{FLAGS} {more}")
    saved = saved_state(directory)["replay"]
    before, writable = content(directory), directory.stat().st_mode
    directory.chmod(0o555)  # nothing needs to be written into it
    try:
        learner, _ = load_learner(directory, "cpu")
    finally:
        directory.chmod(writable)
    assert learner.replay.storage == storage
    assert len(saved["streams"]) == 2
    assert len(learner.replay) == 50  # its capacity, a half to each
    assert len({value for _ in range(60) for value in learner.sample().action[:, 0].tolist()}) > 40, "of both"
    assert content(directory) == before


def test_it_continues_to_learn_and_does_not_change_the_run(run: Run) -> None:
    before = content(run.directory)
    weights = []
    for _ in range(2):
        learner, _ = load_learner(run.directory, "cpu")
        start = learner.agent.encoder.projection.linear.weight.clone()
        learner.update()
        weights.append(learner.agent.encoder.projection.linear.weight.detach().clone())
        assert not torch.equal(weights[-1], start)
    assert torch.equal(*weights), "the draws follow from the run's seed"
    assert learner.generator.initial_seed() == learner.replay_generator.initial_seed() == 4
    assert content(run.directory) == before


@pytest.mark.parametrize("load", [load_agent, load_learner])
def test_missing_files_are_reported(load: Any, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory \(config\.yaml is missing\)"):
        load(str(tmp_path))
    shutil.copy(run.directory / "config.yaml", tmp_path)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load(tmp_path)


def test_a_run_in_bfloat16_is_loaded_on_a_device_without_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run.directory, tmp_path / "copy")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("precision: float32", "precision: bfloat16"))
    monkeypatch.setattr("curl_rl.runs.compute.FUSES_BFLOAT16", False)
    agent, recorded, _ = load_agent(copy, "cpu")
    assert agent.encoder.convolutions.precision == "float32"
    assert recorded.agent.precision == "bfloat16"
    assert (
        "the agent was trained in bfloat16, which this device does not support: using float32"
        in capsys.readouterr().err
    )


def test_a_damaged_replay_is_refused(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.directory, tmp_path / "copy")
    (segment,) = copy.rglob("segment-*.safetensors")
    segment.write_bytes(segment.read_bytes()[:-3])
    with pytest.raises(UserError, match=segment.name):
        load_learner(copy, "cpu")
    load_agent(copy, "cpu")
