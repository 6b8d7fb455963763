"""Region proposals: where an image has something, whatever it is (Faster R-CNN, Ren et al. 2015, arXiv 1506.01497)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.ranges import at_least, check_ranges, one_or_more, positive, within
from curl_rl.vision.detection.boxes import clip, decode, encode, suppress
from curl_rl.vision.detection.sampling import Truth, draw, match

_OBJECT, _BACKGROUND = 0.5, 0.3
"""Overlap with an object from which on an anchor is one, and below which it is background; in between, neither."""
_LEAST_SIDE = 2.0  # pixels


@dataclass(frozen=True)
class ProposalConfig:
    """Anchors, and how many of their boxes are looked at."""

    sizes: Annotated[tuple[float, ...], one_or_more(positive, "be one or more positive numbers of pixels")] = (
        24.0,
        48.0,
    )
    """Sides of the square anchors at each place of the map, in pixels."""
    ratios: Annotated[tuple[float, ...], one_or_more(positive, "be one or more positive numbers")] = (0.5, 1.0, 2.0)
    """Heights over widths of the anchors, of the same area."""
    learned: Annotated[int, at_least(2)] = 64
    """Anchors of an image that a step learns from, at most half of them objects."""
    considered: Annotated[int, at_least(1)] = 96
    """Boxes of highest objectness before suppression."""
    kept: Annotated[int, at_least(1)] = 40
    """Boxes of an image that are classified."""
    overlap: Annotated[float, within("(0, 1]")] = 0.7
    """Overlap (intersection over union) above which the less likely of two boxes is dropped."""

    def __post_init__(self) -> None:
        check_ranges(self, "detector.proposals")
        if self.kept > self.considered:
            raise ValueError(f"detector.proposals.kept must be at most considered {self.considered}, got {self.kept}")


class Proposals(NamedTuple):
    """Boxes that may hold an object, the likeliest first."""

    boxes: Tensor
    """``(B, P, 4)`` in pixels, inside the image."""
    objectness: Tensor
    """``(B, P)`` logits."""
    valid: Tensor
    """``(B, P)`` booleans; False for rows beyond what suppression has left, and for boxes without an area."""


class ProposalNetwork(nn.Module):
    """Objectness and box offsets for every anchor at every place of a map."""

    shapes: Tensor
    """``(A, 2)`` widths and heights of the anchors at a place, in pixels."""

    def __init__(self, channels: int, stride: int, config: ProposalConfig) -> None:
        super().__init__()
        self.config, self.stride = config, stride
        shapes = [
            (size / ratio**0.5, size * ratio**0.5) for size, ratio in itertools.product(config.sizes, config.ratios)
        ]
        self.register_buffer("shapes", torch.tensor(shapes), persistent=False)
        count = len(shapes)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, count, 1)
        self.offsets = nn.Conv2d(channels, 4 * count, 1)
        for layer in (self.objectness, self.offsets):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, h, w)`` to objectness logits ``(B, N)`` and offsets ``(B, N, 4)`` of the anchors, place by place."""
        hidden = self.conv(maps).relu().permute(0, 2, 3, 1)
        objectness, offsets = (
            F.linear(hidden, layer.weight.flatten(1), layer.bias) for layer in (self.objectness, self.offsets)
        )
        return objectness.flatten(1), offsets.reshape(len(maps), -1, 4)

    def anchors(self, maps: Tensor) -> Tensor:
        """``(N, 4)`` anchors of a map of this size, in pixels, in the order of :meth:`forward`."""
        half = self.shapes.to(maps.dtype) / 2
        y, x = (torch.arange(n, device=maps.device, dtype=maps.dtype).add(0.5) * self.stride for n in maps.shape[2:])
        center = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)[:, :, None]
        return torch.cat([center - half, center + half], -1).view(-1, 4)

    @torch.no_grad()
    def propose(self, objectness: Tensor, offsets: Tensor, anchors: Tensor, size: tuple[int, int]) -> Proposals:
        """The likeliest boxes of each image after suppression; ``size`` is the images' height and width."""
        c = self.config
        scores, index = objectness.topk(min(c.considered, objectness.shape[1]), 1)
        boxes = decode(offsets.gather(1, index[..., None].expand(-1, -1, 4)), anchors[index])
        boxes = clip(boxes, *size)
        large = (boxes[..., 2:] - boxes[..., :2]).amin(-1) >= _LEAST_SIDE
        kept = suppress(boxes, None, c.overlap) & large
        # Those kept come first, in their order: a stable sort of a boolean.
        order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : c.kept]
        return Proposals(
            boxes.gather(1, order[..., None].expand(-1, -1, 4)), scores.gather(1, order), kept.gather(1, order)
        )

    def loss(
        self,
        objectness: Tensor,
        offsets: Tensor,
        anchors: Tensor,
        truth: Truth,
        spared: Truth,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Losses of objectness (binary cross-entropy) and of the objects' offsets (smooth L1).

        Args:
            objectness: as :meth:`forward` returns it.
            offsets: likewise.
            anchors: their boxes.
            truth: the annotated objects.
            spared: what may be an object although nobody has annotated it. Anchors on it are not taught that they are
                background, which would unlearn to propose it.
            generator: draws the anchors that a step learns from.
        """
        boxes = anchors.expand(len(objectness), -1, -1)
        found = match(boxes, truth)
        best = match(truth.boxes, Truth(boxes, torch.zeros_like(objectness, dtype=torch.int64)))
        # Every object has at least the anchor that fits it best.
        numbers = torch.arange(len(anchors), device=anchors.device)
        touched = truth.present & (best.overlap > 0)
        favorite = ((best.row[:, :, None] == numbers) & touched[:, :, None]).any(1)
        is_object = (found.overlap >= _OBJECT) | (favorite & (found.overlap > 0))
        background = (found.overlap < _BACKGROUND) & ~is_object & (match(boxes, spared).overlap < _BACKGROUND)
        objects, others = draw(is_object, background, self.config.learned, 0.5, generator)
        chosen = objects | others
        total = chosen.sum().clamp_min(1)
        losses = F.binary_cross_entropy_with_logits(objectness, objects.to(objectness.dtype), reduction="none")
        wanted = encode(found.box, boxes)
        # Padded truth may be far away: its offsets are masked, and finite.
        distance = F.smooth_l1_loss(offsets, wanted, reduction="none", beta=1 / 9).sum(-1)
        return torch.where(chosen, losses, 0).sum() / total, torch.where(objects, distance, 0).sum() / total
