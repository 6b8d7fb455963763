"""Vectors beside the frames: every vector holds its frame's number, so that it must belong to the newest frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from curl_rl.rl.replay import Batch, Replay, ReplayConfig, replay_bytes, segment_files
from helpers.brute_force_replay import (
    ACTION_DIM,
    CHANNELS,
    FAR,
    SIZE,
    Step,
    action_of,
    assert_equal_batches,
    frame_of,
    make,
    play,
)

STACK, WIDTH = 3, 2
GOES_ON = {"terminated": False, "truncated": False}
NUMBERS = {
    frame_of(number).tobytes(): number for stream in range(3) for number in range(FAR * stream, FAR * stream + 999)
}


def beside(observation: np.ndarray) -> np.ndarray:
    """The vector of a frame: its number, and half of it."""
    number = NUMBERS[observation[-CHANNELS:].tobytes()]
    return np.array([number, number / 2], np.float32)


def with_vectors(capacity: int, **more: Any) -> Replay:
    shape = (STACK * CHANNELS, SIZE, SIZE)
    config = ReplayConfig(capacity, "memory")
    return Replay(config, shape, ACTION_DIM, stack=STACK, device="cpu", proprioception=WIDTH, **more)


def feed(replay: Replay, step: Step, stream: int = 0) -> None:
    vector = beside(step.observation)
    if step.action is None:
        replay.start_episode(step.observation, proprioception=vector, stream=stream)
    else:
        ends = {"terminated": step.terminated, "truncated": step.truncated}
        replay.add(step.action, step.reward, step.observation, next_proprioception=vector, **ends, stream=stream)
    vector[:] = np.nan  # an environment may reuse its buffer


def assert_vectors_belong_to_their_frames(batch: Batch) -> None:
    for vectors, observations in (
        (batch.proprioception, batch.observation),
        (batch.next_proprioception, batch.next_observation),
    ):
        assert vectors is not None
        assert vectors.dtype == torch.float32
        assert vectors.tolist() == [beside(observation).tolist() for observation in observations.numpy()]


@pytest.mark.parametrize(("streams", "mean_length"), [(1, 1.5), (1, 30), (3, 4)])
def test_every_vector_belongs_to_the_newest_frame_of_its_observation(streams: int, mean_length: float) -> None:
    replay, generator = with_vectors(20 * streams, streams=streams), torch.Generator().manual_seed(0)
    plays = [play(np.random.default_rng(stream), STACK, mean_length, FAR * stream) for stream in range(streams)]
    for moment in range(150):
        for stream, steps in enumerate(plays):
            feed(replay, next(steps), stream)
        if len(replay) and moment % 5 == 0:
            assert_vectors_belong_to_their_frames(replay.sample(16, generator, discount=0.9, n_step=1 + moment % 4))


def test_vectors_change_nothing_else_of_a_sample() -> None:
    replay, without = with_vectors(20), make(20, STACK)
    for number, step in enumerate(play(np.random.default_rng(0), STACK, 5)):
        feed(replay, step)
        if step.action is None:
            without.start_episode(step.observation)
        else:
            ends = {"terminated": step.terminated, "truncated": step.truncated}
            without.add(step.action, step.reward, step.observation, **ends)
        if number == 60:
            break
    batches = [r.sample(32, torch.Generator().manual_seed(1), discount=0.9, future=(2,)) for r in (replay, without)]
    for with_them, without_them in zip(*(batch[:5] for batch in batches), strict=True):
        assert torch.equal(with_them, without_them)
    assert batches[1].proprioception is batches[1].next_proprioception is None


def test_a_saved_replay_goes_on_with_its_vectors(tmp_path: Path) -> None:
    steps = play(np.random.default_rng(3), STACK, 6)
    replay = with_vectors(25)
    for _ in range(40):
        feed(replay, next(steps))
    replay.save(tmp_path)
    for _ in range(7):
        feed(replay, next(steps))
    manifest, again = replay.save(tmp_path), with_vectors(25)
    again.restore(tmp_path, manifest)
    for _ in range(12):
        batches = [r.sample(9, torch.Generator().manual_seed(5), discount=0.9, n_step=3) for r in (replay, again)]
        assert_vectors_belong_to_their_frames(batches[1])
        assert_equal_batches(*batches)
        step = next(steps)
        feed(replay, step)
        feed(again, step)


def test_a_replay_without_vectors_is_saved_and_sized_as_before(tmp_path: Path) -> None:
    replay = make(10, STACK)
    shape = (STACK * CHANNELS, SIZE, SIZE)
    for step, _ in zip(play(np.random.default_rng(0), STACK, 5), range(12), strict=False):
        if step.action is None:
            replay.start_episode(step.observation)
        else:
            replay.add(step.action, 0.0, step.observation, terminated=False, truncated=False)
    manifest = replay.save(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / segment_files(manifest)[0])
    assert set(saved) == {"frames", "action", "reward", "terminated", "start_frame", "position"}
    del manifest["proprioception"]  # as in checkpoints from before there were vectors
    make(10, STACK).restore(tmp_path, manifest)
    with pytest.raises(ValueError, match="^replay proprioception must be the checkpoint's, 0, got 2$"):
        with_vectors(10).restore(tmp_path, manifest)
    slots = 10 + 10 // 20 + STACK + 1  # of frames
    more = replay_bytes(10, shape, 3, stack=STACK, proprioception=7) - replay_bytes(10, shape, 3, stack=STACK)
    assert more == slots * 7 * 4
    assert with_vectors(10).nbytes - replay.nbytes == slots * WIDTH * 4


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (None, r"must have shape \(2,\), got none"),
        (np.zeros(3, np.float32), r"must have shape \(2,\), got \(3,\)"),
        (np.array([0, np.nan], np.float32), r"must be finite, got \[0.0, nan\]"),
        (np.array([np.inf, 0], np.float32), r"must be finite, got \[inf, 0.0\]"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_and_nothing_is_stored(vector: np.ndarray | None, words: str) -> None:
    replay = with_vectors(5)
    first = np.tile(frame_of(0), (STACK, 1, 1))
    with pytest.raises(ValueError, match=f"^proprioception {words}$"):
        replay.start_episode(first, proprioception=vector)
    replay.start_episode(first, proprioception=np.zeros(2, np.float32))
    following = np.concatenate([first[CHANNELS:], frame_of(1)])
    with pytest.raises(ValueError, match=f"^next_proprioception {words}$"):
        replay.add(action_of(0), 0.0, following, next_proprioception=vector, **GOES_ON)
    assert len(replay) == 0
    replay.add(action_of(0), 0.0, following, next_proprioception=np.ones(2, np.float32), **GOES_ON)
    assert len(replay) == 1


def test_a_replay_without_vectors_takes_none() -> None:
    with pytest.raises(ValueError, match=r"^proprioception must have shape \(0,\), got \(2,\)$"):
        make(5, STACK).start_episode(np.tile(frame_of(0), (STACK, 1, 1)), proprioception=np.zeros(2, np.float32))
