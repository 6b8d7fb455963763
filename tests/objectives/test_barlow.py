"""Barlow Twins' loss against numpy's correlations, and cases in which it is zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curl_rl.objectives import BarlowConfig, BarlowTwins, BatchInfo, Features, FeatureSpec, Result

SPEC = FeatureSpec(3, (2, 3, 3))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(config: BarlowConfig) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(SPEC, config).double()


def transparent(first: torch.Tensor, second: torch.Tensor) -> Result:
    """The result with a projector that returns the features themselves."""
    objective = make(BarlowConfig(projector_layers=1, dim=3))
    objective.projector.load_state_dict({"layers.0.0.weight": torch.eye(3)})
    return objective([features(first), features(second)], [], BatchInfo())


def test_the_loss_is_that_of_numpys_correlations() -> None:
    objective = make(BarlowConfig(dim=5, off_diagonal_weight=0.3, loss_scale=0.5))
    views = [draw(9, 3), draw(9, 3, seed=1)]
    first, second = (objective.projector(view).detach().numpy() for view in views)
    correlation = np.corrcoef(first.T, second.T)[:5, 5:]
    expected = 0.0
    for i in range(5):
        for j in range(5):
            expected += (1 - correlation[i, i]) ** 2 if i == j else 0.3 * correlation[i, j] ** 2
    result = objective([features(view) for view in views], [], BatchInfo())
    # Not to the last digit: the variances are 1e-5 larger than numpy's.
    assert result.loss.item() == pytest.approx(0.5 * expected, rel=1e-3)
    assert result.metrics["correlation"].item() == pytest.approx(np.diag(correlation).mean(), rel=1e-3)


def test_identical_whitened_views_cost_nothing() -> None:
    directions, _ = torch.linalg.qr(draw(8, 3) - draw(8, 3).mean(0))
    whitened = 8**0.5 * directions
    assert torch.allclose(whitened.T @ whitened / 8, torch.eye(3, dtype=torch.float64))
    assert transparent(whitened, whitened).loss.item() == pytest.approx(0, abs=1e-8)
    assert transparent(7 * whitened + 2, whitened).loss.item() == pytest.approx(0, abs=1e-8), "scale and shift are free"


def test_identical_views_with_a_repeated_feature_cost_its_redundancy() -> None:
    feature = draw(8, 1)
    result = transparent(feature.expand(8, 3), feature.expand(8, 3))
    assert result.loss.item() == pytest.approx(0.005 * 6, rel=1e-3), "six off-diagonal correlations of 1"


def test_the_projector_is_four_times_as_wide_as_the_features() -> None:
    objective = BarlowTwins(SPEC)
    assert [tuple(w.shape) for w in objective.projector.parameters() if w.ndim == 2] == [(12, 3), (12, 12), (12, 12)]
