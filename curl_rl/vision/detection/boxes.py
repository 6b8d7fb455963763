"""Boxes: overlaps, their coding relative to anchors, and non-maximum suppression.

A box is ``(left, top, right, bottom)`` in pixels, right and bottom exclusive: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A scale beyond this, 1000/16 as in Faster R-CNN's released code, would only overflow the exponential.
_LARGEST_LOG_SCALE = math.log(1000 / 16)


def area(boxes: Tensor) -> Tensor:
    """Areas of ``(..., 4)`` boxes; 0 for one whose right or bottom lies before its left or top."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """``(..., N, M)`` areas that ``(..., N, 4)`` and ``(..., M, 4)`` boxes share."""
    top_left = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    bottom_right = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    return (bottom_right - top_left).clamp_min(0).prod(-1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """``(..., N, M)`` intersections over unions of ``(..., N, 4)`` and ``(..., M, 4)`` boxes; 0 if both are empty."""
    shared = intersection(first, second)
    union = area(first)[..., :, None] + area(second)[..., None, :] - shared
    return shared / union.clamp_min(torch.finfo(shared.dtype).tiny)


def coverage(boxes: Tensor, others: Tensor) -> Tensor:
    """``(..., N, M)`` shares of the areas of ``(..., N, 4)`` boxes that lie in ``(..., M, 4)`` others; 0 if empty."""
    return intersection(boxes, others) / area(boxes)[..., :, None].clamp_min(torch.finfo(boxes.dtype).tiny)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """``(..., 4)`` boxes cut off at the edges of an image."""
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], -1).flatten(-2)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """``(..., 4)`` offsets (x, y, log width, log height) from anchors to boxes (R-CNN, arXiv 1311.2524, appendix C).

    Sides below a hundredth of a pixel count as that, so that padding gives finite numbers.
    """
    size, anchor_size = ((box[..., 2:] - box[..., :2]).clamp_min(0.01) for box in (boxes, anchors))
    center, anchor_center = (box[..., :2] + side / 2 for box, side in ((boxes, size), (anchors, anchor_size)))
    return torch.cat([(center - anchor_center) / anchor_size, (size / anchor_size).log()], -1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The ``(..., 4)`` boxes at these offsets from anchors: the inverse of :func:`encode`."""
    anchor_size = (anchors[..., 2:] - anchors[..., :2]).clamp_min(0.01)
    center = anchors[..., :2] + anchor_size / 2 + offsets[..., :2] * anchor_size
    half = anchor_size * offsets[..., 2:].clamp_max(_LARGEST_LOG_SCALE).exp() / 2
    return torch.cat([center - half, center + half], -1)


def suppress(boxes: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
    """Greedy non-maximum suppression: a box is dropped if it overlaps one that is kept and comes before it.

    Greedy keeping satisfies kept[i] = no j < i with kept[j] overlaps i, which has one solution. Starting from all boxes
    and applying the rule to all at once fixes at least one more box in each round, and in practice all after a few: so
    a whole batch is suppressed in parallel. The test whether a round has changed anything is the only host sync.

    Args:
        boxes: ``(..., N, 4)``, the best first.
        groups: ``(..., N)`` integers, such as classes: boxes of different groups leave each other alone. None: one.
        threshold: intersection over union above which a box is dropped.

    Returns:
        ``(..., N)`` booleans, True for boxes that are kept.
    """
    count = boxes.shape[-2]
    earlier = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)
    close = (overlap(boxes, boxes) > threshold) & earlier
    if groups is not None:
        close &= groups[..., :, None] == groups[..., None, :]
    kept = torch.ones_like(boxes[..., 0], dtype=torch.bool)
    for _ in range(count):
        after = ~(close & kept[..., None, :]).any(-1)
        if torch.equal(after, kept):
            break
        kept = after
    return kept
