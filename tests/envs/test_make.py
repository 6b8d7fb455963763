"""envs.make and gymnasium's registry: names, arguments, and third-party checkers."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs


def test_names_match_the_suite(opengl: object) -> None:
    from dm_control import suite

    wanted = {f"{domain}-{task}" for domain, task in suite.ALL_TASKS}
    assert set(envs.NAMES) == wanted | {"tiny-reach"}
    assert len(envs.NAMES) == len(wanted) + 1


def test_import_is_cheap() -> None:
    """It must work without OpenGL and be cheap for callers that only need a name."""
    code = (
        "import sys, os; before = dict(os.environ); import envs;"
        "print(sorted({'dm_control', 'mujoco', 'OpenGL', 'torch', 'curl_rl'} & set(sys.modules)), before == os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cheetah_run", "cheetah-run"), ("ball-in-cup-catch", "ball_in_cup-catch"), ("tinyreach", "tiny-reach")],
)
def test_unknown_name_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"^environment '{name}' is unknown; the nearest is '{nearest}'.*$"):
        envs.make(name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("stack", 0),
        ("action_repeat", 0),
        ("action_repeat", -1),
        ("quality", "fine"),
        ("max_episode_steps", 0),
    ],
)
def test_arguments_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*, got '?{value}'?$"):
        envs.make("tiny-reach", **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "stack"), [(7, 1), (33, 4), (84, 3)])
def test_odd_sizes_and_stacks(opengl: object, size: int, stack: int) -> None:
    for name in ("tiny-reach", "cartpole-swingup"):
        env = envs.make(name, size=size, stack=stack, quality="fast")
        observation, _ = env.reset(seed=0)
        assert observation.shape == (3 * stack, size, size)
        assert observation.dtype == np.uint8
        assert env.observation_space.contains(observation)
        assert env.render().shape == (size, size, 3)
        env.close()


def test_every_name_is_registered_and_accepts_the_settings() -> None:
    assert all(f"pixels/{name}-v0" in gymnasium.registry for name in envs.NAMES)
    env = gymnasium.make("pixels/tiny-reach-v0", size=20, stack=2, action_repeat=5, render_mode="rgb_array")
    assert env.reset(seed=0)[0].shape == (6, 20, 20)
    *_, info = env.step(np.zeros(2, np.float32))
    assert info == {"environment_steps": 5}
    again = gymnasium.make(env.spec)  # a spec makes the same environment, not one inside another
    assert np.array_equal(again.reset(seed=0)[0], env.reset(seed=0)[0])
    with pytest.raises(ValueError, match="^render_mode must be rgb_array, got 'human'$"):
        gymnasium.make("pixels/tiny-reach-v0", render_mode="human")


def test_registered_and_made_are_the_same() -> None:
    registered, made = gymnasium.make("pixels/tiny-reach-v0", size=20), envs.make("tiny-reach", size=20)
    assert np.array_equal(registered.reset(seed=3)[0], made.reset(seed=3)[0])
    action = np.float32([0.3, -1])
    assert registered.step(action)[1] == made.step(action)[1]


def test_registered_dm_control(opengl: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # gymnasium's passive checker
        env = gymnasium.make("pixels/cheetah-run-v0", size=84, quality="fast")
        assert env.reset(seed=0)[0].shape == (9, 84, 84)
        env.step(env.action_space.sample())
        env.close()


@pytest.mark.parametrize("name", ["tiny-reach", "cheetah-run", "gym:Pendulum-v1"])
def test_checkers_of_gymnasium_and_stable_baselines(opengl: object, name: str) -> None:
    """Warnings fail too; images have 40 pixels because Stable-Baselines3 warns below the 36 that its CNN needs."""
    if name.startswith("gym:"):
        pytest.importorskip("pygame")
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    env = envs.make(name, size=40, action_repeat=2, quality="fast")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*spec.*")  # not made through the registry, so it has no spec
        check_env(env, skip_render_check=False)
        env = envs.make(name, size=40, action_repeat=2, quality="fast")  # gymnasium's checker closed the first
        sb3.check_env(env)
    env.close()


def test_vector_environment_of_spawned_workers() -> None:
    vector = gymnasium.vector.AsyncVectorEnv([_tiny, _tiny], context="spawn")
    observations, _ = vector.reset(seed=[5, 6])
    assert observations.shape == (2, 9, 16, 16)
    assert np.array_equal(observations[1], _tiny().reset(seed=6)[0])
    vector.close()


def _tiny() -> gymnasium.Env:
    return envs.make("tiny-reach", size=16)
