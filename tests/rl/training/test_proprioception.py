"""Runs on observations of pixels with vectors beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.config import CheckpointConfig, EnvironmentConfig, EvaluationConfig, LogConfig, TrainingConfig
from curl_rl.rl.evaluation import evaluate
from curl_rl.rl.loading import load_agent, load_learner
from curl_rl.rl.observations import observation_spec
from curl_rl.rl.replay import ReplayConfig
from curl_rl.rl.training import train
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.signals import Stopped
from helpers.corridor import SIZE, STACK, Corridor, assert_same_run, at, environments, terminate, tiny

FLOATS = {"low": -np.inf, "high": np.inf, "dtype": np.float32}


class Feeling(gymnasium.Wrapper):
    """A corridor that is also felt: its place, two numbers, and the episode's clock, one number without a shape."""

    def __init__(self, environment: Corridor, broken_at: int = -1) -> None:
        super().__init__(environment)
        self.corridor, self.broken_at = environment, broken_at
        self.observation_space = gymnasium.spaces.Dict(
            {
                "place": gymnasium.spaces.Box(shape=(2,), **FLOATS),
                "view": environment.observation_space,
                "clock": gymnasium.spaces.Box(shape=(), **FLOATS),
            }
        )

    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**how)
        return self.felt(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        return self.felt(observation), *rest

    def felt(self, view: np.ndarray) -> dict[str, np.ndarray]:
        place = np.array([self.corridor.place, -self.corridor.place], np.float32)
        if self.corridor.count == self.broken_at:
            place[1] = np.nan
        return {"place": place, "view": view, "clock": np.array(self.corridor.steps, np.float32)}


def feeling(on_step: Callable[[int], None] = lambda step: None) -> Callable[[], Feeling]:
    make = environments(on_step)
    return lambda: Feeling(make())


def test_a_stopped_and_resumed_run_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    undisturbed, stopped = tiny(tmp_path / "one"), tiny(tmp_path / "two")
    train(undisturbed, feeling())
    for step in (9, 8):  # in the middle of an episode, and again
        with pytest.raises(Stopped):
            train(stopped, feeling(at(step, terminate)))
        torch.manual_seed(5)
    train(stopped, feeling())
    assert_same_run(tmp_path / "two", tmp_path / "one")


class Coded(gymnasium.Env):
    """Every pixel of a frame and the vector beside it hold the same number, different from step to step."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            pixels=gymnasium.spaces.Box(0, 255, (3 * STACK, SIZE, SIZE), np.uint8),
            code=gymnasium.spaces.Box(shape=(1,), **FLOATS),
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.codes = self.np_random.integers(0, 256, 1).repeat(STACK)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.codes = np.append(self.codes[1:], self.np_random.integers(0, 256))
        return self.seen(), 0.0, False, self.steps == 7, {}

    def seen(self) -> dict[str, np.ndarray]:
        pixels = np.repeat(self.codes, 3)[:, None, None].repeat(SIZE, 1).repeat(SIZE, 2).astype(np.uint8)
        return {"pixels": pixels, "code": self.codes[-1:].astype(np.float32)}


def make_coded() -> Coded:
    from tests.rl.training.test_proprioception import Coded as Imported  # by name: workers import it

    return Imported()


@pytest.mark.parametrize(("count", "overlap"), [(1, False), (2, True)])
def test_the_replay_of_a_run_holds_the_vectors_of_its_frames(tmp_path: Path, count: int, overlap: bool) -> None:
    config = tiny(
        tmp_path / "run",
        environment=EnvironmentConfig(size=SIZE, stack=STACK, action_repeat=1),
        evaluation=EvaluationConfig(every=0),
        training=TrainingConfig(random_steps=6, environments=count, overlap=overlap),
        frames=30,
    )
    train(config, make_coded)
    learner, _ = load_learner(tmp_path / "run", "cpu")
    batch = learner.sample()
    assert batch.proprioception is not None
    assert batch.next_proprioception is not None
    assert torch.equal(batch.proprioception, batch.observation[:, -1, :1, 0].float())
    assert torch.equal(batch.next_proprioception, batch.next_observation[:, -1, :1, 0].float())
    assert batch.proprioception.unique().numel() > 1
    learner.update()


class Whisper(gymnasium.Env):
    """A black picture; the action is right if it is the number that the vector holds, new in every step: -1 or 1."""

    metadata = {"render_fps": 1}

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(
            pixels=gymnasium.spaces.Box(0, 255, (3 * STACK, SIZE, SIZE), np.uint8),
            word=gymnasium.spaces.Box(shape=(1,), **FLOATS),
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.said(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = 1 - abs(float(action[0]) - self.word)
        return self.said(), reward, False, self.steps == 10, {}

    def said(self) -> dict[str, np.ndarray]:
        self.word = float(self.np_random.choice([-1.0, 1.0]))
        return {"pixels": np.zeros((3 * STACK, SIZE, SIZE), np.uint8), "word": np.array([self.word], np.float32)}


@pytest.mark.parametrize("changes", [{}, pytest.param({"update_rule": "joint"}, marks=pytest.mark.slow)])
def test_what_only_the_vector_tells_is_learned(tmp_path: Path, changes: dict[str, Any]) -> None:
    """An agent that ignores the vector has a mean return of 0, whatever it does; one that follows it, of up to 10."""
    agent = AgentConfig(
        batch_size=32,
        crop=8,
        hidden=32,
        encoder=EncoderConfig(2, (2,), 4),
        discount=0.0,
        actor_lr=3e-3,
        critic_lr=3e-3,
        actor_every=1,
        **changes,
    )
    config = tiny(
        tmp_path / "run",
        agent=agent,
        environment=EnvironmentConfig(size=SIZE, stack=STACK, action_repeat=1),
        evaluation=EvaluationConfig(every=0),
        training=TrainingConfig(random_steps=100),
        replay=ReplayConfig(capacity=400),
        checkpoint=CheckpointConfig(every=400),
        log=LogConfig(every=400, images_every=0),
        frames=400,
    )
    train(config, Whisper)
    trained, _, _ = load_agent(tmp_path / "run", "cpu")
    result = evaluate(trained, Whisper(), episodes=10, seed=0)
    assert result is not None
    assert result.metrics()["evaluation/return_mean"] > 7


def test_a_vector_that_is_not_finite_stops_the_run_and_is_blamed_on_the_environment(tmp_path: Path) -> None:
    def make() -> Feeling:
        return Feeling(Corridor(), broken_at=12)

    with pytest.raises(TrainingFault, match=r"the observation's place must be finite, got \[.*nan\]") as fault:
        train(tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0)), make)
    assert "fix the environment" in str(fault.value)
    agent, _, frames = load_agent(tmp_path / "run", "cpu")
    assert frames > 0
    with pytest.raises(ValueError, match="the observation's place must be finite"):
        evaluate(agent, Feeling(Corridor(), broken_at=2), episodes=3, seed=0)


def test_the_setting_is_refused_for_an_environment_of_pixels_alone(tmp_path: Path) -> None:
    """Whatever factory ignored it."""
    config = tiny(tmp_path / "run")
    config = replace(config, environment=replace(config.environment, proprioception=("place",)))
    with pytest.raises(
        UserError, match=r"^environment.proprioception must be left out, got \['place'\]: .* pixels only$"
    ):
        train(config, environments())
    assert not (tmp_path / "run").exists()


def test_vectors_are_joined_in_the_order_of_their_names() -> None:
    environment = Feeling(Corridor())
    spec = observation_spec(environment.observation_space)
    assert spec == ((3 * STACK, SIZE, SIZE), "view", {"clock": 1, "place": 2})
    assert spec.proprioception == 3
    environment.reset(seed=0)
    observation = environment.step(np.ones(2, np.float32))[0]
    pixels, proprioception = spec.read(observation)
    assert pixels is observation["view"]
    assert proprioception is not None
    assert proprioception.tolist() == [2.0, *observation["place"].tolist()]
    with pytest.raises(ValueError, match="the observation's place must have 2 numbers, got 3"):
        spec.read({**observation, "place": np.zeros(3)})


IMAGE, VECTOR = gymnasium.spaces.Box(0, 255, (3, 8, 8), np.uint8), gymnasium.spaces.Box(shape=(2,), **FLOATS)


@pytest.mark.parametrize(
    "entries",
    [
        {"vector": VECTOR},
        {"left": IMAGE, "right": IMAGE, "vector": VECTOR},
        {"view": IMAGE, "choice": gymnasium.spaces.Discrete(3)},
        {"view": IMAGE, "matrix": gymnasium.spaces.Box(shape=(2, 2), **FLOATS)},
        {"view": IMAGE, "parts": gymnasium.spaces.Dict(arm=VECTOR)},
    ],
)
def test_dicts_of_anything_else_are_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^the environment's observations must be a dict of one image, uint8"):
        observation_spec(gymnasium.spaces.Dict(entries))
