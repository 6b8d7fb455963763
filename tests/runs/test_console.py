"""Text for terminals: compared with Python's own escapes."""

from __future__ import annotations

import os

import pytest

from curl_rl.runs.console import counted, printable, say
from curl_rl.runs.errors import UserError, one_line


@pytest.mark.parametrize(
    "text", ["plain", "caf\u00e9", "\u732b", "e\u0301", "\U0001f408\u200d\u2b1b", "back\\slash", "a\u00a0b"]
)
def test_what_a_terminal_shows_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_the_rest_is_escaped_as_python_would_write_the_bytes() -> None:
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        assert printable(chr(code)) == f"\\x{code:02x}"
    for byte in range(0x80, 0x100):  # in no UTF-8
        assert printable(os.fsdecode(bytes([byte]))) == ascii(bytes([byte]))[2:-1]
    for character in ("\u2028", "\u2029", "\ud800"):
        assert printable(character) == ascii(character)[1:-1]
    everything = "".join(map(chr, range(0x3000))) + "\udcff"
    assert printable(everything).encode().decode().isascii() is False
    assert printable(printable(everything)) == printable(everything)


def test_lines_and_errors_never_reach_a_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\nc")
    assert capsys.readouterr().err == "a\\x1b[2Jb\\x0ac\n"
    assert one_line(UserError("no folder x\x1b[2J\ny\udce9")) == "no folder x\\x1b[2J y\\xe9"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1001, "1,001 epochs")]
)
def test_one_of_a_thing_is_not_several(number: int, words: str) -> None:
    assert counted(number, "epoch") == words
