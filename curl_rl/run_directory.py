"""A run's directory: what lies where, whose it is, and setting an earlier run aside."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from curl_rl.checkpoint import SEGMENTS, lock_run
from curl_rl.config import RunConfig, UserError, differing_fields, read_config, save_config

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
REPLAY_SEGMENTS = Path(CHECKPOINTS) / SEGMENTS
VIDEOS = "videos"
FAULT = "fault.txt"


def claim(directory: Path, config: RunConfig) -> None:
    """Makes ``directory`` this configuration's, or checks that it is.

    Raises:
        UserError: it belongs to a run with other settings, to something else, or cannot be written to.
    """
    path = directory / CONFIG
    if path.exists():
        differences = differing_fields(read_config(path), config)
        if differences:
            raise UserError(
                f"{directory} belongs to a run with other settings ({'; '.join(differences)}); "
                "choose another --run directory, or set that run aside with --fresh"
            )
    elif directory.is_dir() and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty and no run: choose another --run directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_config(config, partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from None


def set_aside(directory: Path) -> Path | None:
    """Renames an earlier run, so that nothing of it is lost; its new name, or None where there was none.

    Raises:
        UserError: a process is using it.
    """
    if not directory.exists():
        return None
    try:
        with lock_run(directory):
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            return directory.rename(directory.with_name(f"{directory.name}.before-{stamp}"))
    except ValueError as error:
        raise UserError(str(error)) from None
