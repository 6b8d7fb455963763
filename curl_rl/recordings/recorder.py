"""Recording: plays a policy and stores its frames and their physical states in a folder.

Each episode depends only on the recording's seed and its own number. Episodes are stored whole, except the last one of
a finished recording, which is recorded again if the recording is extended. A recording that was stopped and restarted,
or extended, is therefore identical to one made in a single pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from curl_rl.recordings.store import FrameWriter, Recording
from curl_rl.runs.lock import lock_run
from curl_rl.runs.pictures import PictureWatch
from curl_rl.runs.seeds import derived_seed

Observation = Any
"""Stacked frames ``(stack·C, H, W)`` of uint8, or a dict that holds them."""
Action = npt.NDArray[np.float32]
Policy = Callable[[Observation, np.random.Generator], Action]
"""An action ``(A,)`` in [−1, 1] for an observation; all randomness comes from the generator."""


class ShowsState(Protocol):
    """A gymnasium environment of stacked frames that exposes the physical state of the newest frame."""

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """See :meth:`gymnasium.Env.reset`."""

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """See :meth:`gymnasium.Env.step`."""

    def physical_state(self) -> npt.NDArray[np.float64]:
        """``(D,)``; D may be 0."""


class Recordable(ShowsState, Protocol):
    """An environment that also names its state and can be closed."""

    state_names: tuple[str, ...]
    """Name of each number of the physical state; empty if there is none."""
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Action]
    """Box in [−1, 1]."""

    def close(self) -> None:
        """See :meth:`gymnasium.Env.close`."""


def random_policy(action_size: int) -> Policy:
    """Actions uniform in [−1, 1]."""
    return lambda _, generator: generator.uniform(-1.0, 1.0, action_size).astype(np.float32)


@contextmanager
def open_recording(folder: Path, recording: Recording) -> Iterator[FrameWriter]:
    """Opens a new or existing recording for writing and locks its folder.

    Raises:
        ValueError: the folder holds another recording or something else, in which case nothing is written; or it is in
            use by another process.
        OSError: the folder cannot be written to.
    """
    FrameWriter(folder, recording)  # refuses an unsuitable folder before a lock is written into it
    with lock_run(folder):
        yield FrameWriter(folder, recording)


def record(
    env: ShowsState,
    policy: Policy,
    writer: FrameWriter,
    *,
    frames: int,
    stop: Callable[[], bool] = lambda: False,
    after_frame: Callable[[], object] = lambda: None,
    image: str | None = None,
) -> bool:
    """Plays until the folder holds ``frames`` frames, cutting the last episode there.

    An episode is kept in memory until it ends; all finished episodes are on disk when this function returns or raises.

    Args:
        env: the environment that ``writer`` describes.
        policy: chooses the actions.
        writer: the folder, new or with frames of an earlier call.
        frames: total number of frames, including those of earlier calls.
        stop: called at every step; once it returns True, the current episode is dropped.
        after_frame: called after each frame beyond those in the folder, to show progress.
        image: name of the image in observations that are dicts; the policy gets the whole dict.

    Returns:
        True if the folder holds all frames; False if recording was stopped.

    Raises:
        FloatingPointError: the policy's action is not finite.
        ValueError: data from the environment does not fit the writer's description, or is not finite.
        OSError: writing failed; earlier data is intact.
    """
    channels = writer.recording.channels
    watch = PictureWatch()
    try:
        while writer.frames < frames:
            seed, number = writer.recording.seed, writer.whole_episodes
            generator = np.random.default_rng(derived_seed(seed, "recorded actions", number))
            observation, _ = env.reset(seed=derived_seed(seed, "recorded episode", number))
            watch.begin(observation if image is None else observation[image])
            seen: list[npt.NDArray[np.uint8]] = []
            states: list[npt.NDArray[np.float64]] = []
            actions: list[Action] = []
            rewards: list[float] = []
            over = False
            while not over and writer.whole_frames + len(seen) < frames:
                if stop():
                    return False
                pixels = observation if image is None else observation[image]
                seen.append(pixels[-channels:])
                states.append(env.physical_state())
                actions.append(policy(observation, generator))
                observation, reward, terminated, truncated, _ = env.step(actions[-1])
                rewards.append(float(reward))
                over = terminated or truncated
                watch.step(observation if image is None else observation[image], over=over)
                if writer.whole_frames + len(seen) > writer.frames:  # do not count frames of a cut episode twice
                    after_frame()
            writer.add_episode(seen, states, actions, rewards, cut=not over)
    finally:
        writer.flush()
    return True
