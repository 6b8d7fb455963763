"""UDA's losses compared with handmade numbers and other formulas; training that uses its unlabeled images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from curl_rl.augment.operations import GRAY
from curl_rl.vision.evaluation import consistency
from curl_rl.vision.evaluation.consistency import (
    Annealing,
    ConsistencyConfig,
    annealed_cross_entropy,
    annealing_threshold,
    consistency_loss,
    fine_tune_consistently,
    strongly_augmented,
)
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from helpers.small_resnet import resnet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(shape, dtype=torch.float64, generator=generator(seed))


# ---------------------------------------------------------------------- unlabeled images


def test_alike_views_without_sharpening_cost_nothing() -> None:
    logits = draw(6, 4).requires_grad_()
    loss = consistency_loss(logits, logits, temperature=1, confidence=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert gradient.abs().max() < 1e-15


def test_two_classes_by_hand() -> None:
    """Logits (0, ln 3) are ¼ and ¾; at temperature ½ they become (0, ln 9), which is 1/10 and 9/10."""
    weak = torch.tensor([[0.0, math.log(3)], [0.0, 0.1]], dtype=torch.float64)
    strong = torch.zeros(2, 2, dtype=torch.float64)
    first = 0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.9 / 0.5)
    loss = consistency_loss(weak, strong, temperature=0.5, confidence=0.7)  # the second image is not confident
    assert loss.item() == pytest.approx(first / 2, rel=1e-12)
    # Confidence looks at the prediction before it is sharpened, and must be above the threshold.
    assert consistency_loss(weak, strong, temperature=0.5, confidence=0.76).item() == 0


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_it_is_the_divergence_of_distributions(temperature: float) -> None:
    weak, strong = draw(7, 5), draw(7, 5, seed=1)
    expected = kl_divergence(Categorical(logits=weak / temperature), Categorical(logits=strong)).mean()
    assert torch.allclose(consistency_loss(weak, strong, temperature=temperature, confidence=0), expected)


def test_gradients_are_correct_and_none_reaches_the_weak_view() -> None:
    weak, strong = draw(5, 3).requires_grad_(), draw(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: consistency_loss(weak, s, temperature=0.4, confidence=0.6), (strong,))
    consistency_loss(weak, strong, temperature=0.4, confidence=0.0).backward()
    assert weak.grad is None


# ---------------------------------------------------------------------- labeled images


@pytest.mark.parametrize(
    ("annealing", "shares"),
    [
        ("linear", (0, 0.5, 1)),
        ("log", (0, 1 - math.exp(-2.5), 1 - math.exp(-5))),
        ("exp", (math.exp(-5), math.exp(-2.5), 1)),
    ],
)
def test_thresholds_rise_from_chance_to_certainty(annealing: Annealing, shares: tuple[float, ...]) -> None:
    for progress, share in zip((0, 0.5, 1), shares, strict=True):
        assert annealing_threshold(annealing, progress, 4) == pytest.approx(0.25 + 0.75 * share)
    assert annealing_threshold("none", 0, 4) == math.inf


def test_labeled_images_above_the_threshold_are_left_out_of_the_mean() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], dtype=torch.float64)
    logits, labels = probabilities.log(), torch.tensor([0, 0, 1])  # their labels' are 0.9, 0.4 and 0.8
    one = annealed_cross_entropy(logits, labels, 0.5)
    assert one.item() == pytest.approx(-math.log(0.4))
    two = annealed_cross_entropy(logits, labels, 0.85)
    assert two.item() == pytest.approx(-(math.log(0.4) + math.log(0.8)) / 2)
    assert annealed_cross_entropy(logits, labels, 0.3).item() == 0
    assert torch.allclose(annealed_cross_entropy(logits, labels, math.inf), F.cross_entropy(logits, labels))


# ---------------------------------------------------------------------- views and training


def test_strong_views_have_a_gray_square_of_half_the_side_and_often_more() -> None:
    images = torch.rand(200, 3, 32, 32, generator=generator()) * 0.4  # nothing is gray
    strong = strongly_augmented(images, generator())
    gray = (strong == GRAY).all(1).sum((1, 2))
    assert gray.max() <= 32 * 32
    assert gray.min() >= 8 * 8  # the square is around a corner
    assert (gray <= 16 * 16).float().mean() > 0.7
    kept = (strong == GRAY).all(1, keepdim=True) | (strong == images)
    # Each of two operations is applied with probability 1/2.
    assert 0.2 < kept.flatten(1).all(1).float().mean() < 0.45
    assert torch.equal(strong, strongly_augmented(images, generator()))


def shapes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright left or a bright right half."""
    images = torch.randint(0, 100, (count, 3, 8, 8), dtype=torch.uint8, generator=generator(seed))
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, :4] += 150
    images[labels == 1, :, :, 4:] += 150
    return images, labels


def test_training_learns_and_takes_every_unlabeled_image(monkeypatch: pytest.MonkeyPatch) -> None:
    (images, labels), (more, _), test = shapes(8, 0), shapes(30, 1), shapes(40, 2)
    seen: list[tuple[torch.Size, torch.Size]] = []

    def watched(weak: torch.Tensor, strong: torch.Tensor, **named: float) -> torch.Tensor:
        seen.append((weak.shape, strong.shape))
        return consistency_loss(weak, strong, **named)

    monkeypatch.setattr(consistency, "consistency_loss", watched)
    settings = SupervisedConfig(epochs=15, batch_size=4, crop_scale=1.0, mirror=0.0)
    encoder = resnet()
    trained = fine_tune_consistently(
        encoder,
        images,
        labels,
        more,
        *test,
        classes=2,
        generator=generator(),
        training=settings,
        config=ConsistencyConfig(unlabeled_per_labeled=3, annealing="linear"),
    )
    assert trained.accuracy > 0.9
    assert seen == [(torch.Size([12, 2]), torch.Size([12, 2]))] * 30


def test_unlabeled_images_of_another_size_are_refused() -> None:
    images, labels = shapes(8, 0)
    with pytest.raises(ValueError, match=r"unlabeled images must be \(U, 3, 8, 8\) uint8 .*, got \(4, 3, 9, 9\)"):
        fine_tune_consistently(
            resnet(),
            images,
            labels,
            torch.zeros(4, 3, 9, 9, dtype=torch.uint8),
            images,
            labels,
            classes=2,
            generator=generator(),
            training=SupervisedConfig(epochs=1),
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weight", -1, "weight must be from 0 to 1,000,000, got -1"),
        ("confidence", 1.1, r"confidence must lie in \[0, 1\], got 1.1"),
        ("temperature", 0, "temperature must be positive and finite, got 0"),
        ("unlabeled_per_labeled", 0, "unlabeled_per_labeled must be at least 1, got 0"),
        ("annealing", "late", "annealing must be .*none.*exp.*, got .*late"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConsistencyConfig(**{field: value})  # type: ignore[arg-type]
