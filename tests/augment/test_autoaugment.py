"""AutoAugment: the tables and each pair against torchvision's, and how often each step is drawn."""

from __future__ import annotations

from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import scipy.stats
import torch

from curl_rl.augment import auto_augment, autoaugment
from curl_rl.augment.autoaugment import SUB_POLICIES, LearnedOn, SubPolicies
from curl_rl.augment.operations import OPERATIONS

THEIR_NAMES = {
    "saturation": "Color",
    "autocontrast": "AutoContrast",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
}
WITHOUT_STRENGTH = ("autocontrast", "equalize", "invert")
POLICIES: tuple[LearnedOn, ...] = get_args(LearnedOn)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_bytes(batch: int, height: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 30
    base = 120 + 60 * np.sin(3 * x + rng.uniform(0, 6, (batch, 3, 1, 1))) * np.cos(4 * y)
    return torch.from_numpy((base + rng.uniform(0, 20, base.shape)).astype(np.uint8))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_table_has_the_papers_shape(policy: LearnedOn) -> None:
    assert len(SUB_POLICIES[policy]) == 25
    for name, probability, level in (step for pair in SUB_POLICIES[policy] for step in pair):
        assert name in OPERATIONS
        assert name not in ("identity", "cutout")  # not in its search space, or in no learned pair
        assert probability in [tenths / 10 for tenths in range(11)]
        assert level in ([0] if name in WITHOUT_STRENGTH else range(10))


@pytest.mark.parametrize("policy", POLICIES)
def test_tables_are_torchvisions(torchvision: ModuleType, policy: LearnedOn) -> None:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    ours = [
        tuple(
            (THEIR_NAMES.get(name, name.title()), probability, None if name in WITHOUT_STRENGTH else level)
            for name, probability, level in pair
        )
        for pair in SUB_POLICIES[policy]
    ]
    assert ours == AutoAugment(AutoAugmentPolicy(policy)).policies


@pytest.mark.parametrize("policy", POLICIES)
def test_each_pair_does_what_torchvisions_does(
    torchvision: ModuleType, monkeypatch: pytest.MonkeyPatch, policy: LearnedOn
) -> None:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    image = smooth_bytes(1, 32, 32)
    whole = autoaugment.sub_policies(policy, torch.device("cpu"))
    theirs = AutoAugment(AutoAugmentPolicy(policy))
    for number, pair in enumerate(SUB_POLICIES[policy]):
        rows = [column[number : number + 1] for column in whole]
        always = SubPolicies(rows[0], torch.ones(1, 2), rows[2])
        monkeypatch.setattr(autoaugment, "sub_policies", lambda *_, always=always: always)
        ours = auto_augment((image / 255).expand(12, -1, -1, -1), generator(), policy=policy)
        directions = []
        for signs in ((0, 0), (0, 1), (1, 0), (1, 1)):
            drawn = (number, torch.zeros(2), torch.tensor(signs))
            monkeypatch.setattr(AutoAugment, "get_params", staticmethod(lambda _, drawn=drawn: drawn))
            directions.append(theirs(image)[0] / 255)
        # torchvision rounds to bytes in between, which equalizing magnifies.
        distance = (ours[:, None] - torch.stack(directions)).abs().mean((2, 3, 4)) * 255
        assert distance.min(1).values.max() < 2, pair


def test_pairs_steps_and_directions_are_drawn_with_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    by = {name: OPERATIONS.index(name) for name in OPERATIONS}
    table = SubPolicies(
        torch.tensor([[by["translate_x"], by["invert"]], [by["identity"], by["invert"]]]),
        torch.tensor([[0.5, 0.2], [1.0, 0.0]]),
        torch.full((2, 2), 1.0),
    )
    monkeypatch.setattr(autoaugment, "sub_policies", lambda *_: table)
    image = torch.zeros(4000, 3, 1, 32)
    image[..., 16] = 1
    changed = auto_augment(image, generator(), policy="svhn")[:, 0, 0]
    inverted = changed.mean(1) > 0.5
    place = torch.where(inverted[:, None], 1 - changed, changed).argmax(1)  # 14 pixels to either side
    outcome = place.div(14, rounding_mode="floor") + 3 * inverted
    # Half of the images are of the first pair, and move with probability 1/2; a fifth of these are inverted.
    moves = np.array([1 / 8, 1 / 4, 1 / 8])
    expected = 4000 * np.concatenate([0.8 * moves + [0, 0.5, 0], 0.2 * moves])
    assert scipy.stats.chisquare(torch.bincount(outcome, minlength=6), expected).pvalue > 1e-3


def test_results_follow_the_generator_keep_type_and_do_not_depend_on_the_other_images() -> None:
    images = smooth_bytes(60, 20, 24).double() / 255
    first, second = (auto_augment(images, generator(4), policy="imagenet") for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float64
    assert not torch.equal(first, auto_augment(images, generator(5), policy="imagenet"))
    other = 1 - images
    other[7] = images[7]
    assert torch.equal(auto_augment(other, generator(4), policy="imagenet")[7], first[7])
