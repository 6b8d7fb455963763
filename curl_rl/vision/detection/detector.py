"""A detector of a few layers: backbone to stride 8, region proposals, RoIAlign, box head, suppression (Faster R-CNN).

Read in order: :meth:`Detector.losses` is a training step, :meth:`Detector.see` and :meth:`Detector.decide` its use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.objectives import BatchInfo, Objective
from curl_rl.ranges import at_least, check_ranges, positive, within
from curl_rl.vision.detection.box_head import BoxHead, HeadConfig, Regions
from curl_rl.vision.detection.boxes import clip, suppress
from curl_rl.vision.detection.energy import EnergyTest
from curl_rl.vision.detection.proposals import ProposalConfig, ProposalNetwork, Proposals
from curl_rl.vision.detection.roi_align import roi_align
from curl_rl.vision.detection.sampling import Truth
from curl_rl.vision.detection.unknowns import LabelingConfig, auto_label

SIDE = within("[32, 4096]", "be from 32 to 4096")
"""Longer side of the images that a trained detector looks at, in pixels."""
STRIDE = 8
"""Pixels between places of the map: that of the second stage of a ResNet with ImageNet's stem."""


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of the detector."""

    width: Annotated[float, positive] = 0.5
    """Factor on the channels of the backbone, the first two stages of a ResNet-18; 0.5: 32 and 64."""
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    """Region proposals."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Box head."""
    score: Annotated[float, within("[0, 1)")] = 0.05
    """Detections below this probability are not reported."""
    overlap: Annotated[float, within("(0, 1]")] = 0.5
    """Overlap (intersection over union) above which the less likely of two detections of one class is dropped."""
    most: Annotated[int, at_least(1)] = 100
    """Detections of an image, at most."""

    def __post_init__(self) -> None:
        check_ranges(self, "detector")


class Detections(NamedTuple):
    """What is found in one image, the most certain first."""

    boxes: Tensor
    """``(N, 4)`` in pixels."""
    labels: Tensor
    """``(N,)``: a known class, or :attr:`BoxHead.unknown`."""
    scores: Tensor
    """``(N,)`` probabilities; of something unknown by its energy, that of the class it was taken for."""


class Seen(NamedTuple):
    """The regions of a batch of images, before any decision."""

    proposals: Proposals
    boxes: Tensor
    """``(B, P, 4)`` of the objects in the proposals, in pixels."""
    logits: Tensor
    """``(B, P, K + 2)``, as :attr:`Regions.logits`."""
    known: int
    """Number of classes that have been taught."""


class Step(NamedTuple):
    """A training step's losses."""

    loss: Tensor
    """The sum, a scalar."""
    metrics: dict[str, Tensor]
    """Its parts, detached scalars by name."""
    carry: Any
    """For ``after_step`` of the clustering objective; None without one."""


class Backbone(nn.Module):
    """The stem and the first two stages of a ResNet with group norm: ``(B, 3, H, W)`` to ``(B, C, H/8, W/8)``.

    Group norm, because a step has few images, and features are compared between training and evaluation.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        whole = ResNet((3, 64, 64), ResNetConfig(width=width, norm="group"))
        self.stem = nn.Sequential(whole.conv1, whole.bn1, nn.ReLU(), whole.maxpool)
        self.stages = nn.Sequential(whole.layer1, whole.layer2)
        self.channels = round(128 * width)

    def forward(self, images: Tensor) -> Tensor:
        """Takes uint8 in [0, 255]."""
        pixels = (images.float() - 127.5) / 63.75
        found: Tensor = self.stages(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        return found


class Detector(nn.Module):
    """Finds objects, and says of each its class or that it is unknown.

    Args:
        classes: number of classes of all tasks; those not yet taught are masked.
        config: sizes.
    """

    def __init__(self, classes: int, config: DetectorConfig = DetectorConfig()) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.width)
        self.proposals = ProposalNetwork(self.backbone.channels, STRIDE, config.proposals)
        self.head = BoxHead(self.backbone.channels, classes, config.head)

    def propose(self, images: Tensor) -> tuple[Tensor, Proposals]:
        """The maps of ``(B, 3, H, W)`` images, and their proposals."""
        maps = self.backbone(images)
        anchors = self.proposals.anchors(maps)
        objectness, offsets = self.proposals(maps)
        return maps, self.proposals.propose(objectness, offsets, anchors, (images.shape[2], images.shape[3]))

    def look(self, maps: Tensor, boxes: Tensor, known: int) -> Regions:
        """What the head says of ``(B, N, 4)`` boxes, given how many classes have been taught."""
        head = self.config.head
        regions: Regions = self.head(roi_align(maps, boxes, STRIDE, head.bins, head.samples), known)
        return regions

    def losses(
        self,
        images: Tensor,
        truth: Truth,
        known: int,
        generator: torch.Generator,
        labeling: LabelingConfig,
        clusters: Objective | None,
        clustering_weight: float,
    ) -> Step:
        """The losses of a training step.

        Args:
            images: ``(B, 3, H, W)`` uint8.
            truth: the annotated objects, labeled by classes below ``known``.
            known: number of classes that have been taught, this task's included.
            generator: draws what is learned from, on the images' device.
            labeling: what is taken for unknown objects.
            clusters: contrastive clustering of the regions' features; None for none.
            clustering_weight: its weight.
        """
        maps = self.backbone(images)
        anchors = self.proposals.anchors(maps)
        objectness, offsets = self.proposals(maps)
        proposals = self.proposals.propose(objectness, offsets, anchors, (images.shape[2], images.shape[3]))
        unknown = auto_label(proposals, truth, self.head.unknown, labeling)
        objectness_loss, proposal_loss = self.proposals.loss(objectness, offsets, anchors, truth, unknown, generator)
        sampled = self.head.sample(proposals.boxes, proposals.valid, truth, unknown, generator)
        regions = self.look(maps, sampled.boxes, known)
        class_loss, place_loss = self.head.loss(regions, sampled)
        parts = {"objectness": objectness_loss, "proposals": proposal_loss, "classes": class_loss, "boxes": place_loss}
        metrics: dict[str, Tensor] = {"unknown/labeled": unknown.present.sum().float() / len(images)}
        carry = None
        if clusters is not None:
            of_object = (sampled.labels <= self.head.unknown) & (sampled.weights > 0)
            labels = torch.where(of_object, sampled.labels, -1).flatten()
            vectors = regions.features.flatten(0, 1)
            result = clusters([Features(vectors, vectors[:, :0])], [], BatchInfo(labels=labels))
            # The objective's mean is over all regions, most of which are background: this one is over the objects.
            share = labels.numel() / of_object.sum().clamp_min(1)
            parts["clusters"] = result.loss * share
            metrics |= {f"objective/{name}": value for name, value in result.metrics.items()}
            carry = result.carry
        weights = {"clusters": clustering_weight}
        loss = torch.stack([weights.get(name, 1.0) * part for name, part in parts.items()]).sum()
        metrics |= {"loss": loss.detach(), **{f"losses/{name}": part.detach() for name, part in parts.items()}}
        return Step(loss, metrics, carry)

    @torch.no_grad()
    def see(self, images: Tensor, known: int) -> Seen:
        """All that is to be seen in ``(B, 3, H, W)`` uint8 images of one size, before any decision.

        Args:
            images: with sides of at least 8 pixels.
            known: number of classes that have been taught.
        """
        maps, proposals = self.propose(images)
        regions = self.look(maps, proposals.boxes, known)
        boxes = clip(self.head.located(regions.offsets, proposals.boxes), images.shape[2], images.shape[3])
        return Seen(proposals, boxes, regions.logits, known)

    @torch.no_grad()
    def decide(self, seen: Seen, test: EnergyTest | None) -> list[Detections]:
        """What is detected in each image.

        Args:
            seen: of a batch of images.
            test: turns what was taken for a known class into unknown; None: the classifier alone decides.
        """
        c, head = self.config, self.head
        scores, labels = seen.logits.softmax(-1)[..., : head.background].max(-1)
        scores = torch.where(seen.proposals.valid, scores, 0)
        if test is not None:
            labels = torch.where(test.is_unknown(seen.logits[..., : seen.known]), head.unknown, labels)
        order = scores.argsort(dim=1, descending=True, stable=True)
        scores, labels = scores.gather(1, order), labels.gather(1, order)
        boxes = seen.boxes.gather(1, order[..., None].expand(-1, -1, 4))
        kept = suppress(boxes, labels, c.overlap) & (scores >= max(c.score, torch.finfo(scores.dtype).tiny))
        return [
            Detections(*(values[image][kept[image]][: c.most] for values in (boxes, labels, scores)))
            for image in range(len(boxes))
        ]
