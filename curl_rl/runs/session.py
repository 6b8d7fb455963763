"""One run in progress: its directory, log, checkpoints, meters, stop request, progress bar and faults.

A training loop owns a :class:`Session`, reports its position to it, and passes it metrics and states to save. The
session guarantees for every loop that a failed or stopped run loses nothing that was saved, that NaN never reaches a
checkpoint, and that a fault is reported in one line with the run's position and a remedy.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.runs import checkpoint
from curl_rl.runs.console import progress_bar, say
from curl_rl.runs.directory import CHECKPOINTS, CONFIG, REPLAY_SEGMENTS, VIDEOS, say_if_edited
from curl_rl.runs.disk_errors import remedy
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import (
    has_checkpoint,
    is_out_of_memory,
    kept,
    non_finite_error,
    non_finite_names,
    of_this_run,
    training_fault,
)
from curl_rl.runs.files import own_folder
from curl_rl.runs.logger import METRICS_FILE, Logger
from curl_rl.runs.meters import MetricMeans, Speedometer
from curl_rl.runs.settings import Layer
from curl_rl.runs.signals import Stopped, StopRequest, stop_requests


@dataclass(frozen=True)
class Position:
    """The progress of a run."""

    count: int
    """Position on the x axis of its log: environment frames, or images."""
    updates: int
    """Optimizer steps."""
    place: str
    """The position as text: ``12,000 frames``, or ``epoch 1.33``."""
    detail: str
    """The update as text: ``update 250``."""


@dataclass(frozen=True)
class Remedies:
    """Advice for each kind of fault, naming the settings of this kind of run.

    It says where a setting needs ``--fresh``: most may not change when the run is resumed.
    """

    memory: str
    """The device's memory is full."""
    numbers: str
    """Losses or weights have become NaN or infinite."""


class Processes(Protocol):
    """The processes that train one run together; only process 0 writes."""

    def rank(self) -> int:
        """The number of this process."""

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is true on any process."""

    def raised_together(self, kind: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """If one process raises an exception of this kind inside the block, all do."""


class OneProcess:
    """:class:`Processes` of a run that trains in a single process."""

    def rank(self) -> int:
        """See :class:`Processes`."""
        return 0

    def any_process(self, flag: bool) -> bool:
        """See :class:`Processes`."""
        return flag

    def raised_together(self, kind: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """See :class:`Processes`."""
        return contextlib.nullcontext()


class Contents(NamedTuple):
    """The contents of a loop's checkpoint."""

    state: dict[str, Any]
    """As :func:`checkpoint.save` takes it; the means of the metrics are added under ``means``, the number of rows in
    the log and their hash under ``rows`` and ``rows_sha256``, and the run's settings under ``settings``."""
    attachments: Sequence[str] = ()
    """Additional files that the checkpoint needs."""


class _MissingError(OSError):
    """A file or folder of the run is no longer there."""


class Session:
    """One run in progress.

    Order of use: :meth:`restore`, :meth:`begin`, the loop inside :meth:`training`, and :meth:`leave` if the loop was
    stopped.

    Args:
        directory: the run's directory, already claimed.
        device: holds the sums of the metrics.
        position: returns the run's progress. It must not reference the owner of the session: the reference cycle would
            keep networks and replay alive after the run until Python's garbage collector finds it.
        remedies: advice for each kind of fault.
        keep: number of newest checkpoints to keep.
        axis: the unit of the x axis.
        processes: the processes that train together.
        settings: the settings that last for the whole run; each checkpoint holds them.
    """

    def __init__(
        self,
        directory: Path,
        device: torch.device,
        position: Callable[[], Position],
        remedies: Remedies,
        *,
        keep: int,
        axis: str = "frames",
        processes: Processes | None = None,
        settings: Layer | None = None,
    ) -> None:
        self.directory = directory
        self.position = position
        self.means = MetricMeans()
        """Means of the metrics since the last row."""
        self.stop = StopRequest()
        """True once a signal has asked this process to stop."""
        self.bar: tqdm[Any] = progress_bar(0, initial=0, unit="", description="", hidden=True)
        """Progress bar of the whole run; hidden outside :meth:`training`."""
        self._device, self._remedies, self._keep, self._axis = device, remedies, keep, axis
        self._processes, self._settings = processes or OneProcess(), settings
        self._speed = Speedometer(0, 0, axis)
        self._logger: Logger | None = None
        self._place: os.stat_result | None = None
        self._has_config = False
        self._rows_saved = 0
        self._rows_digest: str | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self._processes.rank() == 0

    def say(self, line: str) -> None:
        """Prints one line for the user, from the writing process only."""
        if self.writes:
            say(line)

    # ------------------------------------------------------------ opening, closing

    def restore(
        self, usable: Callable[[dict[str, Any]], None] | None = None, *, incomplete: bool = False
    ) -> dict[str, Any] | None:
        """The state of the newest intact and ``usable`` checkpoint, from which the loop resumes; None without any.

        Args:
            usable: takes over the state, as :func:`checkpoint.load_newest` calls it. Whatever it raises because the
                state is of another run makes that checkpoint unusable.
            incomplete: accept a checkpoint without its attachments.

        Raises:
            UserError: checkpoints exist, but none can be used.
        """

        def fits(state: dict[str, Any]) -> None:
            with of_this_run():
                self.means.load(state["means"], self._device)
                if usable is not None:
                    usable(state)

        try:
            found = checkpoint.load_newest(
                self.directory / CHECKPOINTS, usable=fits, read_only=not self.writes, incomplete=incomplete
            )
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        if found is None:
            return None
        self._rows_saved = found[1].get("rows", 0)  # earlier versions did not count them
        self._rows_digest = found[1].get("rows_sha256")
        if self.writes and self._settings is not None:
            say_if_edited(self.directory, found[1].get("settings"), self._settings)
        return found[1]

    def begin(self, *, resumed: bool) -> None:
        """Opens the log; if the run was ``resumed``, drops the rows after its position.

        Raises:
            UserError: the log is damaged or cannot be written, or belongs to a run whose checkpoints are gone.
        """
        at = self.position()
        self._speed = Speedometer(at.count, at.updates, self._axis)
        if self.writes:
            self._place = os.stat(self.directory)
            self._has_config = (self.directory / CONFIG).exists()
            self._delete_partial_files()
            log = self.directory / METRICS_FILE
            if not resumed and log.is_file() and log.stat().st_size:
                if not (self.directory / CHECKPOINTS).exists():  # made below, before the log
                    raise UserError(
                        f"{self.directory} has a {METRICS_FILE}, but its {CHECKPOINTS} are gone: put them back, or "
                        "start over with --fresh, which sets the log aside"
                    )
                self.say(f"{self.directory} has no checkpoint: starts over, without the rows of its {METRICS_FILE}")
            try:
                own_folder(self.directory, CHECKPOINTS)
                self._logger = Logger(self.directory, resume_at=at.count if resumed else -1, axis=self._axis)
            except (ValueError, OSError) as error:
                raise UserError(one_line(error)) from None
            if (lost := self._rows_saved - self._logger.rows) > 0:
                self.say(
                    f"{self.directory / METRICS_FILE} has lost {lost} of the {self._rows_saved} rows that were there "
                    "when the checkpoint was saved: training is not affected, but the curves have a gap"
                )
            elif self._rows_digest not in (None, self._logger.sha256(self._rows_saved)):
                self.say(
                    f"{self.directory / METRICS_FILE} has been changed since the checkpoint was saved: training is not "
                    "affected, but the curves may be wrong"
                )

    def close(self) -> None:
        """Closes the log."""
        if self._logger is not None:
            self._logger.close()

    # -------------------------------------------------------------------- the loop

    @contextlib.contextmanager
    def training(self, total: int, *, unit: str, description: str, unit_scale: bool = False) -> Iterator[None]:
        """Runs the loop: turns signals into stop requests, shows the bar, and reports faults with the run's position.

        Args:
            total: length of the whole run on the x axis.
            unit: the unit that the bar counts.
            description: text before the bar.
            unit_scale: 12.3k for 12300.

        Raises:
            TrainingFault: memory is full, the disk failed, or the data can no longer be read.
        """
        at = self.position()
        bar = progress_bar(
            total,
            initial=at.count,
            unit=unit,
            description=description,
            unit_scale=unit_scale,
            hidden=not self.writes,
        )
        with self.memory_guarded(), stop_requests(tell=self.writes) as self.stop, bar as self.bar:
            self._speed.read(at.count, at.updates)
            try:
                yield
            except _MissingError as error:
                self.fail(error, "put it back and start the same command again, or start the run anew if it is lost")
            except (OSError, UserError) as error:
                advice = f"nothing that was saved is lost: {remedy(error)} and start the same command again"
                self.fail(error, advice)

    @property
    def stopping(self) -> bool:
        """Whether the loop should end before its budget is spent; the same on every process."""
        return self._processes.any_process(bool(self.stop))

    def leave(self) -> NoReturn:
        """Ends a run that a signal, to any of its processes, has interrupted. The caller has saved it.

        Raises:
            Stopped: always.
        """
        self.say(f"saved at {self.position().place}; the same command resumes")
        raise Stopped(self.stop.signal_number or signal.SIGTERM)

    # ------------------------------------------------------------------- reporting

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Excludes the time spent inside the block from the speed."""
        return self._speed.paused()

    def report(self) -> dict[str, float]:
        """Writes and returns a row: the means of the metrics since the last row, and the speed.

        Raises:
            TrainingFault: a mean is not finite.
            OSError: the row could not be written.
        """
        at, means = self.position(), self._finite_means()
        row = means | self._speed.read(at.count, at.updates)
        self.scalars(row)
        self.means.clear()
        return row

    def scalars(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Writes a row of these numbers, as :meth:`Logger.scalars` does."""
        if self._logger is not None:
            self._logger.scalars(self.position().count, metrics)

    def image(self, name: str, image: npt.NDArray[np.uint8] | Tensor) -> None:
        """Logs an image, as :meth:`Logger.image` does."""
        if self._logger is not None:
            self._logger.image(self.position().count, name, image)

    def video(self, name: str, images: npt.NDArray[np.uint8] | Tensor, fps: float) -> None:
        """Logs a video, as :meth:`Logger.video` does, and saves it with the run's videos."""
        if self._logger is not None:
            self._refuse_missing_files()  # a folder would otherwise be made anew
            count = self.position().count
            folder = own_folder(self.directory, VIDEOS)
            self._logger.video(count, name, images, fps, folder / f"{count:010d}.gif")

    # -------------------------------------------------------------- saving, failing

    def save(self, weights: Mapping[str, Any], contents: Callable[[], Contents]) -> None:
        """Writes a checkpoint.

        Args:
            weights: the weights of every network; none may hold NaN or infinity.
            contents: returns the contents to save; called in the writing process once the log is on disk. It must also
                write all files that a complete run must have: a run whose checkpoint says that it is complete is not
                restarted to create missing files.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written.
            OSError: writing failed, or the run's files were deleted; earlier checkpoints are intact.
        """
        self._finite_means()
        self.refuse_non_finite(non_finite_names(weights))
        with self._processes.raised_together(OSError):
            if self._logger is not None:
                with self._speed.paused():
                    self._refuse_missing_files()
                    self._logger.flush()
                    state, attachments = contents()
                    rows = {"rows": self._logger.rows, "rows_sha256": self._logger.sha256(self._logger.rows)}
                    settings = {} if self._settings is None else {"settings": self._settings}
                    checkpoint.save(
                        self.directory / CHECKPOINTS,
                        self.position().count,
                        {**state, "means": self.means.state(), **rows, **settings},
                        attachments=attachments,
                        keep=self._keep,
                    )

    def refuse_non_finite(self, names: list[str]) -> None:
        """Ends the run if ``names`` lists NaN or infinite metrics or weights, before a good checkpoint is overwritten.

        Raises:
            TrainingFault: ``names`` is not empty.
        """
        if names:
            self.fail_by_numbers(non_finite_error(names))

    def fail_by_numbers(self, error: FloatingPointError | ValueError) -> NoReturn:
        """Ends a run that has diverged or collapsed.

        Raises:
            TrainingFault: always.
        """
        kept = "the last checkpoint predates it" if has_checkpoint(self.directory) else "nothing was saved yet"
        self.fail(error, f"{kept}; {self._remedies.numbers}")

    @contextlib.contextmanager
    def memory_guarded(self) -> Iterator[None]:
        """Guards code that may exhaust the device's memory.

        Raises:
            TrainingFault: memory ran out.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.fail(error, f"{kept(self.directory)}: {self._remedies.memory}")

    def fail(self, error: Exception, advice: str) -> NoReturn:
        """Ends the run.

        Args:
            error: the cause.
            advice: what remains of the run, and what to do.

        Raises:
            TrainingFault: always.
        """
        at = self.position()
        raise training_fault(self.directory, f"{at.place} ({at.detail})", error, advice) from error

    def _refuse_missing_files(self) -> None:
        """Checks that the run's directory and its configuration are still there.

        Raises:
            _MissingError: somebody has deleted or moved them, so what is saved now could not be resumed.
        """
        lost = None
        if not self.directory.is_dir() or (self._place and not os.path.samestat(self.directory.stat(), self._place)):
            lost = self.directory
        elif self._has_config and not (self.directory / CONFIG).is_file():
            lost = self.directory / CONFIG
        if lost is not None:
            raise _MissingError(f"{lost} was deleted or moved while the run used it")

    def _delete_partial_files(self) -> None:
        """Deletes what a killed process was writing; this one alone writes here."""
        for folder in ("", CHECKPOINTS, REPLAY_SEGMENTS, VIDEOS):
            for partial in (self.directory / folder).glob("*.partial"):
                with contextlib.suppress(OSError):
                    partial.unlink()

    def _finite_means(self) -> dict[str, float]:
        means = self.means.read()
        self.refuse_non_finite([name for name, value in means.items() if not math.isfinite(value)])
        return means
