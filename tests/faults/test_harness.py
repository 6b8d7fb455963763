"""The harness sees what it is there for: each way in which an attempt can go wrong is a defect."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curl_rl.runs.files import write_durably
from helpers.faults.attempts import DEFECT, REFUSED, SAME, Kind, Result, attempted, in_child, ran, refusal
from helpers.faults.operations import Operations


def _raises() -> str:
    raise RuntimeError("broken")


def _swells() -> str:
    memory = mmap.mmap(-1, 5 * 2**27)  # new pages, which memory that the parent has freed cannot serve
    memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)
    return SAME


def _runs() -> str:
    subprocess.run(["touch", "mark"], check=False)
    return SAME


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (_raises, "RuntimeError: broken"),
        (lambda: os._exit(0), "crashed"),
        (lambda: time.sleep(60) or SAME, "hangs"),
        (_swells, "MB of memory"),
        (_runs, "code of a file was run"),
        (lambda: os.system("true") and SAME, "code of a file was run"),
    ],
)  # fmt: skip
def test_what_must_never_happen_is_a_defect(work: Callable[[], Any], said: str) -> None:
    outcome, detail = in_child(work, 1 if said == "hangs" else 60)
    assert outcome == DEFECT
    assert said in detail


def _end(code: int, text: str) -> Callable[[], int]:
    def command() -> int:
        os.write(2, text.encode())
        return code

    return command


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (_end(0, ""), SAME),
        (_end(2, "x.py: error: no\n"), REFUSED),
        (_end(2, "x.py: error: no\nx.py: error: no\n"), DEFECT),
        (_end(2, "x.py: error: no\n  File\n"), DEFECT),
        (_end(2, ""), DEFECT),
        (_end(1, "x.py: error: no\n"), DEFECT),
        (_end(0, "Traceback (most recent call last)\n"), DEFECT),
        (_raises, DEFECT),
    ],
)
def test_only_one_line_and_exit_code_2_are_a_refusal(command: Callable[[], Any], outcome: str) -> None:
    assert in_child(lambda: SAME if refusal(ran(command)) is None else REFUSED).outcome == outcome


def test_an_attempt_is_repeated_by_its_number() -> None:
    def attempt(source: random.Random, folder: Path) -> Result:
        return Result(str(source.random()), str(folder.is_dir()))

    kind = Kind("drawn", attempt)
    drawn = [attempted(kind, number) for number in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert drawn[0].detail == "True"


def _watched(folder: Path, mode: Any, at: int, act: Callable[[], Any]) -> list[str]:
    """The operations of ``act`` in a child that this may kill."""
    receive, report = os.pipe()
    child = os.fork()
    if child == 0:
        operations = Operations(folder, mode, at).install()
        try:
            act()
        except OSError as error:
            os.write(report, f"{error.errno}\n".encode())
        finally:
            os.write(report, "\n".join(operations.log).encode())
            os._exit(0)
    os.close(report)
    os.waitpid(child, 0)
    with os.fdopen(receive) as pipe:
        return pipe.read().splitlines()


def test_the_operations_of_a_durable_write_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    log = _watched(tmp_path, "count", -1, lambda: write_durably(tmp_path / "a", [b"content"]))
    assert log == [
        "unlink a.partial", "create a.partial", "write a.partial", "fsync a.partial", "rename a", "fsync .",
    ]  # fmt: skip
    assert (tmp_path / "a").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("mode", "at", "partial", "content"),
    [
        ("before", 2, b"", b"before"),
        ("torn", 2, b"con", b"before"),
        ("after", 2, b"content", b"before"),
        ("power cut", 3, b"", b"before"),  # written, and not synced
        ("power cut", 4, b"content", b"before"),
        ("after", 4, None, b"content"),
    ],
)
def test_a_kill_leaves_what_was_done(tmp_path: Path, mode: str, at: int, partial: bytes | None, content: bytes) -> None:
    (tmp_path / "a").write_bytes(b"before")
    assert _watched(tmp_path, mode, at, lambda: write_durably(tmp_path / "a", [b"content"])) == []
    left = tmp_path / "a.partial"
    assert (left.read_bytes() if left.exists() else None) == partial
    assert (tmp_path / "a").read_bytes() == content


def test_a_power_cut_finds_a_write_that_is_not_synced(tmp_path: Path) -> None:
    def careless() -> None:
        with open(tmp_path / "b.partial", "wb") as file:
            file.write(b"content")
        os.replace(tmp_path / "b.partial", tmp_path / "b")

    assert _watched(tmp_path, "power cut", 3, lambda: (careless(), os.unlink(tmp_path / "a"))) == []
    assert (tmp_path / "b").read_bytes() == b""


def test_a_full_disk_stays_full_and_an_error_comes_once(tmp_path: Path) -> None:
    def twice() -> None:
        try:
            write_durably(tmp_path / "a", [b"content"])
        except OSError:
            write_durably(tmp_path / "b", [b"content"])

    assert _watched(tmp_path, "full disk", 2, twice)[0] == "28"
    assert not any(tmp_path.iterdir())
    assert _watched(tmp_path, "once full", 2, twice)[0] != "28"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
