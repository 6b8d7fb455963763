"""PBA: how many operations an image gets, which ones, and when a schedule changes its policy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from curl_rl.augment import population_augment
from curl_rl.augment.pba import OPERATIONS, SLOTS, Phase, Policy, Schedule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(policy: Policy, images: int = 4000) -> torch.Tensor:
    """How far each image of 25×25 pixels moved to the right and down, ``(images, 2)``."""
    dot = torch.zeros(images, 3, 25, 25)
    dot[:, :, 12, 12] = 1
    place = population_augment(dot, generator(), policy=policy)[:, 0].flatten(1).argmax(1)
    return torch.stack([place % 25 - 12, place // 25 - 12], 1).abs()


def test_the_search_space_is_fifteen_operations_twice() -> None:
    assert len(set(OPERATIONS)) == 15
    assert len(SLOTS) == 30
    assert "identity" not in SLOTS


def test_certain_slots_are_applied_zero_one_or_two_times() -> None:
    # Each shift is of 5 pixels: two to one side are 10, two opposite ones 0.
    moved = shifted((("translate_x", 1.0, 4),) * 5)[:, 0]
    counts = [int((moved == distance).sum()) for distance in (0, 5, 10)]
    assert sum(counts) == 4000
    # Half of the pairs cancel out.
    assert scipy.stats.chisquare(counts, 4000 * np.array([0.2 + 0.25, 0.3, 0.25])).pvalue > 1e-3


def test_a_slot_of_probability_zero_is_never_applied_and_the_others_are_met_in_random_order() -> None:
    policy = (("invert", 0.0, 9), ("translate_x", 1.0, 4), ("translate_y", 0.5, 4))
    right, down = shifted(policy).bool().unbind(1)
    counts = [int((right == x).logical_and(down == y).sum()) for x in (False, True) for y in (False, True)]
    # Of one: x if it comes first (1/2), or if y does and fails (1/4). Of two: x always, y half the time.
    one, two = np.array([0, 0.25, 0.75, 0]), np.array([0, 0, 0.5, 0.5])
    shares = (0.3 * one + 0.5 * two)[1:] / 0.8
    assert scipy.stats.chisquare(counts[1:], sum(counts[1:]) * shares).pvalue > 1e-3
    assert scipy.stats.binomtest(counts[0], 4000, 0.2).pvalue > 1e-3


def test_results_follow_the_generator_and_do_not_depend_on_the_other_images() -> None:
    images = torch.rand(40, 3, 12, 12, generator=generator())
    policy = tuple((name, 0.5, 7) for name in SLOTS)
    first, second = (population_augment(images, generator(3), policy=policy) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, population_augment(images, generator(4), policy=policy))
    other = 1 - images
    other[7] = images[7]
    assert torch.equal(population_augment(other, generator(3), policy=policy)[7], first[7])
    assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.parametrize("epochs", [6, 12, 60, 7])
def test_a_schedule_is_stretched_to_the_length_of_the_training(epochs: int) -> None:
    policies = [((name, 1.0, 1),) for name in ("invert", "equalize", "rotate")]
    schedule = Schedule((Phase(1, policies[0]), Phase(3, policies[1]), Phase(2, policies[2])))
    assert schedule.epochs == 6
    played = [schedule.at(epoch / epochs) for epoch in range(epochs)]
    # The second policy begins with the first epoch at or after a sixth of the training, the third at four sixths.
    for number, begin in enumerate([0, -(-epochs // 6), -(-4 * epochs // 6)]):
        assert played.index(policies[number]) == begin
    assert played == sorted(played, key=policies.index)
