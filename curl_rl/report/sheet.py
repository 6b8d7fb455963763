"""All evaluations of a run in one picture: a row for each video, its moments side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from curl_rl.rl.film import BAND, SIDE
from curl_rl.runs.directory import VIDEOS
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import read_file

_ROWS, _MOMENTS = 16, 8
_TILE = 120  # pixels
_MARGIN = 130
_LARGEST = 64 * 2**20  # bytes


def evaluation_sheet(directory: Path, returns: Mapping[int, float]) -> npt.NDArray[np.uint8] | None:
    """Draws the run's videos below each other, the oldest first; of many, some at equal distances.

    Args:
        directory: the run.
        returns: the mean return of each evaluation, by its number of frames, to write beside it.

    Returns:
        ``(H, W, 3)``; None if the run has no videos.

    Raises:
        UserError: a video cannot be read.
    """
    videos = sorted((directory / VIDEOS).glob("*.gif"))
    if not videos:
        return None
    places = np.unique(np.linspace(0, len(videos) - 1, min(len(videos), _ROWS)).round().astype(int))
    rows = [_row(videos[place], returns) for place in places]
    return np.concatenate(rows)


def _row(video: Path, returns: Mapping[int, float]) -> npt.NDArray[np.uint8]:
    row = Image.new("RGB", (_MARGIN + _MOMENTS * _TILE, _TILE), "white")
    frames = int(video.stem) if video.stem.isdecimal() else -1
    lines = [f"{frames:,} frames" if frames >= 0 else video.stem]
    if frames in returns:
        lines.append(f"return {returns[frames]:.1f}")
    ImageDraw.Draw(row).text((4, _TILE // 2 - 14), "\n".join(lines), fill="black")
    try:
        with Image.open(io.BytesIO(read_file(video, _LARGEST)), formats=["GIF"]) as gif:
            count = getattr(gif, "n_frames", 1)
            for column, moment in enumerate(np.linspace(0, count - 1, _MOMENTS).round().astype(int)):
                gif.seek(int(moment))
                tile = _pictured(gif.convert("RGB")).resize((_TILE - 4, _TILE - 4), Image.Resampling.BOX)
                row.paste(tile, (_MARGIN + column * _TILE, 2))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{video} cannot be read: {one_line(error)}") from None
    return np.asarray(row)


def _pictured(frame: Any) -> Any:
    """The picture alone, without the agent's view and the text that :mod:`curl_rl.rl.film` puts beside it."""
    large = frame.height == SIDE + BAND and frame.width >= SIDE
    return frame.crop((0, 0, SIDE, SIDE)) if large else frame
