"""PBA (Ho et al. 2019, arXiv 1905.05393): operations with probabilities and levels that change during the training.

A policy lists 15 operations twice, each with a probability in tenths and a level. A schedule is a sequence of policies.
Every image has its own operations; their ranges are those of :mod:`curl_rl.augment.operations`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.augment import operations as ops
from curl_rl.augment.autoaugment import LEVELS, Step
from curl_rl.augment.draws import chosen
from curl_rl.augment.randaugment import directed

OPERATIONS = ops.OPERATIONS[1:]  # without the identity
SLOTS = OPERATIONS * 2  # the operations of a policy that was searched for
COUNTS = (0.2, 0.3, 0.5)  # probabilities of applying at most 0, 1 and 2 operations (section 3.1)

Policy = tuple[Step, ...]
"""Operation, probability, level from 0 to 9, of each slot."""


class Phase(NamedTuple):
    """A policy and how long it is used."""

    epochs: int
    policy: Policy


class Schedule(NamedTuple):
    """Policies that follow one another."""

    phases: tuple[Phase, ...]

    @property
    def epochs(self) -> int:
        """Length of the schedule."""
        return sum(phase.epochs for phase in self.phases)

    def at(self, progress: float) -> Policy:
        """The policy after a share of the training, in [0, 1): the schedule is stretched to the training's length."""
        passed = progress * self.epochs
        for phase in self.phases[:-1]:
            passed -= phase.epochs
            if passed < -1e-6 * self.epochs:  # a product that is whole but for rounding has passed
                return phase.policy
        return self.phases[-1].policy


def population_augment(images: Tensor, generator: torch.Generator, *, policy: Policy) -> Tensor:
    """Applies up to two operations of a policy to each image (algorithm 1).

    Each image draws how many, 0, 1 or 2, and an order of the slots; it walks through the slots and applies each with
    its probability until it has that many.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], floating point.
        generator: random generator on the images' device.
        policy: the slots. The direction of an operation, if it has one, is random, and so is cutout's place.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].
    """
    batch, device = len(images), generator.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    slots = _slots(policy, device)
    most = draw(batch)
    order = draw(batch, len(policy)).argsort(1)
    applies = draw(batch, len(policy)) < slots.probability[order]
    number = applies.cumsum(1)
    for count in range(1, len(COUNTS)):
        this = applies & (number == count)  # at most one slot of an image
        slot = order.gather(1, this.int().argmax(1, keepdim=True)).squeeze(1)
        applied = this.any(1) & (most >= sum(COUNTS[:count]))
        strength = directed(slots.strength[slot], chosen(batch, 0.5, generator))
        images = ops.apply_operations(images, slots.operation[slot] * applied, strength, draw(batch, 2))
    return images


class _Slots(NamedTuple):
    """A policy on a device: ``(slots,)`` each, as in :class:`~curl_rl.augment.autoaugment.SubPolicies`."""

    operation: Tensor
    probability: Tensor
    strength: Tensor


@functools.lru_cache(maxsize=32)  # copied to each device once
def _slots(policy: Sequence[Step], device: torch.device) -> _Slots:
    names, probabilities, levels = zip(*policy, strict=True)
    return _Slots(
        torch.tensor([ops.OPERATIONS.index(name) for name in names], device=device),
        torch.tensor(probabilities, device=device, dtype=torch.float32),
        torch.tensor([level / (LEVELS - 1) for level in levels], device=device),
    )
