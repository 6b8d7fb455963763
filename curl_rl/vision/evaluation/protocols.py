"""The field's protocols: how good an encoder is on labelled images.

Nearest neighbours, linear evaluation and fine-tuning on a few per cent of the labels, of a trained backbone, of the
same untrained, and, as far as they can be, of the raw pixels. The test set chooses nothing.
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
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.evaluation.finetuning import Crops, fine_tune, fine_tuning
from curl_rl.vision.evaluation.knn import knn_accuracy
from curl_rl.vision.evaluation.linear_probe import LinearProbeConfig, linear_evaluation

Protocol = Literal["knn", "probe", "linear", "fine_tune"]

_SOME_PROTOCOLS = one_or_more(one_of(*get_args(Protocol)), "be some of knn, probe, linear and fine_tune")
_SHARES = one_or_more(within("(0, 1]"), "be shares above 0 and at most 1")

_BATCH = 512  # images that are encoded at a time


@dataclass(frozen=True)
class EvaluationConfig:
    """Which protocols judge an encoder, and how."""

    protocols: Annotated[tuple[Protocol, ...], _SOME_PROTOCOLS] = ("knn", "linear")
    """knn: weighted nearest neighbours. probe: the linear classifier that learnt beside the run. linear: logistic
    regression on frozen features. fine_tune: the whole network learns from some of the labels."""
    k: Annotated[int | None, at_least(1)] = None
    """Neighbours that vote. [default: the run's own knn.k, or all images where there are fewer]"""
    temperature: Annotated[float | None, positive_finite] = None
    """Of their votes. [default: the run's own knn.temperature]"""
    labels: Annotated[tuple[float, ...], _SHARES] = (0.01, 0.1)
    """Shares of the training set's labels to fine-tune on, the same number from each class (1 takes all), each in a
    training of its own."""
    seed: Annotated[int, SEED] = 0
    """Of the linear evaluation's held-out part, and of the order and the crops in fine-tuning. Which labels
    fine-tuning is given depends on no seed."""
    crops: Crops | None = None
    """Of fine-tuning. [default: the run's own views]"""
    linear: LinearProbeConfig = field(default_factory=LinearProbeConfig)
    """Regularisations that linear evaluation tries."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def scores(self) -> list[str]:
        """Names of what is measured, in this order."""
        fine_tuned = [f"fine_tune_{100 * share:g}%" for share in self.labels]
        return [name for protocol in self.protocols for name in (fine_tuned if protocol == "fine_tune" else [protocol])]


class Benchmark(NamedTuple):
    """Labelled images to learn from and to be tested on."""

    train: ImageSet
    test: ImageSet

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.train.classes)


class Voting(NamedTuple):
    """How nearest neighbours vote."""

    k: int
    """How many."""
    temperature: float
    """By similarity over this, exponentially weighted."""


def load_benchmark(source: str, size: int, *, device: torch.device | str = "cpu", in_memory: bool = False) -> Benchmark:
    """Training and test images of ``source`` with their labels, at ``size``×``size`` pixels.

    Args:
        source: a folder with ``train`` and ``test``, or ``digits``, as in :func:`curl_rl.vision.data.load`.
        size: side of the images.
        device: where batches are given.
        in_memory: all images are held, as fine-tuning needs them, or are refused if they do not fit.

    Raises:
        UserError: no test images, labels missing, one class alone, or images that do not fit.
    """
    storage: Literal["memory", "auto"] = "memory" if in_memory else "auto"
    parts = (
        load(source, "train", size, device=device, storage=storage),
        load(source, "test", size, device=device, storage=storage),
    )
    for part in parts:
        part.required_labels()
    warn_about_unseen_classes(*parts)
    return Benchmark(*parts)


def evaluate_encoder(encoder: Encoder, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Test accuracies in [0, 1], by the names of ``config.scores``; the probe's is not an encoder's, and left out.

    Args:
        encoder: left as it was. It sees the middle of each image, as large as the views of its training.
        benchmark: on the encoder's device.
        config: which protocols.

    Raises:
        ValueError: the data do not suit a protocol: more neighbours than images, say.
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
    """What :func:`evaluate_encoder` finds of the same backbone with random weights."""
    return evaluate_encoder(untrained_like(encoder, seed), benchmark, config)


def evaluate_pixels(side: int, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Accuracy of nearest neighbours among the images themselves, each less the training images' mean.

    On photographs, which share most of their brightness, that is a stronger baseline than the cosine of plain pixels.
    """
    train = encode(nn.Flatten(), side, benchmark.train)
    test = encode(nn.Flatten(), side, benchmark.test)
    mean = train.features.float().mean(0)
    centered = [part._replace(features=part.features.float() - mean) for part in (train, test)]
    return {"knn": knn(centered[0], centered[1], benchmark.classes, voting_of(config, KNNConfig(), [benchmark]))}


def untrained_like(encoder: Encoder, seed: int) -> Encoder:
    """The same backbone with new random weights, in evaluation mode and without gradients.

    Its batch norm is as initialised, the identity. With the statistics of the images, it would be far easier to beat.
    """
    return encoder.fresh(seed).requires_grad_(False).eval()


class Encoded(NamedTuple):
    """Images as an encoder sees them."""

    features: Tensor
    """``(N, D)``."""
    labels: Tensor
    """``(N,)``."""


@torch.no_grad()
def encode(network: nn.Module, side: int, images: ImageSet) -> Encoded:
    """Features in evaluation mode and labels of the images that can be read, of each its middle of this side."""
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
    """Share of the test images on which their nearest neighbours are right."""
    return float(knn_accuracy(*train, *test, classes=classes, k=voting.k, temperature=voting.temperature))


def voting_of(config: EvaluationConfig, usual: KNNConfig, benchmarks: Iterable[Benchmark]) -> Voting:
    """What ``config`` says or, where it says nothing, ``usual``, with no more neighbours than any of the sets has."""
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
