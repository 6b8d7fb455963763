"""The Weibull distribution: its density against torch's, its fit against SciPy's and the parameters that drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curl_rl.vision.detection.weibull import Weibull, fit


def draws(shape: float, scale: float, location: float, count: int = 4000, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(location + scale * rng.weibull(shape, count))


def test_density_agrees_with_torch() -> None:
    values = torch.linspace(0.1, 6, 40, dtype=torch.float64)
    theirs = torch.distributions.Weibull(torch.tensor(2.5, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64))
    assert torch.allclose(Weibull(1.7, 2.5, -3.0).log_density(values - 3), theirs.log_prob(values))


def test_nothing_lies_at_the_location_or_below() -> None:
    assert Weibull(2.0, 1.0, 5.0).log_density(torch.tensor([5.0, 4.0])).tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize("parameters", [(2.3, 1.0, 3.0), (1.5, 4.0, -20.0), (3.5, 0.01, 0.0)])
def test_the_fit_finds_the_parameters(parameters: tuple[float, float, float]) -> None:
    found = fit(draws(*parameters))
    assert found is not None
    assert found.shape == pytest.approx(parameters[0], rel=0.1)
    assert found.scale == pytest.approx(parameters[1], rel=0.1)
    assert found.location == pytest.approx(parameters[2], abs=0.1 * parameters[1])


def test_the_fit_is_as_likely_as_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = draws(2.3, 1.0, 3.0)
    shape, location, scale = stats.weibull_min.fit(values.numpy())
    found = fit(values)
    assert found is not None
    theirs = stats.weibull_min.logpdf(values.numpy(), shape, location, scale).mean()
    assert found.log_density(values).mean().item() == pytest.approx(theirs, abs=1e-5)


def test_a_shift_and_a_factor_move_location_and_scale() -> None:
    values = draws(2.0, 1.0, 0.0, count=300)
    one, other = fit(values), fit(7 * values - 100)
    assert one is not None
    assert other is not None
    assert other.shape == pytest.approx(one.shape)
    assert other.scale == pytest.approx(7 * one.scale)
    assert other.location == pytest.approx(7 * one.location - 100)


def test_a_shape_below_one_is_not_followed_into_an_infinite_likelihood() -> None:
    found = fit(draws(0.5, 1.0, 0.0))
    assert found is not None
    assert found.shape >= 1


@pytest.mark.parametrize("values", [torch.zeros(0), torch.arange(9.0), torch.full((50,), 2.5)])
def test_too_few_numbers_or_equal_ones_are_not_fitted(values: torch.Tensor) -> None:
    assert fit(values) is None
