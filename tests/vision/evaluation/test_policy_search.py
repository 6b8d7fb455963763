"""The search for policies: who takes over from whom, how policies change, and that a stopped search ends the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from curl_rl.augment.pba import SLOTS
from curl_rl.runs.errors import UserError
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from curl_rl.vision.evaluation.policy_search import PolicySearch, SearchConfig, explore, policy_of, successors
from tests.helpers.small_resnet import resnet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_genome_is_tenths_and_levels() -> None:
    genome = torch.zeros(30, 2, dtype=torch.int64)
    genome[29] = torch.tensor([7, 9])
    policy = policy_of(genome)
    assert [name for name, _, _ in policy] == list(SLOTS)
    assert policy[0] == (SLOTS[0], 0.0, 0)
    assert policy[29] == ("cutout", 0.7, 9)


@pytest.mark.parametrize(("column", "start", "values"), [(0, 5, 11), (1, 5, 10), (0, 0, 11), (1, 9, 10)])
def test_exploring_draws_anew_or_shifts_within_the_range(column: int, start: int, values: int) -> None:
    genome = torch.full((20_000, 2), start)
    counts = torch.bincount(explore(genome, generator())[:, column], minlength=values).numpy()
    expected = np.full(values, 0.2 / values)
    for shift in range(-3, 4):  # 0 has two ways to come about
        expected[np.clip(start + shift, 0, values - 1)] += 0.8 * (2 if shift == 0 else 1) / 8
    assert scipy.stats.chisquare(counts, 20_000 * expected).pvalue > 1e-3


def test_the_worst_quarter_takes_over_from_the_best_quarter() -> None:
    accuracies = [0.5, 0.9, 0.1, 0.6, 0.8, 0.2, 0.7, 0.3]
    seen = {tuple(successors(accuracies, generator(seed))) for seed in range(20)}
    assert {parents[2] for parents in seen} == {parents[5] for parents in seen} == {1, 4}
    for parents in seen:
        assert [parents[member] for member in (0, 1, 3, 4, 6, 7)] == [0, 1, 3, 4, 6, 7]


def test_too_small_a_population_keeps_its_members() -> None:
    assert successors([0.1, 0.9, 0.5], generator()) == [0, 1, 2]


def search(directory: Path, **changes: Any) -> PolicySearch:
    pixels = torch.randint(0, 120, (20, 3, 8, 8), dtype=torch.uint8, generator=generator())
    pixels[10:] += 100
    return PolicySearch(
        resnet(),
        pixels,
        torch.arange(20) // 10,
        classes=2,
        size=8,
        training=SupervisedConfig(epochs=1, batch_size=8),
        config=SearchConfig(**{"population": 4, "intervals": 2, "epochs": 1} | changes),
        directory=directory,
        identity={"data": "noise"},
    )


def test_a_stopped_search_resumes_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    assert whole.run()
    answers = iter([False, False, False, False, False, True])  # in the second interval
    assert not search(tmp_path / "parts").run(lambda: next(answers))
    resumed = search(tmp_path / "parts")
    assert resumed.done == 5
    assert resumed.run()
    assert resumed.schedule() == whole.schedule()
    assert resumed.accuracy == whole.accuracy
    for one, other in zip(whole._members, resumed._members, strict=True):
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
        assert torch.equal(torch.stack(one.genomes), torch.stack(other.genomes))
    # One policy an interval; one of the four has taken over and explored in the second.
    assert [phase.epochs for phase in whole.schedule().phases] == [1, 1]
    assert any((genome != 0).any() for member in whole._members for genome in member.genomes)
    assert all((member.genomes[0] == 0).all() for member in whole._members)


def test_a_search_with_other_settings_is_refused(tmp_path: Path) -> None:
    search(tmp_path).run(iter([False, True]).__next__)
    with pytest.raises(UserError, match="holds a search with other settings, seed 1: choose another --out"):
        search(tmp_path, seed=2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("population", 3, "population must be at least 4, got 3"),
        ("intervals", 0, "intervals must be at least 1, got 0"),
        ("epochs", 0, "epochs must be at least 1, got 0"),
    ],
)
def test_sizes_out_of_range_are_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchConfig(**{field: value})


def test_members_are_compared_on_images_that_none_learns_from(tmp_path: Path) -> None:
    made = search(tmp_path)
    assert (len(made._images), len(made._test)) == (16, 4)  # a fifth of each class is held out
    assert made._test_labels.bincount().tolist() == [2, 2]
    learned = {image.numpy().tobytes() for image in made._images}
    assert not any(image.numpy().tobytes() in learned for image in made._test)
