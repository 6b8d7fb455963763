"""A run's directory: its layout, owner and disk space, and setting an earlier run aside."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, get_args

from curl_rl.runs.checkpoint import SEGMENTS
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError
from curl_rl.runs.lock import LOCK, lock_run
from curl_rl.runs.logger import METRICS_FILE
from curl_rl.runs.settings import Kind, Schema, read_yaml

CONFIG = "config.yaml"
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
    for kind in get_args(Kind):
        if content["kind"] == kind:
            return kind
    raise UserError(f"{path}: kind must be {' or '.join(get_args(Kind))}, got {content['kind']}")


class Configuration(Protocol):
    """The settings of a run of any kind."""

    @property
    def schema(self) -> Schema[Any]:
        """The schema that reads and writes them."""


@contextlib.contextmanager
def claimed(directory: Path, config: Configuration, *, fresh: bool = False) -> Iterator[None]:
    """Claims ``directory`` for this configuration, or checks that it already holds it, and locks it for this process.

    Nothing is written before both succeed. If ``fresh``, an earlier run is set aside.

    Raises:
        UserError: the directory holds a run with other settings or something else, is in use by another process, is
            not writable, or has a name that is not UTF-8.
    """
    try:
        str(directory).encode()
    except UnicodeEncodeError:  # TensorBoard would refuse it after the first step
        raise UserError(f"run must be a path in UTF-8, got {directory}: choose another --run directory") from None
    if fresh and (aside := set_aside(directory)):
        say(f"the earlier run is now {aside}")
    with contextlib.ExitStack() as stack:
        try:
            _check_owner(directory, config)
            stack.enter_context(lock_run(directory))
            _check_owner(directory, config)  # again: another process may have started a run in between
            config.schema.save(config, directory / CONFIG)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(str(error)) from None
        except OSError as error:
            raise UserError(f"cannot write to {directory}: {error.strerror}") from None
        yield


def _check_owner(directory: Path, config: Configuration) -> None:
    if (directory / CONFIG).exists():
        # Without a metric or a checkpoint no run has begun, so the settings of a failed start may be corrected.
        if (directory / METRICS_FILE).exists() or any((directory / CHECKPOINTS).glob("*.ckpt*")):
            changed = config.schema.changed_fields(config.schema.read(directory / CONFIG), config)
            if changed:
                differences = "; ".join(f"{name}: {old} → {new}" for name, (old, new) in changed.items())
                raise UserError(
                    f"{directory} belongs to a run with other settings ({differences}); "
                    "choose another --run directory, or set that run aside with --fresh"
                )
    elif directory.is_dir() and any(path.name not in _LEFT_BY_A_START for path in directory.iterdir()):
        raise UserError(f"{directory} is not empty and not a run directory: choose another --run directory")


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
        raise UserError(f"cannot rename {directory}: {error.strerror}") from None


def check_room(directory: Path, needed: int, remedy: str) -> None:
    """Checks that ``needed`` bytes of checkpoints fit on the disk, counting those already stored.

    ``remedy`` tells the user how to make them smaller.

    Raises:
        UserError: they do not fit.
    """
    present = sum(path.stat().st_size for path in (directory / CHECKPOINTS).rglob("*") if path.is_file())
    missing, free = needed - present, shutil.disk_usage(directory).free
    if missing > free:
        raise UserError(
            f"the disk of {directory} has {free / 1e9:.1f} GB free, and the checkpoints of this run need "
            f"{missing / 1e9:.1f} GB: free some space, {remedy}, or choose another --run directory"
        )
