"""Which boxes learn what: matching, balanced draws, auto-labeled unknowns."""

from __future__ import annotations

import pytest
import torch

from curl_rl.vision.detection.proposals import Proposals
from curl_rl.vision.detection.sampling import Truth, check_truth, draw, match
from curl_rl.vision.detection.unknowns import LabelingConfig, auto_label

TRUTH = Truth(torch.tensor([[[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 0, 0]]]), torch.tensor([[4, 2, -1]]))


def test_a_box_is_matched_with_the_object_that_it_overlaps_most() -> None:
    boxes = torch.tensor([[[1.0, 0, 11, 10], [14, 0, 29, 10], [50, 50, 60, 60]]])
    found = match(boxes, TRUTH)
    assert found.label.tolist() == [[4, 2, -1]]
    assert torch.allclose(found.overlap, torch.tensor([[9 / 11, 9 / 16, 0]]))
    assert found.box[0, :2].tolist() == TRUTH.boxes[0, :2].tolist()


def test_padding_matches_nothing() -> None:
    empty = Truth(TRUTH.boxes, torch.full((1, 3), -1))
    assert match(TRUTH.boxes, empty).label.tolist() == [[-1, -1, -1]]
    none = Truth(TRUTH.boxes[:, :0], TRUTH.labels[:, :0])
    assert match(TRUTH.boxes, none).overlap.tolist() == [[0, 0, 0]]


def test_annotations_that_teach_nothing_are_refused_in_one_line() -> None:
    check_truth(TRUTH, 10, 30, 5)
    for boxes, labels, message in (
        (
            [[0.0, 0, 31, 10]],
            [0],
            r"^boxes must lie in their image of 30×10 pixels, got \[0.0, 0.0, 31.0, 10.0\]: clip",
        ),
        ([[-1.0, 0, 5, 10]], [0], r"^boxes must lie in their image of 30×10 pixels, got \[-1.0"),
        (
            [[5.0, 5, 5, 9]],
            [0],
            r"^boxes must be \(left, top, right, bottom\) with an area, got \[5.0, 5.0, 5.0, 9.0\]$",
        ),
        ([[0.0, 0, 5, 5]], [5], r"^labels must be below 5, the number of classes, got 5$"),
    ):
        with pytest.raises(ValueError, match=message):
            check_truth(Truth(torch.tensor([boxes]), torch.tensor([labels])), 10, 30, 5)
    check_truth(Truth(torch.full((1, 3, 4), -9.0), torch.full((1, 3), -1)), 10, 30, 5)  # padding may be anything


def test_draws_are_balanced_and_random() -> None:
    positive = torch.zeros(2, 100, dtype=torch.bool)
    positive[0, :30] = True  # more than may be drawn
    positive[1, :3] = True  # fewer
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(positive, ~positive, 20, 0.5, generator) for _ in range(200)]
    for chosen, others in drawn:
        assert not (chosen & ~positive).any()
        assert not (others & positive).any()
        assert chosen.sum(1).tolist() == [10, 3]
        assert others.sum(1).tolist() == [10, 17]
    share = torch.stack([chosen[0, :30].float() for chosen, _ in drawn]).mean(0)
    assert (share - 1 / 3).abs().max() < 0.13  # each of 30 is drawn in a third of 200 draws: four standard deviations


def test_fewer_boxes_than_wanted_are_all_drawn() -> None:
    positive = torch.tensor([[True, False, False]])
    negative = torch.tensor([[False, True, False]])
    chosen, others = draw(positive, negative, 20, 0.5, torch.Generator())
    assert (chosen | others).tolist() == [[True, True, False]]


def proposals(*rows: tuple[list[float], float, bool]) -> Proposals:
    boxes, objectness, valid = zip(*rows, strict=True)
    return Proposals(torch.tensor([boxes]), torch.tensor([objectness]), torch.tensor([valid]))


ROWS = proposals(
    ([0.0, 0, 9, 9], 5.0, True),  # on an annotated object
    ([50.0, 50, 60, 60], 4.0, False),  # suppressed
    ([8.0, 0, 18, 10], 3.0, True),  # a fifth of it lies in an object
    ([40.0, 0, 50, 10], 2.0, True),
    ([60.0, 0, 70, 10], -2.0, True),  # hardly an object
)


def test_the_likeliest_free_proposal_is_labeled_unknown() -> None:
    found = auto_label(ROWS, TRUTH, 7, LabelingConfig(per_image=1, covered=0.1))
    assert found.boxes.tolist() == [[[40, 0, 50, 10]]]
    assert found.labels.tolist() == [[7]]


def test_limits_of_auto_labeling() -> None:
    found = auto_label(ROWS, TRUTH, 7, LabelingConfig(per_image=4, covered=0.2, objectness=0.3))
    assert found.labels.tolist() == [[7, 7, -1, -1]]
    all_of_them = auto_label(ROWS, TRUTH, 7, LabelingConfig(per_image=4, covered=1.0, objectness=0.0))
    assert all_of_them.labels.tolist() == [[7, 7, 7, 7]]
    assert auto_label(ROWS, TRUTH, 7, LabelingConfig(per_image=0)).labels.shape == (1, 0)
