"""Recording: a policy plays, and what it saw and the physical state behind it go into a folder of frames.

Each episode depends on the recording's seed and on its own number alone, and episodes are stored whole, but for the
last one of a finished recording. That one is recorded again if the recording is made longer, so a recording that was
stopped and started again, or made longer, is the one that would have been.
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
from curl_rl.runs.seeds import derived_seed

Observation = npt.NDArray[np.uint8]
Action = npt.NDArray[np.float32]
Policy = Callable[[Observation, np.random.Generator], Action]
"""An action ``(A,)`` in [−1, 1] for an observation ``(stack·C, H, W)``; chance comes from the generator."""


class ShowsState(Protocol):
    """A gymnasium environment of stacked frames that says which physical state is behind the newest of them."""

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """As gymnasium's."""

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As gymnasium's."""

    def physical_state(self) -> npt.NDArray[np.float64]:
        """``(D,)``; D may be 0."""


class Recordable(ShowsState, Protocol):
    """One that also names what it shows, and that can be closed."""

    state_names: tuple[str, ...]
    """What each number of the physical state is; empty where none is known."""
    action_space: gymnasium.Space[Action]
    """Box in [−1, 1]."""

    def close(self) -> None:
        """As gymnasium's."""


def random_policy(action_size: int) -> Policy:
    """Actions uniform in [−1, 1]."""
    return lambda _, generator: generator.uniform(-1.0, 1.0, action_size).astype(np.float32)


@contextmanager
def open_recording(folder: Path, recording: Recording) -> Iterator[FrameWriter]:
    """The writer of a folder, new or begun, which nobody else writes into meanwhile.

    Raises:
        ValueError: it holds another recording, or something else; nothing is written then.
        OSError: it cannot be written into.
    """
    FrameWriter(folder, recording)  # refuses a folder before a lock is written into it
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
) -> bool:
    """Plays until the folder holds ``frames`` frames, the last episode cut there.

    An episode is in memory until it ends; those that have ended are on the disk when this returns, or raises.

    Args:
        env: the environment that ``writer`` describes.
        policy: who acts.
        writer: the folder, new or with frames of an earlier call.
        frames: in the end, those of earlier calls included.
        stop: asked at every step; once it says yes, the episode under way is dropped.
        after_frame: called after each frame that comes to those that the folder holds, to show progress.

    Returns:
        Whether there are so many frames now; False if it was stopped.

    Raises:
        FloatingPointError: the policy's action is not finite.
        ValueError: what the environment gives does not fit the writer's description, or is not finite.
        OSError: the disk refused; what was written before is intact.
    """
    channels = writer.recording.channels
    try:
        while writer.frames < frames:
            seed, number = writer.recording.seed, writer.whole_episodes
            generator = np.random.default_rng(derived_seed(seed, "recorded actions", number))
            observation, _ = env.reset(seed=derived_seed(seed, "recorded episode", number))
            seen: list[Observation] = []
            states: list[npt.NDArray[np.float64]] = []
            actions: list[Action] = []
            rewards: list[float] = []
            over = False
            while not over and writer.whole_frames + len(seen) < frames:
                if stop():
                    return False
                seen.append(observation[-channels:])
                states.append(env.physical_state())
                actions.append(policy(observation, generator))
                observation, reward, terminated, truncated, _ = env.step(actions[-1])
                rewards.append(float(reward))
                over = terminated or truncated
                if writer.whole_frames + len(seen) > writer.frames:  # not again of an episode that was cut
                    after_frame()
            writer.add_episode(seen, states, actions, rewards, cut=not over)
    finally:
        writer.flush()
    return True
