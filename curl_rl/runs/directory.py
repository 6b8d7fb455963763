"""A run's directory: what lies where, whose it is, whether there is room, and setting an earlier run aside."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from curl_rl.runs.checkpoint import SEGMENTS, lock_run
from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.runs.logger import METRICS_FILE
from curl_rl.runs.settings import Schema, read_yaml

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
REPLAY_SEGMENTS = Path(CHECKPOINTS) / SEGMENTS
VIDEOS = "videos"
FAULT = "fault.txt"

# Of a process that was killed before it had written its configuration.
_LEFT_BY_A_START = ("run.lock", f"{CONFIG}.partial")


def is_of_pretraining(directory: Path) -> bool:
    """Whether this run, of which there is a configuration, pretrained an encoder instead of training an agent.

    Raises:
        ValueError: the configuration cannot be read.
    """
    return "method" in read_yaml(directory / CONFIG)


class Configuration(Protocol):
    """The settings of a run of any kind."""

    @property
    def schema(self) -> Schema[Any]:
        """How they are read and written."""


@contextlib.contextmanager
def claimed(directory: Path, config: Configuration) -> Iterator[None]:
    """Makes ``directory`` this configuration's, or checks that it is, and holds it for this process alone.

    Nothing is written before both are sure.

    Raises:
        UserError: it belongs to a run with other settings, to something else or to another process, or cannot be
            written to.
    """
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


def kept(directory: Path) -> str:
    """What is left of a run that breaks off without being saved."""
    saved = any((directory / CHECKPOINTS).glob("*.ckpt"))
    return "the last checkpoint is intact" if saved else "nothing was saved yet"


def fault(directory: Path, where: str, error: Exception, advice: str) -> TrainingFault:
    """What to raise where ``error`` has ended a run; its traceback lies in the directory then.

    Args:
        directory: the run's.
        where: how far the run had come.
        error: what happened.
        advice: what is left, and what to do.
    """
    details = directory / FAULT
    try:
        details.write_text("".join(traceback.format_exception(error)))
        advice += f" (details: {details})"
    except OSError:
        pass  # nothing about the fault itself is lost: the line below says what it was
    return TrainingFault(f"stopped at {where}: {one_line(error)}; {advice}")


def not_finite(names: list[str]) -> FloatingPointError:
    """What has ended a run whose metrics or weights of these names are NaN or infinite."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return FloatingPointError(f"not finite any more: {', '.join(names[:5])}{more}")


def check_room(directory: Path, needed: int, remedy: str = "lower replay.capacity") -> None:
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
