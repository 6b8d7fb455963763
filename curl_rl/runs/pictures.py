"""A warning about pictures that show nothing, on which a policy trains to its end without learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curl_rl.runs.console import say

_FEWEST = 10
"""Steps before which nothing is said: a short episode may end before anything has moved."""
_MOST = 1000
"""Steps after which an episode need not end before something is said."""
_BLACK = 3
"""Highest value of a picture that counts as black, of 255."""


@dataclass
class _Seen:
    """The pictures since the beginning of an episode, or of several short ones."""

    first: npt.NDArray[np.uint8]
    steps: int = 0
    change: bool = False
    light: bool = False

    @property
    def enough(self) -> bool:
        return self.change and self.light

    def add(self, picture: npt.NDArray[np.uint8]) -> None:
        self.change = self.change or not np.array_equal(picture, self.first)
        self.light = self.light or bool(picture.max() > _BLACK)


class PictureWatch:
    """Warns once if all pictures of an episode are the same, or black.

    It looks at the pictures of an episode only until one is bright and one differs from the first, which costs nothing
    after the first steps.

    Args:
        warn: prints the warning.
    """

    def __init__(self, warn: Callable[[str], object] = say) -> None:
        self._warn = warn
        self._warned = False
        self._seen: dict[int, _Seen] = {}

    def begin(self, picture: npt.NDArray[np.uint8], *, number: int = 0) -> None:
        """Takes the first picture or observation of an episode, in environment ``number``."""
        # A short episode without a verdict is continued by the next one.
        if not self._warned:
            self._seen.setdefault(number, _Seen(picture)).add(picture)

    def step(self, picture: npt.NDArray[np.uint8], *, over: bool, number: int = 0) -> None:
        """Takes a later one; ``over`` ends the episode."""
        if self._warned:
            return
        seen = self._seen.setdefault(number, _Seen(picture))
        seen.steps += 1
        if not seen.enough:
            seen.add(picture)
        if seen.steps >= _FEWEST and not seen.enough and (over or seen.steps == _MOST):
            self._warned = True
            which = "black" if not seen.light else "all the same"
            question = "in the right range" if not seen.light else "its state"
            self._warn(f"warning: the pictures of {seen.steps} agent steps are {which}: does render() draw {question}?")
        if over and (seen.enough or seen.steps >= _FEWEST):
            del self._seen[number]
