"""Pictures in another size: they show the present state, and no observation changes."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import envs

NAMES = ["tiny-reach", "cartpole-swingup"]
if importlib.util.find_spec("pygame"):
    NAMES.append("gym:Pendulum-v1")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_change_no_observation(name: str, opengl: object) -> None:
    plain, watched = (envs.make(name, size=24, stack=2) for _ in range(2))
    generator = np.random.default_rng(0)
    expected, _ = plain.reset(seed=3)
    found, _ = watched.reset(seed=3)
    for _ in range(4):
        assert watched.large_picture(60).shape == (60, 60, 3)
        assert watched.large_picture(60).dtype == np.uint8
        assert np.array_equal(found, expected)
        action = generator.uniform(-1, 1, plain.action_space.shape).astype(np.float32)
        expected, *_ = plain.step(action)
        found, *_ = watched.step(action)
    plain.close()
    watched.close()


def test_a_larger_picture_is_that_of_a_larger_environment(opengl: object) -> None:
    small, large = (envs.make("cartpole-swingup", size=size) for size in (24, 96))
    for env in (small, large):
        env.reset(seed=3)
        env.step(np.ones(1, np.float32))
    assert np.array_equal(small.large_picture(96), large.render())
    # Beyond the frame buffer it is scaled.
    assert small.large_picture(1000).shape == (1000, 1000, 3)
    small.close()
    large.close()
