"""The random generators of an agent's training loop, and their state in a checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from curl_rl.runs.console import say
from curl_rl.runs.seeds import derived_seed, random_state, restore_random_state


class Generators:
    """One generator for actions and crops, on the agent's device, and one for sampling, on the replay's.

    Args:
        seed: the run's seed.
        device: the agent's device.
        replay_device: the device that the replay samples on.
    """

    def __init__(self, seed: int, device: torch.device, replay_device: torch.device) -> None:
        self.agent = torch.Generator(device)
        """For actions and crops."""
        self.replay = torch.Generator(replay_device)
        """For sampling transitions."""
        self._seed = seed
        self._begin(index=0)

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint; ``random`` is that of the global generators, which environments may use."""
        states = [self.agent.get_state(), self.replay.get_state()]
        return {"generators": {"devices": self._devices(), "states": states}, "random": random_state()}

    def load(self, state: dict[str, Any], frames: int) -> None:
        """Restores the result of :meth:`state` in a run resumed at ``frames``.

        Generator states do not transfer to another kind of device: there the generators are reseeded.
        """
        restore_random_state(state["random"])
        if state["generators"]["devices"] == self._devices():
            for generator, saved in zip((self.agent, self.replay), state["generators"]["states"], strict=True):
                generator.set_state(saved)
        else:
            say("resumed on another kind of device: random numbers will differ from here on")
            self._begin(index=frames)

    def _begin(self, *, index: int) -> None:
        self.agent.manual_seed(derived_seed(self._seed, "exploration and crops", index))
        self.replay.manual_seed(derived_seed(self._seed, "replay", index))

    def _devices(self) -> list[str]:
        return [self.agent.device.type, self.replay.device.type]
