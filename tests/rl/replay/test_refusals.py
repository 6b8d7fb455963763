"""The replay's refusals name the argument and store nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.rl.replay import Replay, ReplayConfig
from helpers.brute_force_replay import action_of, make, numbers_in, observation_of, two_episodes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"capacity": 0}, r"replay\.capacity must be at least 1, got 0"),
        ({"storage": "tape"}, r"replay\.storage must be auto, device, memory or disk, got 'tape'"),
    ],
)
def test_config_is_checked(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplayConfig(**config)


@pytest.mark.parametrize(
    ("shape", "action_dim", "stack", "message"),
    [
        ((7, 2, 2), 3, 3, r"observation_shape must be .*, got \(7, 2, 2\)"),
        ((6, 2), 3, 3, r"observation_shape must be .*, got \(6, 2\)"),
        ((6, 2, 2), 0, 3, "action_dim must be at least 1, got 0"),
        ((6, 2, 2), 3, 0, "stack must be at least 1, got 0"),
    ],
)
def test_shapes_are_checked(shape: tuple[int, ...], action_dim: int, stack: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replay(ReplayConfig(5), shape, action_dim, stack=stack, device="cpu")


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (observation_of(0, 0, 1), "observation is not one frame repeated"),
        (observation_of(0, 1, 1), "observation is not one frame repeated"),
        (observation_of(0, 0), r"observation must have shape \(6, 2, 2\), got \(4, 2, 2\)"),
        (observation_of(0, 0, 0).astype(np.float32), "observation must have dtype uint8, got float32"),
    ],
)
def test_a_first_observation_is_checked(observation: np.ndarray, message: str) -> None:
    replay = make(5)
    with pytest.raises(ValueError, match=message):
        replay.start_episode(observation)
    with pytest.raises(RuntimeError, match=r"call start_episode\(\)"):
        replay.add(action_of(0), 0.0, observation_of(0, 0, 1), terminated=False, truncated=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_observation": observation_of(0, 0, 2)}, "not the previous observation shifted by one frame"),
        ({"next_observation": observation_of(0, 1, 0)[::-1]}, "not the previous observation shifted"),
        ({"next_observation": observation_of(0, 1)}, r"next_observation must have shape \(6, 2, 2\), got"),
        (
            {"next_observation": observation_of(0, 1, 2).astype(np.int64)},
            "next_observation must have dtype uint8, got int64",
        ),
        ({"action": [0.0, 0.0]}, r"action must have shape \(3,\), got \(2,\)"),
        ({"action": [0.0, np.inf, 0.0]}, "action must be finite, got .*inf"),
        ({"reward": float("nan")}, "reward must be finite as a float32, got nan"),
        ({"reward": -1e39}, r"reward must be finite as a float32, got -1e\+39"),
    ],
)
def test_a_refused_step_leaves_no_trace(change: dict[str, Any], message: str) -> None:
    replay = make(5)
    replay.start_episode(observation_of(0, 0, 0))
    replay.add(action_of(0), 1.0, observation_of(0, 0, 1), terminated=False, truncated=False)
    step = {"action": action_of(1), "reward": 0.0, "next_observation": observation_of(0, 1, 2), **change}
    with pytest.raises(ValueError, match=message):
        replay.add(**step, terminated=False, truncated=False)
    assert len(replay) == 1
    replay.add(action_of(1), 2.0, observation_of(0, 1, 2), terminated=True, truncated=False)
    batch = replay.sample(30, torch.Generator().manual_seed(0), discount=1.0, n_step=2)
    for row, number in enumerate(numbers_in(batch)):
        assert batch.reward[row].item() == [3.0, 2.0][number]
        np.testing.assert_array_equal(batch.next_observation[row], observation_of(0, 1, 2))


def test_calls_out_of_order_are_refused() -> None:
    replay = make(5)
    with pytest.raises(RuntimeError, match="has no transitions yet"):
        replay.sample(1, torch.Generator(), discount=0.9)
    replay.start_episode(observation_of(0, 0, 0))
    with pytest.raises(RuntimeError, match="has no transitions yet"):
        replay.sample(1, torch.Generator(), discount=0.9)
    replay.add(action_of(0), 0.0, observation_of(0, 0, 1), terminated=False, truncated=True)
    with pytest.raises(RuntimeError, match=r"call start_episode\(\)"):
        replay.add(action_of(1), 0.0, observation_of(0, 1, 2), terminated=False, truncated=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\], got 1\.5"),
        ({"discount": float("nan")}, "discount must lie .*, got nan"),
        ({"n_step": 0}, "n_step must be at least 1, got 0"),
        ({"future": (1, -1)}, r"offsets in future must be 0 or more, got \(1, -1\)"),
    ],
)
def test_the_arguments_of_sample_are_checked(arguments: dict[str, Any], message: str) -> None:
    settings = {"batch_size": 4, "discount": 0.9, **arguments}
    with pytest.raises(ValueError, match=message):
        two_episodes("terminated").sample(generator=torch.Generator(), **settings)
