"""PixelEnv around a counter with known images, rewards and episode end."""

import gc
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs.pixels import PixelEnv

SIZE = 2


class Counter(gymnasium.Env):
    """Its image is 10 * steps + c in channel c; its reward is the number of steps so far."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}
    render_mode = "rgb_array"

    def __init__(self, last: int = 100, terminal: bool = False, space: gymnasium.Space | None = None) -> None:
        self.action_space = space or gymnasium.spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))
        self.observation_space = gymnasium.spaces.Discrete(1)
        self.last, self.terminal, self.actions, self.closed, self.drawn, self.count = last, terminal, [], 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.count = 0
        return 0, {"other": 1}

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict]:
        self.count += 1
        self.actions.append(action)
        over = self.count == self.last
        return 0, self.count, over and self.terminal, over and not self.terminal, {"other": 1}

    def render(self) -> np.ndarray:
        self.drawn += 1
        return np.broadcast_to(np.uint8([10 * self.count + c for c in range(3)]), (SIZE, SIZE, 3))

    def close(self) -> None:
        self.closed += 1


def pixels(inner: gymnasium.Env, stack: int = 3, action_repeat: int = 1, limit: int | None = None) -> PixelEnv:
    return PixelEnv(inner, name="counter", size=SIZE, stack=stack, action_repeat=action_repeat, max_episode_steps=limit)


ZERO = np.zeros(2, np.float32)


def channels(observation: np.ndarray) -> list[int]:
    assert observation.dtype == np.uint8
    assert observation.shape[1:] == (SIZE, SIZE)
    assert (observation == observation[:, :1, :1]).all()
    return observation[:, 0, 0].tolist()


def test_stack_is_oldest_first_and_filled_with_the_first_frame() -> None:
    env = pixels(Counter())
    assert channels(env.reset()[0]) == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert channels(env.step(ZERO)[0]) == [0, 1, 2, 0, 1, 2, 10, 11, 12]
    env.step(ZERO)
    assert channels(env.step(ZERO)[0]) == [10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert channels(env.reset()[0]) == [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("stack", [1, 4])
def test_other_stacks(stack: int) -> None:
    env = pixels(Counter(), stack=stack)
    first, _ = env.reset()
    assert env.observation_space.shape == first.shape == (3 * stack, SIZE, SIZE)
    assert channels(env.step(ZERO)[0]) == [0, 1, 2] * (stack - 1) + [10, 11, 12]


def test_later_steps_do_not_modify_an_observation() -> None:
    env = pixels(Counter(), stack=1)
    observation, _ = env.reset()
    kept = [observation] + [env.step(ZERO)[0] for _ in range(4)]
    assert [channels(one)[0] for one in kept] == [0, 10, 20, 30, 40]


def test_action_repeat_sums_rewards_and_renders_once() -> None:
    inner = Counter(last=8)
    env = pixels(inner, action_repeat=3)
    assert env.reset()[1] == {"environment_steps": 0}
    drawn = inner.drawn
    observation, reward, terminated, truncated, info = env.step(ZERO)
    assert (reward, terminated, truncated, info) == (1 + 2 + 3, False, False, {"environment_steps": 3})
    assert inner.drawn == drawn + 1
    assert channels(observation)[-3:] == [30, 31, 32]
    assert env.step(ZERO)[1] == 4 + 5 + 6
    observation, reward, terminated, truncated, info = env.step(ZERO)
    assert (reward, terminated, truncated, info) == (7 + 8, False, True, {"environment_steps": 2})
    assert channels(observation)[-3:] == [80, 81, 82]


def test_terminal_state_is_not_a_time_limit() -> None:
    env = pixels(Counter(last=1, terminal=True))
    env.reset()
    assert env.step(ZERO)[2:4] == (True, False)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_step_after_the_end_is_refused(terminal: bool) -> None:
    env = pixels(Counter(last=1, terminal=terminal))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    env.reset()
    env.step(ZERO)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    env.reset()
    env.step(ZERO)


def test_actions_are_mapped_to_the_bounds_and_clipped() -> None:
    inner = Counter()
    env = pixels(inner)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    env.reset()
    for action in ([-1, -1], [1, 1], [0, 0], [0.5, -0.5], [-7, np.inf]):
        env.step(np.float32(action))
    assert np.array_equal(inner.actions, [[-2, 0], [2, 10], [0, 5], [1, 2.5], [-2, 10]])
    assert all(action.dtype == np.float32 for action in inner.actions)


def test_actions_pass_bit_for_bit_where_the_bounds_are_ours() -> None:
    inner = Counter(space=gymnasium.spaces.Box(-1, 1, (2,), np.float64))
    env = pixels(inner)
    env.reset()
    action = np.float32([1e-20, 0.1])
    env.step(action)
    assert np.array_equal(inner.actions[0], action.astype(np.float64))


@pytest.mark.parametrize(("action", "words"), [([np.nan, 0], "NaN"), ([0], r"\(1,\)"), ([[0, 0]], r"\(1, 2\)")])
def test_bad_actions_are_refused(action: list, words: str) -> None:
    env = pixels(Counter())
    env.reset()
    with pytest.raises(ValueError, match=f"^action must .*, got .*{words}.*$"):
        env.step(np.float32(action))


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gymnasium.spaces.Discrete(3), r"Discrete\(3\)"),
        (gymnasium.spaces.Box(-1, 1, (2, 2)), "one-dimensional"),
        (gymnasium.spaces.Box(-1, np.inf, (2,)), "unbounded"),
    ],
)
def test_action_spaces_that_are_refused(space: gymnasium.Space, words: str) -> None:
    with pytest.raises(ValueError, match=f"^environment counter has .*{words}.*$"):
        pixels(Counter(space=space))


def test_render_shows_the_newest_frame_and_frame_rate_counts_repeats() -> None:
    env = pixels(Counter(), action_repeat=4)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    env.reset()
    env.step(ZERO)
    assert env.render().shape == (SIZE, SIZE, 3)
    assert env.render()[0, 0].tolist() == [40, 41, 42]
    env.render()[:] = 0
    assert env.render()[0, 0].tolist() == [40, 41, 42]
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 10}


def test_closing_twice_or_forgetting_to_close_closes_once() -> None:
    inner = Counter()
    env = pixels(inner)
    env.reset()
    env.close()
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()
    del env
    gc.collect()
    assert inner.closed == 1
    inner = Counter()
    env = pixels(inner)
    del env
    gc.collect()
    assert inner.closed == 1


@pytest.mark.parametrize(("action_repeat", "steps"), [(1, 25), (4, 7), (30, 1)])
def test_the_time_limit_is_known_in_agent_steps(action_repeat: int, steps: int) -> None:
    env = envs.make("tiny-reach", size=8, action_repeat=action_repeat)
    env.reset(seed=0)
    taken, over = 0, False
    while not over:
        _, _, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        taken, over = taken + 1, terminated or truncated
    assert env.max_episode_steps == taken == steps


def test_a_wrapped_environment_without_a_state_has_none() -> None:
    env = pixels(Counter())
    env.reset()
    assert env.state_names == ()
    assert env.physical_state().shape == (0,)


def episode(env: PixelEnv) -> list[tuple[float, bool, bool, int]]:
    """Reward, ends and environment steps of each step until the end of an episode, or 50 of them."""
    env.reset(seed=0)
    steps: list[tuple[float, bool, bool, int]] = []
    while len(steps) < 50 and not (steps and (steps[-1][1] or steps[-1][2])):
        _, reward, terminated, truncated, info = env.step(ZERO)
        steps.append((reward, terminated, truncated, info["environment_steps"]))
    return steps


@pytest.mark.parametrize("limit", [1, 4, 6, 7, 8, 9, 100])
@pytest.mark.parametrize("action_repeat", [1, 3])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_limit_is_gymnasiums_time_limit_on_the_environments_own_steps(
    limit: int, action_repeat: int, terminal: bool
) -> None:
    """Episodes of 8 steps, limited below, at and above their end, in the middle of an action and between two."""
    env = pixels(Counter(last=8, terminal=terminal), action_repeat=action_repeat, limit=limit)
    limited = gymnasium.wrappers.TimeLimit(Counter(last=8, terminal=terminal), limit)
    expected = episode(pixels(limited, action_repeat=action_repeat))
    assert episode(env) == expected
    assert episode(env) == expected  # it begins anew with each episode
    assert sum(step[3] for step in expected) == min(limit, 8)


def test_a_limit_truncates_an_endless_episode() -> None:
    env = pixels(Counter(last=10**9), action_repeat=4, limit=10)
    assert env.max_episode_steps == 3
    assert [step[1:] for step in episode(env)] == [(False, False, 4), (False, False, 4), (False, True, 2)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)


@pytest.mark.parametrize(("limit", "agent_steps"), [(None, 7), (100, 7), (25, 7), (24, 6), (9, 3), (1, 1)])
def test_the_lower_of_two_limits_holds(limit: int | None, agent_steps: int) -> None:
    env = envs.make("tiny-reach", size=8, action_repeat=4, max_episode_steps=limit)  # its own limit is 25
    assert env.max_episode_steps == len([env.reset(seed=0), *episode(env)]) - 1 == agent_steps


def test_no_limit_is_stated_where_there_is_none() -> None:
    assert pixels(Counter()).max_episode_steps is None


def test_actions_of_whole_numbers_are_rounded_to_the_nearest() -> None:
    inner = Counter(space=gymnasium.spaces.Box(-1, 3, (2,), np.int64))
    env = pixels(inner)
    env.reset()
    for action in ([-1, 1], [0, 0.2], [0.3, -0.7], [0.9, -0.8]):
        env.step(np.float32(action))
    assert np.array_equal(inner.actions, [[-1, 3], [1, 1], [2, 0], [3, -1]])
    assert all(action.dtype == np.int64 for action in inner.actions)
