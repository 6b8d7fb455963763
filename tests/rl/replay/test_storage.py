"""Storage of the frames and its size, and that samples do not depend on it."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import curl_rl.rl.replay as replay_module
import curl_rl.runs.storage as storage_module
from curl_rl.rl.replay import Replay, ReplayConfig, replay_bytes
from helpers.brute_force_replay import ACTION_DIM, SIZE, assert_equal_batches, feed, make, play


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def paper_sized(storage: Any, directory: Path | None = None) -> Replay:
    return Replay(ReplayConfig(100_000, storage), (9, 100, 100), 6, stack=3, device="cpu", directory=directory)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_the_papers_replay_takes_3_2_gb_when_full_and_next_to_none_when_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: 2**40)
    before = resident_bytes()
    replay = paper_sized("memory")
    # By hand: 100,000 + 5,000 + 3 + 1 frames of 30,000 bytes; 100,000 transitions of 6 actions and a reward in float32,
    # a flag, and three numbers of 8 bytes.
    assert replay.nbytes == 105_004 * 30_000 + 100_000 * (7 * 4 + 1 + 3 * 8)
    assert replay.nbytes <= 3.2e9
    assert replay.describe() == "replay: 100,000 transitions, 3.2 GB in memory"
    replay.start_episode(np.zeros((9, 100, 100), dtype=np.uint8))
    assert resident_bytes() - before < 50e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_flat_once_the_replay_is_full() -> None:
    replay = Replay(ReplayConfig(200, "memory"), (9, 64, 64), 1, stack=3, device="cpu")
    generator = torch.Generator().manual_seed(0)
    observation = np.zeros((9, 64, 64), dtype=np.uint8)

    def run(steps: int) -> None:
        for step in range(steps):
            if step % 30 == 0:
                replay.start_episode(observation)
            replay.add([0.0], 0.0, observation, terminated=False, truncated=step % 30 == 29)
            if step % 10 == 0:
                replay.sample(4, generator, discount=1.0)

    run(600)
    before = resident_bytes()
    run(1500)  # 18 MB of new frames
    assert resident_bytes() - before < 5e6


def test_disk_gives_the_samples_of_memory_and_leaves_nothing_behind(tmp_path: Path) -> None:
    in_memory, on_disk = make(23), make(23, storage="disk", directory=tmp_path)
    assert (in_memory.storage, on_disk.storage) == ("memory", "disk")
    assert on_disk.describe().endswith(f"on disk, in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    steps = play(np.random.default_rng(1), 3, 6)
    for moment in range(150):
        step = next(steps)
        feed(in_memory, step)
        feed(on_disk, step)
        if moment % 10 == 9:
            batches = [
                replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
                for replay, generator in zip((in_memory, on_disk), generators, strict=True)
            ]
            assert_equal_batches(*batches)


def test_disk_space_is_reserved_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = functools.partial(tempfile.NamedTemporaryFile, delete=False)  # keeps a name, for the check below
    monkeypatch.setattr(storage_module.tempfile, "TemporaryFile", named)
    replay = Replay(ReplayConfig(500, "disk"), (9, 64, 64), 1, stack=3, device="cpu", directory=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= path.stat().st_size >= 500 * 3 * 64 * 64
    assert replay.storage == "disk"


@pytest.mark.parametrize(
    ("available", "chosen"),
    [(10e9, "memory"), (4.3e9, "memory"), (4.1e9, "disk"), (1e9, "disk")],  # 3.155 GB are 3/4 of 4.21 GB
)
def test_auto_chooses_memory_while_a_quarter_stays_free(
    available: float, chosen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: int(available))
    monkeypatch.setattr(replay_module, "map_unnamed_file", lambda _, size: torch.empty(size, dtype=torch.uint8))
    assert paper_sized("auto", tmp_path).storage == chosen


def test_on_a_cpu_device_means_memory() -> None:
    assert make(5, storage="device").storage == "memory"


def test_no_room_is_refused_at_once_with_the_sizes_needed_and_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_module, "available_memory", lambda: 1_500_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2_500_000_000, 80 * 2**30))
    usage = type("usage", (), {"free": 900_000_000})
    monkeypatch.setattr(storage_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r'replay\.storage is "memory": .* needs 3\.2 GB and 1\.5 GB of memory'):
        paper_sized("memory")
    for storage in ("disk", "auto"):
        with pytest.raises(ValueError, match=r"needs 3\.2 GB and .* has 900\.0 MB free"):
            paper_sized(storage, tmp_path)
    with pytest.raises(ValueError, match=r"needs 3\.2 GB on disk, but no directory"):
        paper_sized("disk")
    with pytest.raises(ValueError, match=r"needs 3\.0 GB and cuda has 2\.5 GB free"):
        storage_module.choose_storage("device", 3_000_000_000, torch.device("cuda"), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("storage", ["device", "memory"])
def test_a_gpu_gets_the_same_batches_as_a_cpu(storage: Any) -> None:
    on_cpu = make(23)
    on_gpu = Replay(ReplayConfig(23, storage), (6, SIZE, SIZE), ACTION_DIM, stack=3, device="cuda")
    assert on_gpu.storage == storage
    steps = play(np.random.default_rng(1), 3, 6)
    for moment in range(150):
        step = next(steps)
        feed(on_cpu, step)
        feed(on_gpu, step)
        if moment % 10 == 9:  # the same draws for both: a generator on the CPU
            generators = [torch.Generator().manual_seed(moment) for _ in range(2)]
            batches = [
                replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
                for replay, generator in zip((on_cpu, on_gpu), generators, strict=True)
            ]
            assert batches[1].observation.device.type == batches[1].reward.device.type == "cuda"
            assert_equal_batches(*batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("storage", ["device", "memory"])
def test_sampling_for_a_gpu_never_waits_for_it(storage: Any) -> None:
    replay = Replay(ReplayConfig(23, storage), (6, SIZE, SIZE), ACTION_DIM, stack=3, device="cuda")
    steps = play(np.random.default_rng(1), 3, 6)
    for _ in range(60):
        feed(replay, next(steps))
    generator = torch.Generator(replay.storage_device).manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        replay.sample(9, generator, discount=0.9, n_step=3, future=(2,))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("streams", "stack", "actions"), [(1, 3, 6), (3, 2, 1)])
def test_the_requested_room_is_the_size_of_the_tensors(streams: int, stack: int, actions: int) -> None:
    shape = (3 * stack, 8, 9)
    replay = Replay(ReplayConfig(61, "memory"), shape, actions, stack=stack, device="cpu", streams=streams)
    names = ("_frames", "_action", "_reward", "_terminated", "_start_frame", "_position")
    taken = sum(getattr(replay, name).nbytes for name in names)
    assert replay_bytes(61, shape, actions, stack=stack, streams=streams) == taken
