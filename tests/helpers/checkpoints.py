"""Checkpoint files: comparisons of their contents, and one assembled by hand."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.runs import checkpoint


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_file())


def segment(directory: Path, name: str, content: bytes = b"frames") -> str:
    (directory / checkpoint.SEGMENTS).mkdir(parents=True, exist_ok=True)
    (directory / checkpoint.SEGMENTS / name).write_bytes(content)
    return name


def by_hand(payload: bytes, attachments: list[str] | None = None, version: int = 2) -> bytes:
    """A checkpoint file assembled from the layout in the module's docstring."""
    listed = json.dumps(attachments or []).encode()
    start = struct.pack("<8sIIQ", b"CURLRLCK", version, len(listed), len(payload)) + hashlib.sha256(payload).digest()
    return start + hashlib.sha256(start + listed).digest() + listed + payload


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        # Bytes, so that a NaN equals itself and -0 differs from 0.
        assert (
            left.contiguous().flatten().view(torch.uint8).tolist()
            == right.contiguous().flatten().view(torch.uint8).tolist()
        )
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, float):
        assert struct.pack("d", left) == struct.pack("d", right)
    else:
        assert left == right


def assert_the_one_before_is_used(directory: Path) -> None:
    newest = directory / "0000000010.ckpt"
    with pytest.warns(RuntimeWarning, match=f"^{newest} .*; using 0000000005.ckpt instead$") as caught:
        loaded = checkpoint.load_newest(directory)
    assert len(caught) == 1
    assert loaded == (directory / "0000000005.ckpt", {"frames": 5})
    assert names(directory) == ["0000000005.ckpt", "0000000010.ckpt.damaged"]
