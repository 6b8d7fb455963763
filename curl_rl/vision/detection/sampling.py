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


def check_truth(truth: Truth, height: int, width: int, classes: int) -> None:
    """Refuses annotations that nothing can be learned from.

    Args:
        truth: of a batch of images, on the CPU.
        height, width: the images' in pixels.
        classes: number of classes that labels may name.

    Raises:
        ValueError: a box lies outside its image or has no area, or a label is of no class; the message has one line.
    """
    boxes, labels = truth.boxes[truth.present], truth.labels[truth.present]
    if len(labels) and int(labels.max()) >= classes:
        raise ValueError(f"labels must be below {classes}, the number of classes, got {int(labels.max())}")
    limits = boxes.new_tensor([width, height, width, height])
    for box in boxes[((boxes < 0) | (boxes > limits)).any(1)].tolist():
        raise ValueError(f"boxes must lie in their image of {width}×{height} pixels, got {box}: clip or leave them out")
    for box in boxes[(boxes[:, 2:] <= boxes[:, :2]).any(1)].tolist():
        raise ValueError(f"boxes must be (left, top, right, bottom) with an area, got {box}")


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
