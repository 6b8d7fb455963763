"""How far a run has come, and the episodes under way: what a checkpoint must bring back of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass
class Episode:
    """An episode under way."""

    number: int
    """Counted from 0, over all environments, as they begin; its seed comes from it."""
    observation: npt.NDArray[np.uint8]
    """The newest."""
    total: float = 0.0
    """Undiscounted return so far."""
    actions: list[Tensor] = field(default_factory=list)
    """With the seed, all that is needed to bring an environment to where it stands."""


@dataclass
class Progress:
    """How far a run has come; saved with every checkpoint."""

    frames: int = 0
    """Environment frames so far."""
    agent_steps: int = 0
    """Actions so far, of all environments together."""
    evaluated_at: int = -1
    """Frames at the last evaluation; −1 before the first."""
    episodes_begun: int = 0
    """Also the number of the next one."""
    under_way: dict[int, Episode] = field(default_factory=dict)
    """By the number of the environment; one that is not here begins a new episode next."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds under ``progress``."""
        under_way = {
            number: {**vars(episode), "observation": torch.from_numpy(episode.observation)}
            for number, episode in self.under_way.items()
        }
        return {**vars(self), "under_way": under_way}

    def load(self, state: dict[str, Any]) -> None:
        """Puts back what a checkpoint with this state holds."""
        saved = state["progress"] if "observation" not in state else _progress_of_format_1(state)
        self.frames, self.agent_steps = saved["frames"], saved["agent_steps"]
        self.evaluated_at, self.episodes_begun = saved["evaluated_at"], saved["episodes_begun"]
        self.under_way = {
            number: Episode(**{**episode, "observation": episode["observation"].numpy()})
            for number, episode in saved["under_way"].items()
        }


def _progress_of_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """The progress in a checkpoint of format 1, which knew one environment and kept its observation elsewhere."""
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
