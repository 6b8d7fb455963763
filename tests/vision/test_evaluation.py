"""Judging encoders: votes counted in a loop, numbers worked out by hand, and what may not differ between rows."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.errors import UserError
from curl_rl.export import save_encoder
from curl_rl.resnet import ResNet, ResNetConfig
from curl_rl.vision import config as vision_config
from curl_rl.vision import evaluation
from curl_rl.vision.config import SCHEMA, load_preset
from curl_rl.vision.evaluation import (
    Benchmark,
    EvaluationConfig,
    Row,
    Voting,
    evaluate_encoder,
    evaluate_pixels,
    evaluate_runs,
    evaluate_untrained,
    report,
    table,
    untrained_like,
)
from curl_rl.vision.finetuning import Classifier, SupervisedConfig, TrainedClassifier
from curl_rl.vision.image_sets import ResidentImages
from curl_rl.vision.linear_probe import LinearEvaluation, LinearProbeConfig, linear_evaluation

SMALL = ResNetConfig(width=1 / 16, stem="small")
KNN = EvaluationConfig(protocols=("knn",), k=5, temperature=0.2)
QUICK = LinearProbeConfig(l2_count=3)


def resnet(seed: int = 0, side: int = 8) -> ResNet:
    torch.manual_seed(seed)
    return ResNet((3, side, side), SMALL).eval()


def images(count: int, seed: int, side: int = 10, classes: int = 3) -> ResidentImages:
    """Noise, a little brighter from class to class, so that neither nothing nor all is recognised."""
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


def test_nearest_neighbours_among_the_features_of_the_middle(benchmark: Benchmark) -> None:
    encoder = resnet()
    train, test = (part for part in benchmark)
    assert isinstance(train, ResidentImages)
    assert isinstance(test, ResidentImages)
    assert train.labels is not None
    assert test.labels is not None
    expected = counted_votes(vectors(encoder, train), train.labels, vectors(encoder, test), test.labels, 5, 0.2)
    assert 0.34 < expected < 1
    assert evaluate_encoder(encoder, benchmark, KNN) == {"knn": pytest.approx(expected)}


def test_evaluation_mode_whatever_the_encoders_own(benchmark: Benchmark) -> None:
    encoder = resnet().train()
    before = copy.deepcopy(encoder.state_dict())
    assert evaluate_encoder(encoder, benchmark, KNN) == evaluate_encoder(resnet(), benchmark, KNN)
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_nearest_neighbours_among_pixels_less_their_mean(benchmark: Benchmark) -> None:
    train, test = (part.images[:, :, 1:9, 1:9].flatten(1).double() for part in benchmark)  # type: ignore[attr-defined]
    mean = train.mean(0)
    labels, test_labels = benchmark.train.required_labels(), benchmark.test.required_labels()
    expected = counted_votes(train - mean, labels, test - mean, test_labels, 5, 0.2)
    assert expected != counted_votes(train, labels, test, test_labels, 5, 0.2), "the mean must matter"
    assert evaluate_pixels(8, benchmark, KNN) == {"knn": pytest.approx(expected)}


def test_linear_evaluation_is_that_of_the_features(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noted(*given: Any, generator: torch.Generator, **named: Any) -> LinearEvaluation:
        seeds.append(generator.initial_seed())
        return linear_evaluation(*given, generator=generator, **named)

    monkeypatch.setattr(evaluation, "linear_evaluation", noted)
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

    monkeypatch.setattr(evaluation, "fine_tune", fake)
    encoder = resnet()
    for seed in (0, 7):
        config = EvaluationConfig(protocols=("fine_tune",), labels=(0.09, 0.3, 1.0), seed=seed)
        found = evaluate_encoder(encoder, benchmark, config)
    assert found == {"fine_tune_9%": 1.0, "fine_tune_30%": 1.25, "fine_tune_100%": 1.5}
    assert [len(given[1]) for given, _ in calls] == [3, 12, 40, 3, 12, 40]  # 40 images: 14, 13 and 13 of a class
    for (given, named), (other, _) in zip(calls[:3], calls[3:], strict=True):
        assert given[0] is encoder
        assert given[1].shape[1:] == (3, 8, 8)
        assert given[3].shape == (30, 3, 8, 8)
        counts = given[2].bincount().tolist()
        assert len(set(counts)) == 1 or counts == [14, 13, 13], "as many of each class, or all there are"
        assert torch.equal(given[1], other[1]), "which labels are known depends on no seed"
        assert named["classes"] == 3
    assert [named["config"].epochs for _, named in calls[:3]] == [60, 30, 30]
    assert [named["generator"].initial_seed() for _, named in calls] == [0, 0, 0, 7, 7, 7]


def test_fine_tuning_learns_from_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright and dark images, which any encoder can learn to tell."""
    monkeypatch.setattr(evaluation, "SupervisedConfig", lambda epochs: SupervisedConfig(epochs, batch_size=8))
    parts = []
    for seed in (1, 2):
        labels = torch.arange(24) % 2
        noise = torch.randint(0, 50, (24, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
        pixels = (noise + 200 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
        parts.append(ResidentImages("light", pixels, ("dark", "bright"), labels))
    config = EvaluationConfig(protocols=("fine_tune",), labels=(0.5,))
    assert evaluate_encoder(resnet(), Benchmark(*parts), config)["fine_tune_50%"] > 0.9


def test_an_untrained_backbone_is_new_and_drawn_by_its_seed() -> None:
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


def test_the_agents_encoder_is_judged_as_well(benchmark: Benchmark) -> None:
    config = EncoderConfig(filters=4, strides=(2, 1), latent=5)
    torch.manual_seed(3)
    encoder = PixelEncoder((3, 8, 8), config)
    found = evaluate_encoder(encoder, benchmark, KNN)
    torch.manual_seed(0)  # the seed 3 below must not be this one's
    assert evaluate_untrained(encoder, 3, benchmark, KNN) == found


# ------------------------------------------------------------------------ runs


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of one setting and a table without a rule."""
    directory = tmp_path / "presets"
    directory.mkdir()
    (directory / "tiny.yaml").write_text("epochs: 3\n")
    (directory / "methods.yaml").write_text("rules: []\n")
    monkeypatch.setattr(vision_config, "PRESETS", directory)
    monkeypatch.setattr(vision_config, "METHODS", directory / "methods.yaml")


def write_images(folder: Path, side: int = 8) -> Path:
    """Light and dark, eight of each to learn from and four for testing."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for base, name in ((0, "dark"), (150, "light")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(base, base + 100, (side, side, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def write_run(directory: Path, data: Path, seed: int, epochs: float = 3, **changes: Any) -> Path:
    config = load_preset("tiny", changes.pop("method", "simclr"), {"data": str(data), "seed": seed, **changes})
    directory.mkdir()
    SCHEMA.save(config, directory / "config.yaml")
    save_encoder(resnet(seed), directory, rendered_size=8, provenance={"epochs": epochs})
    return directory


RUNS = EvaluationConfig(protocols=("knn", "linear"), k=3, linear=LinearProbeConfig(l2_count=2, held_out=0.25))


@pytest.mark.usefixtures("presets")
def test_runs_that_differ_in_their_seeds_share_a_row(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    runs = [
        write_run(tmp_path / "one", data, 1),
        write_run(tmp_path / "hot", data, 1, objectives={"simclr": {"temperature": 0.7}}),
        write_run(tmp_path / "two", data, 2, device="cpu"),
        write_run(tmp_path / "byol", data, 1, method="byol"),
    ]
    rows = evaluate_runs(runs, dataclasses.replace(KNN, k=3), untrained=True, raw_pixels=True)
    assert [(row.name, row.seeds) for row in rows] == [
        ("simclr tiny", (1, 2)),
        ("simclr tiny, objectives.simclr.temperature 0.7", (1,)),
        ("byol tiny", (1,)),
        ("untrained ResNet-18, width 0.0625", (1, 2)),
        ("raw pixels", ()),
    ]
    assert rows[0].runs == (str(runs[0]), str(runs[2]))
    assert rows[3].runs == ()
    alone = [evaluate_runs([run], dataclasses.replace(KNN, k=3))[0] for run in (runs[0], runs[2])]
    assert rows[0].scores == {"knn": tuple(row.scores["knn"][0] for row in alone)}


@pytest.mark.usefixtures("presets")
def test_transfer_and_other_data(tmp_path: Path) -> None:
    first, second = write_images(tmp_path / "first"), write_images(tmp_path / "second", side=9)
    for path in sorted(second.rglob("*.png"))[::2]:
        Image.new("RGB", (9, 9)).save(path)  # half of the images are black, whatever their class
    run = write_run(tmp_path / "run", first, 1)
    (row,) = evaluate_runs([run], RUNS, transfer=str(second))
    assert list(row.scores) == ["knn", "linear", "transfer_knn", "transfer_linear"]
    (elsewhere,) = evaluate_runs([run], RUNS, data=str(second))
    assert {f"transfer_{name}": value for name, value in elsewhere.scores.items()}.items() <= row.scores.items()
    assert row.scores["transfer_knn"] != row.scores["knn"]


@pytest.mark.usefixtures("presets")
def test_runs_on_different_data_have_rows_of_their_own(tmp_path: Path) -> None:
    data = [write_images(tmp_path / name) for name in ("first", "second")]
    runs = [write_run(tmp_path / f"run {path.name}", path, 1) for path in data]
    rows = evaluate_runs(runs, KNN, raw_pixels=True)
    assert [row.name for row in rows] == [
        *(f"simclr tiny, {path}" for path in data),
        *(f"raw pixels, {path}" for path in data),
    ]
    with pytest.raises(ValueError, match=r"is a second run of simclr tiny, seed 1: name fewer directories"):
        evaluate_runs(runs, KNN, data=str(data[0]))


@pytest.mark.usefixtures("presets")
def test_a_run_that_has_not_come_to_its_end_has_a_row_that_says_so(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    runs = [write_run(tmp_path / f"{epochs}", data, 1, epochs) for epochs in (3.0, 1.25)]
    rows = evaluate_runs(runs, dataclasses.replace(KNN, k=3))
    assert [row.name for row in rows] == ["simclr tiny", "simclr tiny, unfinished after 1.25 of 3 epochs"]


@pytest.mark.usefixtures("presets")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is no run: it has no config.yaml"),
        (lambda run: (run / "config.yaml").write_text("env: a\n"), "is no run of pretrain_vision.py"),
        (lambda run: (run / "encoder.safetensors").unlink(), "no encoder in .*: encoder.safetensors is missing"),
    ],
)
def test_what_is_no_finished_run_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    run = write_run(tmp_path / "run", write_images(tmp_path / "data"), 1)
    spoil(run)
    with pytest.raises(ValueError, match=message) as error:
        evaluate_runs([run], KNN)
    assert str(run) in str(error.value)


@pytest.mark.usefixtures("presets")
def test_neighbours_vote_as_the_runs_settings_say(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data")
    knn = EvaluationConfig(protocols=("knn",))
    # Sixteen images: of more neighbours than that, all vote.
    run = write_run(tmp_path / "run", data, 1, knn={"k": 3, "temperature": 0.5})
    many = write_run(tmp_path / "many", data, 1, knn={"k": 200})
    (row,) = evaluate_runs([run], knn)
    assert row.voting == (3, 0.5)
    assert row.scores == evaluate_runs([run], dataclasses.replace(knn, k=3, temperature=0.5))[0].scores
    assert evaluate_runs([many], knn)[0].voting == (16, 0.1)
    assert evaluate_runs([run], dataclasses.replace(knn, k=5))[0].voting == (5, 0.5)
    with pytest.raises(UserError, match=r"knn.k are 3 and 200, and a table compares by one: say --k 3"):
        evaluate_runs([run, many], knn)


# ------------------------------------------------------------------------ the table


ROWS = [
    Row(
        "simclr cpu",
        ("a", "b", "c"),
        (1, 2, 3),
        {"knn": (0.5, 0.6, 0.7), "linear": (0.75, 0.75, 0.75)},
        Voting(20, 0.07),
    ),
    Row("raw pixels", (), (), {"knn": (0.345,)}, Voting(20, 0.07)),
]


def test_mean_and_sample_standard_deviation() -> None:
    assert ROWS[0].mean("knn") == pytest.approx(0.6)
    assert ROWS[0].spread("knn") == pytest.approx(0.1)  # √((0.01 + 0 + 0.01) / 2)
    assert ROWS[1].spread("knn") is None


def test_the_table_is_markdown_in_per_cent() -> None:
    assert table(ROWS, EvaluationConfig()).splitlines() == [
        "Top-1 in %, last epoch: kNN with k 20 and temperature 0.07, linear evaluation.",
        "",
        "|            | seeds | knn           | linear       |",
        "| ---        | ---:  | ---:          | ---:         |",
        "| simclr cpu | 3     | 60.00 ± 10.00 | 75.00 ± 0.00 |",
        "| raw pixels | –     | 34.50         | –            |",
    ]


def test_the_report_holds_every_score_and_setting() -> None:
    config = EvaluationConfig(seed=3)
    written = report(ROWS, config)
    assert written["protocols"] == dataclasses.asdict(config) | {"k": 20, "temperature": 0.07}
    assert written["rows"][0]["seeds"] == [1, 2, 3]
    assert written["rows"][0]["scores"]["linear"] == {"mean": 0.75, "std": 0.0, "each": [0.75, 0.75, 0.75]}
    assert written["rows"][1]["scores"] == {"knn": {"mean": 0.345, "std": None, "each": [0.345]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ()}, "protocols must be some of knn, linear and fine_tune, got []"),
        ({"protocols": ("magic",)}, "protocols must be some of knn, linear and fine_tune, got ['magic']"),
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
