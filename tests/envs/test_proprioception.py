"""Entries of an environment's own observation beside the pixels, against the environments stepped directly."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs


def test_entries_are_dm_controls_at_the_newest_frame(opengl: object) -> None:
    from dm_control import suite

    wanted = ("velocity", "touch")
    env = envs.make("hopper-hop", size=8, stack=1, action_repeat=3, quality="fast", proprioception=wanted)
    pixels = envs.make("hopper-hop", size=8, stack=1, action_repeat=3, quality="fast")
    by_hand = suite.load("hopper", "hop", task_kwargs={"random": 4})
    step, (observation, _), (alone, _) = by_hand.reset(), env.reset(seed=4), pixels.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, *env.action_space.shape)).astype(np.float32)
    for action in (*actions, None):
        assert list(observation) == ["pixels", *wanted]
        assert env.observation_space.contains(observation)
        assert np.array_equal(observation["pixels"], alone)
        for name in wanted:
            assert observation[name].dtype == np.float32
            assert np.array_equal(observation[name], step.observation[name].astype(np.float32))
        if action is not None:
            observation, alone = env.step(action)[0], pixels.step(action)[0]
            step = [by_hand.step(action) for _ in range(3)][-1]
    env.close()
    pixels.close()


def test_all_names_every_entry_and_a_number_becomes_a_vector_of_one(opengl: object) -> None:
    env = envs.make("walker-walk", size=8, quality="fast", proprioception="all")
    observation, _ = env.reset(seed=0)
    lengths = {name: len(value) for name, value in observation.items() if name != "pixels"}
    assert lengths == {"orientations": 14, "height": 1, "velocity": 9}
    env.close()


def test_a_kept_observation_is_not_changed_by_later_steps(opengl: object) -> None:
    env = envs.make("cheetah-run", size=8, quality="fast", proprioception="all")
    first, _ = env.reset(seed=0)
    kept = {name: value.copy() for name, value in first.items()}
    env.step(np.ones(env.action_space.shape, np.float32))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)
    env.close()


class Robot(gymnasium.Env):
    """An observation of images and vectors, or whatever space it is given; every number in it counts the steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, space: gymnasium.Space | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = space or gymnasium.spaces.Dict(
            wrist=gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
            joints=gymnasium.spaces.Box(-9, 9, (3,), np.float64),
            gripper=gymnasium.spaces.Box(-9, 9, (), np.float32),
            tool=gymnasium.spaces.Discrete(9),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        return self.seen(), 0.0, False, False, {}

    def seen(self) -> Any:
        space = self.observation_space
        parts = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"": space}
        values = {name: np.full(part.shape, self.steps, part.dtype)[()] for name, part in parts.items()}
        return values if isinstance(space, gymnasium.spaces.Dict) else values[""]

    def render(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


def robot(**settings: Any) -> Any:
    gymnasium.registry.pop("Robot-v0", None)
    gymnasium.register("Robot-v0", entry_point=Robot, disable_env_checker=True, kwargs=settings.pop("kwargs", {}))
    return envs.make("gym:Robot-v0", size=4, stack=1, **settings)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("all", {"joints": [2, 2, 2], "gripper": [2]}),
        (["gripper"], {"gripper": [2]}),
        (("gripper", "joints"), {"joints": [2, 2, 2], "gripper": [2]}),
    ],
)
def test_the_vectors_of_a_dict(wanted: Any, expected: dict[str, list[float]]) -> None:
    env = robot(action_repeat=2, proprioception=wanted)
    env.reset(seed=0)
    observation = env.step(np.zeros(1, np.float32))[0]
    assert observation.pop("pixels").shape == (3, 4, 4)
    assert {name: value.tolist() for name, value in observation.items()} == expected


def test_an_observation_that_is_a_vector_is_called_state() -> None:
    vector = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
    env = robot(proprioception="all", kwargs={"space": vector})
    assert env.reset(seed=0)[0]["state"].tolist() == [0, 0]
    assert env.step(np.zeros(1, np.float32))[0]["state"].tolist() == [1, 1]


TINY = "proprioception must be some of point (2), target (2), the entries of tiny-reach's own observation, or all, "
IMAGE = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "wanted", "line"),
    [
        (lambda **how: envs.make("tiny-reach", **how), ["pose"], TINY + "got ['pose']"),
        (lambda **how: envs.make("tiny-reach", **how), ["point", "point"], TINY + "got ['point', 'point']"),
        (lambda **how: envs.make("tiny-reach", **how), ("all", "point"), TINY + "got ['all', 'point']"),
        (lambda **how: envs.make("tiny-reach", **how), "pose", TINY + "got ['pose']"),
        (
            lambda **how: robot(kwargs={"space": IMAGE}, **how),
            "all",
            "proprioception must be left out for gym:Robot-v0, whose observation has no vectors, got all",
        ),
    ],
)
def test_entries_that_there_are_not_are_refused_with_those_there_are(make: Any, wanted: Any, line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
        make(proprioception=wanted)
    assert str(error.value) == line


def test_the_registry_takes_it_and_gymnasiums_checker_passes() -> None:
    env = gymnasium.make("pixels/tiny-reach-v0", size=40, proprioception=("target",))
    check_env(env.unwrapped, skip_render_check=False)
    env = gymnasium.make("pixels/tiny-reach-v0", size=40, proprioception=("target",))
    observation, _ = env.reset(seed=0)
    assert np.allclose(observation["target"], env.unwrapped.physical_state()[2:])  # type: ignore[attr-defined]
