"""Damaged recordings are noticed, and recordings in progress are read at one moment."""

from __future__ import annotations

import json
import os
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from curl_rl.recordings import store
from curl_rl.recordings.store import FrameWriter, RecordedFrames, Recording
from curl_rl.runs.errors import UserError

RECORDING = Recording("tiny-reach", 6, 1, "faithful", 1, "random", ("x", "y"), 2)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_FRAMES", 6)
    store._say_once.cache_clear()


def noise(length: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "frames": list(rng.integers(0, 256, (length, 3, 6, 6), dtype=np.uint8)),
        "states": list(rng.normal(size=(length, 2))),
        "actions": list(rng.normal(size=(length, 2)).astype(np.float32)),
        "rewards": rng.normal(size=length).tolist(),
    }


def recorded(folder: Path, lengths: tuple[int, ...] = (4, 3, 5, 2), *, cut: bool = False) -> Path:
    writer = FrameWriter(folder, RECORDING)
    for number, length in enumerate(lengths):
        writer.add_episode(**noise(length, number), cut=cut and number == len(lengths) - 1)
    writer.flush()
    return folder


def read(folder: Path) -> None:
    frames = RecordedFrames(folder)
    frames.observations(torch.arange(len(frames)), 2)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """Of the tensors; the header has its own checks."""
    folder = recorded(tmp_path / "data")
    read(folder)
    source = random.Random(0)
    for shard in sorted(folder.glob("*.safetensors")):
        content = shard.read_bytes()
        begin = 8 + struct.unpack("<Q", content[:8])[0]
        for place in range(begin, len(content), 7):
            damaged = bytearray(content)
            damaged[place] ^= source.randrange(1, 256)
            shard.write_bytes(damaged)
            with pytest.raises(UserError, match=str(folder)) as caught:
                read(folder)
            assert "\n" not in str(caught.value)
        shard.write_bytes(content)
    read(folder)


def test_opening_compares_no_pixels(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "data")
    last = sorted(folder.glob("*.safetensors"))[-1]
    tensors = safetensors.torch.load_file(last)
    tensors["frames"][0, 0, 0, 0] ^= 1
    safetensors.torch.save_file(tensors, last)
    frames = RecordedFrames(folder)
    frames.frames(torch.tensor([0, 1]))
    with pytest.raises(UserError, match=rf"{last.name} is damaged: its frames do not match their checksum"):
        frames.frames(torch.tensor([0, len(frames) - 1]))


def test_a_damaged_shard_gets_no_new_checksum(tmp_path: Path) -> None:
    """Extending a recording rewrites the shard of a cut episode."""
    folder = recorded(tmp_path / "data", (4, 3, 2, 3), cut=True)
    last = sorted(folder.glob("*.safetensors"))[-1]
    tensors = safetensors.torch.load_file(last)
    tensors["frames"][0, 0, 0, 0] ^= 1
    safetensors.torch.save_file(tensors, last)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="its frames do not match their checksum"):
        FrameWriter(folder, RECORDING).add_episode(**noise(5, 3))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def without_checksums(folder: Path) -> Path:
    path = folder / "frames.json"
    content = json.loads(path.read_text())
    for entry in content["shards"]:
        assert len(entry.pop("pixels")) == len(entry.pop("numbers")) == 64
    path.write_text(json.dumps(content))
    return folder


def test_a_recording_of_an_earlier_version_is_read_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without_checksums(recorded(tmp_path / "data"))
    read(folder)
    read(folder)
    assert capsys.readouterr().err.count("2 of 2 shards are of an earlier version, without checksums") == 1
    recorded(tmp_path / "new")
    read(tmp_path / "new")
    assert capsys.readouterr().err == ""


def test_a_reader_gets_the_recording_before_or_after_a_shard_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(tmp_path / "data", (4, 3, 2, 3), cut=True)
    original, looks = store.read_description, []

    def then_extended(folder: Path) -> Any:
        found = original(folder)
        looks.append(found)
        if len(looks) == 1:  # another process extends the recording just now
            writer = FrameWriter(folder, RECORDING)
            writer.add_episode(**noise(5, 3))
            writer.flush()
        return found

    monkeypatch.setattr(store, "read_description", then_extended)
    assert RecordedFrames(folder).episodes.bincount().tolist() == [4, 3, 2, 5]


def test_gigabytes_of_zeros_are_not_read(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "data")
    with open(folder / "frames.json", "wb") as file:
        file.truncate(6 * 2**30)
    with pytest.raises(UserError, match=r"frames\.json is damaged or not what it is named: it has more than"):
        RecordedFrames(folder)


@pytest.mark.parametrize("name", ["frames.json", "frames-00000.safetensors"])
def test_pipes_and_circles_are_one_line(tmp_path: Path, name: str) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to(path)):
        folder = recorded(tmp_path / make.__name__)
        (folder / name).unlink()
        make(folder / name)
        with pytest.raises(UserError, match=name):
            read(folder)


def test_links_in_a_recording_reach_nothing_outside(tmp_path: Path) -> None:
    folder, outside = recorded(tmp_path / "data", (4, 3, 2, 3), cut=True), tmp_path / "outside"
    outside.mkdir()
    for name in ("frames.json", "frames.json.partial", "frames-00001.safetensors", "frames-00002.safetensors.partial"):
        if (folder / name).exists():
            (folder / name).rename(outside / name)
        else:
            (outside / name).write_text("precious")
        (folder / name).symlink_to(outside / name)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    writer = FrameWriter(folder, replace(RECORDING))
    writer.add_episode(**noise(5, 3))
    writer.flush()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert RecordedFrames(folder).episodes.bincount().tolist() == [4, 3, 2, 5]
