"""The three-parameter Weibull distribution: its density, and its fit by maximum likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_FEWEST = 10
"""Numbers below which nothing is fitted: three parameters need some."""
_LOCATIONS = 400
_FARTHEST = 50.0
"""Largest distance of the location below the smallest number, in standard deviations: farther away, the density hardly
changes."""
_STEPS = 60

Floats = npt.NDArray[np.float64]


class Weibull(NamedTuple):
    """A distribution over the numbers above ``location``."""

    shape: float
    """k, above 0."""
    scale: float
    """λ, above 0."""
    location: float

    def log_density(self, values: Tensor) -> Tensor:
        """log k/λ + (k − 1) log z − z^k with z = (x − location)/λ; −inf at the location and below."""
        z = (values - self.location) / self.scale
        inside = z > 0
        safe = torch.where(inside, z, 1)
        found = math.log(self.shape / self.scale) + (self.shape - 1) * safe.log() - safe**self.shape
        return torch.where(inside, found, -torch.inf)


def fit(values: Tensor) -> Weibull | None:
    """Fits all three parameters by maximum likelihood.

    For each of a list of locations below the smallest number the shape is found by Newton's method and the scale in
    closed form; the location with the largest likelihood wins. The shape is kept at 1 or above: below 1 the likelihood
    grows without limit as the location approaches the smallest number, and says nothing.

    Args:
        values: ``(N,)`` finite numbers.

    Returns:
        The distribution; None for fewer than 10 numbers, or if they are all alike.
    """
    x = values.detach().double().cpu().numpy()
    spread, smallest = (float(x.std()), float(x.min())) if len(x) >= _FEWEST else (0.0, 0.0)
    if not spread > 1e-9 * max(1.0, abs(smallest)):
        return None
    best: tuple[float, Weibull] | None = None
    for gap in np.geomspace(1e-4, _FARTHEST, _LOCATIONS) * spread:
        location = smallest - float(gap)
        above = x - location
        shape = _shape(above)
        if shape is None:
            continue
        largest = float(above.max())
        scale = largest * float(np.mean((above / largest) ** shape)) ** (1 / shape)  # the powers stay finite
        found = Weibull(shape, scale, location)
        likelihood = float(found.log_density(torch.from_numpy(x)).mean())
        if math.isfinite(likelihood) and (best is None or likelihood > best[0]):
            best = likelihood, found
    return None if best is None else best[1]


def _shape(above: Floats) -> float | None:
    """The likeliest shape, 1 or above, for numbers above 0: the root of Σ x^k log x / Σ x^k − 1/k − mean log x.

    The left side rises with k, so Newton's steps are kept inside an interval that brackets the root.
    """
    logs = np.log(above)
    logs = logs - logs.max()  # a factor on all numbers changes nothing, and x^k stays finite
    mean = float(logs.mean())

    def side(k: float) -> tuple[float, float]:
        weights = np.exp(k * logs)
        total = float(weights.sum())
        first = float((weights * logs).sum()) / total
        second = float((weights * logs**2).sum()) / total
        return first - 1 / k - mean, second - first**2 + 1 / k**2

    low, high = 1.0, 1e4
    if side(low)[0] >= 0:
        return low
    if side(high)[0] <= 0:
        return None
    k = 2.0
    for _ in range(_STEPS):
        value, slope = side(k)
        low, high = (k, high) if value < 0 else (low, k)
        following = k - value / slope
        if abs(following - k) <= 1e-10 * k:
            return following
        k = following if low < following < high else (low * high) ** 0.5
    return k
