"""Boxes: overlaps by hand, the coding's round trip, suppression against its definition, torchvision where it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from curl_rl.vision.detection.boxes import area, clip, coverage, decode, encode, intersection, overlap, suppress


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = 80 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corner, corner + 2 + 40 * torch.rand(*shape, 2, generator=generator)], -1)


def test_overlaps_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 4, 4], [10, 10, 12, 12], [3, 3, 3, 9]])
    second = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4]])
    assert area(first).tolist() == [16, 4, 0]
    assert intersection(first, second).tolist() == [[8, 16], [0, 0], [0, 0]]
    assert torch.allclose(overlap(first, second), torch.tensor([[8 / 24, 1], [0, 0], [0, 0]]))
    assert torch.allclose(coverage(first, second), torch.tensor([[0.5, 1], [0, 0], [0, 0]]))


def test_a_box_is_cut_off_at_the_edges() -> None:
    assert clip(torch.tensor([[-3.0, 5, 50, 70]]), height=60, width=40).tolist() == [[0, 5, 40, 60]]


def test_offsets_by_hand() -> None:
    anchor, box = torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 10, 25, 20])
    # Centers (5, 10) and (15, 15), sizes (10, 20) and (20, 10).
    assert torch.allclose(encode(box, anchor), torch.tensor([1, 0.25, math.log(2), math.log(0.5)]))


def test_decoding_inverts_encoding() -> None:
    boxes, anchors = random_boxes(3, 50), random_boxes(3, 50, seed=1)
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-4)
    huge = decode(torch.full((1, 4), 1e3), anchors[:1, 0])
    assert huge.isfinite().all()


def by_definition(boxes: Tensor, groups: Tensor, threshold: float) -> list[bool]:
    """Greedy suppression, one box after the other."""
    kept: list[bool] = []
    for i in range(len(boxes)):
        rivals = [j for j in range(i) if kept[j] and groups[j] == groups[i]]
        kept.append(all(overlap(boxes[i : i + 1], boxes[j : j + 1]).item() <= threshold for j in rivals))
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_suppression_keeps_what_its_definition_keeps(threshold: float) -> None:
    boxes = random_boxes(4, 40, seed=2)
    groups = torch.randint(2, (4, 40), generator=torch.Generator().manual_seed(0))
    found = suppress(boxes, groups, threshold)
    assert found.tolist() == [by_definition(*image, threshold) for image in zip(boxes, groups, strict=True)]
    assert suppress(boxes[0], None, threshold).tolist() == by_definition(boxes[0], torch.zeros(40), threshold)


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # a chain: each overlaps the next by 6/14
    assert suppress(boxes, None, 0.3).tolist() == [True, False, True]


def test_agrees_with_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=(ImportError, RuntimeError))
    boxes, scores = random_boxes(100), torch.arange(100, 0, -1).float()
    assert torch.allclose(overlap(boxes, boxes), ops.box_iou(boxes, boxes))
    assert torch.nonzero(suppress(boxes, None, 0.4))[:, 0].tolist() == ops.nms(boxes, scores, 0.4).tolist()
