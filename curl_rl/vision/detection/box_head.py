"""The box head: what is in a region, and where exactly (Fast R-CNN, Girshick 2015, arXiv 1504.08083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.vision.detection.boxes import decode, encode
from curl_rl.vision.detection.sampling import Truth, draw, match

# Fast R-CNN's weights of the offsets, the inverse of their usual standard deviations.
_SCALES = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class HeadConfig:
    """The box head."""

    bins: Annotated[int, at_least(1)] = 5
    """Bins of RoIAlign on each side of a region."""
    samples: Annotated[int, at_least(1)] = 1
    """Bilinear samples on each side of a bin. One is enough while a bin is no larger than a place of the map."""
    hidden: Annotated[int, at_least(1)] = 256
    """Size of both hidden layers; the second is the region's feature, which is clustered."""
    learned: Annotated[int, at_least(2)] = 32
    """Regions of an image that a step learns from."""
    share: Annotated[float, within("(0, 1]")] = 0.5
    """Largest share of them that holds an object."""
    object_overlap: Annotated[float, within("(0, 1)")] = 0.5
    """Overlap (intersection over union) with an object from which on a region holds it; below, it is background."""

    def __post_init__(self) -> None:
        check_ranges(self, "detector.head")


class Regions(NamedTuple):
    """What the head says of regions."""

    features: Tensor
    """``(..., D)``, from which the rest is computed."""
    logits: Tensor
    """``(..., K + 2)``: the classes of all tasks, unknown, background. Those of later tasks are −inf."""
    offsets: Tensor
    """``(..., 4)`` from the region to the object, the same for every class."""


class Sampled(NamedTuple):
    """The regions that a step learns from, the same number of each image."""

    boxes: Tensor
    """``(B, R, 4)``."""
    labels: Tensor
    """``(B, R)``: a class, unknown, or background."""
    targets: Tensor
    """``(B, R, 4)`` boxes of the objects; meaningless for background."""
    weights: Tensor
    """``(B, R)``: 1, or 0 for a row that fills up an image with too few regions."""
    located: Tensor
    """``(B, R)``: 1 for regions on annotated objects, whose exact place is known."""


class BoxHead(nn.Module):
    """Two layers, a classifier and a regressor that is the same for all classes, so that it also fits the unknown."""

    scales: Tensor
    """Factors on the four offsets."""

    def __init__(self, channels: int, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.register_buffer("scales", torch.tensor(_SCALES), persistent=False)
        self.first = nn.Linear(channels * config.bins**2, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.classifier = nn.Linear(config.hidden, classes + 2)
        self.regressor = nn.Linear(config.hidden, 4)
        for layer, std in ((self.classifier, 0.01), (self.regressor, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    @property
    def unknown(self) -> int:
        """The label of what is an object of no known class."""
        return self.classes

    @property
    def background(self) -> int:
        """The label of what is no object."""
        return self.classes + 1

    def forward(self, pooled: Tensor, known: int) -> Regions:
        """Looks at ``(..., C, bins, bins)`` regions; the first ``known`` classes have been taught."""
        features = self.second(self.first(pooled.flatten(-3)).relu()).relu()
        logits = self.classifier(features)
        later = torch.arange(logits.shape[-1], device=logits.device)
        untaught = (later >= known) & (later < self.classes)
        return Regions(features, logits.masked_fill(untaught, -torch.inf), self.regressor(features))

    def located(self, offsets: Tensor, boxes: Tensor) -> Tensor:
        """The boxes of the objects in ``(..., 4)`` regions."""
        return decode(offsets / self.scales, boxes)

    @torch.no_grad()
    def sample(self, boxes: Tensor, valid: Tensor, truth: Truth, unknown: Truth, generator: torch.Generator) -> Sampled:
        """Draws the regions that a step learns from among proposals and the annotated objects themselves.

        Args:
            boxes: ``(B, P, 4)`` proposals.
            valid: ``(B, P)``.
            truth: the annotated objects.
            unknown: what is taken for unknown objects, labeled :attr:`unknown`.
            generator: on the boxes' device.
        """
        c, everything = self.config, truth.join(unknown)
        boxes = torch.cat([boxes, everything.boxes], 1)
        valid = torch.cat([valid, everything.present], 1)
        found = match(boxes, everything)
        is_object = valid & (found.overlap >= c.object_overlap)
        objects, others = draw(is_object, valid & ~is_object, c.learned, c.share, generator)
        order = (objects.to(torch.uint8) * 2 + others).argsort(dim=1, descending=True, stable=True)[:, : c.learned]
        labels = torch.where(is_object, found.label, self.background).gather(1, order)
        wide = order[..., None].expand(-1, -1, 4)
        weights = (objects | others).gather(1, order).to(boxes.dtype)
        located = weights * (labels < self.unknown)
        return Sampled(boxes.gather(1, wide), labels, found.box.gather(1, wide), weights, located)

    def loss(self, regions: Regions, sampled: Sampled) -> tuple[Tensor, Tensor]:
        """Losses of the class (cross-entropy) and of the place (smooth L1, annotated objects only)."""
        total = sampled.weights.sum().clamp_min(1)
        classes = F.cross_entropy(regions.logits.flatten(0, 1), sampled.labels.flatten(), reduction="none")
        wanted = encode(sampled.targets, sampled.boxes) * self.scales
        distance = F.smooth_l1_loss(regions.offsets, wanted, reduction="none").sum(-1)
        place = torch.where(sampled.located > 0, distance, 0).sum()
        return (classes * sampled.weights.flatten()).sum() / total, place / total
