"""Distillation losses compared with handmade numbers and limits, students with their teacher."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.vision.evaluation.distillation import (
    UNLABELED,
    DistillationConfig,
    distill,
    distillation_loss,
    mixed_distillation_loss,
)
from curl_rl.vision.evaluation.finetuning import SupervisedConfig, network_outputs, top1_accuracy
from helpers.pages import DOCS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


# ---------------------------------------------------------------------- losses


def test_two_classes_by_hand() -> None:
    """Logits (0, T·ln 3) are the probabilities ¼ and ¾ at temperature T."""
    student = torch.tensor([[0.0, 0.0], [0.0, 0.5 * math.log(3)]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.5 * math.log(3)], [0.5 * math.log(3), 0.0]], dtype=torch.float64)
    first = math.log(2)
    second = -0.75 * math.log(0.25) - 0.25 * math.log(0.75)
    assert distillation_loss(student, teacher, 0.5).item() == pytest.approx((first + second) / 2, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_a_student_that_matches_its_teacher_gets_no_gradient(temperature: float) -> None:
    teacher = draw(5, 4)
    student = (teacher + 3).requires_grad_()  # a constant on all logits changes no probability
    loss = distillation_loss(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-14)
    answers = (teacher / temperature).softmax(1)
    assert loss.item() == pytest.approx(-(answers * answers.log()).sum(1).mean().item(), rel=1e-10), "the entropy"


def test_gradients_are_correct_and_none_reaches_the_teacher() -> None:
    student, teacher = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    labels = torch.tensor([2, UNLABELED, 0])
    assert torch.autograd.gradcheck(lambda s: distillation_loss(s, teacher, 0.7), (student,))
    assert torch.autograd.gradcheck(lambda s: mixed_distillation_loss(s, teacher, labels, 0.7, 0.3), (student,))
    mixed_distillation_loss(student, teacher, labels, 0.7, 0.3).backward()
    assert teacher.grad is None


def test_at_high_temperature_it_matches_logits() -> None:
    """Hinton et al. 2015, equation 4: T²·gradient tends to (z − v) / K for logits of zero mean."""
    student, teacher = draw(6, 5).requires_grad_(), 2 * draw(6, 5, seed=1)
    temperature = 1e4
    (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, temperature), student)
    z, v = (logits - logits.mean(1, keepdim=True) for logits in (student.detach(), teacher))
    assert torch.allclose(temperature**2 * gradient * 6, (z - v) / 5, rtol=1e-3, atol=1e-4)


def test_at_low_temperature_the_teachers_first_choice_is_a_label() -> None:
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    # Equal temperatures sharpen the student as well, so its logits are multiplied by the temperature first.
    loss = distillation_loss(1e-4 * student, teacher, 1e-4)
    assert loss.item() == pytest.approx(F.cross_entropy(student, teacher.argmax(1)).item(), rel=1e-6)


def test_alpha_one_is_the_teacher_alone_and_alpha_zero_the_labels_alone() -> None:
    student, teacher, labels = draw(6, 5), draw(6, 5, seed=1), torch.tensor([0, 1, 2, 3, 4, 0])
    teacher_alone = mixed_distillation_loss(student, teacher, labels, 0.5, 1.0)
    assert teacher_alone.item() == pytest.approx(distillation_loss(student, teacher, 0.5).item(), rel=1e-12)
    labels_alone = mixed_distillation_loss(student, teacher, labels, 0.5, 0.0)
    expected = -sum(math.log(row.softmax(0)[label]) for row, label in zip(student, labels, strict=True)) / 6
    assert labels_alone.item() == pytest.approx(expected, rel=1e-10)
    half = mixed_distillation_loss(student, teacher, labels, 0.5, 0.5)
    assert half.item() == pytest.approx((teacher_alone + labels_alone).item() / 2, rel=1e-12)


def test_an_unlabeled_image_adds_nothing_to_the_sum_over_labels() -> None:
    student, teacher = draw(4, 3), draw(4, 3, seed=1)
    labels = torch.tensor([1, UNLABELED, UNLABELED, 2])
    value = mixed_distillation_loss(student, teacher, labels, 1.0, 0.0)
    assert value.item() == pytest.approx(F.cross_entropy(student[[0, 3]], labels[[0, 3]]).item() / 2, rel=1e-10)
    none = mixed_distillation_loss(student, teacher, torch.full((4,), UNLABELED), 1.0, 0.25)
    assert none.item() == pytest.approx(0.25 * distillation_loss(student, teacher, 1.0).item(), rel=1e-10)


def test_batches_of_unequal_labeling_add_up_to_the_equation() -> None:
    student, teacher = draw(6, 3), draw(6, 3, seed=1)
    labels = torch.tensor([1, 0, 2, UNLABELED, UNLABELED, 1])
    parts = [
        mixed_distillation_loss(s, t, y, 0.5, 0.4)
        for s, t, y in zip(student.split(3), teacher.split(3), labels.split(3), strict=True)
    ]
    whole = mixed_distillation_loss(student, teacher, labels, 0.5, 0.4)
    assert (sum(parts) / 2).item() == pytest.approx(whole.item(), rel=1e-12)


def test_the_labels_share_of_the_loss_is_the_one_that_the_page_gives() -> None:
    """Ten images that both terms find equally hard, one of them labeled."""
    answer = torch.arange(4).repeat(3)[:10]
    teacher = 1e3 * F.one_hot(answer, 4).double()  # as certain as a label
    labels = torch.where(torch.arange(10) == 3, answer, UNLABELED)

    def share(alpha: float) -> float:
        whole, without = (
            mixed_distillation_loss(torch.zeros(10, 4).double(), teacher, some, 1.0, alpha)
            for some in (labels, torch.full((10,), UNLABELED))
        )
        return 1 - without.item() / whole.item()

    assert share(0.5) == pytest.approx(1 / 11, rel=1e-9)
    page = (DOCS / "simclr_v2.md").read_text()
    assert f"which is {100 * share(0.5):.0f} %" in page
    (equal,) = re.findall(r"labelled / \(1 \+ labelled\), here ([\d.]+)\.", page)
    assert share(float(equal)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": math.nan}, "temperature must be positive and finite, got nan"),
        ({"temperature": math.inf}, "temperature must be positive and finite, got inf"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": math.nan}, "alpha must lie in [0, 1], got nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        DistillationConfig(**fields)


# --------------------------------------------------------------------- distill


class ColorTeacher(nn.Module):
    """Knows the strongest color of an image; its dropout would blur the predictions of a teacher in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = 255 if images.dtype == torch.uint8 else 1
        return self.dropout(self.sharpness * images.float().mean((2, 3)) / scale)


def tinted(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 100, (count, 3, 12, 12), generator=seeded(seed))
    return (noise + 120 * F.one_hot(labels, 3)[:, :, None, None]).to(torch.uint8), labels


def encoder() -> PixelEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PixelEncoder((3, 12, 12), EncoderConfig(filters=16, strides=(2, 1), latent=16))


def config(epochs: int = 15, alpha: float = 1.0) -> DistillationConfig:
    return DistillationConfig(alpha=alpha, training=SupervisedConfig(epochs=epochs, batch_size=20, crop_scale=0.5))


def test_a_student_learns_from_predictions_alone() -> None:
    images, _ = tinted(60)
    test_images, test_labels = tinted(30, seed=1)
    teacher, start = ColorTeacher().train(), encoder()
    before = [parameter.clone() for parameter in (*teacher.parameters(), *start.parameters())]
    student, accuracy = distill(
        teacher, start, images, None, test_images, test_labels, generator=seeded(), config=config()
    )
    assert accuracy >= 0.9
    assert accuracy == (student.eval()(test_images).argmax(1) == test_labels).float().mean()
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    after = [*teacher.parameters(), *start.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    # Not only the top choice: the probabilities themselves come close to those of the teacher in evaluation mode.
    wanted = network_outputs(teacher, test_images).softmax(1)
    assert (student(test_images).softmax(1) - wanted).abs().mean() < 0.1


@pytest.mark.parametrize(("alpha", "wins"), [(0.0, "labels"), (1.0, "teacher")])
def test_labels_that_contradict_the_teacher_win_at_alpha_zero_and_are_ignored_at_one(alpha: float, wins: str) -> None:
    images, colors = tinted(60)
    contradiction = (colors + 1) % 3
    student, accuracy = distill(
        ColorTeacher(), encoder(), images, contradiction, images, colors, generator=seeded(), config=config(15, alpha)
    )
    learned = contradiction if wins == "labels" else colors
    assert top1_accuracy(student, images, learned) >= 0.9
    # With confidence, too: labels assigned to the wrong images of a batch would hardly be learned.
    assert F.cross_entropy(network_outputs(student, images), learned) < 0.3
    assert accuracy == top1_accuracy(student, images, colors)


class OneAnswer(nn.Module):
    """A teacher that gives every image the same logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, 0.0, -1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), 3)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (0.3, 1.0), (0.3, 0.6), (2.0, 0.0)])
def test_the_first_step_by_hand(temperature: float, alpha: float) -> None:
    """All logits start at zero, all probabilities at ⅓, and Nesterov's first step is 1.9 times the gradient."""
    images, _ = tinted(4)
    labels = torch.tensor([2, UNLABELED, 2, 0])
    training = SupervisedConfig(epochs=1, batch_size=4, learning_rate=0.1)
    settings = DistillationConfig(temperature, alpha, training)
    student, _ = distill(
        OneAnswer(), encoder(), images, labels, images, labels.clamp_min(0), generator=seeded(), config=settings
    )
    answers = (torch.tensor([0.5, 0.0, -1.0]) / temperature).softmax(0)
    from_labels = (3 * torch.full((3,), 1 / 3) - torch.tensor([1.0, 0.0, 2.0])) / 4
    gradient = (1 - alpha) * from_labels + alpha * (1 / 3 - answers) / temperature
    assert torch.allclose(student.linear.bias, -0.19 * gradient, atol=1e-6)


def test_the_generator_decides_everything() -> None:
    images, labels = tinted(12)
    weights = [
        distill(
            ColorTeacher(), encoder(), images, None, images, labels, generator=seeded(seed), config=config(epochs=2)
        ).network.linear.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_labels_and_alpha_must_fit() -> None:
    images, labels = tinted(6)

    def run(labels: torch.Tensor | None, alpha: float = 0.5) -> None:
        distill(
            ColorTeacher(), encoder(), images, labels, images, torch.zeros(6).long(), generator=seeded(),
            config=config(1, alpha),
        )  # fmt: skip

    for missing in (None, torch.full((6,), UNLABELED)):
        with pytest.raises(ValueError, match="alpha 0.5 gives labels a share of the loss, but no image has one"):
            run(missing)
        run(missing, alpha=1.0)
    with pytest.raises(ValueError, match="training set's labels must be from 0 to 2, got 0 to 4"):
        run(2 * labels)
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got -2 to 0"):
        run(-labels)
    with pytest.raises(ValueError, match="the training set has 6 examples, but labels of shape"):
        run(labels[:4])
