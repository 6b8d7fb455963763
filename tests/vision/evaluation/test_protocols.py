"""The protocols: votes counted in a loop, numbers computed by hand, the same few labels for every encoder."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet
from curl_rl.vision.data.image_sets import ResidentImages
from curl_rl.vision.evaluation import protocols
from curl_rl.vision.evaluation.finetuning import Classifier, Crops, SupervisedConfig, TrainedClassifier
from curl_rl.vision.evaluation.linear_probe import LinearEvaluation, LinearProbeConfig, linear_evaluation
from curl_rl.vision.evaluation.protocols import (
    Benchmark,
    EvaluationConfig,
    evaluate_encoder,
    evaluate_pixels,
    evaluate_untrained,
    untrained_like,
)
from helpers.small_resnet import resnet

KNN = EvaluationConfig(protocols=("knn",), k=5, temperature=0.2)
QUICK = LinearProbeConfig(l2_count=3)


def images(count: int, seed: int, side: int = 10, classes: int = 3) -> ResidentImages:
    """Noise, slightly brighter from class to class, so that some images are recognized but not all."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 170, (count, 3, side, side), generator=generator) + 40 * labels.view(-1, 1, 1, 1)
    return ResidentImages(f"noise {seed}", pixels.to(torch.uint8), tuple("abc"[:classes]), labels)


@pytest.fixture
def benchmark() -> Benchmark:
    return Benchmark(images(40, seed=1), images(30, seed=2))


def counted_votes(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int, temperature: float
) -> float:
    """kNN by loops."""
    right = 0
    for query, label in zip(test.double(), test_labels.tolist(), strict=True):
        similar = [
            (float(query @ key / (query.norm() * key.norm())), other)
            for key, other in zip(train.double(), train_labels.tolist(), strict=True)
        ]
        votes = {0: 0.0, 1: 0.0, 2: 0.0}
        for similarity, other in sorted(similar, reverse=True)[:k]:
            votes[other] += math.exp(similarity / temperature)
        right += max(votes, key=votes.__getitem__) == label
    return right / len(test)


def vectors(encoder: torch.nn.Module, images: ResidentImages) -> Tensor:
    """Features of the middle 8×8 of 10×10 pixels."""
    with torch.no_grad():
        features: Tensor = encoder(images.images[:, :, 1:9, 1:9])
    return features


def test_nearest_neighbors_among_the_features_of_the_middle(benchmark: Benchmark) -> None:
    encoder = resnet()
    train, test = (part for part in benchmark)
    assert isinstance(train, ResidentImages)
    assert isinstance(test, ResidentImages)
    assert train.labels is not None
    assert test.labels is not None
    expected = counted_votes(vectors(encoder, train), train.labels, vectors(encoder, test), test.labels, 5, 0.2)
    assert 0.34 < expected < 1
    assert evaluate_encoder(encoder, benchmark, KNN) == {"knn": pytest.approx(expected)}


def test_encoders_are_evaluated_in_evaluation_mode(benchmark: Benchmark) -> None:
    encoder = resnet().train()
    before = copy.deepcopy(encoder.state_dict())
    assert evaluate_encoder(encoder, benchmark, KNN) == evaluate_encoder(resnet(), benchmark, KNN)
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_nearest_neighbors_on_pixels_minus_their_mean(benchmark: Benchmark) -> None:
    train, test = (part.images[:, :, 1:9, 1:9].flatten(1).double() for part in benchmark)  # type: ignore[attr-defined]
    mean = train.mean(0)
    labels, test_labels = benchmark.train.required_labels(), benchmark.test.required_labels()
    expected = counted_votes(train - mean, labels, test - mean, test_labels, 5, 0.2)
    assert expected != counted_votes(train, labels, test, test_labels, 5, 0.2), "the mean must matter"
    assert evaluate_pixels(8, benchmark, KNN) == {"knn": pytest.approx(expected)}


def test_linear_evaluation_uses_the_features(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noted(*given: Any, generator: torch.Generator, **named: Any) -> LinearEvaluation:
        seeds.append(generator.initial_seed())
        return linear_evaluation(*given, generator=generator, **named)

    monkeypatch.setattr(protocols, "linear_evaluation", noted)
    encoder = resnet()
    train, test = benchmark
    expected = linear_evaluation(
        vectors(encoder, train),  # type: ignore[arg-type]
        train.required_labels(),
        vectors(encoder, test),  # type: ignore[arg-type]
        test.required_labels(),
        classes=3,
        generator=torch.Generator().manual_seed(4),
        config=QUICK,
    )
    config = EvaluationConfig(protocols=("linear",), seed=4, linear=QUICK)
    assert evaluate_encoder(encoder, benchmark, config) == {"linear": pytest.approx(float(expected.accuracy))}
    assert seeds == [4]


def test_fine_tuning_is_given_the_same_few_labels_of_each_class(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def fake(*given: Any, **named: Any) -> TrainedClassifier:
        calls.append((given, named))
        classifier = Classifier(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(1, 1))
        return TrainedClassifier(classifier, torch.tensor(0.25 * len(calls)))

    monkeypatch.setattr(protocols, "fine_tune", fake)
    encoder = resnet()
    for seed in (0, 7):
        config = EvaluationConfig(protocols=("fine_tune",), labels=(0.09, 0.3, 1.0), seed=seed)
        found = evaluate_encoder(encoder, benchmark, config)
    assert found == {"fine_tune_9%": 1.0, "fine_tune_30%": 1.25, "fine_tune_100%": 1.5}
    assert [len(given[1]) for given, _ in calls] == [3, 12, 40, 3, 12, 40]  # 40 images: 14, 13 and 13 of a class
    for (given, named), (other, _) in zip(calls[:3], calls[3:], strict=True):
        assert given[0] is encoder
        # Whole images, so that random crops reach the borders; the network sees the size of its pretraining views.
        assert given[1].shape[1:] == (3, 10, 10)
        assert given[3].shape == (30, 3, 10, 10)
        assert named["size"] == 8
        counts = given[2].bincount().tolist()
        assert len(set(counts)) == 1 or counts == [14, 13, 13], "as many of each class, or all there are"
        assert torch.equal(given[1], other[1]), "the choice of labels does not depend on the seed"
        assert named["classes"] == 3
    assert [named["config"].epochs for _, named in calls[:3]] == [60, 30, 30]
    assert {(named["config"].crop_scale, named["config"].mirror) for _, named in calls} == {(0.08, 0.5)}
    evaluate_encoder(encoder, benchmark, dataclasses.replace(config, crops=Crops(0.4, 0.0)))
    assert {(named["config"].crop_scale, named["config"].mirror) for _, named in calls[6:]} == {(0.4, 0.0)}
    assert [named["generator"].initial_seed() for _, named in calls[:6]] == [0, 0, 0, 7, 7, 7]


def test_fine_tuning_learns_from_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright and dark images, which any encoder can learn to distinguish."""
    monkeypatch.setattr(protocols, "fine_tuning", lambda *_: SupervisedConfig(30, batch_size=8))
    parts = []
    for seed in (1, 2):
        labels = torch.arange(24) % 2
        noise = torch.randint(0, 50, (24, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
        pixels = (noise + 200 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
        parts.append(ResidentImages("light", pixels, ("dark", "bright"), labels))
    config = EvaluationConfig(protocols=("fine_tune",), labels=(0.5,))
    assert evaluate_encoder(resnet(), Benchmark(*parts), config)["fine_tune_50%"] > 0.9


def test_an_untrained_backbone_is_new_and_determined_by_its_seed() -> None:
    encoder = resnet()
    before, random = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    one, again, other = (untrained_like(encoder, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert isinstance(one, ResNet)
    assert isinstance(other, ResNet)
    assert not torch.equal(one.conv1.weight, encoder.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())
    assert not torch.equal(one.conv1.weight, resnet(6).conv1.weight)
    assert torch.equal(one.conv1.weight, resnet(5).conv1.weight)


def test_the_agents_encoder_can_be_evaluated(benchmark: Benchmark) -> None:
    config = EncoderConfig(filters=4, strides=(2, 1), latent=5)
    torch.manual_seed(3)
    encoder = PixelEncoder((3, 8, 8), config)
    found = evaluate_encoder(encoder, benchmark, KNN)
    torch.manual_seed(0)  # the seed 3 below must not be this one's
    assert evaluate_untrained(encoder, 3, benchmark, KNN) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ()}, "protocols must be some of knn, probe, linear and fine_tune, got []"),
        ({"protocols": ("magic",)}, "protocols must be some of knn, probe, linear and fine_tune, got ['magic']"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": float("inf")}, "temperature must be positive and finite, got inf"),
        ({"seed": 2**32}, "seed must be 0 or more and below 2**32, got 4294967296"),
        ({"labels": (0.1, 1.5)}, "labels must be shares above 0 and at most 1, got [0.1, 1.5]"),
        ({"seed": -1}, "seed must be 0 or more and below 2**32, got -1"),
    ],
)
def test_settings_that_mean_nothing(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below, without a pattern's escapes)
        EvaluationConfig(**changes)
    assert str(error.value) == message
