"""Damaged checkpoints are detected and skipped, and run no code."""

from __future__ import annotations

import io
import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.runs import checkpoint
from helpers.checkpoints import assert_the_one_before_is_used, by_hand, names


def test_an_empty_directory_gives_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "absent") is None
    assert checkpoint.load_newest(tmp_path) is None
    (tmp_path / "0000000001.ckpt.partial").touch()
    (tmp_path / "notes.ckpt").touch()
    assert checkpoint.load_newest(tmp_path) is None


def places(content: bytes) -> list[int]:
    """All bytes of the header, and every fifth of the rest."""
    return [*range(120), *range(120, len(content), 5)]


def test_a_truncation_is_detected(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = newest.read_bytes()
    for length in places(content):
        newest.write_bytes(content[:length])
        assert_the_one_before_is_used(two)


def test_a_flipped_byte_is_detected(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = newest.read_bytes()
    source = random.Random(0)
    for place in places(content):
        flipped = bytearray(content)
        flipped[place] ^= source.randrange(1, 256)
        newest.write_bytes(flipped)
        assert_the_one_before_is_used(two)


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"hello"])
def test_foreign_content_and_appended_bytes_are_detected(two: Path, damage: bytes) -> None:
    newest = two / "0000000010.ckpt"
    whole = newest.read_bytes()
    newest.write_bytes(damage)
    assert_the_one_before_is_used(two)
    newest.write_bytes(whole + b"\0")
    assert_the_one_before_is_used(two)


def test_a_damaged_length_does_not_allocate_gigabytes(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = bytearray(newest.read_bytes())
    content[12:16] = b"\xff" * 4
    newest.write_bytes(content)
    tracemalloc.start()
    try:
        assert_the_one_before_is_used(two)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_no_run_starts_over_when_all_are_damaged(two: Path) -> None:
    for path in two.iterdir():
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^none of the 2 checkpoints in .*: 0000000010\.ckpt is damaged"
        ) as caught:
            checkpoint.load_newest(two)
        assert "\n" not in str(caught.value)
        assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_no_run_starts_over_when_all_were_set_aside(two: Path) -> None:
    for path in list(two.iterdir()):
        path.rename(f"{path}.damaged")
    with pytest.raises(ValueError, match=r"only checkpoints set aside as damaged \(0000000010\.ckpt\.damaged\)"):
        checkpoint.load_newest(two)


def test_a_newer_format_is_not_damage(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(by_hand(b"of the future", version=3))
    with pytest.raises(ValueError, match=r"0000000010\.ckpt has checkpoint format 3, .* reads format 2: update"):
        checkpoint.load_newest(two)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_a_reader_renames_nothing(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="using"):
        assert checkpoint.load_newest(two, read_only=True) == (two / "0000000005.ckpt", {"frames": 5})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


@pytest.mark.parametrize("error", [ValueError("segment-3 is\ndamaged"), OSError("segment-3 is\ndamaged")])
def test_a_caller_may_reject_a_state(two: Path, error: Exception) -> None:
    tried = []

    def usable(state: dict[str, Any]) -> None:
        tried.append(state["frames"])
        if state["frames"] == 10:
            raise error

    with pytest.warns(RuntimeWarning, match=r"0000000010\.ckpt cannot be used \(segment-3 is damaged\); using"):
        assert checkpoint.load_newest(two, usable=usable) == (two / "0000000005.ckpt", {"frames": 5})
    assert tried == [10, 5]
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt.damaged"]


def test_a_bug_in_the_caller_is_not_mistaken_for_damage(two: Path) -> None:
    def usable(state: dict[str, Any]) -> None:
        state["absent"]

    with pytest.raises(KeyError):
        checkpoint.load_newest(two, usable=usable)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_no_code_runs_from_a_file_with_valid_digests(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    saved = io.BytesIO()
    torch.save({"a": Attack(marker)}, saved)
    # torch.load reads protocol 2.
    for payload in (pickle.dumps(Attack(marker), 2), pickle.dumps({"a": Attack(marker)}, 2), saved.getvalue()):
        (tmp_path / "0000000001.ckpt").write_bytes(by_hand(payload))
        with pytest.raises(ValueError, match="not tensors and numbers") as caught:
            checkpoint.load_newest(tmp_path)
        assert "\n" not in str(caught.value)
        assert not marker.exists()
    # The attack works with an unrestricted loader.
    torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    assert marker.exists()
