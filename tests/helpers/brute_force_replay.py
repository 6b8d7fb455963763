"""A replay that keeps whole stacks in Python lists, and synthetic episodes for it and for the real one.

Every frame and every transition has a number, which its pixels or its action encode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from curl_rl.rl.replay import Batch, Replay, ReplayConfig

CHANNELS, SIZE, ACTION_DIM = 2, 2, 3
FAR = 10_000  # distance between the frame and transition numbers of two streams


def frame_of(number: int) -> np.ndarray:
    """(C, H, W) uint8: a picture that is different for every number."""
    pixels = np.frombuffer(int(number * 2_654_435_761 % 2**64).to_bytes(8, "little"), dtype=np.uint8)
    return pixels.reshape(CHANNELS, SIZE, SIZE)


def observation_of(*frame_numbers: int) -> np.ndarray:
    return np.concatenate([frame_of(number) for number in frame_numbers])


def action_of(number: int) -> np.ndarray:
    return np.array([number, -number, 0.5], dtype=np.float32)


class Step(NamedTuple):
    """The result of one agent step in an environment; ``action`` is None for reset()."""

    action: np.ndarray | None
    reward: float
    observation: np.ndarray
    terminated: bool
    truncated: bool


def play(rng: np.random.Generator, stack: int, mean_length: float, first: int = 0) -> Iterator[Step]:
    """An endless series of episodes of random lengths, in one reused buffer as in some environments."""
    frame_number = transition_number = first
    buffer = np.zeros((stack * CHANNELS, SIZE, SIZE), dtype=np.uint8)
    while True:
        buffer[:] = np.tile(frame_of(frame_number), (stack, 1, 1))
        frame_number += 1
        yield Step(None, 0.0, buffer, False, False)
        length = int(rng.geometric(1 / mean_length)) - int(rng.random() < 0.2)  # 0: reset again without a step
        end = rng.choice(["terminated", "truncated", "both", "abandoned"])
        for position in range(length):
            buffer[:-CHANNELS] = buffer[CHANNELS:].copy()
            buffer[-CHANNELS:] = frame_of(frame_number)
            frame_number += 1
            last = position == length - 1
            yield Step(
                action_of(transition_number),
                float(np.float32(rng.normal())),
                buffer,
                last and end in ("terminated", "both"),
                last and end in ("truncated", "both"),
            )
            transition_number += 1


def feed(replay: Replay, step: Step, stream: int = 0) -> None:
    if step.action is None:
        replay.start_episode(step.observation, stream=stream)
    else:
        ends = {"terminated": step.terminated, "truncated": step.truncated}
        replay.add(step.action, step.reward, step.observation, **ends, stream=stream)


@dataclass
class Episode:
    observations: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    terminated: bool = False


class BruteForceReplay:
    """Keeps every episode in full, and computes each sample from its definition."""

    def __init__(self, capacity: int, stack: int) -> None:
        self.episodes: list[Episode] = []
        self.places: list[tuple[int, int]] = []  # of each transition: episode, step
        self.stack = stack
        # The capacity of the real one: this many frames, and this many transitions.
        self.frames_kept: deque[bytes] = deque(maxlen=capacity + capacity // 20 + stack + 1)
        self.transitions_kept: deque[int] = deque(maxlen=capacity)

    def feed(self, step: Step) -> None:
        if step.action is None:
            self.episodes.append(Episode())
        else:
            self.transitions_kept.append(len(self.places))
            self.places.append((len(self.episodes) - 1, len(self.episodes[-1].rewards)))
            self.episodes[-1].rewards.append(step.reward)
            self.episodes[-1].actions.append(step.action)
        self.episodes[-1].terminated = step.terminated
        self.episodes[-1].observations.append(step.observation.copy())
        self.frames_kept.append(step.observation[-CHANNELS:].tobytes())

    def samplable(self) -> list[int]:
        kept = set(self.frames_kept)
        return [number for number in self.transitions_kept if set(self._frames(number)) <= kept]

    def _frames(self, number: int) -> list[bytes]:
        episode, step = self.places[number]
        frames = self.episodes[episode].observations[step].reshape(self.stack, -1)
        return [frame.tobytes() for frame in frames]

    def expected(self, number: int, discount: float, n_step: int, future: tuple[int, ...]) -> dict[str, Any]:
        index, step = self.places[number]
        episode = self.episodes[index]
        length = len(episode.rewards)
        end = min(step + n_step, length)
        reward = sum(discount**i * episode.rewards[step + i] for i in range(end - step))
        ends_the_task = episode.terminated and end == length
        ahead = range(step, step + max(future, default=0))
        return {
            "observation": episode.observations[step],
            "action": action_of(number),
            "reward": reward,
            "discount": 0.0 if ends_the_task else discount ** (end - step),
            "next_observation": episode.observations[end],
            "future": [episode.observations[min(step + offset, length)] for offset in future],
            "actions_ahead": [episode.actions[i] if i < length else np.zeros(ACTION_DIM) for i in ahead],
        }


class ManyStreams:
    """Environments that play in parallel, and a brute-force replay for each."""

    def __init__(self, count: int, capacity: int, stack: int, mean_length: float) -> None:
        self.plays = [
            play(np.random.default_rng([stream, stack]), stack, mean_length, FAR * stream) for stream in range(count)
        ]
        self.brutes = [BruteForceReplay(capacity // count, stack) for _ in range(count)]

    def feed(self, real: Replay, streams: Iterator[int] | list[int]) -> None:
        for stream in streams:
            step = next(self.plays[stream])
            feed(real, step, stream)
            self.brutes[stream].feed(step)

    def samplable(self) -> list[int]:
        return [FAR * stream + number for stream, brute in enumerate(self.brutes) for number in brute.samplable()]

    def expected(self, number: int, *how: Any) -> dict[str, Any]:
        return {**self.brutes[number // FAR].expected(number % FAR, *how), "action": action_of(number)}


def make(
    capacity: int, stack: int = 3, storage: Any = "memory", directory: Path | None = None, streams: int = 1
) -> Replay:
    return Replay(
        ReplayConfig(capacity, storage),
        (stack * CHANNELS, SIZE, SIZE),
        ACTION_DIM,
        stack=stack,
        device="cpu",
        directory=directory,
        streams=streams,
    )


def two_episodes(end: str) -> Replay:
    """Rewards 1, 2, 4 in an episode with the given ``end``, then 100 in one that is still open."""
    replay = make(10, stack=1)
    replay.start_episode(frame_of(0))
    for number, reward in enumerate((1.0, 2.0, 4.0)):
        replay.add(
            action_of(number),
            reward,
            frame_of(number + 1),
            terminated=end == "terminated" and number == 2,
            truncated=end == "truncated" and number == 2,
        )
    replay.start_episode(frame_of(4))
    replay.add(action_of(3), 100.0, frame_of(5), terminated=False, truncated=False)
    return replay


def numbers_in(batch: Batch) -> list[int]:
    """The transitions' numbers, which their actions encode."""
    return [int(number) for number in batch.action[:, 0]]


def assert_equal_batches(left: Batch, right: Batch) -> None:
    for a, b in zip((*left[:5], *left.future), (*right[:5], *right.future), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b.cpu())
    assert (left.actions_ahead is None) is (not left.future)
    for name in ("actions_ahead", "proprioception", "next_proprioception"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) is (other is None)
        assert one is None or torch.equal(one.cpu(), other.cpu())
