"""The picture of all evaluations against the videos that it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curl_rl.report.sheet import evaluation_sheet
from curl_rl.rl.film import BAND, SIDE
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import write_gif


def video(shades: list[int], *, film: bool = False) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One gray picture per shade; of a film, with a white view and text beside it."""
    size = (SIDE + BAND, 2 * SIDE + 4) if film else (10, 10)
    pictures = np.full((len(shades), *size, 3), 255, np.uint8)
    for picture, shade in zip(pictures, shades, strict=True):
        picture[:SIDE, :SIDE] = shade
    return pictures


def test_each_row_is_an_evaluation_from_beginning_to_end(tmp_path: Path) -> None:
    shades = [10, 40, 70, 100, 130, 160, 190, 220]
    write_gif(tmp_path / "videos" / "0000000000.gif", video(shades), 10)
    write_gif(tmp_path / "videos" / "0000002000.gif", video(shades[::-1], film=True), 10)
    sheet = evaluation_sheet(tmp_path, {2000: 7.0})
    assert sheet is not None
    assert sheet.shape[0] == 240
    middles = [sheet[row, 130 + 60 :: 120, 0].tolist() for row in (60, 180)]
    assert np.abs(np.array(middles[0]) - shades).max() < 8  # a GIF has 256 colors
    assert np.abs(np.array(middles[1]) - shades[::-1]).max() < 8
    without = evaluation_sheet(tmp_path, {})
    assert without is not None
    assert np.array_equal(without[:120], sheet[:120])
    assert not np.array_equal(without[120:, :130], sheet[120:, :130])  # the return is written there


def test_of_many_evaluations_some_are_shown_the_first_and_the_last_included(tmp_path: Path) -> None:
    for number in range(40):
        write_gif(tmp_path / "videos" / f"{number:010d}.gif", video([5 * number]), 10)
    sheet = evaluation_sheet(tmp_path, {})
    assert sheet is not None
    shown = sheet[60::120, 190, 0].astype(int)
    assert len(shown) == 16
    assert abs(shown[0] - 0) < 5
    assert abs(shown[-1] - 195) < 5
    assert (np.diff(shown) > 0).all()


def test_a_run_without_videos_has_no_sheet_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert evaluation_sheet(tmp_path, {}) is None
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "0000000010.gif").write_bytes(b"GIF89a, cut off")
    with pytest.raises(UserError, match=r"0000000010\.gif cannot be read"):
        evaluation_sheet(tmp_path, {})
