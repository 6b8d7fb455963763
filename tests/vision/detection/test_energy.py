"""Energies in closed form, and the decision between two distributions where their densities cross."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.vision.detection.energy import EnergyTest, energy, fit_test
from curl_rl.vision.detection.weibull import Weibull


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_closed_forms(temperature: float) -> None:
    assert energy(torch.tensor([[1.7]]), temperature).item() == pytest.approx(-1.7)
    alike = energy(torch.full((4,), 3.0), temperature).item()
    assert alike == pytest.approx(-3 - temperature * math.log(4))
    classes_not_taught = torch.tensor([3.0, 3, 3, 3, -torch.inf])
    assert energy(classes_not_taught, temperature).item() == pytest.approx(alike)


def test_without_temperature_it_is_the_largest_logit() -> None:
    assert energy(torch.tensor([0.3, 2.5, -1]), 1e-3).item() == pytest.approx(-2.5)


KNOWN, UNKNOWN = Weibull(2.0, 3.0, -12.0), Weibull(3.0, 4.0, -8.0)


def crossing() -> float:
    """Where the two densities are equal, by bisection of densities written out here."""

    def difference(x: float) -> float:
        def density(k: float, scale: float, location: float) -> float:
            z = (x - location) / scale
            return k / scale * z ** (k - 1) * math.exp(-(z**k)) if z > 0 else 0.0

        return density(*KNOWN) - density(*UNKNOWN)

    low, high = -10.0, -5.0
    assert difference(low) > 0 > difference(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if difference(middle) > 0 else (low, middle)
    return low


def test_the_decision_changes_where_the_densities_cross() -> None:
    test, place = EnergyTest(KNOWN, UNKNOWN, 1.0), crossing()
    logits = torch.tensor([[-(place - 0.01)], [-(place + 0.01)]])  # of one class: the energy is -g
    assert test.is_unknown(logits).tolist() == [False, True]


def test_what_neither_distribution_knows_is_not_unknown() -> None:
    assert not EnergyTest(KNOWN, UNKNOWN, 1.0).is_unknown(torch.tensor([[50.0]])).item()


def test_one_temperature_fits_and_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    known = -8 + torch.rand(200, generator=generator)
    unknown = -3 + torch.rand(200, generator=generator)
    found = fit_test(known, unknown, 2.0)
    assert found is not None
    logits = torch.tensor([[7.5 - 2 * math.log(2)] * 2, [2.5 - 2 * math.log(2)] * 2])  # energies -7.5 and -2.5 at T = 2
    assert torch.allclose(energy(logits, 2.0), torch.tensor([-7.5, -2.5]))
    assert found.is_unknown(logits).tolist() == [False, True]
    assert EnergyTest.from_state(found.state()) == found


def test_too_few_energies_fit_nothing() -> None:
    assert fit_test(torch.arange(50.0), torch.zeros(3), 1.0) is None


@pytest.mark.parametrize(
    "change",
    [{"known": [0, 1, 1]}, {"unknown": [1, -1, 1]}, {"temperature": 0}, {"temperature": math.inf}, {"known": [1, 2]}],
)
def test_numbers_that_are_no_test_are_refused(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        EnergyTest.from_state(EnergyTest(KNOWN, UNKNOWN, 1.0).state() | change)
