"""Measures of open-world detection: mAP of known classes, recall of unknowns, A-OSE and wilderness impact.

As in ORE (arXiv 2103.02603, section 5.1), all at an overlap (intersection over union) of 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.vision.detection.boxes import overlap
from curl_rl.vision.detection.detector import Detections
from curl_rl.vision.detection.sampling import Truth

OVERLAP = 0.5
RECALL = 0.8
"""Recall of known classes at which the wilderness impact is taken."""


class Curve(NamedTuple):
    """What becomes of one class's detections from the most certain to the least."""

    right: Tensor
    """``(N,)`` booleans: an object of the class that nothing more certain has found."""
    on_unknown: Tensor
    """``(N,)`` booleans: wrong, and on an unknown object."""
    objects: int
    """Objects of the class."""

    @property
    def recall(self) -> Tensor:
        """``(N,)`` after each detection."""
        return self.right.cumsum(0) / max(self.objects, 1)

    @property
    def precision(self) -> Tensor:
        """``(N,)`` after each detection, those on unknown objects included."""
        return self.right.cumsum(0) / torch.arange(1, len(self.right) + 1)


class Measures(NamedTuple):
    """The measures of one evaluation."""

    average_precision: dict[int, float]
    """At 0.5, by known class; only those that have objects."""
    unknown_recall: float
    """Share of the unknown objects that a detection called unknown finds; NaN without any."""
    open_set_error: int
    """A-OSE: wrong detections of known classes that lie on unknown objects."""
    wilderness_impact: float
    """WI at recall 0.8: their number over that of all other detections of known classes."""
    unknown_objects: int
    unknown_precision: float
    """Average precision at 0.5 of the detections called unknown: recall alone does not count those on nothing."""

    def mean(self, classes: Sequence[int]) -> float:
        """mAP over those of the classes that have objects; NaN if none has."""
        found = [self.average_precision[label] for label in classes if label in self.average_precision]
        return sum(found) / len(found) if found else float("nan")


def measure(found: Sequence[Detections], truth: Sequence[Truth], known: int, unknown: int) -> Measures:
    """Compares detections with the objects of the same images.

    Args:
        found: detections of each image, on the CPU.
        truth: objects of each image, ``(1, M)``: labels below ``known`` are known, all others unknown.
        known: number of known classes.
        unknown: the label of detections of unknown objects.
    """
    curves = {label: curve(found, truth, label, known) for label in range(known)}
    precision = {label: average_precision(one) for label, one in curves.items() if one.objects}
    as_unknown = [_relabeled(objects, known, unknown) for objects in truth]
    unknowns = curve(found, as_unknown, unknown, unknown + 1)
    return Measures(
        precision,
        float(unknowns.right.sum()) / unknowns.objects if unknowns.objects else float("nan"),
        sum(int(one.on_unknown.sum()) for one in curves.values()),
        wilderness_impact(list(curves.values())),
        unknowns.objects,
        average_precision(unknowns) if unknowns.objects else float("nan"),
    )


def curve(found: Sequence[Detections], truth: Sequence[Truth], label: int, known: int) -> Curve:
    """Judges the detections of one class in all images, the most certain first.

    A detection is right if the object of its class that it overlaps most is not found yet and overlaps enough: further
    ones on the same object are wrong, as in Pascal VOC.
    """
    judged: list[tuple[Tensor, Tensor, Tensor]] = []
    objects = 0
    for detections, one in zip(found, truth, strict=True):
        labels, boxes = one.labels[0], one.boxes[0]
        own, strange = boxes[labels == label], boxes[labels >= known]
        objects += len(own)
        chosen = detections.labels == label
        mine, scores = detections.boxes[chosen], detections.scores[chosen]
        order = scores.argsort(descending=True, stable=True)
        mine, scores = mine[order], scores[order]
        right = torch.zeros(len(mine), dtype=torch.bool)
        if len(own) and len(mine):
            best, index = overlap(mine, own).max(1)
            taken = torch.zeros(len(own), dtype=torch.bool)
            for row in torch.nonzero(best >= OVERLAP)[:, 0].tolist():
                right[row] = ~taken[index[row]]
                taken[index[row]] = True
        on_unknown = torch.zeros_like(right)
        if len(strange) and len(mine):
            on_unknown = ~right & (overlap(mine, strange).amax(1) >= OVERLAP)
        judged.append((scores, right, on_unknown))
    if not judged:
        return Curve(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool), objects)
    scores, right, on_unknown = (torch.cat(parts) for parts in zip(*judged, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Curve(right[order], on_unknown[order], objects)


def average_precision(one: Curve) -> float:
    """Area under the precision–recall curve, whose precision is first made to fall (Pascal VOC from 2010 on)."""
    if not len(one.right):
        return 0.0
    highest = one.precision.flip(0).cummax(0).values.flip(0)
    steps = torch.diff(one.recall, prepend=torch.zeros(1))
    return float((highest * steps).sum())


def wilderness_impact(curves: Sequence[Curve], recall: float = RECALL) -> float:
    """FP_open / (TP + FP_closed), each class at the threshold where its recall is nearest to ``recall``.

    FP_open are detections on unknown objects, and the sum below it is of all others (Dhamija et al. 2020, "The
    overlooked elephant of object detection: open set"); both are summed over the classes. ORE's released code counts
    FP_open below as well. NaN without a detection.
    """
    opened = closed = 0.0
    for one in curves:
        if len(one.right) and one.objects:
            at = int((one.recall - recall).abs().argmin())
            wrong = float(one.on_unknown[: at + 1].sum())
            opened += wrong
            closed += at + 1 - wrong
    return opened / closed if closed else float("nan")


def _relabeled(truth: Truth, known: int, unknown: int) -> Truth:
    """The objects with all unknown classes as one; known ones are left out."""
    labels = torch.where(truth.labels >= known, unknown, -1)
    return Truth(truth.boxes, labels)
