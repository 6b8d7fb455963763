"""How good a pretrained encoder is, by the field's protocols; one row of a table for runs that differ in seeds alone.

Nearest neighbours, linear evaluation and fine-tuning on a few per cent of the labels, on the data of the pretraining or
on others (transfer), beside the same backbone untrained and the raw pixels. It is always the encoder of the last epoch
that is judged; the test set chooses nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from curl_rl.augment import center_crop
from curl_rl.encoders import PixelEncoder
from curl_rl.errors import UserError
from curl_rl.export import load_encoder
from curl_rl.resnet import ResNet
from curl_rl.run_directory import CONFIG
from curl_rl.seeds import check_seed
from curl_rl.settings import read_yaml
from curl_rl.vision.config import SCHEMA, KNNConfig, VisionConfig, load_preset, read_config
from curl_rl.vision.data import balanced_subset, load, say_what_cannot_be_learnt
from curl_rl.vision.finetuning import SupervisedConfig, fine_tune, usual_epochs
from curl_rl.vision.image_sets import ImageSet
from curl_rl.vision.knn import knn_accuracy
from curl_rl.vision.learner import Backbone
from curl_rl.vision.linear_probe import LinearProbeConfig, linear_evaluation

Protocol = Literal["knn", "linear", "fine_tune"]

_BATCH = 512  # images that are encoded at a time


@dataclass(frozen=True)
class EvaluationConfig:
    """Which protocols judge an encoder, and how."""

    protocols: tuple[Protocol, ...] = ("knn", "linear")
    """knn: weighted nearest neighbours. linear: logistic regression on frozen features. fine_tune: the whole network
    learns from some of the labels."""
    k: int | None = None
    """Neighbours that vote. [default: the run's own knn.k, or all images where there are fewer]"""
    temperature: float | None = None
    """Of their votes. [default: the run's own knn.temperature]"""
    labels: tuple[float, ...] = (0.01, 0.1)
    """Shares of the training set's labels to fine-tune on, the same number from each class (1 takes all), each in a
    training of its own."""
    seed: int = 0
    """Of the linear evaluation's held-out part, and of the order and the crops in fine-tuning. Which labels
    fine-tuning is given depends on no seed."""
    linear: LinearProbeConfig = field(default_factory=LinearProbeConfig)
    """Regularisations that linear evaluation tries."""

    def __post_init__(self) -> None:
        unknown = set(self.protocols) - {"knn", "linear", "fine_tune"}
        if unknown or not self.protocols:
            raise ValueError(f"protocols must be some of knn, linear and fine_tune, got {list(self.protocols)}")
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if not self.labels or not all(0 < share <= 1 for share in self.labels):
            raise ValueError(f"labels must be shares above 0 and at most 1, got {list(self.labels)}")
        check_seed(self.seed)

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


class JudgedOn(NamedTuple):
    """Labelled images, as a table's reader may want to know them."""

    source: str
    """As it was named: a folder, or digits."""
    image_size: int
    """Side of the images, in pixels."""
    train_images: int
    """How many there are to learn from."""
    test_images: int
    """How many to be tested on."""


@dataclass(frozen=True)
class Row:
    """One row of a table: what several runs that differ in their seeds alone have scored."""

    name: str
    """Method, preset and what differs from the preset; or which baseline."""
    runs: tuple[str, ...]
    """Their directories; of a baseline, none."""
    seeds: tuple[int, ...]
    """Theirs, in the same order; of the raw pixels, none."""
    scores: dict[str, tuple[float, ...]]
    """By name, the accuracy of each in [0, 1]."""
    voting: Voting | None = None
    """Of its nearest neighbours; None where they were not asked."""
    data: tuple[JudgedOn, ...] = ()
    """What all rows of its table were judged on."""

    def mean(self, score: str) -> float:
        """Over the runs."""
        return fmean(self.scores[score])

    def spread(self, score: str) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        values = self.scores[score]
        return stdev(values) if len(values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every run's score, mean and standard deviation."""
        summary = {
            name: {"mean": self.mean(name), "std": self.spread(name), "each": list(values)}
            for name, values in self.scores.items()
        }
        return {"name": self.name, "runs": list(self.runs), "seeds": list(self.seeds), "scores": summary}


# ------------------------------------------------------------------------ one network


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
    say_what_cannot_be_learnt(*parts)
    return Benchmark(*parts)


def evaluate_encoder(encoder: Backbone, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Test accuracies in [0, 1], by the names of ``config.scores``.

    Args:
        encoder: left as it was. It sees the middle of each image, as large as the views of its training.
        benchmark: on the encoder's device.
        config: which protocols.

    Raises:
        ValueError: the data do not suit a protocol: more neighbours than images, say.
    """
    found: dict[str, float] = {}
    side = side_of(encoder)
    if {"knn", "linear"} & set(config.protocols):
        train = _encoded(encoder, side, benchmark.train)
        test = _encoded(encoder, side, benchmark.test)
        if "knn" in config.protocols:
            found["knn"] = _knn(train, test, benchmark.classes, _voting(config, KNNConfig(), [benchmark]))
        if "linear" in config.protocols:
            generator = torch.Generator().manual_seed(config.seed)
            result = linear_evaluation(
                *train, *test, classes=benchmark.classes, generator=generator, config=config.linear
            )
            found["linear"] = float(result.accuracy)
    if "fine_tune" in config.protocols:
        for share in config.labels:
            found[f"fine_tune_{100 * share:g}%"] = _fine_tuned(encoder, benchmark, share, config.seed)
    return {name: found[name] for name in config.scores}


def evaluate_untrained(
    encoder: Backbone, seed: int, benchmark: Benchmark, config: EvaluationConfig
) -> dict[str, float]:
    """What :func:`evaluate_encoder` finds of the same backbone with random weights."""
    return evaluate_encoder(untrained_like(encoder, seed), benchmark, config)


def evaluate_pixels(side: int, benchmark: Benchmark, config: EvaluationConfig) -> dict[str, float]:
    """Accuracy of nearest neighbours among the images themselves, each less the training images' mean.

    On photographs, which share most of their brightness, that is a stronger baseline than the cosine of plain pixels.
    """
    train = _encoded(nn.Flatten(), side, benchmark.train)
    test = _encoded(nn.Flatten(), side, benchmark.test)
    mean = train.features.float().mean(0)
    centred = [part._replace(features=part.features.float() - mean) for part in (train, test)]
    return {"knn": _knn(centred[0], centred[1], benchmark.classes, _voting(config, KNNConfig(), [benchmark]))}


def untrained_like(encoder: Backbone, seed: int) -> Backbone:
    """The same backbone with new random weights, in evaluation mode and without gradients.

    Its batch norm is as initialised, the identity. With the statistics of the images, it would be far easier to beat.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = (
            PixelEncoder(encoder.observation_shape, encoder.config)
            if isinstance(encoder, PixelEncoder)
            else ResNet(encoder.image_shape, encoder.config)
        )
    return fresh.to(next(encoder.parameters()).device).requires_grad_(False).eval()


def side_of(encoder: Backbone) -> int:
    """Side in pixels of the views that an encoder was made for."""
    return (encoder.observation_shape if isinstance(encoder, PixelEncoder) else encoder.image_shape)[1]


class _Encoded(NamedTuple):
    features: Tensor
    labels: Tensor


@torch.no_grad()
def _encoded(network: nn.Module, side: int, images: ImageSet) -> _Encoded:
    """``(N, D)`` features in evaluation mode and ``(N,)`` labels of the images that can be read."""
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
    return _Encoded(torch.cat(features), torch.cat(labels))


def _knn(train: _Encoded, test: _Encoded, classes: int, voting: Voting) -> float:
    return float(knn_accuracy(*train, *test, classes=classes, k=voting.k, temperature=voting.temperature))


def _voting(config: EvaluationConfig, usual: KNNConfig, benchmarks: Iterable[Benchmark]) -> Voting:
    """What ``config`` says or, where it says nothing, ``usual``, with no more neighbours than any of the sets has."""
    k = min(usual.k, *(len(benchmark.train) for benchmark in benchmarks)) if config.k is None else config.k
    return Voting(k, usual.temperature if config.temperature is None else config.temperature)


def _common_voting(config: EvaluationConfig, runs: Sequence[Run], benchmarks: Iterable[Benchmark]) -> Voting:
    """That of all runs.

    Raises:
        UserError: their own settings differ, and ``config`` does not say.
    """
    for name in ("k", "temperature"):
        found = sorted({getattr(run.config.knn, name) for run in runs})
        if getattr(config, name) is None and len(found) > 1:
            values = " and ".join(f"{value:g}" for value in found)
            raise UserError(
                f"the runs' knn.{name} are {values}, and a table compares by one: say --{name} {found[0]:g}"
            )
    return _voting(config, runs[0].config.knn, benchmarks)


def _fine_tuned(encoder: Backbone, benchmark: Benchmark, share: float, seed: int) -> float:
    settings = SupervisedConfig(epochs=usual_epochs(share))
    device, side = next(encoder.parameters()).device, side_of(encoder)
    chosen = balanced_subset(benchmark.train.required_labels(), share, seed=0)
    images, labels = _held(benchmark.train, side)
    result = fine_tune(
        encoder,
        images[chosen],
        labels[chosen],
        *_held(benchmark.test, side),
        classes=benchmark.classes,
        generator=torch.Generator(device).manual_seed(seed),
        config=settings,
    )
    return float(result.accuracy)


def _held(images: ImageSet, side: int) -> tuple[Tensor, Tensor]:
    """All images of a set that lies in memory, and their labels."""
    (batch,) = images.batches(len(images), shuffle=False)
    assert batch.labels is not None
    return center_crop(batch.images, side), batch.labels


# ------------------------------------------------------------------------ runs


def evaluate_runs(
    directories: Sequence[Path],
    config: EvaluationConfig = EvaluationConfig(),
    *,
    data: str | None = None,
    transfer: str | None = None,
    untrained: bool = False,
    raw_pixels: bool = False,
    device: torch.device | str = "cpu",
) -> list[Row]:
    """A row for each kind of run, and for the baselines.

    Args:
        directories: of runs. Those whose settings differ in nothing but the seed share a row.
        config: which protocols.
        data: what to judge on; None, what each run was trained on.
        transfer: other labelled data, on which the same protocols judge as well; their scores are called
            ``transfer_knn`` and so on.
        untrained: adds the runs' backbones with random weights, drawn by the runs' seeds.
        raw_pixels: adds the nearest neighbours of the images themselves.
        device: where to compute.

    Raises:
        ValueError: a directory holds no run of a pretraining, or one without an encoder; two runs are of one kind and
            seed; no k is given, and the runs' own differ; or as in the functions above.
    """
    # All of them are read before minutes go by on the first.
    runs = [read_run(directory, device) for directory in directories]
    benchmarks: dict[tuple[str, int], Benchmark] = {}
    for run in runs:
        for source in filter(None, (data or run.config.data, transfer)):
            if (source, run.image_size) not in benchmarks:
                benchmarks[source, run.image_size] = load_benchmark(
                    source, run.image_size, device=device, in_memory="fine_tune" in config.protocols
                )
    voting: Voting | None = None
    if "knn" in config.protocols or raw_pixels:
        voting = _common_voting(config, runs, benchmarks.values())
        config = dataclasses.replace(config, k=voting.k, temperature=voting.temperature)

    def judged(run: Run, score: Callable[[Benchmark], dict[str, float]]) -> dict[str, float]:
        scores = score(benchmarks[data or run.config.data, run.image_size])
        if transfer:
            moved = score(benchmarks[transfer, run.image_size])
            scores |= {f"transfer_{name}": value for name, value in moved.items()}
        return scores

    several = data is None and len({run.config.data for run in runs}) > 1
    judged_on = tuple(
        JudgedOn(source, size, len(images.train), len(images.test)) for (source, size), images in benchmarks.items()
    )
    trained, baselines = _Rows(voting, judged_on), _Rows(voting, judged_on)
    for run in runs:
        on, seed = f", {run.config.data}" if several else "", run.config.seed
        kind = run.kind() + on
        if trained.has(kind, seed):
            raise UserError(f"{run.directory} is a second run of {kind}, seed {seed}: name fewer directories")
        scores = judged(run, partial(evaluate_encoder, run.encoder, config=config))
        trained.add(kind, seed, scores, str(run.directory))
        if untrained and not baselines.has(f"untrained {run.backbone}{on}", seed):
            scores = judged(run, partial(evaluate_untrained, run.encoder, seed, config=config))
            baselines.add(f"untrained {run.backbone}{on}", seed, scores)
        if raw_pixels and not baselines.has(f"raw pixels{on}", None):
            scores = judged(run, partial(evaluate_pixels, side_of(run.encoder), config=config))
            baselines.add(f"raw pixels{on}", None, scores)
    return trained.rows() + baselines.rows()


def table(rows: Sequence[Row], config: EvaluationConfig) -> str:
    """The rows as a Markdown table, accuracies in per cent, under a line that says what was measured how."""
    columns = list(dict.fromkeys(name for row in rows for name in row.scores))
    voting = rows[0].voting
    ways = {
        "knn": "kNN" if voting is None else f"kNN with k {voting.k} and temperature {voting.temperature:g}",
        "linear": "linear evaluation",
        "fine_tune": "fine-tuning on a share of the labels",
    }
    heading = f"Top-1 in %, last epoch: {', '.join(ways[protocol] for protocol in config.protocols)}."
    lines = [["", "seeds", *columns], ["---", *["---:"] * (1 + len(columns))]]
    lines += [[row.name, str(len(row.seeds) or "–"), *(_cell(row, name) for name in columns)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([heading, "", *texts])


def report(rows: Sequence[Row], config: EvaluationConfig) -> dict[str, Any]:
    """The same for JSON: the protocols' settings, the data, and every score of every run."""
    used = {} if rows[0].voting is None else rows[0].voting._asdict()
    return {
        "protocols": dataclasses.asdict(config) | used,
        "data": [data._asdict() for data in rows[0].data],
        "rows": [row.as_dict() for row in rows],
    }


def _cell(row: Row, score: str) -> str:
    if score not in row.scores:
        return "–"
    spread = row.spread(score)
    return f"{100 * row.mean(score):.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


@dataclass(frozen=True)
class Run:
    """A run of pretraining as it lies on the disk."""

    directory: Path
    config: VisionConfig
    encoder: Backbone
    image_size: int
    epochs: float
    """Those that the encoder was trained for, by now."""

    def kind(self) -> str:
        """Method, preset, and every setting in which the run differs from them, but for the seed and the data.

        A run that has not come to its end says so.
        """
        preset = load_preset(self.config.preset, self.config.method)
        preset = dataclasses.replace(preset, seed=self.config.seed, data=self.config.data)
        changed = SCHEMA.changed_fields(preset, self.config)
        parts = [f"{self.config.method} {self.config.preset}"]
        parts += [f"{name} {value}" for name, (_, value) in changed.items()]
        if self.epochs < self.config.epochs:
            parts.append(f"unfinished after {self.epochs:.3g} of {self.config.epochs} epochs")
        return ", ".join(parts)

    @property
    def backbone(self) -> str:
        """Kind and size of the network."""
        if isinstance(self.encoder, PixelEncoder):
            return f"PixelEncoder, {len(self.encoder.config.strides)} layers of {self.encoder.config.filters}"
        width = self.encoder.config.width
        return f"ResNet-{self.encoder.config.depth}" + (f", width {width:g}" if width != 1 else "")


def read_run(directory: Path, device: torch.device | str) -> Run:
    """The run in ``directory``, its encoder on ``device``.

    Raises:
        ValueError: there is none, or none with an encoder.
    """
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is no run: it has no {CONFIG}")
    if "method" not in read_yaml(directory / CONFIG):
        raise UserError(f"{directory} is no run of pretrain_vision.py: its {CONFIG} names no method")
    config, pretrained = read_config(directory / CONFIG), load_encoder(directory)
    epochs = float(pretrained.provenance.get("epochs", config.epochs))
    return Run(directory, config, pretrained.encoder.to(device), pretrained.rendered_size, epochs)


class _Rows:
    """Rows in the making."""

    def __init__(self, voting: Voting | None, data: tuple[JudgedOn, ...]) -> None:
        self._voting, self._data = voting, data
        self._found: dict[str, list[tuple[int | None, dict[str, float], str | None]]] = {}

    def has(self, name: str, seed: int | None) -> bool:
        return any(seed == other for other, _, _ in self._found.get(name, []))

    def add(self, name: str, seed: int | None, scores: dict[str, float], run: str | None = None) -> None:
        self._found.setdefault(name, []).append((seed, scores, run))

    def rows(self) -> list[Row]:
        return [
            Row(
                name,
                tuple(run for _, _, run in found if run is not None),
                tuple(seed for seed, _, _ in found if seed is not None),
                {score: tuple(scores[score] for _, scores, _ in found) for score in found[0][1]},
                self._voting,
                self._data,
            )
            for name, found in self._found.items()
        ]
