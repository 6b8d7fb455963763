"""The loop learns with the loss; tests/test_docs.py checks the lines marked as the loss."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from envs.tiny import SOLVED_RETURN
from examples import your_sac_with_curl as example


def test_the_program_says_how_it_learns() -> None:
    line = [sys.executable, example.__file__, "--steps", "250", "--random_steps", "235"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert re.fullmatch(r"  250 steps: return +\d+\.\d; loss \d+\.\d\d", printed[-1])


@pytest.mark.slow
def test_the_program_learns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["your_sac_with_curl.py"])
    example.main()
    assert float(re.findall(r"return +([\d.]+);", capsys.readouterr().out)[-1]) > SOLVED_RETURN
