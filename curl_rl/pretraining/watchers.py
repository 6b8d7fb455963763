"""What is measured and shown between the steps of a pretraining run, by those who know what the samples are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curl_rl.pretraining.trainer import Pretrainer


class Watcher:
    """Looks at a run and reports through its session; it changes nothing. Each method may be left as it is.

    Every process calls the same methods at the same moments; one process alone writes (``Session.writes``).
    """

    def prepare(self, run: Pretrainer) -> None:
        """Before the first step of a run or of its resumption: read what will be needed, or say what cannot be done."""

    def after_step(self, run: Pretrainer) -> None:
        """After each step, before a checkpoint of it: what is reported now is then known to that checkpoint."""

    def finish(self, run: Pretrainer) -> None:
        """After the last step of all, before the last checkpoint. An OSError in one process is raised in all."""
