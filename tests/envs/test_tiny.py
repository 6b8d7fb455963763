"""tiny-reach: easy with the state, hard without observations, fully visible in every crop."""

from collections.abc import Callable

import numpy as np
import pytest

import envs
from envs.tiny import BASELINE_RETURN, EPISODE_STEPS, SOLVED_RETURN, STEP, TinyReach

Policy = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def towards_target(state: np.ndarray) -> np.ndarray:
    return np.clip((state[2:] - state[:2]) / STEP, -1, 1)


def mean_return(policy: Policy, episodes: int) -> float:
    """`policy` gets the state, the state of an independent parallel episode, and a generator."""
    env, other, total = TinyReach(size=4), TinyReach(size=4), 0.0
    for seed in range(episodes):
        state, _ = env.reset(seed=seed)
        other_state, _ = other.reset(seed=10_000 + seed)
        generator = np.random.default_rng(seed)
        truncated = False
        while not truncated:
            action = policy(state, other_state, generator)
            other_state = other.step(towards_target(other_state))[0]
            state, reward, terminated, truncated, _ = env.step(action)
            assert 0 <= reward <= 1
            assert not terminated
            total += reward
    return total / episodes


def test_a_policy_that_knows_the_state_solves_it() -> None:
    assert mean_return(lambda state, other, _: towards_target(state), 100) > SOLVED_RETURN + 5
    assert mean_return(lambda state, other, _: 0.5 * towards_target(state), 100) > SOLVED_RETURN + 2


def test_a_policy_that_does_not_look_stays_below_the_baseline() -> None:
    assert BASELINE_RETURN < SOLVED_RETURN - 5
    assert mean_return(lambda state, other, generator: generator.uniform(-1, 1, 2), 200) < BASELINE_RETURN - 2
    assert mean_return(lambda state, other, _: towards_target(other), 200) < BASELINE_RETURN - 2
    grid = [np.array([x, y]) for x in np.linspace(-1, 1, 5) for y in np.linspace(-1, 1, 5)]
    constants = [mean_return(lambda state, other, _, action=action: action, 60) for action in grid]
    assert max(constants) < BASELINE_RETURN - 2


def test_moves_rewards_and_time_limit_by_hand() -> None:
    env = TinyReach(size=4)
    env.reset(seed=0)
    env.point, env.target = np.array([0.0, 0.9]), np.array([0.5, 0.9])
    state, reward, _, _, _ = env.step(np.float32([0.5, 1.0]))  # to the right by 0.1; downwards until the wall
    assert np.allclose(state, [0.1, 1.0, 0.5, 0.9])
    distance = np.hypot(0.4, 0.1)
    assert reward == pytest.approx(0.3 * (1 - distance / np.sqrt(8)) + 0.7 * np.exp(-((distance / 0.3) ** 2)))
    env.target = np.array([0.3, 1.0])
    assert env.step(np.float32([9.0, 0.0]))[1] == pytest.approx(1.0)  # clipped to 1, which lands on the target
    ends = [env.step(np.zeros(2, np.float32))[3] for _ in range(EPISODE_STEPS - 2)]
    assert ends == [False] * (EPISODE_STEPS - 3) + [True]


def test_seed_determines_the_episode_and_resets_differ() -> None:
    env = TinyReach(size=4)
    first = env.reset(seed=3)[0]
    following = env.reset()[0]
    assert not np.array_equal(first, following)
    assert np.array_equal(env.reset(seed=3)[0], first)
    assert np.array_equal(env.reset()[0], following)


@pytest.mark.parametrize("size", [24, 32, 84])
def test_image_shows_both_at_their_positions(size: int) -> None:
    """The centers of mass of the red and green pixels against the positions in the arena."""
    env = TinyReach(size=size)
    env.reset(seed=0)
    places = {}
    for name, point, target in [("a", (-1, -1), (1, 1)), ("b", (0.37, -0.61), (-0.2, 0.45))]:
        env.point, env.target = np.array(point, float), np.array(target, float)
        picture = env.render().astype(float) - [30, 30, 60]
        assert env.render().dtype == np.uint8
        assert picture.shape == (size, size, 3)
        for color, place in ((0, target), (1, point)):
            # Each disc blends only its color with the background: solve for its share of every pixel.
            mix = np.array([[200.0, 30.0], [50.0, 220.0]])  # red and green of target and of point, less background
            shares = np.linalg.solve(mix.T, picture[..., :2].reshape(-1, 2).T).T.reshape(size, size, 2)
            share = shares[..., color].clip(0)
            centers = (np.arange(size) + 0.5) / size
            x = (share.sum(0) * centers).sum() / share.sum()
            y = (share.sum(1) * centers).sum() / share.sum()
            places[name, color] = (x, y)
            # 0.275 is half the arena's width: 0.5 minus the crop's margin 1/8 and the larger radius 0.1.
            assert np.allclose((x, y), 0.5 + 0.275 * np.array(place), atol=0.1 / size)


def test_every_crop_shows_both_completely() -> None:
    """A crop of 28 from 32 pixels cuts off up to 4 on each side: nothing is drawn there."""
    env = TinyReach(size=32)
    env.reset(seed=0)
    for point in ((-1, -1), (1, 1), (-1, 1)):
        env.point = env.target = np.array(point, float)
        picture = env.render()
        assert (picture[4:28, 4:28] != [30, 30, 60]).any()
        picture[4:28, 4:28] = [30, 30, 60]
        assert (picture == [30, 30, 60]).all()


def test_made_by_name_with_repeats() -> None:
    env = envs.make("tiny-reach", size=32, stack=2, action_repeat=4)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (6, 32, 32)
    steps = []
    truncated = False
    while not truncated:
        _, _, _, truncated, info = env.step(np.zeros(2, np.float32))
        steps.append(info["environment_steps"])
    assert steps == [4, 4, 4, 4, 4, 4, 1]


def test_the_physical_state_is_point_and_target() -> None:
    env = envs.make("tiny-reach", size=8)
    assert env.state_names == ("point/x", "point/y", "target/x", "target/y")
    env.reset(seed=3)
    before = env.physical_state()
    env.step(np.float32([1, -0.5]))
    moved = np.clip(before[:2] + STEP * np.array([1, -0.5]), -1, 1)
    assert np.allclose(env.physical_state(), [*moved, *before[2:]])
