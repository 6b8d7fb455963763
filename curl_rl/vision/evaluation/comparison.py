"""Runs of pretraining judged side by side: one row of a table for those that differ in their seeds alone.

On the data of the pretraining or on others (transfer), beside the same backbone untrained and the raw pixels. It is
always the encoder of the last epoch that is judged.
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

from curl_rl.runs.errors import UserError
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
    crops: Crops | None = None
    """That it was fine-tuned on; None where it was not."""

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
    if "probe" in config.protocols and data is not None:
        raise UserError("probe is of the test images that a run was trained beside: leave out --data, or probe")
    probes = [run.probe_accuracy() for run in runs] if "probe" in config.protocols else []
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

    fine_tuned = "fine_tune" in config.protocols
    several_crops = fine_tuned and config.crops is None and len({run.crops for run in runs}) > 1

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
    for number, run in enumerate(runs):
        on, seed = f", {run.config.data}" if several else "", run.config.seed
        crops = config.crops or run.crops
        own, shown = dataclasses.replace(config, crops=crops), crops if fine_tuned else None
        kind = run.kind() + on
        if trained.has(kind, seed):
            raise UserError(f"{run.directory} is a second run of {kind}, seed {seed}: name fewer directories")
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
    return trained.rows() + baselines.rows()


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
    return voting_of(config, runs[0].config.knn, benchmarks)


def table(rows: Sequence[Row], config: EvaluationConfig) -> str:
    """The rows as a Markdown table, accuracies in per cent, under a line that says what was measured how."""
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


class _Rows:
    """Rows in the making."""

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
