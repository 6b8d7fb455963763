"""UDA: fine-tuning on labeled images, and on unlabeled ones that must look alike in two views (arXiv 1904.12848).

Unsupervised Data Augmentation (Xie et al. 2019): besides the cross-entropy of the labeled images, the prediction for a
strongly augmented view of an unlabeled image is drawn to that for a weakly augmented one, if the latter is confident.
Details are those of the released code (google-research/uda, image/main.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.augment import center_crop, random_resized_crop
from curl_rl.augment.draws import chosen
from curl_rl.augment.operations import OPERATIONS, apply_operations
from curl_rl.augment.randaugment import directed
from curl_rl.ranges import at_least, check_ranges, positive_finite, within
from curl_rl.vision.evaluation.finetuning import (
    SupervisedConfig,
    TrainedClassifier,
    new_classifier,
    top1_accuracy,
    train_classifier,
)
from curl_rl.vision.evaluation.knn import check_labeled

Annealing = Literal["none", "linear", "log", "exp"]
ANNEALING: tuple[Annealing, ...] = get_args(Annealing)
_CUTOUT = 0.8  # of the operation's range: a square of half the side


@dataclass(frozen=True)
class ConsistencyConfig:
    """How unlabeled images take part; the numbers are the released code's for CIFAR-10 with 4,000 labels."""

    weight: Annotated[float, within("[0, 1e6]", "be from 0 to 1,000,000")] = 1.0
    """Weight of the unlabeled images' loss."""
    confidence: Annotated[float, within("[0, 1]")] = 0.8
    """Unlabeled images count if the largest probability of their weak view is above this."""
    temperature: Annotated[float, positive_finite] = 0.4
    """Temperature of the weak view's prediction as a target: below 1 sharpens it."""
    annealing: Annealing = "none"
    """Training signal annealing: labeled images are left out while their label's probability is above a threshold that
    rises from chance to 1 during the training: linearly, at first (log) or late (exp: for very few labels)."""
    unlabeled_per_labeled: Annotated[int, at_least(1)] = 7
    """Unlabeled images in a batch, for each labeled one."""

    def __post_init__(self) -> None:
        check_ranges(self)


def annealing_threshold(annealing: Annealing, progress: float, classes: int) -> float:
    """The probability above which a labeled image is left out after a share ``progress`` of the training (section 2.3).

    From 1 / classes (exp: a little above; log: to a little below 1) to 1; without annealing infinite.
    """
    if annealing == "none":
        return math.inf
    share = {"linear": progress, "log": 1 - math.exp(-5 * progress), "exp": math.exp(5 * (progress - 1))}[annealing]
    return share * (1 - 1 / classes) + 1 / classes


def annealed_cross_entropy(logits: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Mean cross-entropy over the images whose label's probability is at most ``threshold``; 0 if there are none.

    Args:
        logits: ``(B, K)``.
        labels: ``(B,)``.
        threshold: as from :func:`annealing_threshold`.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    counts = (losses.detach().neg().exp() <= threshold).to(losses.dtype)
    return (losses * counts).sum() / counts.sum().clamp_min(1)


def consistency_loss(weak_logits: Tensor, strong_logits: Tensor, *, temperature: float, confidence: float) -> Tensor:
    """KL divergence of the strong view's prediction from the weak view's, which is sharpened (equation 1, section 2.4).

    Args:
        weak_logits: ``(B, K)``; no gradient reaches them.
        strong_logits: ``(B, K)``.
        temperature: of the weak view's prediction as a target, not as a measure of confidence.
        confidence: images whose weak view has no probability above this add 0.

    Returns:
        A scalar, the sum divided by B: few confident images weigh little.
    """
    weak_logits = weak_logits.detach()
    counts = (weak_logits.softmax(1).amax(1) > confidence).to(strong_logits.dtype)
    target = (weak_logits / temperature).log_softmax(1)
    divergence = F.kl_div(strong_logits.log_softmax(1), target, reduction="none", log_target=True).sum(1)
    return (divergence * counts).mean()


def strongly_augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """The strong view: two of 15 operations at level 1 to 9, with probability 1/2 each, then cutout of half the side.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], floating point.
        generator: random generator on the images' device.
    """
    batch, device = len(images), generator.device

    def place() -> Tensor:
        return torch.rand(batch, 2, generator=generator, device=device)

    for _ in range(2):
        operation = torch.randint(1, len(OPERATIONS), (batch,), generator=generator, device=device)
        level = torch.randint(1, 10, (batch,), generator=generator, device=device)
        applied, negative = chosen(batch, 0.5, generator), chosen(batch, 0.5, generator)
        images = apply_operations(images, operation * applied, directed(level / 9, negative), place())
    cutout = torch.full((batch,), OPERATIONS.index("cutout"), device=device)
    return apply_operations(images, cutout, torch.full((batch,), _CUTOUT, device=device), place())


def fine_tune_consistently(
    encoder: nn.Module,
    images: Tensor,
    labels: Tensor,
    unlabeled: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    generator: torch.Generator,
    training: SupervisedConfig,
    config: ConsistencyConfig = ConsistencyConfig(),
    head_prefix: nn.Module | None = None,
    size: int | None = None,
) -> TrainedClassifier:
    """As :func:`~curl_rl.vision.evaluation.finetuning.fine_tune`, with unlabeled images in every step.

    One pass of the network covers the labeled images and both views of the unlabeled ones, so batch norm sees all. An
    epoch is one of the labeled images; unlabeled ones are drawn with replacement.

    Args:
        encoder: as in fine-tuning; images of three channels.
        images: ``(N, 3, S, S)`` uint8, labeled.
        labels: ``(N,)``.
        unlabeled: ``(U, 3, S, S)`` uint8; may contain the labeled images.
        test_images: ``(M, 3, S, S)`` uint8.
        test_labels: ``(M,)``.
        classes: number of classes.
        generator: draws everything, on the encoder's device.
        training: training settings; the batch is that of labeled images.
        config: how the unlabeled images take part.
        head_prefix: as in fine-tuning.
        size: as in fine-tuning.

    Raises:
        ValueError: a set does not fit its labels, or the unlabeled images have another shape.
        FloatingPointError: the training diverged.
    """
    check_labeled(images, labels, classes, "training")
    check_labeled(test_images, test_labels, classes, "test")
    if not len(unlabeled) or unlabeled.shape[1:] != images.shape[1:] or unlabeled.dtype != torch.uint8:
        raise ValueError(
            f"unlabeled images must be (U, {', '.join(map(str, images.shape[1:]))}) uint8 with U at least 1, got "
            f"{tuple(unlabeled.shape)} {unlabeled.dtype}"
        )
    size = images.shape[-1] if size is None else size
    network = new_classifier(encoder, center_crop(images, size), classes=classes, head_prefix=head_prefix)
    device = next(network.parameters()).device
    targets = labels.to(device)
    steps, step = training.epochs * math.ceil(len(images) / training.batch_size), 0

    def weak(originals: Tensor) -> Tensor:
        return random_resized_crop(originals, size, generator, scale=(training.crop_scale, 1.0), mirror=training.mirror)

    def loss(views: Tensor, rows: Tensor) -> Tensor:
        nonlocal step
        threshold = annealing_threshold(config.annealing, step / steps, classes)
        step += 1
        count = config.unlabeled_per_labeled * len(views)
        drawn = torch.randint(len(unlabeled), (count,), generator=generator, device=device)
        originals = unlabeled[drawn.to(unlabeled.device)].to(device)
        strong = strongly_augmented(weak(originals), generator)
        logits = network(torch.cat([views, weak(originals), strong]))
        labeled, weakly, strongly = logits.split([len(views), count, count])
        supervised = annealed_cross_entropy(labeled, targets[rows], threshold)
        agreement = consistency_loss(weakly, strongly, temperature=config.temperature, confidence=config.confidence)
        return supervised + config.weight * agreement

    train_classifier(network, images, size, loss, training, generator, "fine-tuning")
    return TrainedClassifier(network, top1_accuracy(network, center_crop(test_images, size), test_labels))
