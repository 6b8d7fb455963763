"""The tasks of an open-world detector: which classes it is taught, in which order, and which never."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import nearest
from curl_rl.runs.yaml_file import read_yaml

_SECTIONS = ("tasks", "unknown")
RESERVED = ("unknown", "background")


@dataclass(frozen=True)
class Tasks:
    """Classes by task. Labels number them in this order: those of the first task first, those never taught last."""

    tasks: tuple[tuple[str, ...], ...]
    """For each task, the classes that it teaches."""
    unknown: tuple[str, ...] = ()
    """Classes that are in the scenes, and that no task teaches."""

    @property
    def taught(self) -> tuple[str, ...]:
        """The classes of all tasks."""
        return tuple(name for task in self.tasks for name in task)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes."""
        return (*self.taught, *self.unknown)

    def known(self, task: int) -> int:
        """Number of classes known after this task, the first ones."""
        return sum(map(len, self.tasks[: task + 1]))

    def current(self, task: int) -> range:
        """The labels that this task teaches."""
        return range(self.known(task) - len(self.tasks[task]), self.known(task))

    @property
    def digest(self) -> str:
        """SHA-256 of the content, however a file spells it."""
        return hashlib.sha256(json.dumps([self.tasks, self.unknown]).encode()).hexdigest()


class Phase(NamedTuple):
    """A part of a run: a task is learned, and after that the exemplars of all tasks so far are repeated."""

    task: int
    kind: Literal["learn", "replay"]
    first: int
    """Its first step."""
    steps: int

    @property
    def end(self) -> int:
        """The step after its last one."""
        return self.first + self.steps

    @property
    def name(self) -> str:
        """For files and metrics: ``task1``, ``task2-replay``."""
        return f"task{self.task + 1}" + ("-replay" if self.kind == "replay" else "")


def phases(tasks: Tasks, steps: int, replay_steps: int) -> tuple[Phase, ...]:
    """The phases of a run. Nothing is replayed after the first task, which has nothing to forget."""
    found: list[Phase] = []
    for task in range(len(tasks.tasks)):
        lengths: tuple[tuple[Literal["learn", "replay"], int], ...] = (("learn", steps), ("replay", replay_steps))
        for kind, length in lengths if task else lengths[:1]:
            if length:
                found.append(Phase(task, kind, found[-1].end if found else 0, length))
    return tuple(found)


def read_tasks(path: Path) -> Tasks:
    """Reads a file of tasks.

    Raises:
        UserError: it cannot be read, or is not as docs/detection.md describes.
    """
    content = read_yaml(path, example="tasks: [[cat, dog], [car]]", as_text=True)
    for section in content:
        if section not in _SECTIONS:
            raise UserError(f"{path}: unknown setting {section}{nearest(str(section), [*_SECTIONS])}")
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UserError(f"{path}: tasks must be a list of lists of classes, such as [[cat, dog], [car]], got {tasks}")
    found = Tasks(
        tuple(_names(task, f"task {number}", path) for number, task in enumerate(tasks, start=1)),
        _names(content.get("unknown") or [], "unknown", path, may_be_empty=True),
    )
    names = found.classes
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: a class must be in one task only, got {name} twice")
        if name in RESERVED:
            raise UserError(
                f"{path}: a class may not be called {name}, which is a detector's own word: rename its folder"
            )
    if len(found.tasks[0]) < 2:
        raise UserError(
            f"{path}: task 1 must have at least 2 classes, got only {found.tasks[0][0]}: add one, "
            "or join the first two tasks"
        )
    return found


def _names(value: Any, what: str, path: Path, *, may_be_empty: bool = False) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(name, str) and name for name in value) and (value or may_be_empty):
        return tuple(value)
    raise UserError(f"{path}: {what} must be a list of one or more classes, such as [cat, dog], got {value}")
