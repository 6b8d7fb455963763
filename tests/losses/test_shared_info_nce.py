"""InfoNCE with several positives, by hand and in the limits in which it is another loss."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.losses import info_nce, shared_info_nce
from helpers.random_tensors import draw


def test_by_hand_for_two_queries_of_three_keys() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 5.0]], dtype=torch.float64)
    same = torch.tensor([[True, True, False], [False, False, True]])
    first = math.log(math.e + math.e**2 + 1)
    second = math.log(2 + math.exp(5))
    by_hand = ((first - 1) / 2 + (first - 2) / 2 + second - 5) / 2
    assert shared_info_nce(logits, same).item() == pytest.approx(by_hand, rel=1e-12)


def test_one_positive_each_is_info_nce() -> None:
    logits = draw(6, 9)
    assert torch.allclose(shared_info_nce(logits, torch.eye(6, 9, dtype=torch.bool)), info_nce(logits), atol=1e-6)


def test_its_smallest_value_is_the_entropy_of_the_targets() -> None:
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    perfect = torch.where(same, 50.0, 0.0)
    assert shared_info_nce(perfect, same).item() == pytest.approx(2 * math.log(2) / 3, abs=1e-6)


def test_half_precision_is_widened() -> None:
    logits = draw(4, 4).half()
    same = torch.eye(4, dtype=torch.bool)
    assert torch.equal(shared_info_nce(logits, same), shared_info_nce(logits.float(), same))
