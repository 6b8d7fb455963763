"""What breaks in the middle of a run: how it is recognized, and the one line that says where it stood and what to do.

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

FAULT = "fault.txt"
"""Name of the file in a run's directory that holds the traceback of what ended it."""

ELSEWHERE = "another process has failed: {}"
"""Message of an exception that is raised in this process for another one, which reports the rest."""


def non_finite_names(weights: Mapping[str, Any]) -> list[str]:
    """Names of the tensors in a module's state dict that hold NaN or infinity: such a state must not be saved."""
    numbers = {
        name: value for name, value in weights.items() if isinstance(value, Tensor) and value.is_floating_point()
    }
    finite = torch.stack([value.isfinite().all() for value in numbers.values()]).tolist()
    return [name for name, good in zip(numbers, finite, strict=True) if not good]


def non_finite_error(names: list[str]) -> FloatingPointError:
    """The error for a run whose metrics or weights of these names are NaN or infinite."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return FloatingPointError(f"not finite any more: {', '.join(names[:5])}{more}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch reports by this error that memory is exhausted; it has no exception type for a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Of a CPU, and of CUDA outside of PyTorch's own allocator, such as pinned memory.
    said = ("can't allocate memory", "CUDA error: out of memory")
    own = type(error) is RuntimeError or type(error).__name__ == "AcceleratorError"
    return own and any(text in str(error) for text in said)


@contextlib.contextmanager
def refusing_what_exceeds(device: torch.device, remedy: str) -> Iterator[None]:
    """Guards the construction of a run: one that does not fit into memory is the user's to correct.

    Args:
        device: where it is built.
        remedy: which settings to lower.

    Raises:
        UserError: memory ran out in here.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{device} has no room for this run: {remedy} ({one_line(error)})") from None


def kept(directory: Path) -> str:
    """What remains of a run that breaks off without being saved."""
    saved = any((directory / CHECKPOINTS).glob("*.ckpt"))
    return "the last checkpoint is intact" if saved else "nothing was saved yet"


def training_fault(directory: Path, where: str, error: Exception, advice: str) -> TrainingFault:
    """The exception for a run that ``error`` has ended; writes the traceback into the directory.

    Args:
        directory: the run's.
        where: how far the run had come.
        error: what happened.
        advice: what remains of the run, and what to do.
    """
    if str(error).startswith(ELSEWHERE.format("")):
        return TrainingFault(f"stopped at {where}: {error}")
    details = directory / FAULT
    try:
        details.write_text("".join(traceback.format_exception(error)))
        advice += f" (details: {details})"
    except OSError:
        pass  # nothing about the fault itself is lost: the line below says what it was
    return TrainingFault(f"stopped at {where}: {one_line(error)}; {advice}")
