"""A training run on an environment of a page of numpy, and comparisons of two runs."""

from __future__ import annotations

import math
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.config import (
    CheckpointConfig,
    EnvironmentConfig,
    EvaluationConfig,
    LogConfig,
    RunConfig,
    TrainingConfig,
)
from curl_rl.rl.replay import Replay, ReplayConfig
from curl_rl.rl.training import train
from curl_rl.runs import checkpoint
from curl_rl.runs.logger import read_metrics

SIZE, STACK, REPEAT = 10, 2, 2


class Corridor(gymnasium.Env[npt.NDArray[np.uint8], npt.NDArray[np.float32]]):
    """A picture that slides with the actions, in episodes of 5 to 9 environment steps, two per action.

    Episodes of even length terminate; those of odd length are truncated, in the middle of an action.
    """

    metadata = {"render_fps": 10}

    def __init__(self, on_step: Callable[[int], None] = lambda step: None) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (3 * STACK, SIZE, SIZE), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.on_step, self.count, self.episodes = on_step, 0, 0
        self.frames: deque[npt.NDArray[np.uint8]] = deque(maxlen=STACK)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes += 1
        self.length, self.steps, self.place = int(self.np_random.integers(5, 10)), 0, 0.0
        self.texture = self.np_random.integers(0, 256, (3, SIZE, SIZE))
        self.frames.extend([self.picture()] * STACK)
        return np.concatenate(self.frames), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.on_step(self.count)
        begin, reward = self.steps, 0.0
        while self.steps < min(begin + REPEAT, self.length):
            self.steps += 1
            self.place += 20 * float(action[0]) + self.np_random.normal()
            reward += math.cos(self.place) + 0.1 * float(action[1])
        self.frames.append(self.picture())
        over, even = self.steps == self.length, self.length % 2 == 0
        info = {"environment_steps": self.steps - begin}
        return np.concatenate(self.frames), reward, over and even, over and not even, info

    def picture(self) -> npt.NDArray[np.uint8]:
        return ((self.texture + round(self.place)) % 256).astype(np.uint8)


def environments(on_step: Callable[[int], None] = lambda step: None) -> Callable[[], Corridor]:
    """The first environment, used for training, calls ``on_step`` with the number of each step."""
    hooks = iter([on_step])
    return lambda: Corridor(next(hooks, lambda step: None))


def tiny(run: Path, **changes: Any) -> RunConfig:
    config = RunConfig(
        env="corridor",
        frames=60,
        seed=3,
        device="cpu",
        run=run,
        environment=EnvironmentConfig(size=SIZE, stack=STACK, action_repeat=REPEAT),
        agent=AgentConfig(batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4)),
        replay=ReplayConfig(capacity=20),
        training=TrainingConfig(random_steps=6),
        evaluation=EvaluationConfig(every=20, episodes=2),
        checkpoint=CheckpointConfig(every=14),
        log=LogConfig(every=10, images_every=20),
    )
    return replace(config, **changes)


def trained(config: RunConfig, on_step: Callable[[int], None] = lambda step: None, *, global_seed: int = 0) -> Path:
    random.seed(global_seed)
    np.random.seed(global_seed)
    torch.manual_seed(global_seed)
    return train(config, environments(on_step))


def resumed(config: RunConfig) -> Path:
    """Resumes with global generators in another state, so that the checkpoint must restore them."""
    return trained(config, global_seed=1 if any(config.directory.glob("checkpoints/*.ckpt")) else 0)


def in_a_process_that_is_killed(config: RunConfig, prepare: Callable[[], Callable[[int], None]]) -> None:
    """Trains in a child process until it kills itself with SIGKILL; ``prepare`` runs there and returns ``on_step``."""
    child = os.fork()
    if child == 0:
        try:
            trained(config, prepare())
        finally:
            os._exit(0)  # reached only if it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child was to be killed, and ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at(step: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda now: act() and None if now == step else None


def rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of metrics, without timings."""
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(directory / "metrics.jsonl")
    ]


def state(directory: Path) -> dict[str, Any]:
    """The newest checkpoint, flattened, with samples of the replay instead of its contents."""
    found = checkpoint.load_newest(directory / "checkpoints", read_only=True)
    assert found is not None
    _, content = found
    manifest = content.pop("replay")
    replay = Replay(
        ReplayConfig(manifest["capacity"]),
        manifest["observation_shape"],
        manifest["action_dim"],
        stack=manifest["stack"],
        device="cpu",
        proprioception=manifest["proprioception"],
    )
    replay.restore(directory / "checkpoints" / "segments", manifest)
    content["samples"] = replay.sample(64, torch.Generator().manual_seed(0), discount=0.9, n_step=2, future=(1,))
    return dict(flat(content))


def flat(nested: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(nested, dict):
        for name, value in nested.items():
            yield from flat(value, f"{place}/{name}")
    elif isinstance(nested, (list, tuple)):
        yield f"{place}/length", len(nested)
        for index, value in enumerate(nested):
            yield from flat(value, f"{place}/{index}")
    else:
        yield place, nested


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)

    return [name for name in {**one, **other} if not equal(one.get(name), other.get(name))]


def networks(directory: Path) -> dict[str, Any]:
    return {name: value for name, value in state(directory).items() if name.startswith("/agent")}


def assert_same_run(one: Path, other: Path) -> None:
    assert differing(state(one), state(other)) == []
    assert rows(one) == rows(other)
