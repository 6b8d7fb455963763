"""DeepMind Control through envs.make, against dm_control stepped directly and shimmy's wrapper."""

import subprocess
import sys

import numpy as np
import pytest

import envs
from envs.dmcontrol import CAMERAS, DMControl

pytestmark = pytest.mark.usefixtures("opengl")


@pytest.fixture(scope="module", autouse=True)
def suite(opengl: object):  # type: ignore[no-untyped-def]
    """dm_control's suite, imported only after the backend is chosen."""
    from dm_control import suite

    return suite


def actions_for(env, count: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.random.default_rng(0).uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("name", ["cheetah-run", "finger-turn_easy", "ball_in_cup-catch"])
def test_whole_episode_equals_dm_control_stepped_directly(suite, name: str) -> None:  # type: ignore[no-untyped-def]
    repeat, seed = 90, 5
    env = envs.make(name, size=8, stack=1, action_repeat=repeat, quality="fast")
    by_hand = suite.load(*name.split("-"), task_kwargs={"random": seed})
    env.reset(seed=99)
    env.step(np.zeros(env.action_space.shape, np.float32))
    env.reset(seed=seed)
    by_hand.reset()
    truncated, calls = False, []
    for action in actions_for(env, 12):
        assert not truncated
        _, reward, terminated, truncated, info = env.step(action)
        wanted, last = 0.0, False
        for _ in range(repeat):
            step = by_hand.step(action)
            wanted += step.reward
            if last := step.last():
                break
        assert reward == wanted
        assert isinstance(reward, float)
        assert np.array_equal(env.env._env.physics.get_state(), by_hand.physics.get_state())
        assert (terminated, truncated) == (False, last)
        calls.append(info["environment_steps"])
    assert truncated
    assert calls == [90] * 11 + [10]
    env.close()


@pytest.mark.parametrize("name", ["cartpole-swingup", "reacher-easy"])
def test_states_and_rewards_equal_those_of_shimmy(suite, name: str) -> None:  # type: ignore[no-untyped-def]
    shimmy = pytest.importorskip("shimmy.dm_control_compatibility")
    domain, task = name.split("-")
    ours = DMControl(domain, task, size=8, quality="fast")
    keys = list(suite.load(domain, task).observation_spec())
    theirs = shimmy.DmControlCompatibilityV0(suite.load(domain, task))

    def flat(observation: dict) -> np.ndarray:
        return np.concatenate([np.ravel(observation[key]) for key in keys])

    for seed in (0, 1):
        state = ours.reset(seed=seed)[0]
        assert np.array_equal(state, flat(theirs.reset(seed=seed)[0]))
        assert ours.observation_space.contains(state)
        for action in actions_for(ours, 1000).astype(np.float64):
            mine, other = ours.step(action), theirs.step(action)
            assert np.array_equal(mine[0], flat(other[0]))
            assert mine[1:4] == other[1:4]
        assert mine[3]
    ours.close()


def test_terminal_state_ends_with_terminated() -> None:
    """lqr ends with discount 0 once the norm of its state is below 1e-6; at rest it is 0."""
    env = DMControl("lqr", "lqr_2_1", size=8, quality="fast")
    env.reset(seed=0)
    assert env.step(np.zeros(1))[2:4] == (False, False)
    with env._env.physics.reset_context():
        pass
    assert env.step(np.zeros(1))[2:4] == (True, False)
    env.close()


def test_lqr_is_one_task_but_has_no_bounds() -> None:
    """Its model is sampled when built, so two instances must be equal. Its actions are unbounded."""
    first, second = (DMControl("lqr", "lqr_6_2", size=8, quality="fast") for _ in range(2))
    assert np.array_equal(first.reset(seed=3)[0], second.reset(seed=3)[0])
    assert np.array_equal(first.step(np.ones(2))[0], second.step(np.ones(2))[0])
    assert not first.action_space.is_bounded("below")
    assert not first.action_space.is_bounded("above")
    first.close()
    second.close()
    with pytest.raises(ValueError, match="^environment lqr-lqr_6_2 has unbounded actions .*$"):
        envs.make("lqr-lqr_6_2", size=8)


PLAY = """
import hashlib, sys, numpy as np, envs
def play(env, seed):
    digest = hashlib.sha256(env.reset(seed=seed)[0].tobytes())
    actions = np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32)
    for action in actions:
        observation, reward, *_ = env.step(action)
        digest.update(observation.tobytes() + np.float64(reward).tobytes())
    return digest.hexdigest()
"""
NAMES = [
    "cheetah-run",
    "cartpole-swingup",
    "finger-turn_hard",
    "reacher-hard",
    "ball_in_cup-catch",
    "quadruped-walk",
    "point_mass-hard",  # its model's gains are sampled in every episode
    "swimmer-swimmer6",
]


def test_seed_and_actions_determine_frames_and_rewards(suite) -> None:  # type: ignore[no-untyped-def]
    """In one environment after other episodes, in a second one, and in another process."""
    scope: dict = {}
    exec(PLAY, scope)
    here = {}
    for name in NAMES:
        first, second = (envs.make(name, size=40, stack=1, action_repeat=2, quality="fast") for _ in range(2))
        here[name] = scope["play"](first, 7)
        assert scope["play"](first, 8) != here[name]
        first.reset()
        first.step(np.ones(first.action_space.shape, np.float32))
        assert scope["play"](first, 7) == here[name], name
        assert scope["play"](second, 7) == here[name], name
        first.close()
        second.close()
    elsewhere = PLAY + (
        "for name in sys.argv[1:]: print(play(envs.make(name, size=40, stack=1, action_repeat=2, quality='fast'), 7))"
    )
    names = NAMES[:3]
    done = subprocess.run([sys.executable, "-c", elsewhere, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [here[name] for name in names]


def test_reset_without_a_seed_continues_the_generator(suite) -> None:  # type: ignore[no-untyped-def]
    def states(seeds: list) -> list:
        env = DMControl("cartpole", "swingup", size=8, quality="fast")
        found = [env.reset(seed=seed)[0].tolist() for seed in seeds]
        env.close()
        return found

    first, second, third = states([3, None, None])
    assert [first, second, third] == states([3, None, None])
    assert first != second != third
    assert states([None])[0] != states([None])[0]  # never seeded: uses the system's entropy


def test_seed_out_of_range_is_refused() -> None:
    env = envs.make("cartpole-balance", size=8, quality="fast")
    with pytest.raises(ValueError, match=r"^seed must be from 0 to 2\*\*32 - 1 for DeepMind Control, got 4294967296$"):
        env.reset(seed=2**32)
    env.reset(seed=2**32 - 1)
    env.close()


def test_frame_rate_is_real_time() -> None:
    """cheetah's control step takes 10 ms: four of them give 25 frames per second."""
    env = envs.make("cheetah-run", size=8, action_repeat=4, quality="fast")
    assert env.metadata["render_fps"] == pytest.approx(25.0)
    env.close()


def test_quadruped_has_another_camera(suite) -> None:  # type: ignore[no-untyped-def]
    assert CAMERAS == {"quadruped": 2}
    env = envs.make("quadruped-walk", size=24, stack=1)
    observation, _ = env.reset(seed=0)
    picture = env.env._env.physics.render(24, 24, camera_id=2)
    assert np.array_equal(observation.transpose(1, 2, 0), picture)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in envs.NAMES if name != "tiny-reach" and not name.startswith("lqr")])
def test_every_task_renders_dm_controls_pixels_and_obeys_its_seed(name: str) -> None:
    env = envs.make(name, size=32, stack=1, action_repeat=2)
    assert env.env.action_space.is_bounded()

    def play(seed: int) -> list:
        found = [env.reset(seed=seed)[0].tobytes()]
        for action in actions_for(env, 5):
            observation, reward, *_ = env.step(action)
            found += [observation.tobytes(), reward]
        return found

    first = play(7)
    camera = 2 if name.startswith("quadruped") else 0
    assert np.array_equal(env.render(), env.env._env.physics.render(32, 32, camera_id=camera))
    assert play(8) != first
    assert play(7) == first
    env.close()


def test_missing_dm_control_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ImportError, match=r"^the tasks of DeepMind Control need dm_control.*install_dm_control\.py"):
        envs.make("cheetah-run")
