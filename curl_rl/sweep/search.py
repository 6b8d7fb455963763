"""A search over settings by Optuna: each trial is some settings, trained on all tasks and seeds of the sweep.

A trial's value is the mean over its jobs of the return at their last evaluation. The study is a journal in the sweep's
folder, so a search that was killed continues: trials under way keep their settings and their runs, and those that were
given up stay given up.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably
from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.grid import Grid
from curl_rl.sweep.job import Job
from curl_rl.sweep.progress import Progress, evaluations, newest_rows
from curl_rl.sweep.values import spelled

JOURNAL = "search.journal"
"""Name of the study's file in the sweep's folder."""

_STUDY = "sweep"


@dataclass(frozen=True)
class Between:
    """A setting between two bounds, both included."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound; whole numbers if both bounds are of type int."""
    log: bool = False
    """Draw its logarithm evenly."""

    @property
    def ends(self) -> tuple[str, ...]:
        """The bounds, as a run's command line takes them."""
        return spelled(self.low), spelled(self.high)

    def suggest(self, trial: Any, name: str) -> float:
        """The value in a trial, drawn if it has none yet."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(trial.suggest_int(name, self.low, self.high, log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))


@dataclass(frozen=True)
class OneOf:
    """A setting that takes one of some values."""

    values: tuple[str, ...]
    """The values."""

    @property
    def ends(self) -> tuple[str, ...]:
        """The values."""
        return self.values

    def suggest(self, trial: Any, name: str) -> str:
        """The value in a trial, drawn if it has none yet."""
        return str(trial.suggest_categorical(name, list(self.values)))


class Search:
    """The jobs of a search.

    Args:
        grid: tasks, presets, fixed settings and seeds of every trial.
        ranges: the settings to search, by name.
        trials: how many trials to make, failed and given up ones included.
        folder: the sweep's folder.
        watch: only look at the trials, and change nothing.

    Raises:
        UserError: Optuna is not installed.
    """

    def __init__(
        self, grid: Grid, ranges: Mapping[str, Between | OneOf], trials: int, folder: Path, *, watch: bool = False
    ) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise UserError(
                "--search needs Optuna: pip install optuna, or install this package with the extra [optuna]"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._grid, self._ranges, self._wanted, self._folder = grid, ranges, trials, folder
        folder.mkdir(parents=True, exist_ok=True)
        if not watch:
            _mend(folder / JOURNAL)
        backend = JournalFileBackend(str(folder / JOURNAL))
        storage = optuna.storages.JournalStorage(backend)
        if watch:
            self._study = optuna.load_study(study_name=_STUDY, storage=storage)
        else:
            self._study = optuna.create_study(
                study_name=_STUDY, storage=storage, direction="maximize", load_if_exists=True
            )
        self._study.pruner = optuna.pruners.MedianPruner()
        # By the number of trials, so that a search that continues does not draw its first settings again.
        self._study.sampler = optuna.samplers.TPESampler(seed=len(self._study.trials))
        self._jobs: dict[int, list[Job]] = {}
        self._open: dict[int, Any] = {}
        self.closed: set[str] = set()
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == optuna.trial.TrialState.RUNNING and not watch:
                self._adopt(optuna.trial.Trial(self._study, frozen._trial_id))
            elif set(ranges) <= set(frozen.params):
                self._jobs[frozen.number] = grid.jobs({name: spelled(frozen.params[name]) for name in ranges})
        kept = {job.name for number in self._open for job in self._jobs[number]}
        told = {job.name for number, jobs in self._jobs.items() if number not in self._open for job in jobs}
        self.closed |= told - kept

    @property
    def jobs(self) -> Sequence[Job]:
        """The jobs of all trials so far."""
        return list(dict.fromkeys(job for jobs in self._jobs.values() for job in jobs))

    @property
    def is_exhausted(self) -> bool:
        """Whether all trials have ended."""
        return len(self._study.get_trials(deepcopy=False)) >= self._wanted and not self._open

    @property
    def best(self) -> str | None:
        """One line on the best trial; None if none is complete."""
        complete = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.COMPLETE,))
        if not complete:
            return None
        best = self._study.best_trial
        settings = ", ".join(f"{name} {spelled(value)}" for name, value in best.params.items())
        return f"best of {len(complete)} complete trials: {best.value:.1f} with {settings}"

    def advance(self, progress: Mapping[str, Progress], room: int) -> None:
        """Ends trials, gives up those that lag behind the median, and begins others while there is room."""
        for number, trial in list(self._open.items()):
            found = [progress[job.name] for job in self._jobs[number] if job.name in progress]
            if len(found) == len(self._jobs[number]):
                self._judge(number, trial, found)
        while room > 0 and len(self._study.get_trials(deepcopy=False)) < self._wanted:
            room -= len(self._adopt(self._study.ask()))

    def _adopt(self, trial: Any) -> list[Job]:
        """Takes a trial on, with settings that it has or that are drawn now; returns its jobs."""
        chosen = {name: spelled(one.suggest(trial, name)) for name, one in self._ranges.items()}
        self._open[trial.number] = trial
        self._jobs[trial.number] = self._grid.jobs(chosen)
        return self._jobs[trial.number]

    def _judge(self, number: int, trial: Any, found: Sequence[Progress]) -> None:
        state = self._optuna.trial.TrialState
        returns = [one.returned for one in found if one.returned is not None]
        if all(one.state == "done" for one in found) and len(returns) == len(found):
            self._end(number, statistics.fmean(returns))
        elif all(one.is_over for one in found):
            self._end(number, state=state.FAIL)
        else:
            curves = [evaluations(newest_rows(JobFiles(self._folder, one.job.name).run)) for one in found]
            reported = trial.storage.get_trial(trial._trial_id).intermediate_values
            # Before learning begins, returns say nothing about the settings.
            for frames in sorted(set.intersection(*(set(curve) for curve in curves)) - {0, *reported}):
                trial.report(statistics.fmean(curve[frames] for curve in curves), frames)
                if trial.should_prune():
                    self._give_up(number)
                    return

    def _give_up(self, number: int) -> None:
        self._end(number, state=self._optuna.trial.TrialState.PRUNED)
        kept = {job.name for other in self._open for job in self._jobs[other]}
        self.closed |= {job.name for job in self._jobs[number]} - kept
        say(f"trial {number} is behind the median of the others and is given up")

    def _end(self, number: int, value: float | None = None, state: Any = None) -> None:
        self._study.tell(number, value, state=state)
        del self._open[number]


def _mend(journal: Path) -> None:
    """Removes what a process that was killed while it wrote has left: half a last line, and Optuna's lock.

    Optuna would append to the half line, and could then read neither.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        write_durably(journal, [content[: content.rfind(b"\n") + 1]])
