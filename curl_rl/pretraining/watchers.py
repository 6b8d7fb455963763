"""The interface for measurements between the steps of a pretraining run that depend on the kind of data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curl_rl.pretraining.trainer import Pretrainer


class Watcher:
    """Observes a run and reports through its session, without changing it. Override any of the methods.

    Every process calls the same methods at the same times; only one process writes (``Session.writes``).
    """

    def prepare(self, run: Pretrainer) -> None:
        """Called before the first step of a new or resumed run: load what is needed, or report what cannot be done."""

    def after_step(self, run: Pretrainer) -> None:
        """Called after each step, before its checkpoint, so that the checkpoint covers what is reported here."""

    def finish(self, run: Pretrainer) -> None:
        """Called after the last step, before the last checkpoint. An OSError in one process is raised in all."""
