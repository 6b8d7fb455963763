"""Tables of captions and of judged pairs: written, read back, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.text.data.tables import ScoredPair, captions_text, read_captions, read_scored, scored_text


def test_captions_are_read_in_order_whatever_whitespace_they_had(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text(captions_text([("a.png", "A\tred\n apple."), ("b.png", "Ein Apfel: »grün«"), ("a.png", "fruit")]))
    assert read_captions(path) == {"a.png": ("A red apple.", "fruit"), "b.png": ("Ein Apfel: »grün«",)}


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_bytes("\ufefffile\tcaption\r\na.png\tAn apple.\r\n\r\n".encode())
    assert read_captions(path) == {"a.png": ("An apple.",)}


def test_scores_survive(tmp_path: Path) -> None:
    pairs = [ScoredPair(0.25, "a b", "c"), ScoredPair(-1e-3, "d", "e f")]
    path = tmp_path / "scored.tsv"
    path.write_text(scored_text(pairs))
    assert read_scored(path) == pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line of .* must be file TAB caption, got ''"),
        (b"image,caption\na.png,An apple.\n", "must be file TAB caption, got 'image,caption'"),
        (b"file\tcaption\n", "has no rows"),
        (b"file\tcaption\na.png\n", "line 2 of .* must have 2 columns separated by tabs, none empty"),
        (b"file\tcaption\na.png\t \n", "line 2 of"),
        (b"file\tcaption\na.png\tx\ty\n", "line 2 of"),
        (b"file\tcaption\na.png\t\xff\n", "must be text in UTF-8"),
    ],
)
def test_what_is_no_table_of_captions_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "captions.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_captions(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("score", "message"), [("high", "must be a number, got 'high'"), ("nan", "must be finite")])
def test_a_score_is_a_finite_number(tmp_path: Path, score: str, message: str) -> None:
    path = tmp_path / "scored.tsv"
    path.write_text(f"score\tfirst\tsecond\n1\ta\tb\n{score}\ta\tb\n")
    with pytest.raises(UserError, match=rf"the score of pair 2 {message}"):
        read_scored(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.tsv: No such file"):
        read_scored(tmp_path / "none.tsv")
