"""Compares pretraining runs in a table, with one row for runs that differ only in their seeds.

Encoders are evaluated on the data of their pretraining or on other data (transfer), next to the same backbone untrained
and the raw pixels, always as they are after the last epoch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch

from curl_rl.runs.console import printable, say
from curl_rl.runs.errors import UserError
from curl_rl.vision.data.image_sets import SmallImages
from curl_rl.vision.evaluation.finetuning import Crops
from curl_rl.vision.evaluation.protocols import (
    Benchmark,
    EvaluationConfig,
    Voting,
    evaluate_encoder,
    evaluate_pixels,
    evaluate_untrained,
    load_benchmark,
    voting_of,
)
from curl_rl.vision.evaluation.saved_runs import Run, read_run


class JudgedOn(NamedTuple):
    """The labeled images behind a table, for its readers."""

    source: str
    """As given: a folder, or digits."""
    image_size: int
    """Side of the images, in pixels."""
    train_images: int
    """Number of training images."""
    test_images: int
    """Number of test images."""


@dataclass(frozen=True)
class Row:
    """One row of a table: the scores of runs that differ only in their seeds."""

    name: str
    """Method, preset and differences from the preset; or the name of a baseline."""
    runs: tuple[str, ...]
    """Directories of the runs; empty for a baseline."""
    seeds: tuple[int, ...]
    """Seeds in the same order; empty for the raw pixels."""
    scores: dict[str, tuple[float, ...]]
    """Accuracies of the runs in [0, 1], by score."""
    voting: Voting | None = None
    """How nearest neighbors vote; None without them."""
    data: tuple[JudgedOn, ...] = ()
    """The data of all rows of the table."""
    crops: Crops | None = None
    """Crops of fine-tuning; None without it."""

    def mean(self, score: str) -> float:
        """Mean over the runs."""
        return fmean(self.scores[score])

    def spread(self, score: str) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        values = self.scores[score]
        return stdev(values) if len(values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Returns every run's scores, their means and standard deviations, for JSON."""
        summary = {
            name: {"mean": self.mean(name), "std": self.spread(name), "each": list(values)}
            for name, values in self.scores.items()
        }
        about = {"name": self.name, "runs": list(self.runs), "seeds": list(self.seeds)}
        crops = {} if self.crops is None else {"crops": self.crops._asdict()}
        return {**about, **crops, "scores": summary}


def evaluate_runs(
    directories: Sequence[Path],
    config: EvaluationConfig,
    *,
    data: str | None = None,
    transfer: str | None = None,
    untrained: bool = False,
    raw_pixels: bool = False,
    device: torch.device | str = "cpu",
) -> list[Row]:
    """Evaluates runs and baselines and returns one row for each kind.

    Args:
        directories: run directories. Runs whose settings differ only in the seed share a row.
        config: the protocols.
        data: images to evaluate on; None, those that each run was trained on.
        transfer: other labeled images to evaluate on as well, with scores named ``transfer_knn`` and so on.
        untrained: adds the runs' backbones with random weights, drawn with the runs' seeds.
        raw_pixels: adds the nearest neighbors of the images themselves.
        device: device to compute on.

    Raises:
        ValueError: a directory holds no pretraining run, or a run without an encoder; two runs have the same kind and
            seed; the runs' own k or temperature differ and ``config`` sets none; or as in
            :mod:`curl_rl.vision.evaluation.protocols`.
    """
    # Read all runs before spending minutes on the first.
    runs = [read_run(directory, device) for directory in directories]
    if "probe" in config.protocols and data is not None:
        raise UserError("probe was measured on the run's own test images: leave out --data, or probe")
    probes = [run.probe_accuracy() for run in runs] if "probe" in config.protocols else []
    benchmarks: dict[tuple[str, int, SmallImages], Benchmark] = {}
    for run in runs:
        for source in filter(None, (data or run.config.data, transfer)):
            if (source, *run.sizing) not in benchmarks:
                benchmarks[(source, *run.sizing)] = load_benchmark(
                    source,
                    run.image_size,
                    device=device,
                    in_memory="fine_tune" in config.protocols,
                    small_images=run.config.small_images,
                )
    voting: Voting | None = None
    if "knn" in config.protocols or raw_pixels:
        voting = _common_voting(config, runs, benchmarks.values())
        config = dataclasses.replace(config, k=voting.k, temperature=voting.temperature)

    fine_tuned = "fine_tune" in config.protocols
    several_crops = fine_tuned and config.crops is None and len({run.crops for run in runs}) > 1

    def judged(run: Run, score: Callable[[Benchmark], dict[str, float]]) -> dict[str, float]:
        scores = score(benchmarks[(data or run.config.data, *run.sizing)])
        if transfer:
            moved = score(benchmarks[(transfer, *run.sizing)])
            scores |= {f"transfer_{name}": value for name, value in moved.items()}
        return scores

    several = data is None and len({run.config.data for run in runs}) > 1
    judged_on = tuple(
        JudgedOn(source, size, len(images.train), len(images.test)) for (source, size, _), images in benchmarks.items()
    )
    trained, baselines = _Rows(voting, judged_on), _Rows(voting, judged_on)
    for number, run in enumerate(runs):
        on, seed = f", {printable(run.config.data)}" if several else "", run.config.seed
        crops = config.crops or run.crops
        own, shown = dataclasses.replace(config, crops=crops), crops if fine_tuned else None
        kind = run.kind() + on
        if trained.has(kind, seed):
            raise UserError(f"{run.directory} is a second run of {kind}, seed {seed}: pass fewer directories")
        scores = judged(run, partial(evaluate_encoder, run.encoder, config=own))
        if probes:
            scores["probe"] = probes[number]
            scores = {name: scores[name] for name in (*config.scores, *scores)}
        trained.add(kind, seed, scores, str(run.directory), crops=shown)
        untrained_name = f"untrained {run.encoder.title}{on}"
        if several_crops:
            untrained_name += f", crops from {crops.scale:g}, mirrored {crops.mirror:g}"
        if untrained and not baselines.has(untrained_name, seed):
            scores = judged(run, partial(evaluate_untrained, run.encoder, seed, config=own))
            baselines.add(untrained_name, seed, scores, crops=shown)
        if raw_pixels and not baselines.has(f"raw pixels{on}", None):
            scores = judged(run, partial(evaluate_pixels, run.encoder.input_shape[-1], config=config))
            baselines.add(f"raw pixels{on}", None, scores)
    for layout in filter(None, dict.fromkeys(images.train.layout for images in benchmarks.values())):
        say(layout)
    return trained.rows() + baselines.rows()


def _common_voting(config: EvaluationConfig, runs: Sequence[Run], benchmarks: Iterable[Benchmark]) -> Voting:
    """Returns the voting used for all runs.

    Raises:
        UserError: the runs' own settings differ and ``config`` sets none.
    """
    for name in ("k", "temperature"):
        found = sorted({getattr(run.config.knn, name) for run in runs})
        if getattr(config, name) is None and len(found) > 1:
            values = " and ".join(f"{value:g}" for value in found)
            raise UserError(
                f"the runs' knn.{name} are {values}, but a table needs a single one: set --{name} {found[0]:g}"
            )
    return voting_of(config, runs[0].config.knn, benchmarks)


def table(rows: Sequence[Row], config: EvaluationConfig) -> str:
    """Formats the rows as a Markdown table, accuracies in percent, under a line that names the protocols."""
    columns = list(dict.fromkeys(name for row in rows for name in row.scores))
    voting = rows[0].voting
    ways = {
        "knn": "kNN" if voting is None else f"kNN with k {voting.k} and temperature {voting.temperature:g}",
        "probe": "online probe",
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
    """Returns the same for JSON: the protocols' settings, the data, and every score of every run."""
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


class _Rows:
    """Collects scores into rows."""

    def __init__(self, voting: Voting | None, data: tuple[JudgedOn, ...]) -> None:
        self._voting, self._data = voting, data
        self._found: dict[str, list[tuple[int | None, dict[str, float], str | None]]] = {}
        self._crops: dict[str, Crops | None] = {}

    def has(self, name: str, seed: int | None) -> bool:
        return any(seed == other for other, _, _ in self._found.get(name, []))

    def add(
        self,
        name: str,
        seed: int | None,
        scores: dict[str, float],
        run: str | None = None,
        *,
        crops: Crops | None = None,
    ) -> None:
        self._found.setdefault(name, []).append((seed, scores, run))
        self._crops[name] = crops

    def rows(self) -> list[Row]:
        return [
            Row(
                name,
                tuple(run for _, _, run in found if run is not None),
                tuple(seed for seed, _, _ in found if seed is not None),
                {score: tuple(scores[score] for _, scores, _ in found) for score in found[0][1]},
                self._voting,
                self._data,
                self._crops[name],
            )
            for name, found in self._found.items()
        ]
