"""The progress of a run and its unfinished episodes: the training loop's state in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass
class Episode:
    """An unfinished episode."""

    number: int
    """Counted from 0 over all environments, in order of beginning; the episode's seed is derived from it."""
    observation: npt.NDArray[np.uint8]
    """The pixels of the newest observation."""
    total: float = 0.0
    """Undiscounted return so far."""
    actions: list[Tensor] = field(default_factory=list)
    """With the seed, sufficient to replay the episode in a new environment."""
    proprioception: npt.NDArray[np.float32] | None = None
    """Beside the pixels, if the environment has any."""


@dataclass
class Progress:
    """The progress of a run; saved with every checkpoint."""

    frames: int = 0
    """Environment frames so far."""
    agent_steps: int = 0
    """Actions so far, over all environments."""
    evaluated_at: int = -1
    """Frames at the last evaluation; −1 before the first."""
    episodes_begun: int = 0
    """Also the number of the next episode."""
    under_way: dict[int, Episode] = field(default_factory=dict)
    """Unfinished episodes by environment number; an environment without one begins a new episode next."""

    def state(self) -> dict[str, Any]:
        """The state stored in a checkpoint under ``progress``."""
        under_way = {
            number: {
                **vars(episode),
                "observation": torch.from_numpy(episode.observation),
                "proprioception": _tensor(episode.proprioception),
            }
            for number, episode in self.under_way.items()
        }
        return {**vars(self), "under_way": under_way}

    def load(self, state: dict[str, Any]) -> None:
        """Restores the progress from a checkpoint's state."""
        saved = state["progress"] if "observation" not in state else _progress_of_format_1(state)
        self.frames, self.agent_steps = saved["frames"], saved["agent_steps"]
        self.evaluated_at, self.episodes_begun = saved["evaluated_at"], saved["episodes_begun"]
        self.under_way = {
            number: Episode(
                **{
                    **episode,
                    "observation": episode["observation"].numpy(),
                    "proprioception": _array(episode.get("proprioception")),  # older checkpoints have none
                }
            )
            for number, episode in saved["under_way"].items()
        }


def _tensor(array: npt.NDArray[Any] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: Tensor | None) -> npt.NDArray[Any] | None:
    return None if tensor is None else tensor.numpy()


def _progress_of_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """The progress in a checkpoint of format 1, which has one environment and stores its observation separately."""
    older, observation = state["progress"], state["observation"]
    episode = {
        "number": older["episode"],
        "observation": observation,
        "total": older["episode_return"],
        "actions": older["episode_actions"],
    }
    return {
        **{name: older[name] for name in ("frames", "agent_steps", "evaluated_at")},
        "episodes_begun": older["episode"] + (observation is not None),
        "under_way": {} if observation is None else {0: episode},
    }
