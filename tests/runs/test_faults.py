"""Faults: recognition, and the message for the user."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.faults import (
    ELSEWHERE,
    is_out_of_memory,
    kept,
    non_finite_error,
    non_finite_names,
    refusing_what_exceeds,
    training_fault,
)


def test_out_of_memory_is_distinguished_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert is_out_of_memory(full.value)
    assert not is_out_of_memory(other.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_non_finite_tensors_are_named() -> None:
    weights = {
        "good": torch.ones(2, 2),
        "nan": torch.tensor([1.0, math.nan]),
        "count": torch.tensor(3),
        "infinite": torch.tensor(-math.inf, dtype=torch.bfloat16),
        "_metadata": {"version": 1},
    }
    assert non_finite_names(weights) == ["nan", "infinite"]
    assert str(non_finite_error(["a", "b"])) == "no longer finite: a, b"
    assert str(non_finite_error([*"abcdefg"])) == "no longer finite: a, b, c, d, e and 2 more"


def test_a_fault_is_one_line_and_its_traceback_is_in_a_file(tmp_path: Path) -> None:
    try:
        raise RuntimeError("the renderer\nis gone")
    except RuntimeError as error:
        fault = training_fault(tmp_path, "12 frames (update 3)", error, "do this")
    assert isinstance(fault, TrainingFault)
    details = tmp_path / "fault.txt"
    assert str(fault) == f"stopped at 12 frames (update 3): the renderer is gone; do this (details: {details})"
    assert "RuntimeError: the renderer\nis gone" in details.read_text()


def test_a_fault_on_a_full_disk_is_still_reported(tmp_path: Path) -> None:
    fault = training_fault(tmp_path / "gone", "12 frames (update 3)", ValueError(), "do this")
    assert str(fault) == "stopped at 12 frames (update 3): ValueError; do this"


def test_a_failure_of_another_process_writes_no_traceback_here(tmp_path: Path) -> None:
    fault = training_fault(tmp_path, "epoch 1.00 (step 4)", OSError(ELSEWHERE.format("disk full")), "do this")
    assert str(fault) == "stopped at epoch 1.00 (step 4): another process has failed: disk full"
    assert not (tmp_path / "fault.txt").exists()


def test_the_message_says_whether_a_checkpoint_is_left(tmp_path: Path) -> None:
    assert kept(tmp_path) == "nothing was saved yet"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "0000000001.ckpt").touch()
    assert kept(tmp_path) == "the last checkpoint is intact"


def test_a_run_that_does_not_fit_in_memory_is_refused() -> None:
    message = r"\Acpu has too little memory for this run: lower it \(CUDA out of memory\)\Z"
    with pytest.raises(UserError, match=message), refusing_what_exceeds(torch.device("cpu"), "lower it"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), refusing_what_exceeds(torch.device("cpu"), "lower it"):
        raise RuntimeError("another")
