"""What an environment's observation holds: pixels, and beside them perhaps proprioception.

An observation is an image ``(stack·C, H, W)`` of uint8, or a dict of one such image and one or more vectors of real
numbers, such as a robot's joint positions and velocities. The vectors, in the order of their names, are joined to one,
the proprioception ``(P,)``. Only the newest is used, not a stack: what a stack of frames is for, velocities, a vector
can hold by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curl_rl.runs.errors import UserError

Pixels = npt.NDArray[np.uint8]
Proprioception = npt.NDArray[np.float32]


class ObservationSpec(NamedTuple):
    """Where pixels and proprioception are in an environment's observations."""

    shape: tuple[int, int, int]
    """``(stack·C, H, W)`` of the pixels."""
    image: str | None = None
    """Name of the image in a dict; None if observations are images."""
    vectors: dict[str, int] = {}
    """Length of each vector by name, in the order in which they are joined."""

    @property
    def proprioception(self) -> int:
        """P, the length of the proprioception; 0 if there is none."""
        return sum(self.vectors.values())

    def pixels(self, observation: Any) -> Pixels:
        """The image, ``(stack·C, H, W)``."""
        pixels: Pixels = observation if self.image is None else observation[self.image]
        return pixels

    def read(self, observation: Any) -> tuple[Pixels, Proprioception | None]:
        """The image ``(stack·C, H, W)``, and the proprioception ``(P,)`` as a new array; None if there is none.

        Raises:
            ValueError: a vector has another length than its space, or is not finite.
        """
        if not self.vectors:
            return self.pixels(observation), None
        vectors = {name: np.asarray(observation[name], np.float32) for name in self.vectors}
        for name, vector in vectors.items():
            if vector.size != self.vectors[name]:
                raise ValueError(f"the observation's {name} must have {self.vectors[name]} numbers, got {vector.size}")
            if not np.isfinite(vector).all():
                raise ValueError(f"the observation's {name} must be finite, got {vector.tolist()}")
        return self.pixels(observation), np.concatenate([np.ravel(vector) for vector in vectors.values()])

    def batch_of_one(self, observation: Any, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """As :meth:`read`: ``(1, stack·C, H, W)`` and ``(1, P)`` on a device."""
        pixels, proprioception = self.read(observation)
        beside = None if proprioception is None else torch.from_numpy(proprioception).to(device)[None]
        return torch.from_numpy(pixels).to(device)[None], beside


def observation_spec(space: gymnasium.Space[Any]) -> ObservationSpec:
    """Finds the pixels and the vectors in a space of observations.

    Raises:
        UserError: the space has no image of uint8 or several, or an entry is neither an image nor a vector.
    """
    if not isinstance(space, gymnasium.spaces.Dict):
        if not _is_image(space) or space.shape is None:
            raise UserError(f"the environment's observations must be uint8 (C, H, W), got {space}")
        channels, height, width = space.shape
        return ObservationSpec((channels, height, width))
    entries = dict(space.spaces)
    shapes = {name: entry.shape or () for name, entry in entries.items()}
    images = [name for name, entry in entries.items() if _is_image(entry)]
    vectors = [
        name for name, entry in entries.items() if isinstance(entry, gymnasium.spaces.Box) and len(entry.shape) < 2
    ]
    if len(images) != 1 or len(vectors) + 1 != len(entries):
        raise UserError(
            f"the environment's observations must be a dict of one image, uint8 (C, H, W), and vectors, got {space}"
        )
    (image,) = images
    channels, height, width = shapes[image]
    # By name: gymnasium's versions order a Dict differently, and the agent's weights depend on the order.
    lengths = {name: int(np.prod(shapes[name])) for name in sorted(vectors)}
    return ObservationSpec((channels, height, width), image, lengths)


def _is_image(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
