"""The contrast in both directions, against the two single ones and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from curl_rl.losses import info_nce, shared_info_nce, symmetric_info_nce
from helpers.random_tensors import draw

RELATIONS = {
    "none": [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]],
    "one picture twice": [[0, 0], [0, 1], [2, 2], [3, 3], [4, 4]],
    "a chain": [[0, 0], [0, 1], [2, 1], [3, 3], [4, 4]],  # 0 and 2 belong to 1, and not to each other
    "all alike": [[0, 0]] * 5,
}


def relation(name: str) -> torch.Tensor:
    contents = torch.tensor(RELATIONS[name])
    return (contents[:, None] == contents).any(2)


def test_by_hand_for_two_pairs() -> None:
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    rows = math.log(1 + math.exp(-2)) * 2
    columns = math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-1))
    for same in (None, torch.eye(2, dtype=torch.bool)):
        assert symmetric_info_nce(logits, same).item() == pytest.approx((rows + columns) / 4, rel=1e-12)


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_it_is_the_mean_of_both_directions(name: str, scale: float) -> None:
    same, logits = relation(name), (scale * draw(5, 5)).requires_grad_()
    shares = same.double() / same.double().sum(1, keepdim=True)
    mean = (F.cross_entropy(logits, shares) + F.cross_entropy(logits.T, shares)) / 2
    found = symmetric_info_nce(logits, same)
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12)
    (right,), (gradient,) = torch.autograd.grad(3 * mean, logits), torch.autograd.grad(3 * found, logits)
    torch.testing.assert_close(gradient, right, rtol=1e-12, atol=1e-12)
    each = (shared_info_nce(logits, same) + shared_info_nce(logits.T, same)) / 2
    torch.testing.assert_close(found, each, rtol=1e-6, atol=1e-6)


def test_its_gradient_is_its_derivative() -> None:
    logits = draw(5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: symmetric_info_nce(x, relation("a chain")), logits)
    assert torch.autograd.gradcheck(symmetric_info_nce, logits)


def test_without_relations_it_is_info_nce_in_both_directions() -> None:
    logits = draw(6, 6)
    assert torch.equal(symmetric_info_nce(logits), (info_nce(logits) + info_nce(logits.T)) / 2)


def test_half_precision_is_widened() -> None:
    logits, same = draw(4, 4).half(), torch.eye(4, dtype=torch.bool)
    assert torch.equal(symmetric_info_nce(logits, same), symmetric_info_nce(logits.float(), same))
