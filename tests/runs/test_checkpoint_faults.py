"""Faults while saving a checkpoint: it is complete or absent, and no older one is lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.runs import checkpoint
from helpers.checkpoints import by_hand, names


def test_leftovers_of_a_killed_process_are_removed(two: Path) -> None:
    (two / "0000000007.ckpt.partial").write_bytes(b"half")
    (two / "0000000011.ckpt.partial").write_bytes(b"half")
    (two / "notes.txt").write_text("mine")
    checkpoint.save(two, 11, {})
    assert names(two) == ["0000000010.ckpt", "0000000011.ckpt", "notes.txt"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Makes the operating system refuse writes beyond `size` bytes of a file."""
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


def test_only_a_full_disk_makes_the_message_speak_of_space(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(
        OSError, match=r"was not written \(Permission denied\); earlier checkpoints are intact\Z"
    ) as caught:
        checkpoint.save(two, 11, {})
    assert caught.value.errno == errno.EACCES


def test_an_interrupt_leaves_the_earlier_ones(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(two, 11, {})
    assert names(two) == ["0000000005.ckpt", "0000000010.ckpt"]


def test_sync_comes_before_rename_and_rename_before_deletion(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be simulated here; the order of the calls protects against it."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        content = target.read_bytes() if target.is_file() else b""
        calls.append((f"sync {target.name}", names(two)))
        assert target.is_dir() or content == by_hand(content[len(by_hand(b"")) :])  # the file includes the header
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
last = kills = 0
while kills < 25 or last <= 10:  # on a busy machine a child may save nothing before it is killed
    kills += 1
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
