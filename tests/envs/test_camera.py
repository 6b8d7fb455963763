"""Rendered images against dm_control's, alone and alongside other OpenGL users."""

import os
import subprocess
import sys

import numpy as np
import pytest

import envs

pytestmark = pytest.mark.usefixtures("opengl")


def picture(env) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The newest frame of a fresh observation after three steps, (size, size, 3)."""
    env.reset(seed=1)
    for _ in range(3):
        observation = env.step(np.full(env.action_space.shape, 0.7, np.float32))[0]
    return observation[-3:].transpose(1, 2, 0)


@pytest.mark.parametrize(("name", "size"), [("cheetah-run", 84), ("cartpole-swingup", 33), ("walker-walk", 700)])
def test_faithful_pixels_equal_dm_controls(name: str, size: int) -> None:
    """Sizes: the paper's, an odd one, and one beyond the models' frame buffer of 640 x 480."""
    env = envs.make(name, size=size, stack=1)
    ours = picture(env)
    assert np.array_equal(ours, env.env._env.physics.render(size, size, camera_id=0))
    assert np.array_equal(ours, env.render())
    assert ours.std() > 10
    env.close()


@pytest.mark.parametrize("name", ["cheetah-run", "cartpole-swingup"])
def test_fast_pixels_are_those_without_shadows_multisampling_and_reflections(name: str) -> None:
    from dm_control import suite

    faithful, fast = envs.make(name, size=84, stack=1), envs.make(name, size=84, stack=1, quality="fast")
    ours = picture(fast)
    assert 0.1 < np.abs(picture(faithful).astype(float) - ours).mean() < 2.0
    theirs = suite.load(*name.split("-"), task_kwargs={"random": 1}).physics
    theirs.model.vis.quality.offsamples = 0
    theirs.set_state(fast.env._env.physics.get_state())
    theirs.forward()
    without = {"shadow": False, "reflection": False}
    assert np.array_equal(ours, theirs.render(84, 84, camera_id=0, render_flag_overrides=without))
    theirs.free()
    faithful.close()
    fast.close()


def test_images_are_the_same_alongside_other_environments() -> None:
    alone = {}
    settings = [("cheetah-run", 40, "fast"), ("walker-walk", 40, "fast"), ("cheetah-run", 25, "faithful")]
    for name, size, quality in settings:
        env = envs.make(name, size=size, stack=1, quality=quality)
        alone[name, size] = picture(env)
        env.close()
    first = envs.make("cheetah-run", size=40, stack=1, quality="fast")
    assert np.array_equal(picture(first), alone["cheetah-run", 40])
    second = envs.make("walker-walk", size=40, stack=1, quality="fast")
    third = envs.make("cheetah-run", size=25, stack=1)
    for _ in range(2):
        for env, key in ((first, ("cheetah-run", 40)), (second, ("walker-walk", 40)), (third, ("cheetah-run", 25))):
            assert np.array_equal(picture(env), alone[key])
    second.close()
    assert np.array_equal(picture(first), alone["cheetah-run", 40])
    assert np.array_equal(picture(third), alone["cheetah-run", 25])
    first.close()
    third.close()


def test_dm_controls_own_images_are_the_same_alongside_ours() -> None:
    """dm_control does not check which OpenGL context is current, so its own must be restored."""
    from dm_control import suite

    theirs = suite.load("walker", "walk", task_kwargs={"random": 0})
    theirs.reset()
    alone = theirs.physics.render(48, 48, camera_id=0)
    ours = envs.make("cheetah-run", size=30, stack=1, quality="fast")
    before = picture(ours)
    assert np.array_equal(theirs.physics.render(48, 48, camera_id=0), alone)
    assert np.array_equal(picture(ours), before)
    ours.close()
    assert np.array_equal(theirs.physics.render(48, 48, camera_id=0), alone)
    theirs.physics.free()


def test_new_terrain_is_rendered() -> None:
    """quadruped-escape generates a terrain in each episode; dm_control uploads it to its own renderer."""
    env = envs.make("quadruped-escape", size=48, stack=1)
    pictures = []
    for seed in (0, 1):
        observation, _ = env.reset(seed=seed)
        fresh = envs.make("quadruped-escape", size=48, stack=1)
        assert np.array_equal(observation, fresh.reset(seed=seed)[0])
        assert np.array_equal(observation.transpose(1, 2, 0), env.env._env.physics.render(48, 48, camera_id=2))
        fresh.close()
        pictures.append(observation)
    assert not np.array_equal(*pictures)
    env.close()


def test_an_environment_can_be_used_from_another_thread() -> None:
    import threading

    env = envs.make("cartpole-swingup", size=20, stack=1, quality="fast")
    here, there = picture(env), []
    thread = threading.Thread(target=lambda: there.append(picture(env)))
    thread.start()
    thread.join()
    assert np.array_equal(here, there[0])
    assert np.array_equal(here, picture(env))
    env.close()


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_an_unclosed_environment_exits_quietly(backend: str) -> None:
    code = """
import tempfile
folder = tempfile.TemporaryDirectory()  # like torch and others, this makes weakref register its exit hook before EGL
import envs
try:
    envs.rendering.choose_backend()
except envs.rendering.RenderingUnavailable:
    raise SystemExit(3)
first, second = envs.make("cartpole-swingup", size=8, stack=1), envs.make("cheetah-run", size=9, stack=1)
first.reset(seed=0)
second.reset(seed=0)
first.close()
first.close()
"""
    environment = os.environ | {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 3:
        pytest.skip(f"no {backend} on this machine")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
