"""Recording an environment that shows its step count, so that matching entries are known."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from curl_rl.recordings import store as frames_module
from curl_rl.recordings.recorder import Policy, open_recording, random_policy, record
from curl_rl.recordings.store import FrameWriter, RecordedFrames, Recording

SIZE, STACK, LENGTH = 4, 2, 5
RECORDING = Recording(
    env="counter",
    size=SIZE,
    action_repeat=1,
    quality="fast",
    seed=7,
    policy="random",
    state_names=("count", "mean action"),
    action_size=2,
)


class Counter:
    """Shows 10 · its episode's number + its count; episodes last LENGTH steps; the reward is 100 · the first action."""

    def __init__(self) -> None:
        self.seeds: list[int | None] = []
        self.count, self.action = 0, 0.0

    def reset(self, *, seed: int | None = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        self.seeds.append(seed)
        self.count, self.action = 0, 0.0
        self.shown = [10 * len(self.seeds) - 10] * STACK
        return self._observation(), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.action = float(action.mean())
        self.shown = [*self.shown[1:], 10 * len(self.seeds) - 10 + self.count]
        return self._observation(), 100 * float(action[0]), False, self.count == LENGTH, {}

    def physical_state(self) -> npt.NDArray[np.float64]:
        return np.array([self.count, self.action])

    def _observation(self) -> npt.NDArray[np.uint8]:
        return np.repeat(np.array(self.shown, np.uint8), 3)[:, None, None] * np.ones((1, SIZE, SIZE), np.uint8)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "SHARD_FRAMES", 8)


def recorded(folder: Path, frames: int, policy: Policy | None = None) -> RecordedFrames:
    record(Counter(), policy or random_policy(2), FrameWriter(folder, RECORDING), frames=frames)
    return RecordedFrames(folder)


def test_frame_state_action_and_reward_of_a_step_are_stored_together(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data", 13)
    assert len(data) == 13
    assert data.episodes.tolist() == [0] * 5 + [1] * 5 + [2] * 3
    # The reset's frame is stored, the final frame of an episode is not.
    assert data.states[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2]
    shown = data.observations(torch.arange(13), 1)[:, 0, 0, 0]
    assert shown.tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22]
    # An action's outcome is in the next frame's state; its reward is stored with the action.
    assert torch.allclose(data.states[1:5, 1], data.actions[:4].double().mean(1))
    assert torch.allclose(data.rewards, 100 * data.actions[:, 0])
    # The stacks equal the environment's observations.
    assert data.observations(torch.tensor([0, 6]), STACK)[:, ::3, 0, 0].tolist() == [[0, 0], [10, 11]]


def test_random_actions_are_uniform() -> None:
    generator, policy = np.random.default_rng(0), random_policy(3)
    actions = np.stack([policy(np.zeros((3, 1, 1), np.uint8), generator) for _ in range(4000)])
    assert actions.shape == (4000, 3)
    assert actions.dtype == np.float32
    counts = np.histogram(actions, bins=4, range=(-1, 1))[0]
    assert counts.sum() == 12_000
    assert np.allclose(counts / 12_000, 0.25, atol=0.02)


def test_randomness_differs_between_episodes_and_from_the_environments(tmp_path: Path) -> None:
    env = Counter()
    record(env, random_policy(2), FrameWriter(tmp_path / "data", RECORDING), frames=10)
    first, second = RecordedFrames(tmp_path / "data").actions.split(5)
    assert not torch.equal(first, second)
    # gymnasium seeds an environment's generator like this: the actions would mirror the episode's start.
    starts = [np.random.default_rng(seed).uniform(-1, 1, 2).astype(np.float32) for seed in env.seeds]
    assert not np.array_equal(first[0].numpy(), starts[0])
    assert not np.array_equal(second[0].numpy(), starts[1])


def test_a_stopped_recording_continues_as_if_uninterrupted(tmp_path: Path) -> None:
    alone = recorded(tmp_path / "alone", 23)
    env, asked = Counter(), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 13  # in the middle of the third episode

    writer = FrameWriter(tmp_path / "stopped", RECORDING)
    assert record(env, random_policy(2), writer, frames=23, stop=stop) is False
    assert len(RecordedFrames(tmp_path / "stopped")) == 10
    assert record(Counter(), random_policy(2), FrameWriter(tmp_path / "stopped", RECORDING), frames=23) is True
    resumed = RecordedFrames(tmp_path / "stopped")
    assert torch.equal(resumed.actions, alone.actions)
    assert torch.equal(resumed.episodes, alone.episodes)
    assert len(set(env.seeds)) == 3


@pytest.mark.parametrize("lengths", [(3, 23), (13, 14, 23), (5, 23), (15, 16, 17, 23), (8, 8, 23)])
def test_an_extended_recording_equals_one_made_in_one_pass(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    alone = recorded(tmp_path / "alone", 23)
    for length in lengths:
        before = len(RecordedFrames(tmp_path / "longer")) if (tmp_path / "longer").exists() else 0
        progress = itertools.count()
        writer = FrameWriter(tmp_path / "longer", RECORDING)
        record(Counter(), random_policy(2), writer, frames=length, after_frame=progress.__next__)
        assert len(RecordedFrames(tmp_path / "longer")) == length
        assert next(progress) == length - before
    longer = RecordedFrames(tmp_path / "longer")
    assert torch.equal(longer.actions, alone.actions)
    assert torch.equal(longer.states, alone.states)
    assert torch.equal(longer.episodes, alone.episodes)


def test_a_cut_episode_stays_until_it_is_recorded_again(tmp_path: Path) -> None:
    recorded(tmp_path / "data", 13)
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    asked = iter([False] * 4 + [True])  # one frame beyond the cut
    writer = FrameWriter(tmp_path / "data", RECORDING)
    assert record(Counter(), random_policy(2), writer, frames=23, stop=lambda: next(asked)) is False
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}


def test_a_failing_policy_leaves_the_recorded_episodes(tmp_path: Path) -> None:
    count = 0

    def policy(_: Any, generator: np.random.Generator) -> npt.NDArray[np.float32]:
        nonlocal count
        count += 1
        if count == 8:
            raise FloatingPointError("the policy's action is [nan]")
        return np.zeros(2, np.float32)

    with pytest.raises(FloatingPointError, match="nan"):
        recorded(tmp_path / "data", 20, policy)
    assert len(RecordedFrames(tmp_path / "data")) == 5


def test_a_folder_has_one_writer_and_resumes_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with open_recording(folder, RECORDING) as writer:
        record(Counter(), random_policy(2), writer, frames=5)
        with pytest.raises(ValueError, match="is in use by process"), open_recording(folder, RECORDING):
            pass
    with open_recording(folder, RECORDING) as writer:
        assert writer.frames == 5


def test_a_folder_of_something_else_is_refused_before_a_lock_is_written(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not a recording"), open_recording(tmp_path, RECORDING):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    recorded(tmp_path / "data", 5)
    other = dataclasses.replace(RECORDING, seed=8)
    with pytest.raises(ValueError, match="holds another recording"), open_recording(tmp_path / "data", other):
        pass
    assert not list((tmp_path / "data").glob("*.lock"))
