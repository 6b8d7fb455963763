"""Vectors beside the pixels: the entries of an environment's own observation that an agent gets in addition to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

ALL = "all"
"""Stands for every entry."""


def chosen_entries(available: Mapping[str, int], wanted: str | Sequence[str], owner: str) -> dict[str, int]:
    """The entries that a setting names, with their lengths, in the environment's order.

    Args:
        available: length of each entry of the environment's own observation.
        wanted: names of entries, or `ALL`.
        owner: the environment's name, for the message.

    Raises:
        ValueError: there are no such entries; the message lists those that there are.
    """
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    got = f"got {wanted if wanted == ALL else list(names)}"
    if not available:
        raise ValueError(f"proprioception must be left out for {owner}, whose observation has no vectors, {got}")
    if wanted == ALL:
        return dict(available)
    if not set(names) <= set(available) or len(set(names)) < len(names):
        listed = ", ".join(f"{name} ({length})" for name, length in available.items())
        raise ValueError(
            f"proprioception must be some of {listed}, the entries of {owner}'s own observation, or {ALL}, {got}"
        )
    return {name: length for name, length in available.items() if name in names}


def entry_lengths(space: gymnasium.Space[Any]) -> dict[str, int]:
    """Length of each vector of a space of observations: the only one, `state`, or those of a dict by their names.

    Images and other entries are left out. `state` is gymnasium's name for the observation to which it adds pixels.
    """
    entries = space.spaces if isinstance(space, gymnasium.spaces.Dict) else {"state": space}
    boxes = {name: entry for name, entry in entries.items() if isinstance(entry, gymnasium.spaces.Box)}
    return {name: int(np.prod(box.shape)) for name, box in boxes.items() if len(box.shape) <= 1}


def as_vector(numbers: Any) -> NDArray[np.float32]:
    """A new array (D,) of a number or an array of them."""
    return np.array(numbers, np.float32).reshape(-1)
