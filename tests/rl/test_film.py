"""Videos for people: what an environment draws larger, what is scaled up, and that observations stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import envs
from curl_rl.rl.contained import contained
from curl_rl.rl.film import BAND, SIDE, Film
from curl_rl.rl.workers import WorkerEnvironment


def frame_of(env: Any, observation: Any, crop: int) -> Any:
    film = Film(env, crop)
    film.add(observation, step=3, total=1.5)
    (frame,) = film.pictures()
    return frame


def test_the_environments_own_picture_is_beside_the_agents_crop() -> None:
    env = contained(lambda: envs.make("tiny-reach", size=16))
    observation, _ = env.reset(seed=5)
    frame = frame_of(env, observation, 8)
    large = envs.make("tiny-reach", size=SIDE)
    large.reset(seed=5)
    assert np.array_equal(frame[:SIDE, :SIDE], large.render())
    crop = observation[-3:, 4:12, 4:12].transpose(1, 2, 0)
    assert np.array_equal(frame[:SIDE, -SIDE:], crop.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1))


def test_return_and_step_are_written_below() -> None:
    env = envs.make("tiny-reach", size=16)
    observation, _ = env.reset(seed=5)
    bands = []
    for step, total in ((3, 1.5), (4, 1.5), (3, 1.6), (3, 1.5)):
        film = Film(env, 16)
        film.add(observation, step=step, total=total)
        bands.append(film.pictures()[0, SIDE:])
    assert bands[0].shape[0] == BAND
    assert np.array_equal(bands[0], bands[3])
    assert not np.array_equal(bands[0], bands[1])
    assert not np.array_equal(bands[0], bands[2])
    assert (bands[0] > 200).any()


@pytest.mark.parametrize("drawn", [None, np.zeros((3, 3, 3), np.uint8), np.zeros((SIDE, SIDE, 3)), "a picture"])
def test_what_is_no_picture_of_that_size_is_replaced_by_the_observation(drawn: object) -> None:
    class Odd:
        def large_picture(self, size: int) -> object:
            return drawn

    observation = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    frame = frame_of(Odd(), observation, 2)
    expected = observation[-3:].transpose(1, 2, 0).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
    assert np.array_equal(frame[:SIDE, :SIDE], expected)
    assert np.array_equal(frame_of(object(), observation, 2), frame)


def test_an_environment_in_a_process_of_its_own_draws_there() -> None:
    env = WorkerEnvironment(lambda: envs.make("tiny-reach", size=16), 60.0)
    try:
        observation, _ = env.reset(seed=5)
        frame = frame_of(env, observation, 16)
    finally:
        env.close()
    large = envs.make("tiny-reach", size=SIDE)
    large.reset(seed=5)
    assert np.array_equal(frame[:SIDE, :SIDE], large.render())
