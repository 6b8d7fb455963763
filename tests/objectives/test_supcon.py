"""SupCon against its released algorithm by hand, its limit without labels, and its refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss, PixelEncoder
from curl_rl.encoders import EncoderConfig
from curl_rl.losses import nt_xent, two_view_scores
from curl_rl.objectives import (
    BatchInfo,
    DataSpec,
    Features,
    FeatureSpec,
    ObjectiveUser,
    SupCon,
    SupConConfig,
    build_objective,
)
from helpers.random_tensors import draw

SPEC = FeatureSpec(4, (2, 3, 3))


def make(**settings: Any) -> SupCon:
    """With the identity as its head."""
    objective = SupCon(SPEC, SupConConfig(**settings)).double()
    objective.head = nn.Identity()  # type: ignore[assignment]
    return objective


def loss_of(objective: SupCon, views: list[Tensor], labels: list[int]) -> float:
    online = [Features(view, torch.zeros(len(view), *SPEC.map_shape)) for view in views]
    loss: float = objective(online, [], BatchInfo(labels=torch.tensor(labels))).loss.item()
    return loss


def test_every_view_of_the_class_is_a_positive_and_all_others_are_in_the_denominator() -> None:
    views, labels = [draw(4, 4, seed=view) for view in range(2)], [2, 0, 2, 1]
    rows = [row / row.norm() for view in views for row in view]
    total = 0.0
    for anchor in range(8):
        others = [other for other in range(8) if other != anchor]
        exponentials = {other: math.exp(rows[anchor] @ rows[other] / 0.3) for other in others}
        positives = [other for other in others if labels[other % 4] == labels[anchor % 4]]
        assert len(positives) == (3 if labels[anchor % 4] == 2 else 1)
        log_shares = [math.log(exponentials[other] / sum(exponentials.values())) for other in positives]
        total -= sum(log_shares) / len(positives) / 8
    assert loss_of(make(temperature=0.3), views, labels) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("labels", [[5, 3, 0, 7], [-1, -1, -1, -1], [-1, 0, -1, 4]])
def test_labels_that_all_differ_or_are_missing_make_it_simclr(labels: list[int]) -> None:
    views = [draw(4, 4, seed=view) for view in range(2)]
    simclr = nt_xent(two_view_scores(*(F.normalize(view) for view in views)), 0.1).item()
    assert loss_of(make(), views, labels) == pytest.approx(simclr, rel=1e-10)


def test_users_without_labels_are_sent_to_simclr() -> None:
    replay = ObjectiveUser("agent.objective", "a replay", frozenset({"actions"}))
    with pytest.raises(
        ValueError, match=r"^agent.objective supcon needs labels, which a replay does not have: take simclr$"
    ):
        build_objective("supcon", SPEC, None, DataSpec(), replay)
    with pytest.raises(ValueError, match=r"^labels must have at least 2 classes, got 1: take simclr$"):
        build_objective("supcon", SPEC, None, DataSpec(classes=1))


def test_your_own_loop_passes_labels() -> None:
    encoder = PixelEncoder((3, 10, 10), EncoderConfig(filters=2, strides=(2,), latent=4))
    aux = AuxiliaryLoss(encoder, "supcon", crop=10).eval()
    observations = torch.randint(256, (6, 3, 12, 12), dtype=torch.uint8)
    classes = [torch.tensor(labels) for labels in ([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5])]
    one, other = (aux(observations, batch=BatchInfo(labels=labels)).item() for labels in classes)
    assert one != other
    with pytest.raises(ValueError, match=r"^batch must hold labels, which SupCon needs"):
        aux(observations)
    with pytest.raises(ValueError, match=r"^labels must be \(6,\), one for each sample, got \(5,\)$"):
        aux(observations, batch=BatchInfo(labels=torch.zeros(5, dtype=torch.int64)))


def test_the_published_settings_are_the_defaults() -> None:
    """The released code's ResNet-50 with its MLP head, and the temperature of its README."""
    objective = SupCon(FeatureSpec(2048, (1, 1, 1)))
    shapes = [tuple(parameter.shape) for parameter in objective.head.parameters()]
    assert shapes == [(2048, 2048), (2048,), (128, 2048), (128,)]
    assert objective.config.temperature == 0.1
