"""Runs as they were logged, read from their directories or from collected CSV files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from curl_rl.rl import config as rl_config
from curl_rl.runs.console import say
from curl_rl.runs.directory import CONFIG, is_run, kind_of
from curl_rl.runs.errors import UserError
from curl_rl.runs.kinds import Kind
from curl_rl.runs.logger import METRICS_FILE, read_metrics
from curl_rl.runs.settings import Layer, read_yaml
from curl_rl.text import config as text_config
from curl_rl.text import pair_config
from curl_rl.vision import config as vision_config
from curl_rl.vision.detection import config as detection_config

AXES = {
    "agent": "frames",
    "pretraining": "images",
    "detection": "images",
    "text": "sentences",
    "pairs": "pairs",
}
"""The x axis of each kind of run, which is the name of the count in its rows."""

OF_ONE_SEED = ("seed", "run")
"""The settings in which runs of one kind may differ, besides the budget."""


@dataclass(frozen=True)
class Run:
    """One run."""

    env: str
    """Task of an agent, data of a pretraining."""
    label: str
    """Preset (and method, of a pretraining), and every setting that differs from it: runs of one label on one task
    differ only in their seeds and budgets."""
    seed: int
    rows: list[dict[str, Any]]
    """The rows of metrics.jsonl."""
    settings: Layer
    """The content of config.yaml, with the run's ``kind``; empty if not known."""
    source: Path
    """The directory or file that it was read from."""

    @property
    def axis(self) -> str:
        """The name of the count in its rows."""
        return AXES[self.settings.get("kind", "agent")]


def read_run(directory: Path) -> Run:
    """The run in a directory; a half-written last row, as a killed process leaves it, is left out.

    Raises:
        UserError: its settings or metrics cannot be read.
    """
    kind = kind_of(directory)
    settings = {"kind": kind, **read_yaml(directory / CONFIG)}
    path = directory / METRICS_FILE
    try:
        rows = [_numbers(row, path) for row in read_metrics(path, AXES[kind])] if path.exists() else []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    own = {name: settings[name] for name in (*OF_ONE_SEED, "frames") if isinstance(settings.get(name), (int, str))}
    key = json.dumps({name: value for name, value in settings.items() if name not in own}, default=str)
    if key not in _LABELS or "seed" not in own:
        _LABELS[key] = _LABEL_OF[kind](directory)
    task = settings["env"] if kind == "agent" else settings["data"]
    return Run(task, _LABELS[key], settings["seed"], rows, settings, directory)


def _numbers(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """The row of a log, which others may have edited, with None for what is not finite.

    Raises:
        UserError: a value is neither a number nor null.
    """
    for name, value in row.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"{path}: {name} must be a number or null, got {value!r:.40}")
    return {name: value if value is not None and math.isfinite(value) else None for name, value in row.items()}


_LABELS: dict[str, str] = {}
"""Labels by settings: reading a configuration through its schema takes a third of a second, and the seeds of a kind
of run have the same."""


def find_runs(directory: Path) -> Iterator[Path]:
    """The directories of all runs below ``directory``, in order, without those set aside by ``--fresh``."""
    for path in sorted(directory.rglob(CONFIG)):
        run = path.parent
        if ".before-" not in run.name and is_run({entry.name for entry in run.iterdir()}):
            yield run


def _agent_label(directory: Path) -> str:
    """The preset, and every setting that differs from it, except for seed, budget and the encoder's hash."""
    config = rl_config.read_config(directory / CONFIG)
    preset = replace(rl_config.load_preset(config.preset, config.env), seed=config.seed, frames=config.frames)
    changed = rl_config.SCHEMA.distinguishing_fields(preset, config)
    changed.pop("encoder_sha256", None)
    return ", ".join([config.preset, *(f"{name} {value}" for name, (_, value) in changed.items())])


def _pretraining_label(settings: Any, directory: Path) -> str:
    """Method and preset, and every setting that differs from it, except for data and seed.

    ``settings`` is the module of the run's configuration.
    """
    config = settings.read_config(directory / CONFIG)
    usual = settings.load_preset(config.preset, config.method)
    changed = config.schema.distinguishing_fields(replace(usual, seed=config.seed, data=config.data), config)
    changed.pop("tokens.tokenizer_sha256", None)
    return ", ".join([config.method, config.preset, *(f"{name} {value}" for name, (_, value) in changed.items())])


def _detection_label(directory: Path) -> str:
    """The preset, and every setting that differs from it, except for data, tasks and seed."""
    config = detection_config.read_config(directory / CONFIG)
    preset = replace(
        detection_config.SCHEMA.build({"preset": config.preset}),
        data=config.data,
        tasks=config.tasks,
        tasks_sha256=config.tasks_sha256,
        seed=config.seed,
    )
    changed = config.schema.distinguishing_fields(preset, config)
    return ", ".join([config.preset, *(f"{name} {value}" for name, (_, value) in changed.items())])


_LABEL_OF: Mapping[Kind, Callable[[Path], str]] = {
    "agent": _agent_label,
    "pretraining": partial(_pretraining_label, vision_config),
    "text": partial(_pretraining_label, text_config),
    "pairs": partial(_pretraining_label, pair_config),
    "detection": _detection_label,
}


def warn(line: str) -> None:
    """Prints one line about runs that cannot be used as they are."""
    say(f"warning: {line}")


def named(paths: Sequence[Path]) -> str:
    """The paths as one list of words."""
    return ", ".join(map(str, paths))
