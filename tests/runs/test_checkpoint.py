"""Checkpoints: whole or noticed, never half; nothing older lost; no code run."""

import errno
import hashlib
import io
import json
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curl_rl.runs import checkpoint


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_file())


def segment(directory: Path, name: str, content: bytes = b"frames") -> str:
    (directory / checkpoint.SEGMENTS).mkdir(parents=True, exist_ok=True)
    (directory / checkpoint.SEGMENTS / name).write_bytes(content)
    return name


def by_hand(payload: bytes, attachments: list[str] | None = None, version: int = 2) -> bytes:
    """A checkpoint file put together from the layout that the module's docstring describes."""
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


# ---- what goes in comes out


def random_nest(source: random.Random, depth: int) -> Any:
    leaves = [
        lambda: source.choice([0, -1, 2**31, 2**63, -(2**127), True, False, None, "", "größer", "a/b\n"]),
        lambda: source.choice([0.0, -0.0, 1e-310, math.inf, math.nan, 0.1]),
        lambda: torch.tensor([0.0, -0.0, math.nan, 1.5]).to(source.choice([torch.float32, torch.bfloat16])),
        lambda: torch.randint(0, 2, (2, 0, 3) if source.random() < 0.3 else (2, 3)).to(
            source.choice([torch.uint8, torch.bool, torch.int64])
        ),
        lambda: torch.arange(12.0).reshape(3, 4).t(),
        lambda: torch.tensor(source.random(), dtype=torch.float64),
    ]
    kind = source.randrange(10) if depth else 9
    if kind > 5:
        return source.choice(leaves)()
    items = [random_nest(source, depth - 1) for _ in range(source.randrange(4))]
    if kind < 2:
        return {source.choice([f"k{i}", i]): item for i, item in enumerate(items)}
    return (list, tuple)[kind % 2](items)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    source = random.Random(0)
    for frames in range(50):
        state = {"nest": [random_nest(source, 4) for _ in range(3)]}
        path = checkpoint.save(tmp_path, frames, state)
        loaded = checkpoint.load_newest(tmp_path)
        assert loaded is not None
        assert loaded[0] == path
        assert_same(loaded[1], state)


def test_networks_and_optimizers_come_back(tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        return network, torch.optim.Adam(network.parameters(), lr=0.1)

    network, optimizer = make()
    network(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}
    checkpoint.save(tmp_path, 1, state)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], state)
    # Modules read their own versions from here when they load.
    assert vars(loaded[1]["network"]) == vars(network.state_dict())

    other, other_optimizer = make()
    other.load_state_dict(loaded[1]["network"])
    other_optimizer.load_state_dict(loaded[1]["optimizer"])
    images = torch.randn(5, 3)
    for module, adam in ((network, optimizer), (other, other_optimizer)):
        adam.zero_grad()
        module(images).square().sum().backward()
        adam.step()
    assert_same(other.state_dict(), network.state_dict())


def test_a_parameter_comes_back_as_a_tensor(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"w": nn.Parameter(torch.ones(2))})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], {"w": torch.ones(2)})


def test_a_slice_does_not_bring_the_tensor_that_it_is_cut_from(tmp_path: Path) -> None:
    large = torch.randn(1_000_000)
    path = checkpoint.save(tmp_path, 1, {"slice": large[10:20]})
    assert path.stat().st_size < 10_000
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded[1]["slice"], large[10:20])


class Custom:
    pass


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"x": {"y": Custom()}}, 'state["x"]["y"] is a Custom'),
        ({"x": [1, (2, np.float64(3.0))]}, 'state["x"][1][1] is a float64'),
        ({"a": np.zeros(2)}, 'state["a"] is a ndarray'),
        ({"a": {1: {2}}}, 'state["a"][1] is a set'),
        ({"a": b"bytes"}, 'state["a"] is a bytes'),
        ({"a": torch.Size([1])}, 'state["a"] is a Size'),
        ({"a": torch.float32}, 'state["a"] is a dtype'),
        ({"a": torch.eye(2).to_sparse()}, 'state["a"] is a Tensor'),
        ({"a": {(1, 2): 3}}, 'state["a"] has the key (1, 2), a tuple'),
        ({"a": {True: 3}}, 'state["a"] has the key True, a bool'),
        ([1], "state is a list"),
    ],
)
def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path, state: Any, place: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(place)) as caught:
        checkpoint.save(tmp_path, 1, state)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_extra_attributes_of_a_tensor_or_a_dict_do_not_travel(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    tensor.owner = Custom()  # type: ignore[attr-defined]
    mapping = OrderedDict(a=1)
    mapping.owner = Custom()  # type: ignore[attr-defined]
    checkpoint.save(tmp_path, 1, {"tensor": tensor, "mapping": mapping})
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1], {"tensor": torch.ones(2), "mapping": OrderedDict(a=1)})


def test_the_file_is_laid_out_as_the_docstring_says(tmp_path: Path) -> None:
    segment(tmp_path, "s1")
    path = checkpoint.save(tmp_path, 12, {"a": torch.arange(3), "b": 1}, attachments=["s1"])
    assert path.name == "0000000012.ckpt"
    content = path.read_bytes()
    payload = content[8 + 4 + 4 + 8 + 32 + 32 + len('["s1"]') :]
    assert content == by_hand(payload, ["s1"])
    assert_same(torch.load(io.BytesIO(payload), weights_only=True), {"a": torch.arange(3), "b": 1})


# ---- damage


@pytest.fixture
def two(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path, 5, {"frames": 5})
    checkpoint.save(tmp_path, 10, {"frames": 10})
    return tmp_path


def test_none_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "absent") is None
    assert checkpoint.load_newest(tmp_path) is None
    (tmp_path / "0000000001.ckpt.partial").touch()
    (tmp_path / "notes.ckpt").touch()
    assert checkpoint.load_newest(tmp_path) is None


def assert_the_one_before_is_used(directory: Path) -> None:
    newest = directory / "0000000010.ckpt"
    with pytest.warns(RuntimeWarning, match=f"^{newest} .*; using 0000000005.ckpt instead$") as caught:
        loaded = checkpoint.load_newest(directory)
    assert len(caught) == 1
    assert loaded == (directory / "0000000005.ckpt", {"frames": 5})
    assert names(directory) == ["0000000005.ckpt", "0000000010.ckpt.damaged"]


def places(content: bytes) -> list[int]:
    """All of the header, and every fifth byte of the rest."""
    return [*range(120), *range(120, len(content), 5)]


def test_a_truncation_is_noticed(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = newest.read_bytes()
    for length in places(content):
        newest.write_bytes(content[:length])
        assert_the_one_before_is_used(two)


def test_a_flipped_byte_is_noticed(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = newest.read_bytes()
    source = random.Random(0)
    for place in places(content):
        flipped = bytearray(content)
        flipped[place] ^= source.randrange(1, 256)
        newest.write_bytes(flipped)
        assert_the_one_before_is_used(two)


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"hello"])
def test_foreign_content_and_appended_bytes_are_noticed(two: Path, damage: bytes) -> None:
    newest = two / "0000000010.ckpt"
    whole = newest.read_bytes()
    newest.write_bytes(damage)
    assert_the_one_before_is_used(two)
    newest.write_bytes(whole + b"\0")
    assert_the_one_before_is_used(two)


def test_a_damaged_length_does_not_ask_for_gigabytes(two: Path) -> None:
    newest = two / "0000000010.ckpt"
    content = bytearray(newest.read_bytes())
    content[12:16] = b"\xff" * 4
    newest.write_bytes(content)
    tracemalloc.start()
    try:
        assert_the_one_before_is_used(two)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_nothing_is_begun_anew_where_all_are_damaged(two: Path) -> None:
    for path in two.iterdir():
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"^none of the 2 checkpoints in .*: 0000000010\.ckpt is damaged"
        ) as caught:
            checkpoint.load_newest(two)
        assert "\n" not in str(caught.value)
        assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_nothing_is_begun_anew_where_all_were_set_aside(two: Path) -> None:
    for path in list(two.iterdir()):
        path.rename(f"{path}.damaged")
    with pytest.raises(ValueError, match=r"only checkpoints set aside as damaged \(0000000010\.ckpt\.damaged\)"):
        checkpoint.load_newest(two)


def test_a_newer_format_is_no_damage(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(by_hand(b"of the future", version=3))
    with pytest.raises(ValueError, match=r"0000000010\.ckpt has checkpoint format 3, .* reads format 2: update"):
        checkpoint.load_newest(two)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_a_reader_renames_nothing(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="using"):
        assert checkpoint.load_newest(two, read_only=True) == (two / "0000000005.ckpt", {"frames": 5})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


@pytest.mark.parametrize("error", [ValueError("segment-3 is\ndamaged"), OSError("segment-3 is\ndamaged")])
def test_a_caller_may_reject_a_state(two: Path, error: Exception) -> None:
    tried = []

    def usable(state: dict[str, Any]) -> None:
        tried.append(state["frames"])
        if state["frames"] == 10:
            raise error

    with pytest.warns(RuntimeWarning, match=r"0000000010\.ckpt cannot be used \(segment-3 is damaged\); using"):
        assert checkpoint.load_newest(two, usable=usable) == (two / "0000000005.ckpt", {"frames": 5})
    assert tried == [10, 5]
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt.damaged"]


def test_a_callers_own_faults_are_not_taken_for_damage(two: Path) -> None:
    def usable(state: dict[str, Any]) -> None:
        state["absent"]

    with pytest.raises(KeyError):
        checkpoint.load_newest(two, usable=usable)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


class Attack:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_no_code_runs_from_a_file_whose_digests_are_right(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    saved = io.BytesIO()
    torch.save({"a": Attack(marker)}, saved)
    # Protocol 2 is the one that torch.load reads itself.
    for payload in (pickle.dumps(Attack(marker), 2), pickle.dumps({"a": Attack(marker)}, 2), saved.getvalue()):
        (tmp_path / "0000000001.ckpt").write_bytes(by_hand(payload))
        with pytest.raises(ValueError, match="not tensors and numbers") as caught:
            checkpoint.load_newest(tmp_path)
        assert "\n" not in str(caught.value)
        assert not marker.exists()
    # The attack is a real one.
    torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    assert marker.exists()


# ---- what is kept, what is deleted


def test_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    for frames in (5, 90, 1000, 20_000):
        checkpoint.save(tmp_path, frames, {}, keep=3)
    assert names(tmp_path) == ["0000000090.ckpt", "0000001000.ckpt", "0000020000.ckpt"]
    checkpoint.save(tmp_path, 20_001, {}, keep=1)
    assert names(tmp_path) == ["0000020001.ckpt"]


def test_the_same_frames_may_be_saved_again(two: Path) -> None:
    checkpoint.save(two, 10, {"frames": "again"})
    assert checkpoint.load_newest(two) == (two / "0000000010.ckpt", {"frames": "again"})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (9, {}, r"^frames=9: .* already holds the later 0000000010\.ckpt"),
        (-1, {}, "^frames=-1: "),
        (10**10, {}, "^frames=10000000000: "),
        (11, {"keep": 0}, "^keep=0: "),
        (11, {"attachments": ["absent"]}, "^attachments: 'absent' is no file in "),
        (11, {"attachments": ["../0000000005.ckpt"]}, r"^attachments: '\.\./0000000005\.ckpt' is no file in "),
    ],
)
def test_mistakes_are_refused_and_change_nothing(two: Path, frames: int, options: Any, message: str) -> None:
    (two / checkpoint.SEGMENTS).mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.save(two, frames, {}, **options)
    assert "\n" not in str(caught.value)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_attachments_live_as_long_as_a_checkpoint_that_names_them(tmp_path: Path) -> None:
    segments = tmp_path / checkpoint.SEGMENTS
    needed = {1: ["a"], 2: ["a", "b"], 3: ["b", "c"], 4: ["d"], 5: []}
    expected = {1: ["a"], 2: ["a", "b"], 3: ["a", "b", "c"], 4: ["b", "c", "d"], 5: ["d"]}
    for frames, attachments in needed.items():
        for name in attachments:
            segment(tmp_path, name)
        segment(tmp_path, "of-a-killed-process.partial")
        checkpoint.save(tmp_path, frames, {}, attachments=attachments)
        assert names(segments) == expected[frames]


def test_a_checkpoint_without_its_attachment_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {}, attachments=[segment(tmp_path, "a")])
    checkpoint.save(tmp_path, 2, {}, attachments=["a", segment(tmp_path, "b")])
    (tmp_path / checkpoint.SEGMENTS / "b").unlink()
    with pytest.warns(RuntimeWarning, match=r"0000000002\.ckpt cannot be used \(its file segments/b is missing\)"):
        loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert loaded[0].name == "0000000001.ckpt"


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "attachment"])
def test_a_damaged_one_does_not_count_among_those_kept(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, {}, attachments=[segment(tmp_path, "a")])
    path = checkpoint.save(tmp_path, 2, {}, attachments=[segment(tmp_path, "b")])
    content = path.read_bytes()
    if damage == "attachment":
        (tmp_path / checkpoint.SEGMENTS / "b").unlink()
    else:
        header = content[:60] + bytes([content[60] ^ 1]) + content[61:]
        path.write_bytes({"empty": b"", "truncated": content[:-1], "header": header}[damage])
    checkpoint.save(tmp_path, 3, {})
    assert names(tmp_path) == ["0000000001.ckpt", "0000000002.ckpt", "0000000003.ckpt"]
    assert "a" in names(tmp_path / checkpoint.SEGMENTS)
    checkpoint.save(tmp_path, 4, {})
    assert names(tmp_path) == ["0000000003.ckpt", "0000000004.ckpt"]


def test_one_set_aside_does_not_count_among_those_kept(two: Path) -> None:
    (two / "0000000010.ckpt").write_bytes(b"")
    assert_the_one_before_is_used(two)
    checkpoint.save(two, 7, {})
    assert names(two) == ["0000000005.ckpt", "0000000007.ckpt", "0000000010.ckpt.damaged"]


# ---- faults while saving


def test_what_a_killed_process_left_is_removed(two: Path) -> None:
    (two / "0000000007.ckpt.partial").write_bytes(b"half")
    (two / "0000000011.ckpt.partial").write_bytes(b"half")
    (two / "notes.txt").write_text("mine")
    checkpoint.save(two, 11, {})
    assert names(two) == ["0000000010.ckpt", "0000000011.ckpt", "notes.txt"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the operating system refuse to write past `size` bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 50, 1000, 300_000])
def test_a_write_that_fails_midway_leaves_the_earlier_ones(two: Path, size: int) -> None:
    state = {"large": torch.zeros(50_000), "larger": torch.zeros(50_000)}
    with largest_file(size), pytest.raises(OSError, match=r"0000000011\.ckpt was not written") as caught:
        checkpoint.save(two, 11, state)
    assert caught.value.errno == errno.EFBIG
    assert "needs about 0.4 MB" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]
    assert checkpoint.load_newest(two) == (two / "0000000010.ckpt", {"frames": 10})
    checkpoint.save(two, 11, state)
    assert names(two) == ["0000000010.ckpt", "0000000011.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_ones(two: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100_000_000, 98_800_000, 1_200_000))
        with pytest.raises(
            OSError, match=r"No space left on device\): it needs about 8\.0 MB, 1\.2 MB are free;"
        ) as caught:
            checkpoint.save(two, 11, {"a": [{"b": torch.zeros(2_000_000)}]})
    assert caught.value.errno == errno.ENOSPC
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]
    assert checkpoint.load_newest(two) == (two / "0000000010.ckpt", {"frames": 10})


def test_an_interrupt_leaves_the_earlier_ones(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(two, 11, {})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_synced_before_renamed_before_anything_is_deleted(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut can undo cannot be tried here; the order of the calls is what protects against it."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        content = target.read_bytes() if target.is_file() else b""
        calls.append((f"sync {target.name}", names(two)))
        assert target.is_dir() or content == by_hand(content[len(by_hand(b"")) :])  # the header too is in the file
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append((f"rename to {Path(target).name}", names(two)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    checkpoint.save(two, 11, {})
    old = ["0000000005.ckpt", "0000000010.ckpt"]
    assert calls == [
        ("sync 0000000011.ckpt.partial", [*old, "0000000011.ckpt.partial"]),
        ("rename to 0000000011.ckpt", [*old, "0000000011.ckpt.partial"]),
        (f"sync {two.name}", [*old, "0000000011.ckpt"]),
    ]
    assert names(two) == ["0000000010.ckpt", "0000000011.ckpt"]


KILLED = """
import hashlib, os, random, signal, struct, sys, time
from pathlib import Path
import torch
from curl_rl.runs import checkpoint

directory = Path(sys.argv[1])
torch.set_num_threads(1)

def check(state):
    data = state["data"].numpy().tobytes()
    assert hashlib.sha256(data).hexdigest() == state["digest"], "the content is not what was saved"
    for name in state["needs"]:
        assert (directory / checkpoint.SEGMENTS / name).read_text() == name, "an attachment was lost"

def train(report):
    loaded = checkpoint.load_newest(directory)
    frames, needs = (loaded[1]["frames"], loaded[1]["needs"]) if loaded else (0, [])
    (directory / checkpoint.SEGMENTS).mkdir(parents=True, exist_ok=True)
    while True:
        frames += 1
        name = f"segment-{frames}"
        (directory / checkpoint.SEGMENTS / name).write_text(name)
        needs = [*needs, name][-3:]
        data = torch.randint(0, 256, (20_000,), dtype=torch.uint8)
        digest = hashlib.sha256(data.numpy().tobytes()).hexdigest()
        state = {"frames": frames, "needs": needs, "data": data, "digest": digest}
        checkpoint.save(directory, frames, state, attachments=needs)
        os.write(report, struct.pack("q", frames))

source = random.Random(0)
last = 0
for _ in range(25):
    receive, report = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(report)
        finally:
            os._exit(1)
    os.close(report)
    time.sleep(source.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child died by itself"
    with open(receive, "rb") as pipe:
        reported = [frames for (frames,) in struct.iter_unpack("q", pipe.read())]
    last = max([last, *reported])
    loaded = checkpoint.load_newest(directory, usable=check)
    saved = loaded[1]["frames"] if loaded else 0
    assert saved in (last, last + 1), f"{saved} was loaded after {last} was saved"
    last = saved
print("saved", last)
"""


def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "error::RuntimeWarning", "-c", KILLED, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10


# ---- one process to a run

HOLDER = """
import sys, time
from curl_rl.runs.checkpoint import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        message = f"^run directory {run} is in use by process {holder.pid}: "
        with pytest.raises(ValueError, match=message), checkpoint.lock_run(run):
            pass
        holder.kill()
        holder.wait()
        with checkpoint.lock_run(run):
            assert (run / "run.lock").read_text() == f"{os.getpid()}\n"
            with pytest.raises(ValueError, match=f"process {os.getpid()}: "), checkpoint.lock_run(run):
                pass
        with checkpoint.lock_run(run):
            pass


# ---- random states


def draw() -> list[Any]:
    # An odd count of Gaussians leaves one half of a pair in the generators that make pairs.
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),
        int(np.random.randint(2**31)),
        torch.randn(3).tolist(),
        torch.randperm(10).tolist(),
    ]


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    draw()
    checkpoint.save(tmp_path, 1, {"random": checkpoint.random_state()})
    expected = [draw() for _ in range(3)]
    random.seed(4)
    np.random.seed(5)
    torch.manual_seed(6)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    checkpoint.restore_random_state(loaded[1]["random"])
    assert [draw() for _ in range(3)] == expected


def test_states_of_devices_that_are_not_here_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    restored = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append((state, device)))
    checkpoint.restore_random_state({**checkpoint.random_state(), "cuda": ["first", "second", "third"]})
    assert restored == [("first", 0), ("second", 1)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_random_numbers_and_tensors_of_a_gpu(tmp_path: Path) -> None:
    torch.cuda.manual_seed(1)
    tensor = torch.randn(3, device="cuda")
    checkpoint.save(tmp_path, 1, {"random": checkpoint.random_state(), "tensor": tensor})
    expected = torch.randn(3, device="cuda")
    torch.cuda.manual_seed(2)
    loaded = checkpoint.load_newest(tmp_path)
    assert loaded is not None
    assert_same(loaded[1]["tensor"], tensor.cpu())
    checkpoint.restore_random_state(loaded[1]["random"])
    assert torch.equal(torch.randn(3, device="cuda"), expected)
