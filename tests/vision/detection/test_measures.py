"""Measures of detection: curves drawn by hand, and every kind of mistake once."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.vision.detection.detector import Detections
from curl_rl.vision.detection.measures import Curve, average_precision, curve, measure, wilderness_impact
from curl_rl.vision.detection.sampling import Truth

UNKNOWN = 5
Box = tuple[float, float, float, float]


def truth(*objects: tuple[Box, int]) -> Truth:
    """The objects of an image, with a row of padding."""
    boxes = torch.tensor([[*(box for box, _ in objects), (0.0, 0.0, 0.0, 0.0)]])
    return Truth(boxes, torch.tensor([[*(label for _, label in objects), -1]]))


def found(*detections: tuple[Box, int, float]) -> Detections:
    boxes, labels, scores = zip(*detections, strict=True) if detections else ((), (), ())
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), torch.tensor(scores))


def at(x: float) -> Box:
    return (x, 0.0, x + 10, 10.0)


def test_average_precision_of_a_curve_drawn_by_hand() -> None:
    # Right, wrong, right, wrong of 4 objects: precision 1, 1/2, 2/3, 1/2 at recall 1/4, 1/4, 1/2, 1/2.
    drawn = Curve(torch.tensor([True, False, True, False]), torch.zeros(4, dtype=torch.bool), 4)
    assert average_precision(drawn) == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert average_precision(Curve(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool), 3)) == 1
    assert average_precision(Curve(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool), 3)) == 0


def test_a_later_rise_of_precision_counts_from_the_start() -> None:
    drawn = Curve(torch.tensor([False, True]), torch.zeros(2, dtype=torch.bool), 1)
    assert average_precision(drawn) == pytest.approx(1 / 2)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    one = curve([found((at(0), 0, 0.9), (at(1), 0, 0.8))], [truth((at(0), 0))], 0, known=2)
    assert one.right.tolist() == [True, False]


def test_the_most_certain_detection_of_an_object_is_the_right_one() -> None:
    one = curve([found((at(1), 0, 0.8), (at(0), 0, 0.9))], [truth((at(0), 0))], 0, known=2)
    assert one.right.tolist() == [True, False]


def test_too_little_overlap_is_wrong() -> None:
    one = curve([found((at(3.5), 0, 0.9))], [truth((at(0), 0))], 0, known=2)  # 6.5 of 13.5
    assert one.right.tolist() == [False]


def test_images_are_judged_apart_and_ordered_together() -> None:
    images = [found((at(0), 0, 0.3)), found((at(50), 0, 0.7))]
    one = curve(images, [truth((at(0), 0)), truth((at(0), 0))], 0, known=2)
    assert one.right.tolist() == [False, True]
    assert one.objects == 2


def test_every_measure_by_hand() -> None:
    # Two known classes (0, 1); objects of labels 2 and 3 are unknown.
    image = truth((at(0), 0), (at(20), 1), (at(40), 2), (at(60), 3), (at(80), 3))
    detections = found(
        (at(0), 0, 0.9),  # right
        (at(40), 0, 0.8),  # an unknown object taken for class 0
        (at(20), 0, 0.7),  # an object of class 1 taken for class 0: wrong, but of the closed set
        (at(20), 1, 0.6),  # right
        (at(61), UNKNOWN, 0.5),  # an unknown object, found
        (at(0), UNKNOWN, 0.4),  # a known object taken for unknown: finds nothing
    )
    measured = measure([detections], [image], known=2, unknown=UNKNOWN)
    assert measured.average_precision == {0: pytest.approx(1), 1: pytest.approx(1)}
    assert measured.mean(range(2)) == pytest.approx(1)
    assert measured.unknown_recall == pytest.approx(1 / 3)
    assert measured.unknown_objects == 3
    assert measured.unknown_precision == pytest.approx(1 / 3)
    assert measured.open_set_error == 1
    # Both classes reach recall 1 with their first right detection: before any mistake.
    assert measured.wilderness_impact == 0


def test_wilderness_impact_counts_up_to_the_threshold() -> None:
    right = torch.tensor([True, False, False, True, False])
    on_unknown = torch.tensor([False, True, False, False, True])
    drawn = Curve(right, on_unknown, 2)
    # Recall 1/2, 1/2, 1/2, 1: nearest to 0.8 at the fourth. One on an unknown object, three others.
    assert wilderness_impact([drawn]) == pytest.approx(1 / 3)
    assert wilderness_impact([drawn], recall=0.5) == 0
    assert math.isnan(wilderness_impact([Curve(right[:0], right[:0], 3)]))


def test_measures_without_objects_are_not_numbers() -> None:
    measured = measure([found()], [truth((at(0), 0))], known=1, unknown=UNKNOWN)
    assert math.isnan(measured.unknown_recall)
    assert measured.average_precision == {0: 0}
    assert math.isnan(measured.mean([3]))
