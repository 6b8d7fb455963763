"""Learning curves of finished and running runs, read from their metrics and grouped by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curl_rl.report.long_csv import is_runs_csv, read_csv
from curl_rl.report.runs import Run, find_runs, named, read_run, warn
from curl_rl.report.statistics import Array
from curl_rl.runs.directory import kind_of
from curl_rl.runs.errors import UserError
from curl_rl.runs.kinds import Kind
from curl_rl.runs.settings import nearest

RETURN = "evaluation/return_mean"
"""The metric of a learning curve."""

SWEEP_CSV = "sweep.csv"
"""Name of the file in a sweep's folder into which the runs in its folder ``SWEEP_RUNS`` are collected."""
SWEEP_RUNS = "runs"


@dataclass
class Curve:
    """Runs that differ only in their seeds and budgets."""

    env: str
    label: str
    seeds: dict[int, dict[int, float]] = field(default_factory=dict)
    """For each seed, the mean evaluation return by environment frames."""
    random_returns: list[float] = field(default_factory=list)
    """Returns of the training episodes that ended within the random steps."""
    seconds: dict[int, dict[int, float]] = field(default_factory=dict)
    """For each seed, seconds since its first row at each evaluation, pauses included; empty if unknown."""
    budgets: dict[int, int] = field(default_factory=dict)
    """For each seed, the environment frames that it was to take; empty if unknown."""
    unfinished: set[int] = field(default_factory=set)
    """Seeds that have not taken all of their frames, because they are running or were stopped."""
    action_repeat: int | None = None
    """Environment steps per action; None if unknown."""

    def frames(self) -> list[int]:
        """The frame counts at which any seed was evaluated, in order."""
        return sorted({at for seed in self.seeds.values() for at in seed})

    def common_frames(self) -> list[int]:
        """The frame counts at which every seed was evaluated, in order."""
        return sorted(set.intersection(*(set(seed) for seed in self.seeds.values())))

    def returns_at(self, frames: int) -> list[float]:
        """The returns at ``frames`` of the seeds evaluated there."""
        return [seed[frames] for seed in self.seeds.values() if frames in seed]

    def matrix(self, frames: Sequence[int]) -> Array:
        """Returns of all seeds at frame counts that they have in common, ``(seeds, frames)``."""
        return np.array([[seed[at] for at in frames] for seed in self.seeds.values()], dtype=float)


def read_runs(paths: Sequence[Path], kinds: Sequence[Kind] = ("agent",)) -> list[Run]:
    """All runs of these kinds in the given directories and CSV files, and in those below the directories.

    Raises:
        UserError: a path does not exist, or a run or a CSV file cannot be read.
    """
    runs: list[Run] = []
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: name a run, a folder of runs or a CSV file of runs")
        directories = find_runs(path) if path.is_dir() else []
        tables = [path] if not path.is_dir() else sorted(filter(_is_of_its_own, path.rglob("*.csv")))
        for directory in directories:
            if directory.resolve() not in seen and kind_of(directory) in kinds:
                seen.add(directory.resolve())
                runs.append(read_run(directory))
        for table in tables:
            if table.resolve() not in seen:
                seen.add(table.resolve())
                runs += [run for run in read_csv(table) if run.settings.get("kind", "agent") in kinds]
    return runs


def read_curves(paths: Sequence[Path]) -> list[Curve]:
    """The curves of :func:`read_runs`, sorted by task and label.

    Raises:
        UserError: no run has an evaluation, or a run cannot be read.
    """
    curves = curves_of(samples(read_runs(paths)))
    if not curves:
        raise UserError(no_curves(paths))
    return curves


def no_curves(paths: Sequence[Path]) -> str:
    """The message for places without a learning curve."""
    return (
        f"no run with an evaluation below {named(paths)}: curves are of agents, which scripts/train_agent.py evaluates "
        "as it trains; scripts/report.py shows other runs"
    )


def samples(runs: Sequence[Run]) -> list[Run]:
    """The runs that count as independent samples, sorted by task, label and seed.

    Leaves out runs without an evaluation, and of two runs of one kind and seed the one that got less far, with a
    warning about each. Runs of one kind from different CSV files are kept apart, by the file's name in the label: each
    file is an experiment, with code of its own time.
    """
    kept: dict[tuple[str, str, Path | None, int], Run] = {}
    for run in runs:
        if not returns_of(run):
            warn(f"{run.source} has no evaluation yet, and is left out")
            continue
        key = (run.env, run.label, _experiment(run), run.seed)
        other = kept.setdefault(key, run)
        if other is not run:
            kept[key] = run if max(returns_of(run)) > max(returns_of(other)) else other
            out = other if kept[key] is run else run
            warn(f"{out.source} is a second run of {run.env}, {run.label}, seed {run.seed}, and is left out")
    experiments: dict[tuple[str, str], set[Path | None]] = defaultdict(set)
    for env, label, experiment, _ in kept:
        experiments[env, label].add(experiment)
    found = []
    for (env, label, experiment, _), run in kept.items():
        same_kind = experiments[env, label]
        if experiment is not None and len(same_kind) > 1:
            stems = [other.stem for other in same_kind if other is not None]
            name = experiment.stem if stems.count(experiment.stem) == 1 else f"{experiment}"
            run = replace(run, label=f"{label} ({name})")
        found.append(run)
    return sorted(found, key=lambda run: (run.env, run.label, run.seed))


def renamed(runs: Sequence[Run], names: Mapping[str, str]) -> list[Run]:
    """The runs, with the labels that are keys of ``names`` replaced by its values.

    Raises:
        UserError: no run has one of these labels, or two kinds of run would have one name.
    """
    labels = list(dict.fromkeys(run.label for run in runs))
    for label in names:
        if label not in labels:
            raise UserError(
                f"name must be of a kind of run, got {label}{nearest(label, labels)}; there are: {'; '.join(labels)}"
            )
    called = [names.get(label, label) for label in labels]
    if twice := [name for name in called if called.count(name) > 1]:
        raise UserError(f"name must tell kinds of run apart, got {twice[0]} for two")
    return [replace(run, label=names.get(run.label, run.label)) for run in runs]


def curves_of(runs: Sequence[Run]) -> list[Curve]:
    """The curves of :func:`samples`, in their order; a warning if the seeds of one have different budgets."""
    curves: dict[tuple[str, str], Curve] = {}
    for run in runs:
        _add(curves.setdefault((run.env, run.label), Curve(run.env, run.label)), run)
    for curve in curves.values():
        if len(set(curve.budgets.values())) > 1:
            budgets = f"{min(curve.budgets.values()):,} to {max(curve.budgets.values()):,} frames"
            warn(f"{curve.env}, {curve.label}: budgets of {budgets}; the mean ends where the first seed does")
    return list(curves.values())


def _is_of_its_own(table: Path) -> bool:
    """Whether a CSV file below a folder holds runs that are not there as directories anyway."""
    is_copy = table.name == SWEEP_CSV and (table.parent / SWEEP_RUNS).is_dir()
    return not is_copy and is_runs_csv(table)


def returns_of(run: Run) -> dict[int, float]:
    """The mean return of each evaluation of a run, by environment frames."""
    return {row["frames"]: row[RETURN] for row in run.rows if row.get(RETURN) is not None}


def _experiment(run: Run) -> Path | None:
    return run.source if run.source.is_file() else None


def _add(curve: Curve, run: Run) -> None:
    curve.seeds[run.seed] = returns_of(run)
    times = [row for row in run.rows if row.get("wall_time") is not None]
    if times:
        curve.seconds[run.seed] = {
            row["frames"]: row["wall_time"] - times[0]["wall_time"] for row in times if RETURN in row
        }
    curve.action_repeat = _setting(run, "environment", "action_repeat")
    random_steps = _setting(run, "training", "random_steps")
    if curve.action_repeat is not None and random_steps is not None:
        random_frames = random_steps * curve.action_repeat
        curve.random_returns += [
            row["episode/return"] for row in run.rows if "episode/return" in row and row["frames"] <= random_frames
        ]
    budget = _setting(run, "frames")
    if budget is not None:
        curve.budgets[run.seed] = budget
        if run.rows[-1]["frames"] < budget:
            curve.unfinished.add(run.seed)


def _setting(run: Run, *names: str) -> int | None:
    """A whole number in a run's settings, which may come from a file that others have made; None if there is none."""
    value: Any = run.settings
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) else None
