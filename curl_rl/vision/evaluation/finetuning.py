"""Fine-tuning: the whole pretrained network learns from labelled images, all of them or a few per cent.

The second stage of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029): the first layers of the projection head may stay on
the encoder. The training loop here serves the third stage, distillation, as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from curl_rl.augment import center_crop, random_resized_crop
from curl_rl.encoders.heads import plain_batch_norm, zero_linear
from curl_rl.encoders.resnet import SplitBatchNorm2d
from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.schedules import set_learning_rates, warmup_cosine
from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.vision.evaluation.knn import check_labelled

_STATISTICS_FROM = 1024  # images that the running statistics of a head's batch norm start from
# No training survives the highest, and float32 has no 1e39.
_RATE = within("[0, 1e6]", "be from 0 to 1,000,000")
_BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own


@dataclass(frozen=True)
class SupervisedConfig:
    """How a classifier is trained on images: SGD with Nesterov momentum 0.9, random crops and flips, cosine schedule.

    The defaults are SimCLR's for 1 % of the labels (arXiv 2002.05709, appendix B.5: 0.05 for a batch of 256,
    neither weight decay nor warm-up); for 10 % and more it takes 30 epochs. Other batch sizes keep this learning
    rate, which the paper scales with them.
    """

    epochs: Annotated[int, at_least(1)] = 60
    """Passes over the training images."""
    batch_size: Annotated[int, at_least(2)] = 256
    """Most images in a batch. An epoch is divided into as few batches as that allows, their sizes equal within one."""
    learning_rate: Annotated[float, _RATE] = 0.05
    """The highest; from the warm-up's end it falls to zero by a cosine."""
    weight_decay: Annotated[float, _RATE] = 0.0
    """L2 penalty on the weights; biases and norms have none."""
    warmup_epochs: int = 0
    """Epochs over which the learning rate rises linearly to its highest."""
    crop_scale: Annotated[float, within("(0, 1]")] = 0.08
    """Smallest share of an image's area that a random crop covers; 1 keeps whole images."""
    mirror: Annotated[float, within("[0, 1]")] = 0.5
    """Probability of flipping left to right."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs must be from 0 to below epochs, got {self.warmup_epochs} of {self.epochs}")


class Crops(NamedTuple):
    """Random crops of an image, as supervised training takes them."""

    scale: float = SupervisedConfig.crop_scale
    """Smallest share of the image's area that one covers."""
    mirror: float = SupervisedConfig.mirror
    """Probability of flipping it left to right."""


def fine_tuning(
    share: float, crops: Crops, *, epochs: int | None = None, learning_rate: float = SupervisedConfig.learning_rate
) -> SupervisedConfig:
    """How SimCLR fine-tunes on a share of the labels: 60 epochs for 1 %, 30 for 10 % and more (B.5), if none are given.

    The crops are best as large, and as often mirrored, as the views of the pretraining: a digit is another one in a
    mirror.
    """
    usual = 60 if share < 0.1 else 30
    return SupervisedConfig(
        epochs=usual if epochs is None else epochs,
        learning_rate=learning_rate,
        crop_scale=crops.scale,
        mirror=crops.mirror,
    )


class Classifier(nn.Module):
    """Images to ``(B, classes)`` logits: an encoder, what is kept of its projection head, a linear layer."""

    def __init__(self, encoder: nn.Module, head_prefix: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head_prefix = head_prefix
        self.linear = linear

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.head_prefix(self.encoder(images)))
        return logits


class TrainedClassifier(NamedTuple):
    """A classifier as it was after its last epoch, and how good it is then."""

    network: Classifier
    accuracy: Tensor
    """Top-1 on the test set, a scalar in [0, 1]."""


def fine_tune(
    encoder: nn.Module,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    generator: torch.Generator,
    config: SupervisedConfig = SupervisedConfig(),
    head_prefix: nn.Module | None = None,
    size: int | None = None,
) -> TrainedClassifier:
    """Trains a copy of the encoder, a copy of ``head_prefix`` and a new linear layer on labelled images.

    SimCLR v2 keeps the first layer of a three-layer head where labels are few (section 3 of arXiv 2006.10029). The
    accuracy is that of the last epoch: the test set chooses nothing.

    Args:
        encoder: maps images to ``(B, dim)`` vectors; left as it was. Where its parameters are, the training runs.
        images: ``(N, C, S, S)`` uint8, on any device.
        labels: ``(N,)`` integers from 0 to ``classes`` − 1.
        test_images: ``(M, C, S, S)`` uint8.
        test_labels: ``(M,)``.
        classes: how many classes there are.
        generator: of the order and the crops, on the encoder's device.
        config: of the training.
        head_prefix: maps ``(B, dim)`` to ``(B, E)``. Batch norm in it that has no running statistics is given some.
        size: side of what the network sees: random crops of training images, the middle of test images; None: theirs.

    Raises:
        ValueError: a set does not fit its labels, or the training set has fewer than two images or classes.
        FloatingPointError: the training diverged.
    """
    check_labelled(images, labels, classes, "training")
    check_labelled(test_images, test_labels, classes, "test")
    if len(labels.unique()) < 2:
        raise ValueError(f"the training set has one class only, {int(labels[0])}: fine-tuning needs at least two")
    size = images.shape[-1] if size is None else size
    network = new_classifier(encoder, center_crop(images, size), classes=classes, head_prefix=head_prefix)
    targets = labels.to(_device(network))

    def loss(views: Tensor, chosen: Tensor) -> Tensor:
        return F.cross_entropy(network(views), targets[chosen])

    train_classifier(network, images, size, loss, config, generator, "fine-tuning")
    return TrainedClassifier(network, top1_accuracy(network, center_crop(test_images, size), test_labels))


def new_classifier(
    encoder: nn.Module, images: Tensor, *, classes: int, head_prefix: nn.Module | None = None
) -> Classifier:
    """A trainable classifier on copies of ``encoder`` and ``head_prefix``; None keeps nothing of the head.

    The linear layer starts at zero, so that every class is equally likely and no random number is drawn. The running
    statistics of the prefix's batch norm start from the features of the first ``(N, C, S, S)`` images. Split batch norm
    becomes plain: it keeps contrastive learning from telling images by their batch, of which labels have no need.
    """
    encoder = copy.deepcopy(encoder)
    for module in encoder.modules():
        if isinstance(module, SplitBatchNorm2d):
            module.splits = 1
    features = network_outputs(encoder, images[:_STATISTICS_FROM])
    prefix = nn.Identity() if head_prefix is None else with_running_statistics(head_prefix, features)
    with torch.no_grad():
        dim = prefix.eval()(features).shape[1]
    return Classifier(encoder, prefix, zero_linear(dim, classes, features)).requires_grad_(True)


def with_running_statistics(head: nn.Module, features: Tensor) -> nn.Module:
    """A copy of ``head`` whose batch norms have running statistics, as a network needs that answers single images.

    In pretraining a head normalises by the batch before it and remembers nothing. Here such a batch norm becomes a
    plain one that starts from the statistics of ``features`` ``(B, D)``; one that has running statistics keeps them.
    Given back in evaluation mode.

    Raises:
        ValueError: a batch norm needs statistics, and there are fewer than two features.
    """
    head = copy.deepcopy(head)
    added: list[nn.BatchNorm1d] = []
    head = _replace_batch_norms(head, added).eval()
    if not added:
        return head
    if len(features) < 2:
        raise ValueError(f"batch norm's running statistics need at least 2 images to start from, got {len(features)}")
    for norm in added:
        norm.to(features).train().momentum = 1.0  # this one pass is all that they remember
    with torch.no_grad():
        head(features)
    for norm in added:
        norm.momentum = _BATCH_NORM_MOMENTUM
    return head.eval()


def _replace_batch_norms(module: nn.Module, added: list[nn.BatchNorm1d]) -> nn.Module:
    """``module``, its batch norms without running statistics replaced; ``added`` collects the new ones."""
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is None:
        added.append(plain_batch_norm(module))
        return added[-1]
    for name, child in module.named_children():
        setattr(module, name, _replace_batch_norms(child, added))
    return module


def train_classifier(
    network: nn.Module,
    images: Tensor,
    size: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: SupervisedConfig,
    generator: torch.Generator,
    name: str,
) -> None:
    """Trains ``network`` in place on random crops and flips of ``images``; where its parameters are, it runs.

    Args:
        network: what is trained: all parameters that require a gradient.
        images: ``(N, C, S, S)`` uint8, on any device; on the network's, no step waits for them.
        size: side of the crops.
        loss: of ``(B, C, size, size)`` views and the ``(B,)`` indices of their images, a scalar.
        config: of the training.
        generator: of the order and the crops, on the network's device.
        name: of the progress bar.

    Raises:
        ValueError: fewer than two images.
        FloatingPointError: the loss stopped being finite, or the weights after the last step are not.
    """
    if len(images) < 2:
        raise ValueError(f"{name} needs at least 2 images, got {len(images)}")
    device = _device(network)
    batches = math.ceil(len(images) / config.batch_size)
    steps, warmup = config.epochs * batches, config.warmup_epochs * batches
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = parameter_groups([{"params": trained}], config.weight_decay)
    optimizer = torch.optim.SGD(groups, config.learning_rate, momentum=0.9, nesterov=True)
    network.train()
    with tqdm(total=steps, desc=name, unit="step", disable=None) as bar:
        for epoch in range(config.epochs):
            order = torch.randperm(len(images), generator=generator, device=device)
            losses = []
            # Equal parts: a remainder of one image would leave batch norm without a variance.
            for step, chosen in enumerate(order.tensor_split(batches), epoch * batches):
                originals = images[chosen.to(images.device)].to(device)
                views = random_resized_crop(
                    originals, size, generator, scale=(config.crop_scale, 1.0), mirror=config.mirror
                )
                set_learning_rates(optimizer, warmup_cosine(step, warmup, steps))
                optimizer.zero_grad()
                value = loss(views, chosen)
                value.backward()
                optimizer.step()
                losses.append(value.detach())
                bar.update()
            mean = float(torch.stack(losses).mean())  # the one wait for the device in an epoch
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{name} diverged in epoch {epoch + 1}: the loss is {mean}; "
                    f"try a learning_rate below {config.learning_rate}"
                )
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
    # No loss has seen what the last step made.
    for part, weights in network.state_dict().items():
        if not weights.isfinite().all():
            raise FloatingPointError(
                f"{name} diverged in its last step: {part} holds numbers that are not finite; "
                f"try a learning_rate below {config.learning_rate}"
            )


@torch.no_grad()
def network_outputs(network: nn.Module, images: Tensor, batch_size: int = 1024) -> Tensor:
    """What a network gives for ``(N, ...)`` images in evaluation mode, batch by batch, on the network's device.

    Features of an encoder, logits of a classifier. The network is left in the mode that it was in.
    """
    device, training = _device(network), network.training
    network.eval()
    try:
        return torch.cat([network(batch.to(device)) for batch in images.split(batch_size)])
    finally:
        network.train(training)


def top1_accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Share of ``(N, ...)`` images whose largest logit is their label's ``(N,)``, a scalar in [0, 1]."""
    logits = network_outputs(network, images)
    return (logits.argmax(1) == labels.to(logits.device)).float().mean()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
