"""Metrics, images and videos, read back with TensorBoard, a strict JSON parser and Pillow."""

import io
import json
import math
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from curl_rl.runs.logger import METRICS_FILE, Logger, read_metrics


def strict_rows(directory: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (directory / METRICS_FILE).read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def tensorboard(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0}).Reload()


def curve(directory: Path, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tensorboard(directory).Scalars(name)]


# ---- numbers


def test_numbers_are_the_same_in_json_and_tensorboard(tmp_path: Path) -> None:
    with Logger(tmp_path) as logger:
        logger.scalars(0, {"episode/return": 1.5, "updates": 2**53 + 1})
        logger.scalars(1000, {"episode/return": torch.tensor(0.1), "critic_loss": np.float64(0.25)})
        logger.scalars(1000, {"critic.loss-2": torch.tensor([3.0], dtype=torch.bfloat16, requires_grad=True)})
        logger.scalars(2000, {"episode/return": torch.tensor(2**24 + 1), "solved": True})
    rows = strict_rows(tmp_path)
    assert rows == read_metrics(tmp_path / METRICS_FILE)
    tenth = struct.unpack("f", struct.pack("f", 0.1))[0]
    assert [{name: row[name] for name in row if name != "wall_time"} for row in rows] == [
        {"frames": 0, "episode/return": 1.5, "updates": 2**53 + 1},
        {"frames": 1000, "episode/return": tenth, "critic_loss": 0.25},
        {"frames": 1000, "critic.loss-2": 3.0},
        {"frames": 2000, "episode/return": 2.0**24 + 1, "solved": 1.0},
    ]
    events = tensorboard(tmp_path)
    assert set(events.Tags()["scalars"]) == {name for row in rows for name in row} - {"frames", "wall_time"}
    for name in events.Tags()["scalars"]:
        expected = [(row["frames"], np.float32(row[name]), row["wall_time"]) for row in rows if name in row]
        assert [(point.step, point.value, point.wall_time) for point in events.Scalars(name)] == expected


def test_the_order_of_names_is_kept(tmp_path: Path) -> None:
    with Logger(tmp_path) as logger:
        logger.scalars(1, {"z": torch.tensor(1.0), "a": 2.0, "m": torch.tensor(3, dtype=torch.int32)})
    assert list(strict_rows(tmp_path)[0].items())[2:] == [("z", 1.0), ("a", 2.0), ("m", 3.0)]


def test_non_finite_values_are_null(tmp_path: Path) -> None:
    with Logger(tmp_path) as logger:
        logger.scalars(1, {"a": math.nan, "b": math.inf, "c": torch.tensor(-math.inf), "d": 1e300})
    row = strict_rows(tmp_path)[0]
    assert [row[name] for name in "abcd"] == [None, None, None, 1e300]
    values = [tensorboard(tmp_path).Scalars(name)[0].value for name in "abcd"]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, math.inf]  # TensorBoard stores 32-bit floats


@pytest.mark.parametrize("name", ["", "two words", "/slash", "loss:0", "frames", "wall_time", "new\nline"])
def test_a_name_that_would_differ_in_tensorboard_is_refused(tmp_path: Path, name: str) -> None:
    pixels = np.zeros((1, 2, 2), dtype=np.uint8)
    with Logger(tmp_path) as logger:
        for call in (lambda: logger.scalars(1, {name: 1.0}), lambda: logger.image(1, name, pixels)):
            with pytest.raises(ValueError, match="^metric ") as caught:
                call()
            assert "\n" not in str(caught.value)
    assert strict_rows(tmp_path) == []
    assert tensorboard(tmp_path).Tags()["images"] == []


def test_a_tensor_with_several_elements_is_refused(tmp_path: Path) -> None:
    with (
        Logger(tmp_path) as logger,
        pytest.raises(ValueError, match=r"^metric 'loss' must be one number, got shape \(2,\)$"),
    ):
        logger.scalars(1, {"loss": torch.zeros(2)})
    assert strict_rows(tmp_path) == []


# ---- resuming a run


def log(directory: Path, steps: range, value: float, resume_at: int | None) -> None:
    with Logger(directory, resume_at=resume_at) as logger:
        for frames in steps:
            logger.scalars(frames, {"return": value})


def test_rows_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    log(tmp_path, range(0, 1001, 100), 1.0, None)
    log(tmp_path, range(600, 801, 100), 2.0, 500)
    expected = [(frames, 1.0) for frames in range(0, 501, 100)] + [(600, 2.0), (700, 2.0), (800, 2.0)]
    assert [(row["frames"], row["return"]) for row in strict_rows(tmp_path)] == expected
    assert curve(tmp_path, "return") == expected
    log(tmp_path, range(750, 751), 3.0, 700)
    expected = [*expected[:-1], (750, 3.0)]
    assert [(row["frames"], row["return"]) for row in strict_rows(tmp_path)] == expected
    assert curve(tmp_path, "return") == expected


def test_a_run_stopped_before_its_first_checkpoint_keeps_nothing(tmp_path: Path) -> None:
    log(tmp_path, range(3), 1.0, None)
    log(tmp_path, range(2), 2.0, -1)
    assert [(row["frames"], row["return"]) for row in strict_rows(tmp_path)] == [(0, 2.0), (1, 2.0)]
    assert curve(tmp_path, "return") == [(0, 2.0), (1, 2.0)]


def test_a_run_without_its_metrics_can_be_resumed(tmp_path: Path) -> None:
    log(tmp_path / "run", range(6, 8), 1.0, 5)
    assert [row["frames"] for row in strict_rows(tmp_path / "run")] == [6, 7]


def test_images_are_cut_too(tmp_path: Path) -> None:
    gray = np.zeros((1, 2, 2), dtype=np.uint8)
    with Logger(tmp_path) as logger:
        for frames in (100, 200, 300):
            logger.image(frames, "view", gray)
    Logger(tmp_path, resume_at=200).close()
    assert [image.step for image in tensorboard(tmp_path).Images("view")] == [100, 200]


@pytest.mark.parametrize("rest", [b'{"frames": 9', b'{"frames"', b"\0\0\0", b"4", b'{"frames": 4}'])
def test_a_partial_row_is_cut(tmp_path: Path, rest: bytes) -> None:
    log(tmp_path, range(1, 4), 1.0, None)
    path = tmp_path / METRICS_FILE
    with open(path, "ab") as file:
        file.write(rest)
    whole = [1, 2, 3, 4] if rest.endswith(b"}") else [1, 2, 3]
    assert [row["frames"] for row in read_metrics(path)] == whole
    log(tmp_path, range(11, 12), 1.0, 10)
    assert [row["frames"] for row in strict_rows(tmp_path)] == [*whole, 11]


def test_cutting_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, range(1, 4), 1.0, None)
    before = (tmp_path / METRICS_FILE).read_bytes()

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            Logger(tmp_path, resume_at=2)
    assert (tmp_path / METRICS_FILE).read_bytes() == before


def test_a_new_run_does_not_append_to_another_runs_metrics(tmp_path: Path) -> None:
    log(tmp_path, range(1, 2), 1.0, None)
    before = (tmp_path / METRICS_FILE).read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds the metrics of another run"):
        Logger(tmp_path)
    assert (tmp_path / METRICS_FILE).read_bytes() == before


def test_resuming_before_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^resume_at must be a frame count, .* got -2$"):
        Logger(tmp_path, resume_at=-2)


@pytest.mark.parametrize("line", ["nonsense", "[1]", "{}", '{"frames": "1"}', ""])
def test_a_bad_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text(f'{{"frames": 1}}\n{line}\n{{"frames": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: must be"):
        read_metrics(path)


# ---- faults


def test_a_row_that_does_not_fit_leaves_the_others_intact(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    with Logger(tmp_path) as logger:
        for frames in range(20):
            logger.scalars(frames, {"loss": 1 / 3})
        logger.flush()
        # Half of the next row fits, as on a nearly full disk.
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            with pytest.raises(OSError, match="only 20 of"):
                logger.scalars(20, {"loss": 1 / 3})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        logger.scalars(21, {"loss": 1 / 3})
    assert [row["frames"] for row in strict_rows(tmp_path)] == [*range(20), 21]


KILLED = """
import sys
from pathlib import Path
from curl_rl.runs.logger import Logger
logger = Logger(Path(sys.argv[1]))
frames = 0
while True:
    logger.scalars(frames, {"loss": 0.5, "flushed": 0.0})
    if frames == 10:
        logger.flush()
    print(frames, flush=True)
    frames += 1
"""


def test_a_killed_process_loses_no_row(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
        reported += [int(line) for line in process.stdout if line.endswith(b"\n")]
    rows = read_metrics(tmp_path / METRICS_FILE)
    assert [row["frames"] for row in rows[: len(reported)]] == reported
    assert len(rows) - len(reported) in (0, 1)
    assert len(curve(tmp_path, "flushed")) > 10


def test_flush_makes_everything_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = RecordWriter.write

    def write_slowly(writer: RecordWriter, data: bytes) -> None:
        time.sleep(0.01)
        write(writer, data)

    synced = []
    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    monkeypatch.setattr("os.fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").resolve()))
    with Logger(tmp_path) as logger:
        for frames in range(20):
            logger.scalars(frames, {"loss": 1.0})
        logger.flush()
        assert len(curve(tmp_path, "loss")) == 20
    assert synced == [tmp_path / METRICS_FILE]


def test_closing_twice_does_nothing(tmp_path: Path) -> None:
    logger = Logger(tmp_path)
    logger.close()
    logger.close()


# ---- images


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_an_image_survives_pixel_for_pixel(tmp_path: Path, channels: int, kind: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    with Logger(tmp_path) as logger:
        logger.image(300, "eval/view", kind(pixels))
    (event,) = tensorboard(tmp_path).Images("eval/view")
    assert (event.step, event.width, event.height) == (300, 7, 5)
    decoded = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    assert np.array_equal(decoded, pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((9, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.float32),
    ],
)
def test_other_images_are_refused(tmp_path: Path, pixels: Any) -> None:
    with Logger(tmp_path) as logger, pytest.raises(ValueError, match=r"must be uint8 \(C, H, W\)"):
        logger.image(1, "view", pixels)


# ---- videos


def read_gif(content: bytes) -> tuple[list[np.ndarray], list[int]]:
    """(H, W, 3) images and their durations in milliseconds."""
    gif = Image.open(io.BytesIO(content))
    assert gif.format == "GIF"
    pictures, durations = [], []
    for index in range(getattr(gif, "n_frames", 1)):
        gif.seek(index)
        pictures.append(np.asarray(gif.convert("RGB")))
        durations.append(gif.info.get("duration", 0))
    return pictures, durations


def moving_square(count: int) -> np.ndarray:
    """A red square that moves right on a blue gradient."""
    images = np.zeros((count, 24, 32, 3), dtype=np.uint8)
    images[..., 2] = np.linspace(100, 200, 32)
    for index in range(count):
        images[index, 8:16, index : index + 8] = (250, 30, 10)
    return images


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_video_survives_a_round_trip(tmp_path: Path, kind: Any) -> None:
    images = moving_square(20)
    path = tmp_path / "videos" / "200.gif"
    with Logger(tmp_path) as logger:
        logger.video(200, "eval/video", kind(images), 25, path)
    pictures, durations = read_gif(path.read_bytes())
    assert len(pictures) == 20
    assert durations == [40] * 20
    for picture, image in zip(pictures, images, strict=True):
        assert picture.shape == (24, 32, 3)
        assert np.abs(picture.astype(int) - image).max() <= 8
    (event,) = tensorboard(tmp_path).Images("eval/video")
    assert (event.step, event.width, event.height) == (200, 32, 24)
    assert event.encoded_image_string == path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["200.gif"]


@pytest.mark.parametrize(
    ("fps", "count", "total"),
    [(30, 20, 670), (7, 3, 430), (50, 10, 200), (60, 10, 200), (1000, 10, 200), (0.5, 2, 4000), (12.5, 1, None)],
)
def test_a_video_plays_in_real_time(tmp_path: Path, fps: float, count: int, total: int | None) -> None:
    with Logger(tmp_path) as logger:
        logger.video(1, "video", moving_square(count), fps, tmp_path / "a.gif")
    pictures, durations = read_gif((tmp_path / "a.gif").read_bytes())
    assert len(pictures) == count
    if total is not None:  # a single image needs no duration
        assert sum(durations) == total
        assert min(durations) >= 20
        assert max(durations) - min(durations) <= 10


def test_a_static_video_has_the_same_duration(tmp_path: Path) -> None:
    images = moving_square(3).repeat(4, axis=0)
    with Logger(tmp_path) as logger:
        logger.video(1, "video", images, 20, tmp_path / "a.gif")
    assert sum(read_gif((tmp_path / "a.gif").read_bytes())[1]) == 12 * 50


def test_static_pixels_do_not_flicker(tmp_path: Path) -> None:
    # Far more colors than a GIF can hold, so the palette must approximate them.
    background = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), dtype=np.uint8)
    images = background.repeat(6, axis=0)
    images[:, 8:16] = moving_square(6)[:, 8:16]
    with Logger(tmp_path) as logger:
        logger.video(1, "video", images, 20, tmp_path / "a.gif")
    pictures = np.stack(read_gif((tmp_path / "a.gif").read_bytes())[0])
    for rows in (slice(8), slice(16, None)):
        assert np.array_equal(pictures[:, rows], pictures[:1, rows].repeat(6, axis=0))
        assert np.abs(pictures[0, rows].astype(int) - images[0, rows]).mean() < 25


def test_a_video_without_a_file(tmp_path: Path) -> None:
    with Logger(tmp_path) as logger:
        logger.video(1, "video", moving_square(2), 20)
    assert len(read_gif(tensorboard(tmp_path).Images("video")[0].encoded_image_string)[0]) == 2
    assert list(tmp_path.glob("**/*.gif")) == []


@pytest.mark.parametrize(
    ("images", "fps", "message"),
    [
        (np.zeros((0, 4, 4, 3), dtype=np.uint8), 25, r"^video 'v' must be .*, got uint8 \(0, 4, 4, 3\)$"),
        (np.zeros((2, 3, 4, 4), dtype=np.uint8), 25, r"^video 'v' must be .*, got uint8 \(2, 3, 4, 4\)$"),
        (np.zeros((2, 4, 4, 3)), 25, r"^video 'v' must be .*, got float64 \(2, 4, 4, 3\)$"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), 0, "^fps must be positive, got 0$"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), math.nan, "^fps must be positive, got nan$"),
    ],
)
def test_other_videos_are_refused(tmp_path: Path, images: Any, fps: float, message: str) -> None:
    with Logger(tmp_path) as logger, pytest.raises(ValueError, match=message):
        logger.video(1, "v", images, fps, tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()
