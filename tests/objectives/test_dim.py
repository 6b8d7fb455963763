"""DIM and ST-DIM against loops over places, and as the InfoNCE that they are on maps of one place."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.losses import info_nce
from curl_rl.objectives import DIM, BatchInfo, DIMConfig, Features, FeatureSpec, ViewSpec
from helpers.random_tensors import draw

DIM_, CHANNELS, SIDE, BATCH = 5, 3, 4, 4
SPEC = FeatureSpec(DIM_, (6, 2, 2), (CHANNELS, SIDE, SIDE))


def make(features: FeatureSpec = SPEC, **settings: Any) -> DIM:
    torch.manual_seed(0)
    return DIM(features, DIMConfig(**settings)).double()


def view(seed: int, features: FeatureSpec = SPEC) -> Features:
    middle = None if features.middle_shape is None else draw(BATCH, *features.middle_shape, seed=seed + 2)
    return Features(draw(BATCH, features.dim, seed=seed), draw(BATCH, *features.map_shape, seed=seed + 1), middle)


def loss_of(objective: DIM, *online: Features) -> float:
    loss: float = objective(list(online), [], BatchInfo()).loss.item()
    return loss


def linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias).detach()


def test_deep_infomax_is_equation_4_over_the_places_of_the_middle_map() -> None:
    """With heads replaced by matrices."""
    objective = make(units=2)
    assert objective.local_pair is not None
    objective.local_pair.query, objective.local_pair.key = nn.Linear(DIM_, 2).double(), nn.Linear(CHANNELS, 2).double()
    features = view(0)
    assert features.middle is not None
    positives, negatives = [], []
    queries = linear(objective.local_pair.query, features.vector)
    for i, j, y, x in product(range(BATCH), range(BATCH), range(SIDE), range(SIDE)):
        score = float(queries[i] @ linear(objective.local_pair.key, features.middle[j, :, y, x]))
        if i == j:
            positives.append(math.log1p(math.exp(-score)))
        else:
            negatives.append(math.log1p(math.exp(score)))
    expected = sum(positives) / len(positives) + sum(negatives) / len(negatives)
    assert loss_of(objective, features) == pytest.approx(expected, rel=1e-12)


def test_st_dim_is_the_mean_of_info_nce_over_the_places() -> None:
    """Equations 2 and 3: the next map's places, from the vector and from the same place of the present map."""
    features = FeatureSpec(DIM_, (CHANNELS, 2, 3))
    objective = make(features, estimator="info_nce", future=1, heads="linear")
    assert objective.online_views == (ViewSpec(0), ViewSpec(1, future=1))
    assert objective.local_pair is not None
    assert objective.place_pair is not None
    now, then = view(0, features), view(7, features)
    expected = 0.0
    for y, x in product(range(2), range(3)):
        local = then.map[:, :, y, x]
        expected += float(info_nce(linear(objective.local_pair.query, now.vector) @ local.T)) / 6
        expected += float(info_nce(linear(objective.place_pair.query, now.map[:, :, y, x]) @ local.T)) / 6
    assert loss_of(objective, now, then) == pytest.approx(expected, rel=1e-12)


def test_the_local_weight_scales_both_terms_and_the_global_one_adds_the_whole_map() -> None:
    features = FeatureSpec(DIM_, (CHANNELS, 2, 2))
    now, then = view(0, features), view(7, features)
    local = make(features, estimator="info_nce", future=1, heads="linear", local_weight=0.25)
    plain = make(features, estimator="info_nce", future=1, heads="linear")
    assert loss_of(local, now, then) == pytest.approx(0.25 * loss_of(plain, now, then), rel=1e-12)

    whole = make(features, estimator="info_nce", heads="linear", local_weight=0, global_weight=2)
    assert whole.global_pair is not None
    # Place by place, the channels of each innermost.
    keys = now.map.permute(0, 2, 3, 1).flatten(1)
    expected = 2 * info_nce(linear(whole.global_pair.query, now.vector) @ keys.T)
    assert loss_of(whole, now) == pytest.approx(float(expected), rel=1e-12)


def test_a_large_map_is_averaged_over_regions() -> None:
    features = view(0)
    assert features.middle is not None
    pooled = features.middle.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    small = SPEC._replace(middle_shape=(CHANNELS, 2, 2))
    whole, parts = (make(spec, pool=2, units=6, global_weight=1.0) for spec in (SPEC, small))
    assert loss_of(whole, features) == pytest.approx(loss_of(parts, features._replace(middle=pooled)), rel=1e-12)
    assert loss_of(whole, features) != pytest.approx(loss_of(make(pool=4, units=6), features), rel=1e-3)


def test_a_map_in_half_precision_meets_heads_in_single() -> None:
    features = Features(*(None if part is None else part.float() for part in view(0)))  # type: ignore[arg-type]
    assert features.middle is not None
    rounded = features._replace(middle=features.middle.bfloat16())
    objective = make(units=6).float()
    assert loss_of(objective, rounded) == pytest.approx(loss_of(objective, features), rel=0.02)


def test_a_vector_that_holds_the_places_is_recognized() -> None:
    """One-hot images: places that name their image, and vectors that do or do not."""
    places = 9 * torch.eye(BATCH, dtype=torch.float64)[:, :, None, None].expand(-1, -1, 2, 2)
    objective = make(FeatureSpec(BATCH, (BATCH, 2, 2)), estimator="info_nce", heads="linear")
    assert objective.local_pair is not None
    with torch.no_grad():
        objective.local_pair.query.weight.copy_(torch.eye(BATCH))
        objective.local_pair.query.bias.zero_()  # type: ignore[union-attr,operator]
    vectors = torch.eye(BATCH, dtype=torch.float64)
    right = objective([Features(vectors, places)], [], BatchInfo())
    wrong = objective([Features(vectors.roll(1, 0), places)], [], BatchInfo())
    # The negatives of a query are the four places of each of the three others, all with the same score.
    assert right.loss.item() == pytest.approx(math.log1p(12 * math.exp(-9)))
    assert (right.metrics["accuracy"].item(), wrong.metrics["accuracy"].item()) == (1, 0)


def test_weights_that_leave_no_loss_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^objectives.dim.local_weight must be positive where global_weight is 0"):
        DIMConfig(local_weight=0)
