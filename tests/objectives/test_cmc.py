"""CMC by hand on three images, and as the InstDisc that it is where both streams are equal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.objectives import CMC, BatchInfo, CMCConfig, Features, FeatureSpec, InstDisc, InstDiscConfig, Result
from helpers.random_tensors import draw, unit

SPEC = FeatureSpec(6, (2, 1, 1), streams=2)
STILL = torch.tensor(1.0)


def make(count: int, **settings: Any) -> CMC:
    """With the identity as the head of each stream."""
    objective = CMC(SPEC, CMCConfig(dim=3, **settings), count=count).double()
    objective.heads = nn.ModuleList([nn.Identity(), nn.Identity()])
    return objective


def filled(objective: CMC, lightness: Tensor, color: Tensor) -> CMC:
    objective.remember(features(lightness, color), BatchInfo(indices=torch.arange(len(lightness))))
    return objective


def features(lightness: Tensor, color: Tensor) -> Features:
    return Features(torch.cat([lightness, color], 1), torch.zeros(len(color), *SPEC.map_shape))


def step(objective: CMC, lightness: Tensor, color: Tensor, indices: Tensor) -> Result:
    result: Result = objective([features(lightness, color)], [], BatchInfo(indices=indices))
    return result


def test_three_images_by_hand() -> None:
    """Equation 6: each stream's view of image 1 against the other stream's rows of images 0, 1 and 2."""
    rows = unit(3, 3), unit(3, 3, seed=1)
    views = unit(1, 3, seed=2), unit(1, 3, seed=3)
    objective = filled(make(3, temperature=0.4), *rows)
    expected = 0.0
    for query, bank in ((views[0], rows[1]), (views[1], rows[0])):
        scores = [math.exp(float(row @ query[0]) / 0.4) for row in bank]
        expected -= math.log(scores[1] / sum(scores))
    result = step(objective, *views, torch.tensor([1]))
    assert result.loss.item() == pytest.approx(expected, rel=1e-12)

    objective.after_step(result.carry, STILL)
    for bank, row, view in zip(objective.banks, rows, views, strict=True):
        moved = F.normalize(0.5 * row[1] + 0.5 * view[0], dim=0)
        assert torch.allclose(bank.embeddings, torch.stack([row[0], moved, row[2]]), rtol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", ["softmax", "nce"])
def test_two_equal_streams_are_instance_discrimination_twice(loss: Any) -> None:
    """Over several steps of changing parts of the bank, from an empty bank on."""
    cmc = make(7, loss=loss, negatives=4)
    instdisc = InstDisc(FeatureSpec(3, (2, 1, 1)), InstDiscConfig(loss=loss, negatives=4, dim=3), count=7).double()
    instdisc.head = nn.Identity()  # type: ignore[assignment]
    for number in range(6):
        view = draw(3, 3, seed=number)
        indices = torch.tensor([number, number + 2, number + 3]) % 7
        twice = step(cmc, view, view, indices)
        once = instdisc([Features(view, torch.zeros(3, 2, 1, 1))], [], BatchInfo(indices=indices))
        assert twice.loss.item() == pytest.approx(2 * once.loss.item(), rel=1e-9)
        assert twice.metrics["accuracy"] == once.metrics["accuracy"]
        cmc.after_step(twice.carry, STILL)
        instdisc.after_step(once.carry, STILL)


def test_the_streams_have_heads_and_banks_of_their_own() -> None:
    objective = CMC(SPEC, CMCConfig(dim=4), count=5).double()
    lightness, color = (draw(2, 3, seed=seed).requires_grad_() for seed in (0, 1))
    carry = step(objective, lightness, color, torch.tensor([0, 1])).carry
    objective.after_step(carry, STILL)
    assert not torch.allclose(objective.banks[0].embeddings, objective.banks[1].embeddings)  # type: ignore[arg-type]
    changed = step(objective, lightness, color + 1, torch.tensor([0, 1])).carry
    assert torch.equal(carry[1][0], changed[1][0])
    assert not torch.equal(carry[1][1], changed[1][1])


def test_an_encoder_of_one_stream_is_refused_with_the_setting_that_helps() -> None:
    with pytest.raises(ValueError, match=r"^objectives.cmc needs an encoder of two streams, got 1: set encoder.split"):
        CMC(SPEC._replace(streams=1), CMCConfig(), count=3)
