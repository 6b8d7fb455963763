"""Texts to tokens and back; files; what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from curl_rl.encoders.text import PADDING
from curl_rl.runs.errors import UserError
from curl_rl.text.tokenizer import SMALLEST, TOKENIZER, Tokenizer, without_padding

pytest.importorskip("tokenizers")

TEXTS = ["a red circle", "a blue square above a red circle", "a red square", "the blue circle"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, SMALLEST + 30)


def test_columns_of_padding_alone_are_left_out() -> None:
    rows = torch.tensor([[1, 5, 2, 0, 0, 0], [1, 2, 0, 0, 0, 0], [1, 6, 5, 2, 0, 0]])
    assert without_padding(rows).tolist() == [[1, 5, 2, 0], [1, 2, 0, 0], [1, 6, 5, 2]]
    assert without_padding(rows[:, :3]).tolist() == rows[:, :3].tolist()
    assert without_padding(rows[:0]).shape == (0, 0)


def test_rows_are_start_text_end_and_padding(tokenizer: Tokenizer) -> None:
    rows = tokenizer.encode(["a red circle", "", "zebra"], length=12)
    assert rows.dtype == torch.int64
    assert rows.shape == (3, 12)
    assert rows[1].tolist() == [1, 2, *[PADDING] * 10]
    for row in rows.tolist():
        assert row[0] == 1
        end = row.index(2)
        assert all(3 <= token < tokenizer.vocabulary for token in row[1:end])
        assert set(row[end + 1 :]) <= {PADDING}


@pytest.mark.parametrize("text", ["a red circle", "Größe 😀 \x00 日本", "[pad] [end] [start]", "ﬁne"])
def test_any_text_comes_back_normalized_and_in_lower_case(tokenizer: Tokenizer, text: str) -> None:
    expected = {"Größe 😀 \x00 日本": "größe 😀 \x00 日本", "ﬁne": "fine"}.get(text, text)
    (row,) = tokenizer.encode([text], length=60)
    assert tokenizer.decode(row) == expected
    assert (row != PADDING).sum() == (row != PADDING).long().argmin(), "no padding inside the text"


def test_repeated_words_are_one_token(tokenizer: Tokenizer) -> None:
    (known, unknown) = (tokenizer.encode([text], 40)[0] for text in ("red circle", "xqz vwkjyg"))
    assert (known != PADDING).sum() == 2 + 2
    assert (unknown != PADDING).sum() == 2 + 11  # bytes, spaces included


def test_the_first_word_has_the_tokens_that_it_has_elsewhere(tokenizer: Tokenizer) -> None:
    first, later = tokenizer.encode(["circle", "red circle"], 5)
    assert first[1] == later[2]


def test_a_long_text_keeps_its_end(tokenizer: Tokenizer) -> None:
    long = "a blue square above a red circle"
    cut, whole = tokenizer.encode([long], 5)[0], tokenizer.encode([long], 40)[0]
    assert cut.tolist() == [*whole[:4].tolist(), 2]


def test_a_file_is_the_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    content = (tmp_path / TOKENIZER).read_bytes()
    assert tokenizer.sha256 == hashlib.sha256(content).hexdigest()
    for path in (tmp_path, tmp_path / TOKENIZER):
        loaded = Tokenizer.load(path)
        assert loaded.sha256 == tokenizer.sha256
        assert torch.equal(loaded.encode(TEXTS, 9), tokenizer.encode(TEXTS, 9))


def test_padding_and_truncation_of_a_file_are_ours(tokenizer: Tokenizer) -> None:
    changed = json.loads(tokenizer.content)
    changed["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    changed["padding"] = {
        "strategy": {"Fixed": 3},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 5,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    assert torch.equal(Tokenizer(json.dumps(changed)).encode(TEXTS, 9), tokenizer.encode(TEXTS, 9))


def test_what_is_no_tokenizer_is_one_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no tokenizer [^\n]*tokenizer\.json: name a tokenizer\.json, or a run"):
        Tokenizer.load(tmp_path)
    file = tmp_path / TOKENIZER
    for content, line in {
        b"{": "is damaged",
        b"\xff": "cannot be read as a tokenizer",
        tokenizer.content.replace("[start]", "[begin]").encode(): r"must have \[pad\], \[start\], \[end\] as its first",
    }.items():
        file.write_bytes(content)
        with pytest.raises(UserError, match=line) as refused:
            Tokenizer.load(file)
        assert "\n" not in str(refused.value)


def test_sizes_out_of_range_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="vocabulary must be at least 259, all bytes and 3, got 100"):
        Tokenizer.train(TEXTS, 100)
    with pytest.raises(ValueError, match="length must be at least 3, for a start, a token and an end, got 2"):
        tokenizer.encode(TEXTS, 2)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"^texts need tokenizers: .*\[text\]"):
        Tokenizer.train(TEXTS)
