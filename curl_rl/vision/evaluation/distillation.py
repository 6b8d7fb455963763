"""Distillation: a student learns the predictions of a fine-tuned teacher on mostly unlabeled images.

The third stage of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029, section 2). The student has the teacher's architecture
or a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.augment import center_crop
from curl_rl.ranges import check_ranges, positive_finite, within
from curl_rl.vision.evaluation.finetuning import (
    SupervisedConfig,
    TrainedClassifier,
    network_outputs,
    new_classifier,
    top1_accuracy,
    train_classifier,
)
from curl_rl.vision.evaluation.knn import check_labeled

UNLABELED = -1
"""The label of an unlabeled image."""


@dataclass(frozen=True)
class DistillationConfig:
    """How a student learns from a teacher."""

    temperature: Annotated[float, positive_finite] = 1.0
    """Temperature of both softmaxes; 1 as in the released notebook (google-research/simclr,
    tf2/colabs/distillation_self_training.ipynb)."""
    alpha: Annotated[float, within("[0, 1]")] = 1.0
    """Weight of the teacher's predictions, which every image has; the labels, which some have, get 1 − alpha
    (:func:`mixed_distillation_loss`). The paper's default is 1: the teacher alone."""
    training: SupervisedConfig = field(default_factory=lambda: SupervisedConfig(epochs=100))
    """The student's training."""

    def __post_init__(self) -> None:
        check_ranges(self)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between the student's and the teacher's predictions, both at ``temperature`` (equation 2).

    The mean over ``(B, K)`` logits, a scalar; no gradient reaches the teacher. The gradient with respect to the
    student's logits is (student's − teacher's probabilities) / temperature / B: a temperature of 0.1 makes it up to ten
    times as large. The released code multiplies by temperature² (as Hinton et al. 2015, arXiv 1503.02531, section 2.1,
    who balance it with the labels' loss); the paper's equation does not.
    """
    return F.cross_entropy(student_logits / temperature, (teacher_logits.detach() / temperature).softmax(1))


def mixed_distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float
) -> Tensor:
    """Equation 3: (1 − alpha) · cross-entropy to the labels + alpha · :func:`distillation_loss`.

    Args:
        student_logits: ``(B, K)``.
        teacher_logits: ``(B, K)``.
        labels: ``(B,)``, −1 for unlabeled images.
        temperature: of the second term; the first has none.
        alpha: the weight of the second term, in [0, 1].

    Returns:
        A scalar: the equation's two sums, both divided by B. Unlabeled images thus add zero to the first sum, and a
        batch with more labels weights them more: over an epoch it is the equation. If a share p of the images has
        labels, these have (1 − alpha) p of the total weight (1 − alpha) p + alpha: 9 % for p = 0.1 and alpha = 0.5.
    """
    supervised = F.cross_entropy(student_logits, labels, ignore_index=UNLABELED, reduction="sum") / len(labels)
    return (1 - alpha) * supervised + alpha * distillation_loss(student_logits, teacher_logits, temperature)


def distill(
    teacher: nn.Module,
    encoder: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    generator: torch.Generator,
    config: DistillationConfig = DistillationConfig(),
    head_prefix: nn.Module | None = None,
    size: int | None = None,
) -> TrainedClassifier:
    """Trains a student on a teacher's predictions; the student is a copy of ``encoder`` with a new linear layer.

    Both see the same crop of an image; the teacher is in evaluation mode throughout. The accuracy is measured after the
    last epoch.

    Args:
        teacher: maps images to ``(B, K)`` logits, such as the result of
            :func:`~curl_rl.vision.evaluation.finetuning.fine_tune`; left unchanged. For self-distillation, pass its
            encoder as the student's.
        encoder: the student's encoder, pretrained or not, on the teacher's device; left unchanged.
        images: ``(N, C, S, S)`` uint8, labeled or not, on any device.
        labels: ``(N,)``, −1 for unlabeled images; None to use no labels.
        test_images: ``(M, C, S, S)`` uint8.
        test_labels: ``(M,)`` integers from 0 to K − 1.
        generator: draws the order and the crops, on the encoder's device.
        config: temperature, mix, training.
        head_prefix: first layers of the student's projection head, as in fine-tuning.
        size: side of the crops both see, as in fine-tuning.

    Raises:
        ValueError: labels and ``alpha`` contradict each other, or a set does not fit its labels.
        FloatingPointError: the training diverged.
    """
    size = images.shape[-1] if size is None else size
    classes = network_outputs(teacher, center_crop(images[:1], size)).shape[1]
    check_labeled(test_images, test_labels, classes, "test")
    if labels is None:
        labels = torch.full((len(images),), UNLABELED)
    check_labeled(images, labels.masked_fill(labels == UNLABELED, 0), classes, "training")
    if config.alpha < 1 and (labels == UNLABELED).all():
        raise ValueError(f"alpha {config.alpha} gives labels a share of the loss, but no image has one: set it to 1")
    student = new_classifier(encoder, center_crop(images, size), classes=classes, head_prefix=head_prefix)
    targets = labels.to(next(student.parameters()).device)

    def loss(views: Tensor, chosen: Tensor) -> Tensor:
        answers = network_outputs(teacher, views)
        return mixed_distillation_loss(student(views), answers, targets[chosen], config.temperature, config.alpha)

    train_classifier(student, images, size, loss, config.training, generator, "distillation")
    return TrainedClassifier(student, top1_accuracy(student, center_crop(test_images, size), test_labels))
