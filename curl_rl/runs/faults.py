"""Faults in mid-run: how they are recognized, and the one-line message with the run's position and a remedy.

The traceback goes to ``fault.txt`` in the run's directory.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curl_rl.runs.directory import CHECKPOINTS
from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.runs.files import write_durably

FAULT = "fault.txt"
"""Name of the file in a run's directory that holds the traceback of the fault that ended it."""

ELSEWHERE = "another process has failed: {}"
"""Message of an exception that mirrors another process's failure; that process reports the details."""


def non_finite_names(weights: Mapping[str, Any]) -> list[str]:
    """Names of the tensors in a module's state dict that hold NaN or infinity; such a state must not be saved."""
    numbers = {
        name: value for name, value in weights.items() if isinstance(value, Tensor) and value.is_floating_point()
    }
    finite = torch.stack([value.isfinite().all() for value in numbers.values()]).tolist()
    return [name for name, good in zip(numbers, finite, strict=True) if not good]


def non_finite_error(names: list[str]) -> FloatingPointError:
    """The error for a run in which the metrics or weights called ``names`` are NaN or infinite."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return FloatingPointError(f"no longer finite: {', '.join(names[:5])}{more}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that memory is exhausted; PyTorch has no exception type for CPU memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # CPU memory, and CUDA memory outside PyTorch's own allocator, such as pinned memory.
    said = ("can't allocate memory", "CUDA error: out of memory")
    own = type(error) is RuntimeError or type(error).__name__ == "AcceleratorError"
    return own and any(text in str(error) for text in said)


@contextlib.contextmanager
def refusing_what_exceeds(device: torch.device, remedy: str) -> Iterator[None]:
    """Guards the construction of a run: running out of memory becomes a user error.

    Args:
        device: where the run is built.
        remedy: the settings to lower.

    Raises:
        UserError: memory ran out inside the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{device} has too little memory for this run: {remedy} ({one_line(error)})") from None


@contextlib.contextmanager
def of_this_run() -> Iterator[None]:
    """Guards the restoring of a checkpoint: what a run of another kind, or of other networks, has saved does not fit.

    Raises:
        ValueError: the state does not fit, as the error of whatever took it says.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"it is not of this run: {type(error).__name__}: {one_line(error)[:200]}") from error


def has_checkpoint(directory: Path) -> bool:
    """Whether a run has a checkpoint to resume from."""
    return any((directory / CHECKPOINTS).glob("*.ckpt"))


def kept(directory: Path) -> str:
    """States what remains of a run that ends without being saved."""
    return "the last checkpoint is intact" if has_checkpoint(directory) else "nothing was saved yet"


def training_fault(directory: Path, where: str, error: Exception, advice: str) -> TrainingFault:
    """Returns the exception for a run that ``error`` ended, and writes the traceback into the run's directory.

    Args:
        directory: the run's directory.
        where: the run's position.
        error: the cause.
        advice: what remains of the run, and what to do.
    """
    if str(error).startswith(ELSEWHERE.format("")):
        return TrainingFault(f"stopped at {where}: {error}")
    details = directory / FAULT
    try:
        write_durably(details, ["".join(traceback.format_exception(error)).encode(errors="backslashreplace")])
        advice += f" (details: {details})"
    except OSError:
        pass  # the line below still reports the fault
    return TrainingFault(f"stopped at {where}: {one_line(error)}; {advice}")
