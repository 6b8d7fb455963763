"""Runs in one CSV file, in the long form that other tools read: one line per run, metric and step.

    # command: python scripts/train_agent.py --env cartpole-swingup --preset cpu --seed 1
    # settings: {"exp_name": "cpu", "env_name": "cartpole-swingup", "seeds": [1], "config": {...}}
    exp_name,env_name,seed,metric,env_step,value
    cpu,cartpole-swingup,1,wall_time,0,1795344025.38
    cpu,cartpole-swingup,1,evaluation/return_mean,0,2.54

The comments come first: any notes, and the settings of each kind of run once, as JSON without ``seed`` and ``run``. A
line with ``wall_time`` begins a row of metrics.jsonl, so that the rows can be restored exactly. ``env_step`` counts
environment frames; of a pretraining run, images. Read it with ``pandas.read_csv(path, comment="#")``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curl_rl.report.runs import AXES, OF_ONE_SEED, Run, warn
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_regular, write_text
from curl_rl.runs.settings import Layer

COLUMNS = ("exp_name", "env_name", "seed", "metric", "env_step", "value")
_HEADER = ",".join(COLUMNS)
_LONGEST_LINE = 2**20  # bytes


def write_runs(
    runs: Sequence[Run], path: Path, notes: Iterable[tuple[str, str]] = (), metrics: Collection[str] | None = None
) -> None:
    """Writes runs to a CSV file, which is replaced atomically.

    Args:
        runs: the runs; two of one label, task and seed are refused.
        path: the file.
        notes: names and texts for the first lines, such as the command.
        metrics: the metrics to keep, besides ``wall_time``; None for all.

    Raises:
        UserError: two runs have the same label, task and seed, or a note has several lines.
    """
    out = io.StringIO()
    for name, text in notes:
        if len(f"{name}{text}".splitlines()) != 1:
            raise UserError(f"{name} must be one line, got {text!r}")
        out.write(f"# {name}: {text}\n")
    for kind in _kinds(runs):
        out.write(f"# settings: {json.dumps(kind)}\n")
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(COLUMNS)
    written: dict[tuple[str, str, int], Path] = {}
    for run in runs:
        key = (run.label, run.env, run.seed)
        if key in written:
            raise UserError(f"{run.source} and {written[key]} are runs of one kind and seed: name one of them")
        written[key] = run.source
        for row in run.rows:
            for name, value in row.items():
                if name != run.axis and (
                    metrics is None or name in metrics or (name == "wall_time" and metrics & row.keys())
                ):
                    lines.writerow([*key, name, row[run.axis], json.dumps(value)])
    write_text(path, out.getvalue())


def _kinds(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings of each kind of run with the seeds that have them, in the order of the runs."""
    found: list[dict[str, Any]] = []
    for run in runs:
        config = {name: value for name, value in run.settings.items() if name not in OF_ONE_SEED}
        kind = {"exp_name": run.label, "env_name": run.env, "config": config}
        same = next((one for one in found if {**one, "seeds": None} == {**kind, "seeds": None}), None)
        if same is None:
            found.append(same := {"exp_name": run.label, "env_name": run.env, "seeds": [], "config": config})
        same["seeds"].append(run.seed)
    return [kind for kind in found if kind["config"]]


def is_runs_csv(path: Path) -> bool:
    """Whether a file has this form, by its first lines."""
    with open_regular(path) as file:
        for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
            if not line.startswith(b"#"):
                return line.decode(errors="replace").strip() == _HEADER
    return False


def read_csv(path: Path) -> list[Run]:
    """The runs of a CSV file, in its order; an incomplete last line is left out, with a warning.

    Raises:
        UserError: the file cannot be read, or has another form.
    """
    try:
        if not is_runs_csv(path):
            raise UserError(f"{path} must begin with the line {_HEADER} (after comments), to be read as runs")
        with open_regular(path) as file:
            text = file.read().decode()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} must be text in UTF-8") from None
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        warn(f"the last line of {path} is incomplete, and left out")
    settings: dict[tuple[str, str, int], Layer] = {}
    rows: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            if line.startswith("# settings: "):
                kind = json.loads(line.removeprefix("# settings: "))
                for seed in kind["seeds"]:
                    settings[kind["exp_name"], kind["env_name"], seed] = kind["config"]
            elif line and not line.startswith("#") and line != _HEADER:
                label, env, seed, metric, step, value = next(csv.reader([line]))
                key = (label, env, int(seed))
                axis = AXES[settings.get(key, {}).get("kind", "agent")]
                _add(rows.setdefault(key, []), axis, int(float(step)), metric, _number(value))
        except (ValueError, TypeError, KeyError, AttributeError, csv.Error, OverflowError) as error:
            raise UserError(f"{path}, line {number}: must be {_HEADER}; {error}") from None
    return [
        Run(env, label, seed, of_run, settings.get((label, env, seed), {}), path)
        for (label, env, seed), of_run in rows.items()
    ]


def _add(rows: list[dict[str, Any]], axis: str, step: int, metric: str, value: float | None) -> None:
    """Adds a metric to the last row, or to a new one where it belongs to none."""
    if not rows or rows[-1][axis] != step or metric in rows[-1] or metric == "wall_time":
        rows.append({axis: step})
    rows[-1][metric] = value


def _number(text: str) -> Any:
    if text in ("", "null"):
        return None
    value = int(text) if text.lstrip("-").isdecimal() else float(text)
    return value if math.isfinite(value) else None


def notes_of(path: Path) -> Mapping[str, list[str]]:
    """The notes in the first lines of a file by their names, without the settings."""
    notes: dict[str, list[str]] = {}
    with open_regular(path) as file:
        for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
            if not line.startswith(b"# "):
                break
            name, _, text = line.decode().removeprefix("# ").rstrip("\n").partition(": ")
            if name != "settings":
                notes.setdefault(name, []).append(text)
    return notes
