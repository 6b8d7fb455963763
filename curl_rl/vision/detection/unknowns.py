"""What is taken for an unknown object without anybody's word: what looks like an object and is none of the known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.vision.detection.boxes import coverage
from curl_rl.vision.detection.proposals import Proposals
from curl_rl.vision.detection.sampling import Truth


@dataclass(frozen=True)
class LabelingConfig:
    """Auto-labeling of unknown objects (ORE, section 4.2)."""

    per_image: Annotated[int, at_least(0)] = 1
    """Proposals of highest objectness in each image that are labeled unknown; 0, none."""
    covered: Annotated[float, within("[0, 1]")] = 0.2
    """Largest share of such a proposal that may lie in an annotated object."""
    objectness: Annotated[float, within("[0, 1)")] = 0.3
    """Least probability of being an object."""

    def __post_init__(self) -> None:
        check_ranges(self, "labeling")


@torch.no_grad()
def auto_label(proposals: Proposals, truth: Truth, unknown: int, config: LabelingConfig) -> Truth:
    """Labels the likeliest proposals that overlap no annotated object as unknown objects.

    Args:
        proposals: of a batch of images.
        truth: the annotated objects.
        unknown: the label.
        config: how many, and which.

    Returns:
        ``per_image`` rows for each image.
    """
    rows, there = chosen_rows(proposals, truth, config)
    boxes = proposals.boxes.gather(1, rows[..., None].expand(-1, -1, 4))
    return Truth(boxes, torch.where(there, unknown, -1))


@torch.no_grad()
def chosen_rows(proposals: Proposals, truth: Truth, config: LabelingConfig) -> tuple[Tensor, Tensor]:
    """``(B, per_image)`` rows of the proposals that :func:`auto_label` chooses, and whether they are there."""
    inside: Tensor = (coverage(proposals.boxes, truth.boxes) * truth.present[:, None]).amax(2)
    free = proposals.valid & (inside <= config.covered) & (proposals.objectness.sigmoid() >= config.objectness)
    # Proposals come in the order of their objectness.
    rows = free.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : config.per_image]
    return rows, free.gather(1, rows)
