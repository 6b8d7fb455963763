"""A run's directory: what lies where, whose it is, whether there is room, and setting an earlier run aside."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
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

# Of a process that was killed before it had written its configuration.
_LEFT_BY_A_START = (LOCK, f"{CONFIG}.partial")


def kind_of(directory: Path) -> Kind:
    """What the run in this directory is of, by its configuration.

    Raises:
        UserError: the configuration cannot be read, or names a kind that is none.
    """
    path = directory / CONFIG
    content = read_yaml(path)
    if "kind" not in content:  # of before runs said so: an agent's has no method
        return "pretraining" if "method" in content else "agent"
    for kind in get_args(Kind):
        if content["kind"] == kind:
            return kind
    raise UserError(f"{path}: kind must be {' or '.join(get_args(Kind))}, got {content['kind']}")


class Configuration(Protocol):
    """The settings of a run of any kind."""

    @property
    def schema(self) -> Schema[Any]:
        """How they are read and written."""


@contextlib.contextmanager
def claimed(directory: Path, config: Configuration, *, fresh: bool = False) -> Iterator[None]:
    """Makes ``directory`` this configuration's, or checks that it is, and holds it for this process alone.

    Nothing is written before both are sure. If the run is to be ``fresh``, an earlier one is set aside.

    Raises:
        UserError: it belongs to a run with other settings, to something else or to another process, or cannot be
            written to.
    """
    if fresh and (aside := set_aside(directory)):
        say(f"the earlier run is now {aside}")
    with contextlib.ExitStack() as stack:
        try:
            _check_owner(directory, config)
            stack.enter_context(lock_run(directory))
            _check_owner(directory, config)  # again: another process may have begun a run in between
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
        # Where nothing was reported or saved yet, no run has begun: a start that failed at the door may be corrected.
        if (directory / METRICS_FILE).exists() or any((directory / CHECKPOINTS).glob("*.ckpt*")):
            changed = config.schema.changed_fields(config.schema.read(directory / CONFIG), config)
            if changed:
                differences = "; ".join(f"{name}: {old} → {new}" for name, (old, new) in changed.items())
                raise UserError(
                    f"{directory} belongs to a run with other settings ({differences}); "
                    "choose another --run directory, or set that run aside with --fresh"
                )
    elif directory.is_dir() and any(path.name not in _LEFT_BY_A_START for path in directory.iterdir()):
        raise UserError(f"{directory} is not empty and no run: choose another --run directory")


def set_aside(directory: Path) -> Path | None:
    """Renames an earlier run, so that nothing of it is lost; its new name, or None where there was none.

    Raises:
        UserError: a process is using it, or the directory may not be renamed.
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
    """Whether ``needed`` bytes of checkpoints fit on the disk, beside those that lie there already.

    ``remedy`` says what makes them smaller.

    Raises:
        UserError: they do not.
    """
    present = sum(path.stat().st_size for path in (directory / CHECKPOINTS).rglob("*") if path.is_file())
    missing, free = needed - present, shutil.disk_usage(directory).free
    if missing > free:
        raise UserError(
            f"the disk of {directory} has {free / 1e9:.1f} GB free and the checkpoints of this run need "
            f"{missing / 1e9:.1f} GB: make room, {remedy}, or choose another --run directory"
        )
