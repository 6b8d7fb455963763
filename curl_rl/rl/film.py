"""Videos of episodes for people: large pictures, the agent's own view beside them, return and step written below."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

SIDE = 256
"""Height and width of a picture, and of the agent's view beside it, in pixels."""
BAND = 18
"""Height of the line of text below, in pixels."""
_GAP = 4


class Film:
    """Collects the pictures of one episode.

    Args:
        env: draws itself if it has a method ``large_picture(size)`` that returns ``(size, size, 3)`` uint8; otherwise,
            its observations are scaled up.
        crop: side of the center crop that the agent acts on, in pixels.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], crop: int) -> None:
        self._env: Any = env
        self._crop = crop
        self._frames: list[Pixels] = []

    def add(self, observation: Pixels, *, step: int, total: float) -> None:
        """Adds the picture of the present moment.

        Args:
            observation: ``(stack·C, H, W)`` uint8, the agent's.
            step: agent steps taken.
            total: the rewards so far.
        """
        frame = np.zeros((SIDE + BAND, 2 * SIDE + _GAP, 3), np.uint8)
        frame[:SIDE, :SIDE] = self._large(observation)
        top, left = ((length - self._crop) // 2 for length in observation.shape[1:])
        seen = observation[:, top : top + self._crop, left : left + self._crop]
        frame[:SIDE, SIDE + _GAP :] = _scaled(_newest_frame(seen))
        frame[SIDE:] = _written(f"step {step}    return {total:.1f}", "what the agent sees")
        self._frames.append(frame)

    def pictures(self) -> Pixels:
        """All pictures, ``(T, SIDE + BAND, ·, 3)``."""
        return np.stack(self._frames)

    def _large(self, observation: Pixels) -> Pixels:
        draw = getattr(self._env, "large_picture", None)
        drawn = draw(SIDE) if callable(draw) else None
        # The environment is user code, and its method may be something else of that name.
        right = isinstance(drawn, np.ndarray) and drawn.dtype == np.uint8 and drawn.shape == (SIDE, SIDE, 3)
        return drawn if right else _scaled(_newest_frame(observation))  # type: ignore[return-value]


def _newest_frame(observation: Pixels) -> Pixels:
    """``(H, W, 3)`` from ``(stack·C, H, W)``; of a stack that is not RGB, the last channel in gray."""
    rgb = observation[-3:] if len(observation) % 3 == 0 else np.repeat(observation[-1:], 3, axis=0)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _scaled(picture: Pixels) -> Pixels:
    """``(H, W, 3)`` scaled to ``(SIDE, SIDE, 3)``, each pixel a rectangle."""
    rows, columns = (np.arange(SIDE) * length // SIDE for length in picture.shape[:2])
    return picture[rows][:, columns]


def _written(left: str, right: str) -> Pixels:
    """The line of text, ``(BAND, 2·SIDE + gap, 3)``."""
    image = Image.new("RGB", (2 * SIDE + _GAP, BAND), (24, 24, 24))
    draw = ImageDraw.Draw(image)
    draw.text((6, 3), left, fill=(255, 255, 255))
    draw.text((SIDE + _GAP + 6, 3), right, fill=(190, 190, 190))
    return np.asarray(image)
