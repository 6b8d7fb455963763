"""Environments that each break one requirement of the training loop; the sound one is the Corridor."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import gymnasium
import numpy as np

from helpers.corridor import SIZE, STACK, Corridor

Box = gymnasium.spaces.Box


class Changed(Corridor):
    """A corridor with observations altered by ``changed`` and outcomes altered by ``outcome``."""

    def changed(self, observation: Any) -> Any:
        return observation

    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return self.changed(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return self.outcome(self.changed(observation), *rest)


class NoEnvironment:
    """It does not even have close()."""


class FloatSpace(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0.0, 1.0, (3 * STACK, SIZE, SIZE), np.float32)  # type: ignore[assignment]


class DiscreteActions(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]


class WideActions(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-2.0, 2.0, (2,), np.float32)


class ChannelsLast(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 255, (SIZE, SIZE, 3), np.uint8)


class FiveChannels(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 255, (5, SIZE, SIZE), np.uint8)


class ResetWithoutOptions(Changed):
    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class ResetWithoutInfo(Changed):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldStep(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, terminated or truncated, info


class RewardNotANumber(Changed):
    def outcome(self, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, reward if self.steps < 4 else float("nan"), *rest


class RewardAsArray(Changed):
    def outcome(self, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, np.array([reward]), *rest


class EndAsNumber(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, int(terminated), truncated, info


class NoInfo(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, terminated, truncated, None


class NoStepsTaken(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, terminated, truncated, {"environment_steps": 0}


class HalfAStep(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        return observation, reward, terminated, truncated, {"environment_steps": 1.5}


class FloatFrames(Changed):
    def changed(self, observation: Any) -> Any:
        return observation / np.float32(255)


class Lists(Changed):
    def changed(self, observation: Any) -> Any:
        return observation.tolist()


class AnotherShape(Changed):
    def changed(self, observation: Any) -> Any:
        return observation[:, :-1]


class OutsideOfTheSpace(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 100, (3 * STACK, SIZE, SIZE), np.uint8)


class BlackBeforeTheFirstFrame(Changed):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        observation[:3] = 0
        return observation, info


class NewestFrameFirst(Changed):
    def changed(self, observation: Any) -> Any:
        return np.concatenate([observation[3:], observation[:3]])


class OneBuffer(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros((3 * STACK, SIZE, SIZE), np.uint8)

    def changed(self, observation: Any) -> Any:
        self.buffer[:] = observation
        return self.buffer


class WritesIntoTheAction(Changed):
    def step(self, action: Any) -> Any:
        action *= 0.5
        return super().step(action)


class NeverEnds(Changed):
    def outcome(self, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Any:
        self.length = 10**9
        return observation, reward, False, False, info


class EndsTooLate(NeverEnds):
    max_episode_steps = 6


class Unseeded(Changed):
    def changed(self, observation: Any) -> Any:
        self.place += random.random()
        return observation


class UnseededStart(Changed):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=random.getrandbits(32))


class GoesOnFromTheLastEpisode(Changed):
    drift = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.drift = getattr(self, "place", 0.0)
        return super().reset(seed=seed)

    def outcome(self, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, reward + self.drift, *rest


class SharesItsState(Changed):
    steps_of_all: Iterator[int] = count()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        SharesItsState.steps_of_all = count()
        return super().reset(seed=seed)

    def outcome(self, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, float(next(self.steps_of_all)), *rest


class Constant(Changed):
    def changed(self, observation: Any) -> Any:
        return np.zeros_like(observation)


class ClosesOnce(Changed):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Breaks(Changed):
    def outcome(self, *parts: Any) -> Any:
        if self.steps > 2:
            raise ZeroDivisionError("the simulator")
        return parts


class Felt(Changed):
    """Sound: pixels with a vector beside them."""

    def __init__(self) -> None:
        super().__init__()
        place = Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(pixels=self.observation_space, place=place)  # type: ignore[assignment]

    def changed(self, observation: Any) -> Any:
        return {"pixels": observation, "place": np.array([self.place], np.float32)}


class FeltInDoublePrecision(Felt):
    def changed(self, observation: Any) -> Any:
        return {**super().changed(observation), "place": np.array([self.place])}


class FeltAsNothing(Felt):
    def changed(self, observation: Any) -> Any:
        return {**super().changed(observation), "place": np.array([np.nan], np.float32)}


class NotFeltAtTheEnd(Felt):
    def changed(self, observation: Any) -> Any:
        felt = super().changed(observation)
        return {"pixels": felt["pixels"]} if self.steps == self.length else felt


class SeesFloats(Felt):
    def changed(self, observation: Any) -> Any:
        felt = super().changed(observation)
        return {**felt, "pixels": felt["pixels"].astype(np.float32)}


class SeesTwice(Felt):
    def __init__(self) -> None:
        super().__init__()
        pixels = self.observation_space["pixels"]  # type: ignore[index]
        self.observation_space = gymnasium.spaces.Dict(left=pixels, right=pixels)  # type: ignore[assignment]


class FeltUnseeded(Felt):
    def changed(self, observation: Any) -> Any:
        return {**super().changed(observation), "place": np.array([random.random()], np.float32)}


class OneBufferOfFeelings(Felt):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros(1, np.float32)

    def changed(self, observation: Any) -> Any:
        self.buffer[:] = self.place
        return {"pixels": observation, "place": self.buffer}
