"""Evaluation on an environment with known returns that records the agent's actions."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.evaluation import Evaluation, evaluate
from curl_rl.rl.film import BAND, SIDE


class Counter(gymnasium.Env[npt.NDArray[np.uint8], npt.NDArray[np.float32]]):
    """The k-th frame of the n-th episode has the shade 10·n + k; the reward is k; episode n has 2 + n steps."""

    metadata = {"render_fps": 7}

    def __init__(self, channels: int = 3, stack: int = 2) -> None:
        self.channels, self.stack = channels, stack
        self.observation_space = gymnasium.spaces.Box(0, 255, (channels * stack, 9, 9), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.seeds: list[int | None] = []
        self.actions: list[npt.NDArray[np.float32]] = []
        self.episode, self.k = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        self.seeds.append(seed)
        self.episode, self.k = self.episode + 1, 0
        return self.observation(), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.k += 1
        over = self.k == 2 + self.episode
        terminated = over and self.episode % 2 == 0
        return self.observation(), float(self.k), terminated, over and not terminated, {}

    def observation(self) -> npt.NDArray[np.uint8]:
        shades = [10 * self.episode + max(self.k - back, 0) for back in range(self.stack - 1, -1, -1)]
        return np.concatenate([np.full((self.channels, 9, 9), shade, np.uint8) for shade in shades])


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent((6, 9, 9), 2, AgentConfig(crop=8, hidden=4, encoder=EncoderConfig(2, (2,), 3)))


def played(agent: Agent, env: Counter, **named: Any) -> Evaluation:
    result = evaluate(agent, env, seed=5, **named)
    assert result is not None
    return result


def test_returns_are_the_sums_of_the_rewards(agent: Agent) -> None:
    # 1 + 2, then + 3, then + 4: terminated, truncated, terminated.
    assert played(agent, Counter(), episodes=3).returns == [3.0, 6.0, 10.0]


def test_metrics_are_those_of_the_statistics_module() -> None:
    returns = [4.0, 1.0, 10.0, 2.0]
    assert Evaluation(returns, None, 30).metrics() == {
        "evaluation/return_mean": 4.25,
        "evaluation/return_median": 3.0,
        "evaluation/return_std": pytest.approx(statistics.pstdev(returns)),
        "evaluation/return_min": 1.0,
        "evaluation/return_max": 10.0,
    }


def test_actions_are_the_policys_mean_on_the_center_crop(agent: Agent) -> None:
    env = Counter()
    played(agent, env, episodes=1)
    env.reset()
    env.episode, env.k = 0, 0
    with torch.no_grad():
        for k, action in enumerate(env.actions):
            env.k = k
            view = torch.from_numpy(env.observation())[None, :, 0:8, 0:8]  # (9 − 8) // 2 = 0
            features = agent.actor_projection(agent.encoder.convolutions(view))
            mean = agent.actor(features, torch.zeros(1, 2)).mean[0]
            assert torch.equal(mean, torch.from_numpy(action))


def test_the_newest_frame_of_the_first_episode_is_recorded_first_and_last_one_included(agent: Agent) -> None:
    result = played(agent, Counter(), episodes=2, record=True)
    assert result.pictures is not None
    assert result.pictures.shape == (3, SIDE + BAND, 2 * SIDE + 4, 3)
    assert result.pictures[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert result.pictures[:, SIDE - 1, -1, 0].tolist() == [0, 1, 2]
    assert result.pictures_per_second == 7
    assert played(agent, Counter(), episodes=1).pictures is None


def test_a_frame_that_is_not_rgb_is_recorded_in_gray() -> None:
    torch.manual_seed(0)
    agent = Agent((2, 9, 9), 2, AgentConfig(crop=8, hidden=4, encoder=EncoderConfig(2, (2,), 3)))
    result = played(agent, Counter(channels=1), episodes=1, record=True)
    assert result.pictures is not None
    assert result.pictures[:, 4, 4].tolist() == [[0] * 3, [1] * 3, [2] * 3]


def test_neither_the_agent_nor_any_generator_is_changed(agent: Agent) -> None:
    before, state = copy.deepcopy(agent.state_dict()), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    played(agent, Counter(), episodes=2, record=True)
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index, arg-type]


def test_the_same_seeds_every_time(agent: Agent) -> None:
    one, other = Counter(), Counter()
    played(agent, one, episodes=3)
    played(agent, other, episodes=3)
    assert one.seeds == other.seeds


def test_a_stop_aborts_the_evaluation(agent: Agent) -> None:
    answers = iter([False] * 4 + [True])
    env = Counter()
    assert evaluate(agent, env, episodes=3, seed=5, stop=lambda: next(answers)) is None
    assert len(env.actions) == 4


def test_each_episode_is_reported(agent: Agent) -> None:
    told: list[int] = []
    env = Counter()
    played(agent, env, episodes=3, after_episode=lambda: told.append(len(env.actions)))
    assert told == [2, 5, 9]


def test_diverged_networks_and_rewards_that_are_not_finite_are_refused(agent: Agent) -> None:
    class Nan(Counter):
        def step(self, action: npt.NDArray[np.float32]) -> Any:
            observation, _, *rest = super().step(action)
            return observation, math.nan, *rest

    with pytest.raises(ValueError, match="reward must be finite, got nan"):
        evaluate(agent, Nan(), episodes=1, seed=0)
    for parameter in agent.actor_projection.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"the policy's action is \[nan, nan\]"):
        evaluate(agent, Counter(), episodes=1, seed=0)


@pytest.mark.parametrize(("limit", "told"), [(None, [2, 20]), (50, [])])
def test_an_episode_without_a_limit_that_goes_on_is_mentioned(
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: int | None,
    told: list[int],
) -> None:
    env = Counter()
    env.episode = 19  # the next one has 22 steps
    env.max_episode_steps = limit  # type: ignore[attr-defined]
    monkeypatch.setattr("curl_rl.rl.evaluation._LONG", 2)
    assert played(agent, env, episodes=1).returns == [sum(range(1, 23))]
    lines = [f"evaluation: episode 1 has not ended after {steps} agent steps" for steps in told]
    assert capsys.readouterr().err.splitlines() == lines
