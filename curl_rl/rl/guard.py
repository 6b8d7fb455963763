"""Protects a run from its environments, which are user code and may raise any exception."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

import torch

from curl_rl.runs.disk_errors import remedy
from curl_rl.runs.errors import TrainingFault, one_line
from curl_rl.runs.faults import is_out_of_memory, kept
from curl_rl.runs.session import Session

_REMEDY = "fix the environment and start the same command again"


class EnvironmentGuard(contextlib.AbstractContextManager[None]):
    """Guards calls into environment code: on any exception, save the run and raise :class:`TrainingFault`.

    One guard serves one step of the run and may be entered several times. Random numbers drawn since its construction
    are drawn again after resuming.

    Args:
        session: the run's session.
        save: writes a checkpoint.
        generator: the source of the step's actions.
    """

    can_undo: bool
    """True while resetting the generator undoes the step; otherwise the run returns to its last checkpoint."""

    def __init__(self, session: Session, save: Callable[[], None], generator: torch.Generator) -> None:
        self.can_undo = True
        self._session, self._save = session, save
        self._generator, self._before = generator, generator.get_state()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FloatingPointError):
            self._session.fail_by_numbers(error)
        # Running out of memory is blamed on the agent: its batches are larger than anything in an environment.
        if isinstance(error, Exception) and not is_out_of_memory(error):
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        self._generator.set_state(self._before)
        if not self.can_undo:
            self._session.fail(error, f"{kept(self._session.directory)}: {_REMEDY}")
        saved = "the run is saved"
        try:
            self._save()
        except TrainingFault:
            raise
        except Exception as unsaved:
            saved = f"{kept(self._session.directory)}; a new one could not be written ({one_line(unsaved)})"
            if isinstance(unsaved, OSError):
                saved += f", so {remedy(unsaved)}"
        self._session.fail(error, f"{saved}: {_REMEDY}")
