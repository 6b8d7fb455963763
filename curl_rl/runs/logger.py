"""A run's log: the same metric names over the same x axis in metrics.jsonl and TensorBoard.

The x axis counts environment frames or another unit that the caller names, such as images. `metrics.jsonl` has one JSON
object per line: `frames`, `wall_time` (seconds since 1970) and the metrics. Non-finite values are written as null,
since JSON has no NaN. Each line is written immediately in a single write, so a killed process loses no line.
TensorBoard's event files are stored in the same directory.
"""

import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from curl_rl.runs.event_file import EventFile
from curl_rl.runs.files import open_regular, open_to_append, refuse_link, write_durably

__all__ = ["METRICS_FILE", "Logger", "read_metrics", "write_gif"]

METRICS_FILE = "metrics.jsonl"
"""Name of the metrics file in a run's directory."""

_NAME = re.compile(r"[\w./-]+")
_LONGEST_ROW = 2**20  # bytes; a longer line is not a row, and is not read to its end


class Logger:
    """Writes one run's metrics, pictures and videos into its directory.

    Args:
        directory: the run's directory; created if missing.
        resume_at: environment frames of the checkpoint that the run resumes from. Later rows are cut from
            metrics.jsonl and purged from TensorBoard's curves; rows at exactly this count are kept. -1 for a run that
            was stopped before its first checkpoint: no rows are kept. None for a new run.
        axis: the unit that the x axis counts, which is also the name of the count in each row. The `frames` arguments
            below are this count.

    Raises:
        ValueError: `resume_at` is None and the directory already holds metrics; or a line of them is not JSON; or
            metrics.jsonl is a link or not a regular file.
    """

    def __init__(self, directory: Path, *, resume_at: int | None = None, axis: str = "frames") -> None:
        directory = Path(directory)
        self._axis = axis
        path = directory / METRICS_FILE
        if resume_at is None and path.exists() and path.stat().st_size:
            raise ValueError(f"{path} holds the metrics of another run: resume that run or choose another directory")
        if resume_at is not None and resume_at < -1:
            raise ValueError(f"resume_at must be a frame count, or -1 to keep nothing, got {resume_at}")
        directory.mkdir(parents=True, exist_ok=True)
        refuse_link(path)
        self.rows = 0
        """Rows in metrics.jsonl."""
        self._path = path
        self._digest = hashlib.sha256()  # of all rows
        if resume_at is not None and path.exists():
            self.rows = _cut(path, resume_at, axis)
            _hash_rows(self._digest, path, axis, self.rows)
        # Unbuffered: each line is one write that reaches the operating system before scalars() returns.
        self._rows = open_to_append(path)
        self._events = EventFile(directory)
        if resume_at is not None:
            # TensorBoard drops the data of earlier files from this step on.
            start = SessionLog(status=SessionLog.START)
            self._events.add(Event(wall_time=time.time(), step=resume_at + 1, session_log=start))

    def scalars(self, frames: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Logs numbers as one row of metrics.jsonl and one point per curve in TensorBoard.

        Args:
            frames: environment frames so far.
            metrics: numbers or one-element tensors by name; all tensors on one device are fetched together, with a
                single wait. Names may hold letters, digits and `_ . - /`.

        Raises:
            ValueError: a name that TensorBoard would change or that is reserved, or a tensor of more than one element.
            OSError: the row could not be written; earlier rows are intact.
        """
        for name in metrics:
            self._check_name(name)
        numbers = _fetch(metrics)
        now = time.time()
        row: dict[str, float | None] = {self._axis: int(frames), "wall_time": now}
        row.update((name, value if math.isfinite(value) else None) for name, value in numbers.items())
        self._append(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._digest.update(_untimed(row))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._events.add(Event(wall_time=now, step=frames, summary=Summary(value=values)))

    def image(self, frames: int, name: str, image: npt.NDArray[np.uint8] | Tensor) -> None:
        """Logs an image to TensorBoard, without compression loss.

        Args:
            frames: environment frames so far.
            name: as in `scalars`.
            image: (C, H, W), uint8, C = 1 (gray) or 3 (RGB).

        Raises:
            ValueError: another shape or type.
        """
        pixels = _to_numpy(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise ValueError(f"image {name!r} must be uint8 (C, H, W), C = 1 or 3, got {_describe(pixels)}")
        gray_or_rgb = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(gray_or_rgb)).save(buffer, format="PNG")
        self._picture(frames, name, buffer.getvalue(), pixels.shape[1], pixels.shape[2], pixels.shape[0])

    def video(
        self, frames: int, name: str, images: npt.NDArray[np.uint8] | Tensor, fps: float, path: Path | None = None
    ) -> None:
        """Logs a video to TensorBoard and, if `path` is given, writes the same GIF to that file.

        Args:
            frames: environment frames so far.
            name: as in `scalars`.
            images: (T, H, W, 3), uint8.
            fps: images per second; a GIF plays at most 50, so a faster video plays slower than real time.
            path: the GIF file; its directory is created if missing.

        Raises:
            ValueError: another shape or type, or `fps` not above 0.
        """
        pixels = _to_numpy(images)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) == 0:
            raise ValueError(f"video {name!r} must be uint8 (T, H, W, 3), T at least 1, got {_describe(pixels)}")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be positive, got {fps}")
        gif = _encode_gif(pixels, fps)
        if path is not None:
            _write_new(Path(path), gif)
        self._picture(frames, name, gif, pixels.shape[1], pixels.shape[2], 3)

    def flush(self) -> None:
        """Syncs metrics.jsonl to disk.

        Called before a checkpoint is saved, so that no row before the checkpoint is lost, even in a power cut.
        """
        os.fsync(self._rows.fileno())

    def sha256(self, rows: int) -> str:
        """SHA-256, as hexadecimal digits, of the first ``rows`` rows without their timings, which differ when a run is
        repeated."""
        if rows == self.rows:
            return self._digest.hexdigest()
        digest = hashlib.sha256()
        _hash_rows(digest, self._path, self._axis, rows)
        return digest.hexdigest()

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        self._events.close()
        self._rows.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        end = self._rows.seek(0, os.SEEK_END)
        try:
            written = self._rows.write(line)
            if written != len(line):
                raise OSError(f"{self._rows.name}: only {written} of {len(line)} bytes could be written: disk full?")
        except OSError:
            # A partial line would corrupt the next one.
            self._rows.truncate(end)
            raise
        self.rows += 1

    def _picture(self, frames: int, name: str, encoded: bytes, height: int, width: int, channels: int) -> None:
        self._check_name(name)
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._events.add(Event(wall_time=time.time(), step=frames, summary=summary))

    def _check_name(self, name: str) -> None:
        if name in (self._axis, "wall_time"):
            raise ValueError(f"metric {name!r}: the name is reserved; every row already has {name!r}")
        if not _NAME.fullmatch(name) or name.startswith("/"):
            raise ValueError(f"metric {name!r}: a name must hold letters, digits and _ . - / and not begin with /")


def write_gif(path: Path, images: npt.NDArray[np.uint8], fps: float) -> None:
    """Writes ``(T, H, W, 3)`` uint8 images as a GIF; its directory is created if missing."""
    _write_new(Path(path), _encode_gif(images, fps))


def _write_new(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, [content])


def read_metrics(path: Path, axis: str = "frames") -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl over `axis`, in order, without a partial last row left by a killed process.

    Raises:
        ValueError: a line before the last is not a JSON object.
        FileNotFoundError: the file does not exist.
    """
    return [row for row, _ in _read_rows(Path(path), axis)]


def _read_rows(path: Path, axis: str) -> list[tuple[dict[str, Any], bytes]]:
    """Each row with its line, without the newline."""
    rows = []
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_ROW), b""), start=1):
            try:
                row = json.loads(line)
                if not (isinstance(row, dict) and isinstance(row.get(axis), int)):
                    raise ValueError
            except (ValueError, RecursionError):
                if len(line) < _LONGEST_ROW and (not line.endswith(b"\n") or not file.read(1)):
                    break  # a last row that is partial, or still being written
                raise ValueError(
                    f'{path}, line {number}: must be a JSON object with "{axis}"; delete the line'
                ) from None
            rows.append((row, line.removesuffix(b"\n")))
    return rows


def _hash_rows(digest: Any, path: Path, axis: str, count: int) -> None:
    """Adds the first ``count`` rows of a file to a digest."""
    for row, _ in _read_rows(path, axis)[:count]:
        digest.update(_untimed(row))


def _untimed(row: dict[str, Any]) -> bytes:
    kept = {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
    return json.dumps(kept).encode()


def _cut(path: Path, last: int, axis: str) -> int:
    """Removes rows later than `last` on the x axis, and a partial last row, atomically; returns how many are left."""
    kept = [line + b"\n" for row, line in _read_rows(path, axis) if row[axis] <= last]
    write_durably(path, kept)
    return len(kept)


def _fetch(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The metrics as Python numbers, in the same order, with one wait per device."""
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in metrics.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ValueError(f"metric {name!r} must be one number, got shape {tuple(value.shape)}")
            by_device.setdefault(value.device, {})[name] = value
    fetched: dict[str, float] = {}
    for tensors in by_device.values():
        stacked = torch.stack([tensor.detach().reshape(()).double() for tensor in tensors.values()])
        fetched.update(zip(tensors, stacked.tolist(), strict=True))
    return {
        name: fetched[name] if name in fetched else value if type(value) is int else float(value)
        for name, value in metrics.items()
    }


def _to_numpy(pixels: npt.NDArray[np.uint8] | Tensor) -> npt.NDArray[np.uint8]:
    return pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else np.asarray(pixels)


def _describe(pixels: npt.NDArray[Any]) -> str:
    return f"{pixels.dtype} {pixels.shape}"


def _encode_gif(pixels: npt.NDArray[np.uint8], fps: float) -> bytes:
    """Encodes (T, H, W, 3) uint8 as a looping GIF. Consecutive equal images become one that is shown longer."""
    # One palette for all, from 8 images, and no dithering: static pixels stay equal and cost nothing.
    sample = pixels[np.unique(np.linspace(0, len(pixels) - 1, 8).round().astype(int))]
    palette = Image.fromarray(np.concatenate(list(sample))).quantize(256)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in pixels]
    # Times are whole hundredths of a second, and browsers slow down frames shorter than two. Rounding the start times
    # instead of the durations keeps the overall speed right.
    moments = np.round(np.arange(len(images) + 1) * max(100 / fps, 2)).astype(int)
    durations = (np.diff(moments) * 10).tolist()
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return buffer.getvalue()
