"""CPC over patches: what a context sees, and which patches it is compared with, place by place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl.objectives import BatchInfo, CPCConfig, Features, FeatureSpec, ObjectiveConfigs, build_objective
from curl_rl.objectives.cpc_patches import PatchCPC
from helpers.random_tensors import draw

DIM, ROWS, COLUMNS = 4, 5, 3
SPEC = FeatureSpec(DIM, (DIM, ROWS, COLUMNS), patches=True)


def make(**settings: Any) -> PatchCPC:
    torch.manual_seed(0)
    built = build_objective("cpc", SPEC, ObjectiveConfigs(cpc=CPCConfig("patches", **settings)))
    assert isinstance(built, PatchCPC)
    objective = built.double()
    objective.contrast.W.data = draw(*objective.contrast.W.shape, seed=7)
    return objective


def features(patches: Tensor) -> list[Features]:
    return [Features(patches.mean((2, 3)), patches)]


@pytest.mark.parametrize(("layers", "up"), [(1, 1), (2, 2), (7, ROWS)])
def test_a_context_sees_its_row_and_as_many_rows_above_as_it_has_layers(layers: int, up: int) -> None:
    objective = make(steps=1, context_layers=layers, hidden=16)
    patches = draw(1, DIM, ROWS, COLUMNS).requires_grad_()
    for row in range(ROWS):
        (seen,) = torch.autograd.grad(objective.context(patches)[0, :, row, 1].square().sum(), patches)
        rows = [bool(seen[0, :, other].abs().sum() > 0) for other in range(ROWS)]
        assert rows == [row - up <= other <= row for other in range(ROWS)]
        assert seen[0, :, row].abs().sum(0).all(), "its own row on both sides"


@pytest.mark.parametrize(("skip", "steps"), [(0, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_loss_place_by_place(skip: int, steps: int, layer_norm: bool) -> None:
    """Each context predicts the patch of its column, k rows past those skipped, among all patches of such rows."""
    objective = make(steps=steps, skip=skip, context_layers=2, layer_norm=layer_norm)
    patches = draw(3, DIM, ROWS, COLUMNS)

    def normalized(maps: Tensor) -> np.ndarray:
        places = maps.detach().numpy()
        if not layer_norm:
            return places
        mean, variance = places.mean(1, keepdims=True), places.var(1, keepdims=True)
        return np.asarray((places - mean) / np.sqrt(variance + 1e-5))

    z = normalized(patches)
    c = normalized(objective.context(torch.tensor(z)))
    losses = []
    for k in range(1, steps + 1):
        weight, of_step = objective.contrast.W[k - 1].detach().numpy(), []
        candidates = [(b, row, column) for b in range(3) for row in range(skip + k, ROWS) for column in range(COLUMNS)]
        for b in range(3):
            for row in range(ROWS - skip - k):
                for column in range(COLUMNS):
                    scores = np.array([c[b, :, row, column] @ weight @ z[i, :, j, m] for i, j, m in candidates])
                    own = scores[candidates.index((b, row + skip + k, column))]
                    of_step.append(np.log(np.exp(scores).sum()) - own)
        losses.append(np.mean(of_step))
    result = objective(features(patches), [], BatchInfo())
    assert result.loss.item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_equal_patches_give_the_log_of_their_number() -> None:
    objective = make(steps=2)
    patches = torch.ones(3, DIM, ROWS, COLUMNS, dtype=torch.float64)
    objective.context = nn.Sequential()  # the context is the patch
    places = np.array([3, 2]) * 3 * COLUMNS  # rows that two and three rows further down still exist
    loss = objective(features(patches), [], BatchInfo()).loss
    assert loss.item() == pytest.approx(np.log(places).mean(), rel=1e-12)


REFUSED = [
    (
        SPEC,
        {"steps": 4},
        r"objectives\.cpc\.steps must be at most 3, for 5 rows of patches with objectives\.cpc\.skip 1, got 4",
    ),
    (
        SPEC._replace(patches=False),
        {},
        r"objectives\.cpc\.kind must be time for an encoder of whole images, got patches: .*",
    ),
]


@pytest.mark.parametrize(("spec", "settings", "message"), REFUSED, ids=["steps", "whole images"])
def test_what_cannot_be_predicted_is_refused_in_one_line(
    spec: FeatureSpec, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        build_objective("cpc", spec, ObjectiveConfigs(cpc=CPCConfig("patches", **settings)))


def test_patches_have_no_actions() -> None:
    with pytest.raises(ValueError, match=r"^objectives\.cpc\.actions must be false with kind patches, got true"):
        CPCConfig("patches", actions=True)
