"""The random generators of an agent's training loop, and the states that a checkpoint keeps of them."""

from __future__ import annotations

from typing import Any

import torch

from curl_rl.runs.console import say
from curl_rl.runs.seeds import derived_seed, random_state, restore_random_state


class Generators:
    """One generator for actions and crops, on the agent's device, and one for the replay, on the replay's.

    Args:
        seed: of the run.
        device: of the agent.
        replay_device: on which the replay draws.
    """

    def __init__(self, seed: int, device: torch.device, replay_device: torch.device) -> None:
        self.agent = torch.Generator(device)
        """For actions and crops."""
        self.replay = torch.Generator(replay_device)
        """For which transitions are sampled."""
        self._seed = seed
        self._begin(index=0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: of the global generators, on which environments may draw, under ``random``."""
        states = [self.agent.get_state(), self.replay.get_state()]
        return {"generators": {"devices": self._devices(), "states": states}, "random": random_state()}

    def load(self, state: dict[str, Any], frames: int) -> None:
        """Puts back what :meth:`state` gave, in a run of so many frames.

        On another kind of device, whose generators are others, they begin anew by a seed of their own.
        """
        restore_random_state(state["random"])
        if state["generators"]["devices"] == self._devices():
            for generator, saved in zip((self.agent, self.replay), state["generators"]["states"], strict=True):
                generator.set_state(saved)
        else:
            say("resumed on another kind of device: the random numbers go on differently")
            self._begin(index=frames)

    def _begin(self, *, index: int) -> None:
        self.agent.manual_seed(derived_seed(self._seed, "exploration and crops", index))
        self.replay.manual_seed(derived_seed(self._seed, "replay", index))

    def _devices(self) -> list[str]:
        return [self.agent.device.type, self.replay.device.type]
