"""A run's directory: its layout, owner and disk space, and setting an earlier run aside."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, get_args

from curl_rl.runs.checkpoint import SEGMENTS
from curl_rl.runs.console import say
from curl_rl.runs.disk_errors import cannot_write, in_words
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_to_append, refuse_link
from curl_rl.runs.kinds import KINDS, Kind, of_another_kind
from curl_rl.runs.lock import LOCK, lock_run
from curl_rl.runs.logger import METRICS_FILE
from curl_rl.runs.settings import Changes, Layer, Schema, is_same_place, read_yaml
from curl_rl.runs.storage import human_size

CONFIG = "config.yaml"
CHANGES = "changes.jsonl"
"""Name of the file in a run's directory with a line for each time that it was resumed with other settings."""
CHECKPOINTS = "checkpoints"
REPLAY_SEGMENTS = Path(CHECKPOINTS) / SEGMENTS
VIDEOS = "videos"

# Left by a process that was killed before it wrote its configuration.
_LEFT_BY_A_START = (LOCK, f"{CONFIG}.partial")


def is_run(names: Collection[str]) -> bool:
    """Whether a directory with these names in it is that of a run, even if it was moved or set aside."""
    return CONFIG in names and (LOCK in names or METRICS_FILE in names)


def kind_of(directory: Path) -> Kind:
    """The kind of the run in this directory, read from its configuration.

    Raises:
        UserError: the configuration cannot be read, or its kind is unknown.
    """
    path = directory / CONFIG
    content = read_yaml(path)
    if "kind" not in content:  # written before configurations had a kind: an agent's has no method
        return "pretraining" if "method" in content else "agent"
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        if content["kind"] == kind:
            return kind
    raise UserError(
        f"{path}: kind must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {content['kind']}: if a newer version wrote "
        "it, update curl_rl"
    )


def check_kind(directory: Path, wanted: Kind) -> None:
    """Checks that a directory is a run of this kind.

    Raises:
        UserError: it is not; the message names the command that takes it.
    """
    if not (directory / CONFIG).is_file():
        remedy = f"name the directory of a run of {KINDS[wanted].by}"
        raise UserError(f"{directory} is not a run directory ({CONFIG} is missing): {remedy}")
    if (kind := kind_of(directory)) != wanted:
        raise UserError(of_another_kind(directory, kind, wanted))


class Configuration(Protocol):
    """The settings of a run of any kind."""

    @property
    def schema(self) -> Schema[Any]:
        """The schema that reads and writes them."""


@dataclass(frozen=True)
class Claim:
    """A run directory that this process may write to."""

    directory: Path
    config: Configuration
    changes: Changes
    """The settings that differ from those of the run that is resumed, all of which may."""

    def record(self, count: int, axis: str = "frames") -> None:
        """Records the present settings, once the run has been restored at ``count`` of its ``axis``.

        Prints the changed ones, adds them to ``changes.jsonl``, and updates ``config.yaml``.

        Raises:
            UserError: the directory is not writable.
        """
        schema = self.config.schema
        changes = {
            name: (old, new)
            for name, (old, new) in self.changes.items()
            if name != "run" and not (name in schema.paths and is_same_place(old, new))
        }
        try:
            if changes:
                row = {axis: count, "wall_time": time.time(), "changed": changes}
                with open_to_append(self.directory / CHANGES) as file:
                    file.write(f"{json.dumps(row)}\n".encode())
            schema.save(self.config, self.directory / CONFIG)
        except OSError as error:
            raise UserError(cannot_write(self.directory, error)) from None
        if changes:
            say(f"resumed with other settings: {_in_words(changes)}")


@contextlib.contextmanager
def claimed(directory: Path, config: Configuration, *, fresh: bool = False) -> Iterator[Claim]:
    """Claims ``directory`` for this configuration, or checks that it already holds it, and locks it for this process.

    Nothing is written before both succeed. If ``fresh``, an earlier run is set aside. The settings of a run that is
    resumed stay as they are until :meth:`Claim.record`, because it may prove impossible to resume.

    Raises:
        UserError: the directory holds a run with other settings or something else, is in use by another process, is
            not writable, or has a name that is not UTF-8.
    """
    try:
        str(directory).encode()
    except UnicodeEncodeError:  # TensorBoard would refuse it after the first step
        raise UserError(f"run must be a path in UTF-8, got {directory}: choose another --run directory") from None
    if directory.is_file():
        raise UserError(f"run must be a directory, got the file {directory}: choose another --run directory")
    if fresh and (aside := set_aside(directory)):
        say(f"the earlier run is now {aside}")
    with contextlib.ExitStack() as stack:
        try:
            for folder in (CHECKPOINTS, REPLAY_SEGMENTS, VIDEOS):
                refuse_link(directory / folder)
            _changes(directory, config)
            stack.enter_context(lock_run(directory))
            changes = _changes(directory, config)  # again: another process may have started a run in between
            if changes is None:
                config.schema.save(config, directory / CONFIG)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(str(error)) from None
        except OSError as error:
            raise UserError(cannot_write(directory, error)) from None
        yield Claim(directory, config, changes or {})


def _changes(directory: Path, config: Configuration) -> Changes | None:
    """The settings that differ from those of the run in the directory; None if no run has begun there.

    Raises:
        UserError: one of them may not change, or the directory holds something else.
    """
    if (directory / CONFIG).exists():
        # Without a metric or a checkpoint no run has begun, so the settings of a failed start may be corrected.
        if not (directory / METRICS_FILE).exists() and not any((directory / CHECKPOINTS).glob("*.ckpt*")):
            return None
        _refuse_another_kind(directory, config.schema.kind)
        earlier = config.schema.read(directory / CONFIG)
        if changed := config.schema.changed_fields(earlier, config):
            raise UserError(
                f"{directory} belongs to a run with other settings ({_in_words(changed)}); "
                "choose another --run directory, or set that run aside with --fresh"
            )
        return config.schema.allowed_changes(earlier, config)
    if directory.is_dir() and any(path.name not in _LEFT_BY_A_START for path in directory.iterdir()):
        raise UserError(f"{directory} is not empty and not a run directory: choose another --run directory")
    return None


def _refuse_another_kind(directory: Path, kind: Kind | None) -> None:
    """Refuses a directory that says it is a run of another kind; a damaged one is refused when it is read."""
    told = {"kind", "env"} & read_yaml(directory / CONFIG).keys()  # an agent's had no kind, but a task
    if told and kind is not None and (own := kind_of(directory)) != kind:
        raise UserError(
            f"{directory} belongs to a run of {KINDS[own].by}; choose another --run directory, or set that run aside "
            "with --fresh"
        )


def _in_words(changes: Changes) -> str:
    return "; ".join(f"{name}: {old} → {new}" for name, (old, new) in changes.items())


def say_if_edited(directory: Path, saved: Any, present: Layer) -> None:
    """Says in one line if the configuration of a run was edited since its checkpoint was saved.

    Args:
        directory: the run's directory.
        saved: the checkpoint's :meth:`~curl_rl.runs.settings.Schema.lasting` settings; those of another version are
            compared as far as both know them, and earlier ones saved none.
        present: those of the configuration.
    """
    earlier = saved if isinstance(saved, dict) else {}
    edited = {
        name: (earlier[name], value) for name, value in present.items() if name in earlier and earlier[name] != value
    }
    if edited:
        say(
            f"{directory / CONFIG} has been edited since the checkpoint was saved, and is followed: {_in_words(edited)}"
        )


def set_aside(directory: Path) -> Path | None:
    """Renames an earlier run and returns its new path; None if there was none.

    Raises:
        UserError: a process is using the run, or the directory cannot be renamed.
    """
    if not (directory / CONFIG).exists():
        return None
    try:
        with lock_run(directory):
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            return directory.rename(directory.with_name(f"{directory.name}.before-{stamp}"))
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"cannot rename {directory}: {in_words(error)}") from None


def check_room(directory: Path, needed: int, remedy: str, *, fresh: bool = False) -> None:
    """Checks that ``needed`` bytes of checkpoints fit on the disk, before the run has a directory.

    Counts the checkpoints that the run already has, unless it is started ``fresh``. ``remedy`` tells the user how to
    make them smaller.

    Raises:
        UserError: they do not fit.
    """
    kept = () if fresh else (directory / CHECKPOINTS).rglob("*")
    present = sum(path.stat().st_size for path in kept if path.is_file())
    disk = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    missing, free = needed - present, shutil.disk_usage(disk).free
    if missing > free:
        raise UserError(
            f"the disk of {directory} has {human_size(free)} free, and the checkpoints of this run need "
            f"{human_size(missing)}: free some space, {remedy}, or choose another --run directory"
        )
