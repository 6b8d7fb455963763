"""Nearest neighbors against angles on a circle."""

from __future__ import annotations

import pytest
import torch

from curl_rl.vision.evaluation.neighbors import nearest


def test_neighbors_on_a_circle_are_those_at_the_smallest_angles() -> None:
    degrees = torch.tensor([0.0, 10.0, 25.0, 180.0, 355.0])
    angles = torch.deg2rad(degrees)
    lengths = torch.tensor([1.0, 5.0, 0.1, 2.0, 3.0])  # do not matter
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]
    indices, similarities = nearest(features, torch.tensor([0, 3]), 3)
    assert indices.tolist() == [[4, 1, 2], [2, 1, 4]]
    apart = torch.deg2rad(torch.tensor([[5.0, 10.0, 25.0], [155.0, 170.0, 175.0]]))
    assert torch.allclose(similarities, apart.cos(), atol=1e-5)


def test_an_image_is_not_its_own_neighbor_even_if_it_has_doubles() -> None:
    indices, _ = nearest(torch.ones(4, 2), torch.arange(4), 3)
    assert all(number not in row for number, row in enumerate(indices.tolist()))


def test_too_many_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be from 1 to 3, got 4"):
        nearest(torch.ones(4, 2), torch.arange(1), 4)
