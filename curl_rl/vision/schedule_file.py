"""Schedules of augmentation policies as YAML files, to play with ``--augment.policy pba --augment.schedule FILE``.

    kind: augmentation schedule
    phases:
    - epochs: 3
      policy:
      - [rotate, 0.3, 4]

Each line of a policy is an operation, its probability and its level from 0 to 9. Epochs are relative: a schedule is
stretched to the length of the training that plays it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from curl_rl.augment.autoaugment import LEVELS, Step
from curl_rl.augment.pba import OPERATIONS, Phase, Schedule
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably
from curl_rl.runs.yaml_file import read_yaml
from curl_rl.vision.views import AugmentConfig

KIND = "augmentation schedule"


def write_schedule(path: Path, schedule: Schedule, *, provenance: dict[str, Any] | None = None) -> None:
    """Writes a schedule, and how it was made; the file is replaced atomically."""
    phases = [{"epochs": phase.epochs, "policy": [list(step) for step in phase.policy]} for phase in schedule.phases]
    content = {"kind": KIND, **({"provenance": provenance} if provenance else {}), "phases": phases}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    write_durably(path.resolve(), [text.encode()])


def read_schedule(path: str | Path) -> Schedule:
    """Reads a schedule.

    Raises:
        UserError: the file cannot be read or is no schedule; the message names what is wrong in it.
    """
    content = read_yaml(path, example=f"kind: {KIND}")
    if content.get("kind") != KIND:
        raise UserError(f"the kind of {path} must be {KIND!r}, got {content.get('kind')!r}")
    phases = content.get("phases")
    if not isinstance(phases, list) or not phases:
        raise UserError(f"phases in {path} must be a list with at least one phase, got {_brief(phases)}")
    return Schedule(tuple(_phase(phase, f"phase {number} of {path}") for number, phase in enumerate(phases, 1)))


def _phase(phase: Any, where: str) -> Phase:
    if not isinstance(phase, dict) or not {"epochs", "policy"} <= set(phase):
        raise UserError(f"{where} must have epochs and a policy, got {_brief(phase)}")
    epochs, policy = phase["epochs"], phase["policy"]
    if type(epochs) is not int or not 1 <= epochs <= 10**6:
        raise UserError(f"epochs of {where} must be from 1 to 1,000,000, got {_brief(epochs)}")
    if not isinstance(policy, list) or not policy:
        raise UserError(f"policy of {where} must be a list with at least one operation, got {_brief(policy)}")
    return Phase(epochs, tuple(_step(step, where) for step in policy))


def _step(step: Any, where: str) -> Step:
    if not isinstance(step, list) or len(step) != 3:
        raise UserError(f"a line of {where} must be [operation, probability, level], got {_brief(step)}")
    name, probability, level = step
    if name not in OPERATIONS:
        raise UserError(f"an operation of {where} must be one of {', '.join(OPERATIONS)}, got {_brief(name)}")
    if type(probability) not in (int, float) or not 0 <= probability <= 1:
        raise UserError(f"the probability of {name} in {where} must lie in [0, 1], got {_brief(probability)}")
    if type(level) is not int or not 0 <= level < LEVELS:
        raise UserError(f"the level of {name} in {where} must be an integer from 0 to 9, got {_brief(level)}")
    return name, float(probability), level


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def digest(schedule: Schedule) -> str:
    """SHA-256 of a schedule's content, however the file spells it."""
    return hashlib.sha256(json.dumps(schedule.phases).encode()).hexdigest()


def with_digest(augment: AugmentConfig) -> AugmentConfig:
    """The recipe with the hash of its schedule, which a run records: a resumed run must play the same one.

    Raises:
        UserError: the schedule cannot be read, or is not the one recorded in the settings.
    """
    if augment.schedule is None:
        return augment
    path, found = augment.schedule.absolute(), digest(read_schedule(augment.schedule))
    if augment.schedule_sha256 not in (None, found):
        raise UserError(
            f"the schedule {path} must have schedule_sha256 {str(augment.schedule_sha256)[:12]}…, got SHA-256 "
            f"{found[:12]}…"
        )
    return replace(augment, schedule=path, schedule_sha256=found)
