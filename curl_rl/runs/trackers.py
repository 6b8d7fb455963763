"""Experiment trackers that get a run's numbers besides its own log: Weights & Biases, and trackio, which runs locally.

Both are optional packages with the same few calls. A run never depends on its tracker: what goes wrong there is said
once, and training goes on.
"""

from __future__ import annotations

import importlib
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from curl_rl.runs.console import printable, say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import read_file, write_durably

Tracker = Literal["wandb", "trackio"]

NAME = "tracked_as.txt"
"""Name of the file in a run's directory that holds the run's name at its trackers."""

_PROJECT = "curl_rl"
_LONGEST_NAME = 1024  # bytes


class Trackers:
    """The trackers of one run.

    Args:
        names: which of them; none by default.
        directory: the run's directory. A file in it holds the run's name there, so that a resumed run continues under
            the same name and a new one in its place does not.
        settings: the content of config.yaml, shown with the run.

    Raises:
        UserError: a package is not installed.
        OSError: the name cannot be written.
    """

    def __init__(
        self,
        names: Sequence[Tracker] = (),
        directory: Path = Path(),
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        packages = {name: _imported(name) for name in names}
        self._open: dict[str, Any] = {}
        run = _name_of(directory) if names else ""
        for name, package in packages.items():
            # wandb continues a run by its id, trackio by its name.
            own = {"id": run} if name == "wandb" else {}
            try:
                self._open[name] = package.init(
                    project=_PROJECT, name=run, config=dict(settings), resume="allow", **own
                )
            except Exception as error:  # of another package, or of the network
                self._lose(name, error)

    def scalars(self, count: int, metrics: Mapping[str, float]) -> None:
        """Sends a row.

        Args:
            count: position on the run's x axis.
            metrics: numbers by name; those that are not finite are left out.
        """
        row = {name: value for name, value in metrics.items() if math.isfinite(value)}
        for name, run in list(self._open.items()):
            try:
                run.log(row, step=count)
            except Exception as error:
                self._lose(name, error)

    def close(self) -> None:
        """Ends the run there; a second call does nothing."""
        for name, run in list(self._open.items()):
            try:
                run.finish()
            except Exception as error:
                self._lose(name, error)
        self._open.clear()

    def _lose(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        say(f"warning: {name} gets no more of this run, which goes on: {type(error).__name__}: {one_line(error)}")


def _name_of(directory: Path) -> str:
    """The run's name, unlike that of any other run; written when it is first asked for."""
    path = directory / NAME
    if path.is_file():
        return printable(read_file(path, _LONGEST_NAME).decode(errors="replace").strip())
    readable = re.sub(r"[^\w.-]+", "-", "-".join(directory.absolute().parts[-3:])).strip("-.")
    name = f"{readable[-80:]}-{secrets.token_hex(4)}"
    write_durably(path, [f"{name}\n".encode()])
    return name


def _imported(name: Tracker) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"log.trackers {name} needs the package {name}, which is not installed: pip install {name}, or install "
            f"this package with the extra [{name}]"
        ) from None
