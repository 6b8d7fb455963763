"""Standard protocols for evaluating an encoder on labeled images.

Nearest neighbors, linear evaluation and fine-tuning on a few percent of the labels, for a trained backbone and the same
backbone untrained; nearest neighbors for the raw pixels as well. Nothing is selected on the test set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from curl_rl.augment import center_crop
from curl_rl.encoders import Encoder
from curl_rl.ranges import at_least, check_ranges, one_of, one_or_more, positive_finite, within
from curl_rl.runs.seeds import SEED
from curl_rl.vision.config import KNNConfig
from curl_rl.vision.data import balanced_subset, load, warn_about_unseen_classes
from curl_rl.vision.data.image_sets import ImageSet, SmallImages
from curl_rl.vision.evaluation.finetuning import Crops, fine_tune, fine_tuning
from curl_rl.vision.evaluation.knn import knn_accuracy
from curl_rl.vision.evaluation.linear_probe import LinearProbeConfig, linear_evaluation

Protocol = Literal["knn", "probe", "linear", "fine_tune"]

_SOME_PROTOCOLS = one_or_more(one_of(*get_args(Protocol)), "be some of knn, probe, linear and fine_tune")
_SHARES = one_or_more(within("(0, 1]"), "be shares above 0 and at most 1")

_BATCH = 512  # images encoded at a time


@dataclass(frozen=True)
class EvaluationConfig:
    """The protocols that evaluate an encoder, and their settings."""

    protocols: Annotated[tuple[Protocol, ...], _SOME_PROTOCOLS] = ("knn", "linear")
    """knn: weighted nearest neighbors. probe: the linear classifier trained alongside the run. linear: logistic
    regression on frozen features. fine_tune: the whole network is trained on some of the labels."""
    k: Annotated[int | None, at_least(1)] = None
    """Neighbors that vote. [default: the run's own knn.k, or all images if there are fewer]"""
    temperature: Annotated[float | None, positive_finite] = None
    """Temperature of their votes. [default: the run's own knn.temperature]"""
    labels: Annotated[tuple[float, ...], _SHARES] = (0.01, 0.1)
    """Shares of the training set's labels to fine-tune on, the same number from each class (1 takes all), in one
    training per share."""
    seed: Annotated[int, SEED] = 0
    """Seed of the held-out part in linear evaluation, and of the order and the crops in fine-tuning. The choice of
    labels for fine-tuning does not depend on it."""
    crops: Crops | None = None
    """Crops in fine-tuning. [default: the run's own views]"""
    linear: LinearProbeConfig = field(default_factory=LinearProbeConfig)
    """Regularizations that linear evaluation tries."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def scores(self) -> list[str]:
        """Names of the scores, in order."""
        fine_tuned = [f"fine_tune_{100 * share:g}%" for share in self.labels]
        return [name for protocol in self.protocols for name in (fine_tuned if protocol == "fine_tune" else [protocol])]


class Benchmark(NamedTuple):
    """Labeled training and test images."""

    train: ImageSet
    test: ImageSet

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.classes)


class Voting(NamedTuple):
    """How nearest neighbors vote."""

    k: int
    """Number of neighbors."""
    temperature: float
    """Votes are weighted by exp(similarity / temperature)."""


def load_benchmark(
    source: str,
    size: int,
    *,
    device: torch.device | str = "cpu",
    in_memory: bool = False,
    small_images: SmallImages = "auto",
) -> Benchmark:
    """Loads training and test images of ``source`` with their labels, at ``size``×``size`` pixels.

    Args:
        source: a folder with ``train`` and ``test``, or ``digits``, as in :func:`curl_rl.vision.data.load`.
        size: side of the images.
        device: device of the batches.
        in_memory: keep all images in memory, as fine-tuning requires, and refuse them if they do not fit.
        small_images: as in :func:`curl_rl.vision.data.load`.

    Raises:
        UserError: test images or labels are missing, there is only one class, or the images do not fit.
    """
    storage: Literal["memory", "auto"] = "memory" if in_memory else "auto"
    parts = (
        load(source, "train", size, device=device, storage=storage, small_images=small_images),
        load(source, "test", size, device=device, storage=storage, small_images=small_images),
    )
    for part in parts:
        part.required_labels()
    warn_about_unseen_classes(*parts)
    return Benchmark(*parts)


def evaluate_encoder(encoder: Encoder, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Measures test accuracies in [0, 1], keyed by ``config.scores``, except the probe's, which belongs to a run.

    Args:
        encoder: left unchanged. It sees the center of each image, of the size of its training views.
        benchmark: images on the encoder's device.
        config: the protocols.

    Raises:
        ValueError: the data do not suit a protocol, for example fewer images than neighbors.
    """
    found: dict[str, float] = {}
    side = encoder.input_shape[-1]
    if {"knn", "linear"} & set(config.protocols):
        train = encode(encoder, side, benchmark.train)
        test = encode(encoder, side, benchmark.test)
        if "knn" in config.protocols:
            found["knn"] = knn(train, test, benchmark.classes, voting_of(config, KNNConfig(), [benchmark]))
        if "linear" in config.protocols:
            generator = torch.Generator().manual_seed(config.seed)
            result = linear_evaluation(
                *train, *test, classes=benchmark.classes, generator=generator, config=config.linear
            )
            found["linear"] = float(result.accuracy)
    if "fine_tune" in config.protocols:
        for share in config.labels:
            found[f"fine_tune_{100 * share:g}%"] = _fine_tuned(encoder, benchmark, share, config)
    return {name: found[name] for name in config.scores if name in found}


def evaluate_untrained(encoder: Encoder, seed: int, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """:func:`evaluate_encoder` for the same backbone with random weights."""
    return evaluate_encoder(untrained_like(encoder, seed), benchmark, config)


def evaluate_pixels(side: int, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Accuracy of nearest neighbors on the images themselves, minus the mean training image.

    On photographs, which share most of their brightness, this is a stronger baseline than the cosine of raw pixels.
    """
    train = encode(nn.Flatten(), side, benchmark.train)
    test = encode(nn.Flatten(), side, benchmark.test)
    mean = train.features.float().mean(0)
    centered = [part._replace(features=part.features.float() - mean) for part in (train, test)]
    return {"knn": knn(centered[0], centered[1], benchmark.classes, voting_of(config, KNNConfig(), [benchmark]))}


def untrained_like(encoder: Encoder, seed: int) -> Encoder:
    """Returns the same backbone with new random weights, in evaluation mode and without gradients.

    Its batch norm is the identity, as initialized. With the images' statistics it would be far easier to beat.
    """
    return encoder.fresh(seed).requires_grad_(False).eval()


class Encoded(NamedTuple):
    """Encoded images with their labels."""

    features: Tensor
    """``(N, D)``."""
    labels: Tensor
    """``(N,)``."""


@torch.no_grad()
def encode(network: nn.Module, side: int, images: ImageSet) -> Encoded:
    """Encodes the center crops, of this side, of all readable images in evaluation mode."""
    training = network.training
    network.eval()
    features, labels = [], []
    try:
        batches = images.batches(_BATCH, shuffle=False, drop_last=False)
        total = images.batches_per_epoch(_BATCH, drop_last=False)
        for batch in tqdm(
            batches, desc=f"encoding {images.name}", total=total, unit="batch", disable=None, leave=False
        ):
            assert batch.labels is not None
            features.append(network(center_crop(batch.images, side)))
            labels.append(batch.labels)
    finally:
        network.train(training)
    return Encoded(torch.cat(features), torch.cat(labels))


def knn(train: Encoded, test: Encoded, classes: int, voting: Voting) -> float:
    """Share of the test images that their nearest neighbors classify correctly."""
    return float(knn_accuracy(*train, *test, classes=classes, k=voting.k, temperature=voting.temperature))


def voting_of(config: EvaluationConfig, usual: KNNConfig, benchmarks: Iterable[Benchmark]) -> Voting:
    """The voting set by ``config``, by default ``usual`` with k limited to the smallest training set."""
    k = min(usual.k, *(len(benchmark.train) for benchmark in benchmarks)) if config.k is None else config.k
    return Voting(k, usual.temperature if config.temperature is None else config.temperature)


def _fine_tuned(encoder: Encoder, benchmark: Benchmark, share: float, config: EvaluationConfig) -> float:
    chosen = balanced_subset(benchmark.train.required_labels(), share, seed=0)
    train, test = benchmark.train.everything(), benchmark.test.everything()
    assert train.labels is not None
    assert test.labels is not None
    result = fine_tune(
        encoder,
        train.images[chosen],
        train.labels[chosen],
        test.images,
        test.labels,
        classes=benchmark.classes,
        generator=torch.Generator(next(encoder.parameters()).device).manual_seed(config.seed),
        config=fine_tuning(share, config.crops or Crops()),
        size=encoder.input_shape[-1],
    )
    return float(result.accuracy)
