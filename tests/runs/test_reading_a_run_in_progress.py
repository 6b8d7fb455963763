"""Readers of a run that is being saved get the state before or after, never an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder, save_encoder
from curl_rl.artifacts.head_file import load_head, save_head
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.heads import MLP
from curl_rl.runs import checkpoint
from curl_rl.runs import files as files_module
from curl_rl.runs.logger import read_metrics
from helpers.checkpoints import segment


def save(directory: Path, frames: int) -> None:
    name = segment(directory, f"segment-{frames}")
    checkpoint.save(directory, frames, {"frames": frames}, attachments=[name])


@pytest.mark.parametrize("moment", ["listed", "opened", "loaded"])
def test_a_checkpoint_deleted_while_it_is_read_is_replaced_by_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    done: list[int] = []

    def the_run_goes_on() -> None:
        for frames in () if done else (3, 4):
            done.append(frames)
            save(tmp_path, frames)

    def before(call: Any) -> Any:
        def with_progress(*arguments: Any, **named: Any) -> Any:
            the_run_goes_on()
            return call(*arguments, **named)

        return with_progress

    def usable(state: dict[str, Any]) -> None:
        if moment == "loaded":
            the_run_goes_on()
        assert state["frames"] in (2, 4)
        if not (tmp_path / "segments" / f"segment-{state['frames']}").is_file():
            raise FileNotFoundError("its segment is gone")

    if moment == "listed":
        monkeypatch.setattr(checkpoint, "open_regular", before(checkpoint.open_regular))
    elif moment == "opened":
        monkeypatch.setattr(checkpoint, "_read_header", before(checkpoint._read_header))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checkpoint.load_newest(tmp_path, usable=usable, read_only=True)
    assert found is not None
    assert found[1] == {"frames": 4}


def encoder(seed: int) -> PixelEncoder:
    torch.manual_seed(seed)
    made = PixelEncoder((6, 12, 12), EncoderConfig(2, (2,), 5))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.mark.parametrize("stops_before", range(5))
def test_an_encoder_saved_halfway_is_the_one_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_before: int
) -> None:
    """A kill before each of the writes, or a reader at that moment."""
    older, newer, images = encoder(0), encoder(1), torch.rand(3, 6, 12, 12)
    save_encoder(older, tmp_path, rendered_size=16, provenance={"frames": 10})
    calls = 0
    for name in ("fsync", "replace"):
        original = getattr(files_module.os, name)

        def stopping(*arguments: Any, original: Any = original) -> Any:
            nonlocal calls
            calls += 1
            if calls > stops_before:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(files_module.os, name, stopping)
    with pytest.raises(KeyboardInterrupt):
        save_encoder(newer, tmp_path, rendered_size=16, provenance={"frames": 20})
    monkeypatch.undo()
    found = load_encoder(tmp_path)
    expected = {10: older, 20: newer}[found.provenance["frames"]]
    assert torch.equal(found(images), expected(images))


def test_a_head_saved_halfway_is_loaded(tmp_path: Path) -> None:
    for number in range(2):
        torch.manual_seed(number)
        head = MLP((4, 3, 2), batch_norm=False, last="affine")
        earlier = (tmp_path / "head.json").read_bytes() if number else b""
        save_head(head, tmp_path)
    (tmp_path / "head.json").write_bytes(earlier)
    assert torch.equal(load_head(tmp_path)[0][0].weight, head.layers[0][0].weight)


def test_a_row_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = b'{"frames": 7, "a": 1.25}\n'
    for length in range(1, len(line)):
        path.write_bytes(b'{"frames": 5}\n' + line[:length])
        whole = length == len(line) - 1
        assert read_metrics(path) == [{"frames": 5}, *([{"frames": 7, "a": 1.25}] if whole else [])]


def test_rows_that_are_nested_or_endless_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"[" * 100_000 + b'\n{"frames": 5}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: must be a JSON object"):
        read_metrics(path)
    with open(path, "wb") as file:
        file.truncate(6 * 2**30)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: must be a JSON object"):
        read_metrics(path)
