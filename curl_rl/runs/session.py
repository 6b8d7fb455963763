"""One run in progress: its directory, log, checkpoints, meters, stop request, progress bar and faults.

A training loop owns a :class:`Session`, tells it how far it has come, and hands it what there is to report and to save.
What holds for every loop is kept here: a run that breaks or is stopped loses nothing that was saved, NaN never reaches
a checkpoint, and whatever ends a run is one line that says where it stood and what to do.
"""

from __future__ import annotations

import contextlib
import math
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
from curl_rl.runs.directory import CHECKPOINTS, VIDEOS, check_room
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import is_out_of_memory, kept, non_finite_error, non_finite_names, training_fault
from curl_rl.runs.logger import Logger
from curl_rl.runs.meters import MetricMeans, Speedometer
from curl_rl.runs.signals import Stopped, StopRequest, stop_requests


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    count: int
    """On the x axis of what it reports: environment frames, or images."""
    updates: int
    """Steps of the optimizer."""
    place: str
    """In words: ``12,000 frames``, or ``epoch 1.33``."""
    detail: str
    """The update, in words: ``update 250``."""


@dataclass(frozen=True)
class Remedies:
    """What a user can do about each kind of fault, in the words of this kind of run's settings."""

    memory: str
    """The device's memory is full."""
    numbers: str
    """Losses or weights have become NaN or infinite."""
    room: str
    """The checkpoints of the whole run would not fit on the disk."""
    disk: str
    """The disk refused to be read or written."""


class Processes(Protocol):
    """The processes that train one run together; process 0 alone writes."""

    def rank(self) -> int:
        """Which one this is."""

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is true on any of them."""

    def raised_together(self, kind: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Where one of them may raise an exception of this kind: then all do."""


class OneProcess:
    """The usual case of :class:`Processes`."""

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
    """What a loop has to save."""

    state: dict[str, Any]
    """As :func:`checkpoint.save` takes it; the means of the metrics are added under ``means``."""
    attachments: Sequence[str] = ()
    """Files beside it that it needs."""


class Session:
    """One run in progress.

    The order of use: :meth:`check_room`, :meth:`restore`, :meth:`begin`, then the loop in :meth:`training`, and
    :meth:`leave` after one that was stopped.

    Args:
        directory: the run's, claimed already.
        device: where the metrics' sums are kept.
        position: tells how far the run has come. It must not refer to whoever holds the session: networks and replay
            would then outlive the run until Python's collector finds the circle.
        remedies: what to advise.
        keep: newest checkpoints kept.
        axis: what the x axis counts.
        processes: those that train together.
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
    ) -> None:
        self.directory = directory
        self.position = position
        self.means = MetricMeans()
        """Of the metrics since the last row."""
        self.stop = StopRequest()
        """Whether a signal asked this process to stop."""
        self.bar: tqdm[Any] = progress_bar(0, initial=0, unit="", description="", hidden=True)
        """Of the whole run; hidden outside of :meth:`training`."""
        self._device, self._remedies, self._keep, self._axis = device, remedies, keep, axis
        self._processes = processes or OneProcess()
        self._speed = Speedometer(0, 0, axis)
        self._logger: Logger | None = None

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self._processes.rank() == 0

    def say(self, line: str) -> None:
        """One line for the user, of all processes together."""
        if self.writes:
            say(line)

    # ------------------------------------------------------------ opening, closing

    def check_room(self, needed: int) -> None:
        """Whether ``needed`` bytes of checkpoints fit on the disk.

        Raises:
            UserError: they do not.
        """
        if self.writes:
            check_room(self.directory, needed, self._remedies.room)

    def restore(self, usable: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any] | None:
        """The state in the newest checkpoint that is whole and ``usable``, for the loop to go back to; None if none is.

        Args:
            usable: as :func:`checkpoint.load_newest` takes it.

        Raises:
            UserError: there are checkpoints, and none of them can be used.
        """
        try:
            found = checkpoint.load_newest(self.directory / CHECKPOINTS, usable=usable, read_only=not self.writes)
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        if found is None:
            return None
        state = found[1]
        self.means.load(state["means"], self._device)
        return state

    def begin(self, *, resumed: bool) -> None:
        """Opens the log, without the rows that are later than where the run has ``resumed``.

        Raises:
            UserError: the log is damaged or cannot be written.
        """
        at = self.position()
        self._speed = Speedometer(at.count, at.updates, self._axis)
        if self.writes:
            try:
                self._logger = Logger(self.directory, resume_at=at.count if resumed else -1, axis=self._axis)
            except (ValueError, OSError) as error:
                raise UserError(one_line(error)) from None

    def close(self) -> None:
        """Closes the log."""
        if self._logger is not None:
            self._logger.close()

    # -------------------------------------------------------------------- the loop

    @contextlib.contextmanager
    def training(self, total: int, *, unit: str, description: str, unit_scale: bool = False) -> Iterator[None]:
        """Around the loop: signals only ask it to stop, the bar shows how far it is, and a fault says where it stood.

        Args:
            total: of the whole run, on the x axis.
            unit: what the bar counts.
            description: what stands before it.
            unit_scale: 12.3k for 12300.

        Raises:
            TrainingFault: memory is full, the disk refused, or the data cannot be read any more.
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
        with self.memory_guarded(), stop_requests() as self.stop, bar as self.bar:
            self._speed.read(at.count, at.updates)
            try:
                yield
            except (OSError, UserError) as error:
                advice = f"nothing that was saved is lost: {self._remedies.disk} and start the same command again"
                self.fail(error, advice)

    @property
    def stopping(self) -> bool:
        """Whether the loop is to end before its budget is spent; the same on every process."""
        return self._processes.any_process(bool(self.stop))

    def leave(self) -> NoReturn:
        """After the loop of a run that is saved and not complete: a signal has asked this process to stop, or another.

        Raises:
            Stopped: always.
        """
        self.say(f"saved at {self.position().place}; the same command resumes")
        raise Stopped(self.stop.signal_number or signal.SIGTERM)

    # ------------------------------------------------------------------- reporting

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Time in here does not count as training."""
        return self._speed.paused()

    def report(self) -> dict[str, float]:
        """Writes a row: the means of the metrics since the last one, and the speed. Returns it.

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
        """Shows a picture, as :meth:`Logger.image` does."""
        if self._logger is not None:
            self._logger.image(self.position().count, name, image)

    def video(self, name: str, images: npt.NDArray[np.uint8] | Tensor, fps: float) -> None:
        """Shows a moving picture, as :meth:`Logger.video` does, and keeps it among the run's videos."""
        if self._logger is not None:
            count = self.position().count
            self._logger.video(count, name, images, fps, self.directory / VIDEOS / f"{count:010d}.gif")

    # -------------------------------------------------------------- saving, failing

    def save(self, weights: Mapping[str, Any], contents: Callable[[], Contents]) -> None:
        """Writes a checkpoint.

        Args:
            weights: every network's; none of them may hold NaN or infinity.
            contents: collects what is to be saved, in the process that writes, once the log is on the disk. Files that
                a complete run must have are written in here: a run that is complete by its checkpoint is not started
                again to mend what is missing.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written then.
            OSError: the disk refused; earlier checkpoints are intact.
        """
        self._finite_means()
        self.refuse_non_finite(non_finite_names(weights))
        with self._processes.raised_together(OSError):
            if self._logger is not None:
                with self._speed.paused():
                    self._logger.flush()
                    state, attachments = contents()
                    checkpoint.save(
                        self.directory / CHECKPOINTS,
                        self.position().count,
                        {**state, "means": self.means.state()},
                        attachments=attachments,
                        keep=self._keep,
                    )

    def refuse_non_finite(self, names: list[str]) -> None:
        """Ends a run of whose metrics or weights these are NaN or infinite, before it overwrites a good checkpoint.

        Raises:
            TrainingFault: there are any.
        """
        if names:
            self.fail_by_numbers(non_finite_error(names))

    def fail_by_numbers(self, error: FloatingPointError) -> NoReturn:
        """Ends a run that has diverged.

        Raises:
            TrainingFault: always.
        """
        self.fail(error, self._remedies.numbers)

    @contextlib.contextmanager
    def memory_guarded(self) -> Iterator[None]:
        """Guards what may exhaust the device's memory.

        Raises:
            TrainingFault: it did.
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
            error: what happened.
            advice: what remains of the run, and what to do.

        Raises:
            TrainingFault: always.
        """
        at = self.position()
        raise training_fault(self.directory, f"{at.place} ({at.detail})", error, advice) from error

    def _finite_means(self) -> dict[str, float]:
        means = self.means.read()
        self.refuse_non_finite([name for name, value in means.items() if not math.isfinite(value)])
        return means
