"""The energy of a region, which tells what is known from what is not by two fitted distributions (ORE, section 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curl_rl.vision.detection.weibull import Weibull, fit


def energy(logits: Tensor, temperature: float) -> Tensor:
    """Helmholtz free energy −T log Σ exp(g/T) of ``(..., C)`` logits of the known classes (arXiv 2103.02603, eq. 4).

    Low for what resembles a known class; of a single class it is −g, and for T near 0 −max g.
    """
    return -temperature * torch.logsumexp(logits / temperature, -1)


@dataclass(frozen=True)
class EnergyTest:
    """Says of a region's energy whether it is that of something unknown.

    One temperature serves fitting and use: the released code fits at 1.5 and decides at 1.
    """

    known: Weibull
    """Energies of annotated objects of known classes."""
    unknown: Weibull
    """Energies of what is taken for unknown objects."""
    temperature: float

    def is_unknown(self, logits: Tensor) -> Tensor:
        """Booleans for ``(..., C)`` logits of the known classes: the energy is more likely that of an unknown object.

        It compares densities, as the paper does; the released code integrates each over ±0.5.
        """
        found = energy(logits, self.temperature)
        return self.unknown.log_density(found) > self.known.log_density(found)

    def state(self) -> dict[str, Any]:
        """What :meth:`from_state` rebuilds it from: numbers only."""
        return {"known": list(self.known), "unknown": list(self.unknown), "temperature": self.temperature}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EnergyTest:
        """The test that :meth:`state` describes.

        Raises:
            ValueError, KeyError, TypeError: it describes none.
        """
        known, unknown = (Weibull(*map(float, state[name])) for name in ("known", "unknown"))
        temperature = float(state["temperature"])
        above_zero = (known.shape, known.scale, unknown.shape, unknown.scale, temperature)
        if not all(map(math.isfinite, (*known, *unknown, temperature))) or min(above_zero) <= 0:
            raise ValueError(
                f"shapes, scales and temperature must be above 0 and finite, got {known}, {unknown}, {temperature}"
            )
        return cls(known, unknown, temperature)


def fit_test(known: Tensor, unknown: Tensor, temperature: float) -> EnergyTest | None:
    """Fits the two distributions to energies; None if there are too few of either, or all are alike."""
    first, second = fit(known), fit(unknown)
    return None if first is None or second is None else EnergyTest(first, second, temperature)
