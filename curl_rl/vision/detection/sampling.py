"""Which boxes learn what: matching them with annotated objects, and drawing a balanced share of them.

Everything has a fixed shape: an image has as many rows as the most objects that one may have, and ``present`` marks
those that are there. A step then never waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.vision.detection.boxes import overlap


class Truth(NamedTuple):
    """The objects of a batch of images."""

    boxes: Tensor
    """``(B, M, 4)`` in pixels."""
    labels: Tensor
    """``(B, M)`` classes; −1 for a row without an object."""

    @property
    def present(self) -> Tensor:
        """``(B, M)`` booleans, True for rows with an object."""
        return self.labels >= 0

    def join(self, other: Truth) -> Truth:
        """The objects of both."""
        return Truth(torch.cat([self.boxes, other.boxes], 1), torch.cat([self.labels, other.labels], 1))


class Match(NamedTuple):
    """The object that each box overlaps most."""

    overlap: Tensor
    """``(B, N)``; 0 without an object."""
    row: Tensor
    """``(B, N)``, the object's; meaningless where the overlap is 0."""
    label: Tensor
    """``(B, N)`` classes; −1 where the overlap is 0."""
    box: Tensor
    """``(B, N, 4)`` boxes of the objects."""


def match(boxes: Tensor, truth: Truth) -> Match:
    """Matches ``(B, N, 4)`` boxes with objects."""
    if not truth.labels.shape[1]:
        truth = Truth(boxes.new_zeros(len(boxes), 1, 4), truth.labels.new_full((len(boxes), 1), -1))
    shared = overlap(boxes, truth.boxes) * truth.present[:, None]
    best, row = shared.max(2)
    label = torch.where(best > 0, truth.labels.gather(1, row), -1)
    return Match(best, row, label, truth.boxes.gather(1, row[..., None].expand(-1, -1, 4)))


def draw(
    positive: Tensor, negative: Tensor, count: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws at most ``count`` boxes of each image, at most ``share`` of them positive, without replacement.

    Negatives fill the places that positives leave.

    Args:
        positive: ``(B, N)`` booleans.
        negative: ``(B, N)`` booleans.
        count: boxes of an image.
        share: in [0, 1].
        generator: on the boxes' device.

    Returns:
        ``(B, N)`` booleans: the positives and the negatives that are drawn.
    """
    keys = torch.rand(positive.shape, generator=generator, device=positive.device)
    chosen = positive & (_rank(keys.masked_fill(~positive, -1)) < round(count * share))
    room = count - chosen.sum(1, keepdim=True)
    return chosen, negative & (_rank(keys.masked_fill(~negative, -1)) < room)


def _rank(keys: Tensor) -> Tensor:
    """Position of each ``(B, N)`` key in its row, the largest first."""
    return keys.argsort(1, descending=True).argsort(1)
