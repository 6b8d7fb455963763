"""How commands report errors: exit codes and messages, as seen by a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from curl_rl.runs.command_line import check_writable, command_parser, exit_code_of, refusals
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.signals import Stopped


class Unavailable(RuntimeError):
    """A user error of one particular command."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("k is 0:\n  it must be 1"), "k is 0: it must be 1"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (ImportError("install onnx"), "install onnx"),
        (Unavailable("no screen"), "no screen"),
        (
            PermissionError(13, "Permission denied", "here"),
            "cannot write here: Permission denied: change the permissions of the file or of its folder",
        ),
        (OSError(28, "No space left on device"), "No space left on device: free some disk space"),
        (OSError("the disk is gone"), "the disk is gone"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = command_parser("What it does.")
    parser.prog = "do.py"
    with pytest.raises(SystemExit) as ending, refusals(parser, Unavailable):
        raise error
    assert ending.value.code == 2
    assert capsys.readouterr().err.strip() == f"do.py: error: {line}"


def test_a_wrong_option_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        command_parser("What it does.").parse_args(["--unknown"])
    assert ending.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_whole_numbers_and_home_directories_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = command_parser("What it does.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    parsed = parser.parse_args(["~/a", "b~", "--steps", "2e3", "--out=~/c d"])
    assert (parsed.runs, parsed.steps, parsed.out) == ([tmp_path / "a", Path("b~")], 2000, tmp_path / "c d")
    with pytest.raises(SystemExit):
        parser.parse_args(["a", "--steps", "1.5"])
    assert capsys.readouterr().err.endswith("error: argument --steps: must be a whole number, got 1.5\n")


def test_an_interrupt_has_the_shells_exit_code_and_a_bug_is_not_hidden() -> None:
    parser = command_parser("What it does.")
    with pytest.raises(SystemExit) as ending, refusals(parser):
        raise KeyboardInterrupt
    assert ending.value.code == 130
    with pytest.raises(Unavailable), refusals(parser):
        raise Unavailable
    with pytest.raises(AssertionError), refusals(parser):
        raise AssertionError


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "file.json")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises((FileExistsError, NotADirectoryError)):
        check_writable(tmp_path / "file" / "below")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "file")


def out_of_memory() -> NoReturn:
    torch.empty(2**62, dtype=torch.uint8)
    raise AssertionError("no machine has this much memory")


def test_too_little_memory_is_one_line_and_another_error_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, refusals(command_parser("")):
        out_of_memory()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: out of memory: " in line
    with pytest.raises(RuntimeError, match="a defect"), refusals(command_parser("")):
        raise RuntimeError("a defect")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (UserError("a mistake"), 2, "x.py: error: a mistake\n"),
        (TrainingFault("broke"), 1, "x.py: broke\n"),
        (Stopped(15), 143, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_the_exit_code_tells_how_the_work_ended(
    raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        if raised is not None:
            raise raised

    assert exit_code_of("x.py", work) == code
    assert capsys.readouterr().err == said
    assert exit_code_of("x.py", work, tells_mistakes=False) == code
    assert capsys.readouterr().err == ("" if code == 2 else said)
