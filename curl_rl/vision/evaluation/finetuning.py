"""Fine-tuning: trains the whole pretrained network on labeled images, all of them or a few percent.

The second stage of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029): the first layers of the projection head may stay on
the encoder. The training loop is shared with the third stage, distillation.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

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
from curl_rl.vision.evaluation.knn import check_labeled

_STATISTICS_FROM = 1024  # images used to initialize the running statistics of a head's batch norm
# No training survives the maximum, and float32 cannot represent 1e39.
_RATE = within("[0, 1e6]", "be from 0 to 1,000,000")
_BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own


@dataclass(frozen=True)
class SupervisedConfig:
    """Supervised training of a classifier: SGD with Nesterov momentum 0.9, random crops and flips, cosine schedule.

    The defaults are SimCLR's for 1 % of the labels (arXiv 2002.05709, appendix B.5: 0.05 for a batch of 256,
    neither weight decay nor warm-up); for 10 % and more it uses 30 epochs. The learning rate is not scaled with the
    batch size, unlike in the paper.
    """

    epochs: Annotated[int, at_least(1)] = 60
    """Passes over the training images."""
    batch_size: Annotated[int, at_least(2)] = 256
    """Maximum batch size. An epoch has as few batches as this allows, with sizes that differ by at most one."""
    learning_rate: Annotated[float, _RATE] = 0.05
    """Peak learning rate; after the warm-up it falls to zero along a cosine."""
    weight_decay: Annotated[float, _RATE] = 0.0
    """L2 penalty on the weights; biases and norms have none."""
    warmup_epochs: int = 0
    """Epochs over which the learning rate rises linearly to its peak."""
    crop_scale: Annotated[float, within("(0, 1]")] = 0.08
    """Smallest share of an image's area that a random crop covers; 1 keeps whole images."""
    mirror: Annotated[float, within("[0, 1]")] = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs must be from 0 to below epochs, got {self.warmup_epochs} of {self.epochs}")


class Crops(NamedTuple):
    """Random crops in supervised training."""

    scale: float = SupervisedConfig.crop_scale
    """Smallest share of the image's area that a crop covers."""
    mirror: float = SupervisedConfig.mirror
    """Probability of a horizontal flip."""


def fine_tuning(
    share: float, crops: Crops, *, epochs: int | None = None, learning_rate: float = SupervisedConfig.learning_rate
) -> SupervisedConfig:
    """SimCLR's fine-tuning on a share of the labels: by default 60 epochs for 1 %, 30 for 10 % and more (B.5).

    Crops work best with the scale and flips of the pretraining views: a mirrored digit may be another one.
    """
    usual = 60 if share < 0.1 else 30
    return SupervisedConfig(
        epochs=usual if epochs is None else epochs,
        learning_rate=learning_rate,
        crop_scale=crops.scale,
        mirror=crops.mirror,
    )


class Classifier(nn.Module):
    """Maps images to ``(B, classes)`` logits: an encoder, the first layers of its projection head, a linear layer."""

    def __init__(self, encoder: nn.Module, head_prefix: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.head_prefix = head_prefix
        self.linear = linear

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.head_prefix(self.encoder(images)))
        return logits


class TrainedClassifier(NamedTuple):
    """A classifier after its last epoch, with its accuracy."""

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
    """Trains copies of the encoder and of ``head_prefix``, with a new linear layer, on labeled images.

    SimCLR v2 keeps the first layer of a three-layer head when labels are few (arXiv 2006.10029, section 3). The
    accuracy is measured after the last epoch: nothing is selected on the test set.

    Args:
        encoder: maps images to ``(B, dim)`` vectors; left unchanged. Training runs on its device.
        images: ``(N, C, S, S)`` uint8, on any device.
        labels: ``(N,)`` integers from 0 to ``classes`` − 1.
        test_images: ``(M, C, S, S)`` uint8.
        test_labels: ``(M,)``.
        classes: number of classes.
        generator: draws the order and the crops, on the encoder's device.
        config: training settings.
        head_prefix: maps ``(B, dim)`` to ``(B, E)``; its batch norms get running statistics if they have none.
        size: side of the random training crops and of the center crops for testing; None: the images' own.

    Raises:
        ValueError: a set does not fit its labels, or the training set has fewer than two images or classes.
        FloatingPointError: the training diverged.
    """
    check_labeled(images, labels, classes, "training")
    check_labeled(test_images, test_labels, classes, "test")
    if len(labels.unique()) < 2:
        raise ValueError(f"the training set has only one class, {int(labels[0])}: fine-tuning needs at least two")
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
    """Builds a trainable classifier from copies of ``encoder`` and ``head_prefix``; None drops the whole head.

    The linear layer starts at zero, so all classes are equally likely and no random number is drawn. The running
    statistics of the prefix's batch norms start from the features of the first ``(N, C, S, S)`` images. Split batch
    norm becomes plain: it only serves contrastive learning, where batch statistics would leak which images match.
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
    """Copies ``head`` and adds running statistics to its batch norms, so that it can process single images.

    In pretraining, a head normalizes with the current batch and keeps no statistics. Such batch norms become plain ones
    that start from the statistics of ``features`` ``(B, D)``; those with running statistics keep them. The copy is in
    evaluation mode.

    Raises:
        ValueError: a batch norm needs statistics, but there are fewer than two features.
    """
    head = copy.deepcopy(head)
    added: list[nn.BatchNorm1d] = []
    head = _replace_batch_norms(head, added).eval()
    if not added:
        return head
    if len(features) < 2:
        raise ValueError(f"batch norm's running statistics need at least 2 images to start from, got {len(features)}")
    for norm in added:
        norm.to(features).train().momentum = 1.0  # keep the statistics of this pass alone
    with torch.no_grad():
        head(features)
    for norm in added:
        norm.momentum = _BATCH_NORM_MOMENTUM
    return head.eval()


def _replace_batch_norms(module: nn.Module, added: list[nn.BatchNorm1d]) -> nn.Module:
    """Replaces batch norms without running statistics in ``module``; ``added`` collects the new ones."""
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
    *,
    bar: tqdm[Any] | None = None,
) -> None:
    """Trains ``network`` in place on random crops and flips of ``images``, on the device of its parameters.

    Args:
        network: all of its parameters that require a gradient are trained.
        images: ``(N, C, S, S)`` uint8, on any device; on the network's device, no step waits for them.
        size: side of the crops.
        loss: maps ``(B, C, size, size)`` views and the ``(B,)`` indices of their images to a scalar.
        config: training settings.
        generator: draws the order and the crops, on the network's device.
        name: name of the training in the progress bar and in messages.
        bar: progress bar of a longer work, to advance by each step; None, one of its own.

    Raises:
        ValueError: there are fewer than two images.
        FloatingPointError: the loss of an epoch or a weight after the last step is not finite.
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
    own = bar is None
    bar = tqdm(total=steps, desc=name, unit="step", disable=None) if bar is None else bar
    with bar if own else contextlib.nullcontext():
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
            mean = float(torch.stack(losses).mean())  # the only wait for the device in an epoch
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{name} diverged in epoch {epoch + 1}: the loss is {mean}; "
                    f"try a learning_rate below {config.learning_rate}"
                )
            if own:
                bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
    # No loss reflects the result of the last step.
    for part, weights in network.state_dict().items():
        if not weights.isfinite().all():
            raise FloatingPointError(
                f"{name} diverged in its last step: {part} holds non-finite values; "
                f"try a learning_rate below {config.learning_rate}"
            )


@torch.no_grad()
def network_outputs(network: nn.Module, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Computes a network's outputs for ``(N, ...)`` images in evaluation mode, in batches, on the network's device.

    These are an encoder's features or a classifier's logits. Restores the network's mode.
    """
    device, training = _device(network), network.training
    network.eval()
    try:
        return torch.cat([network(batch.to(device)) for batch in images.split(batch_size)])
    finally:
        network.train(training)


def top1_accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Share of ``(N, ...)`` images whose largest logit is that of their label, ``(N,)``; a scalar in [0, 1]."""
    logits = network_outputs(network, images)
    return (logits.argmax(1) == labels.to(logits.device)).float().mean()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
