"""Storage of a large buffer: on the GPU, in main memory, or in a file, depending on free space."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["device", "memory", "disk"]


def choose_storage(
    asked: Storage | Literal["auto"], needed: int, device: torch.device, directory: Path | None
) -> Storage:
    """Chooses "device", "memory" or "disk" for ``needed`` bytes; if ``asked`` is "auto", the first with enough room.

    Raises:
        ValueError: there is not enough room, or no directory for the disk.
    """
    has_device = device.type == "cuda"
    if asked == "device" and not has_device:
        asked = "memory"
    if has_device and asked in ("auto", "device"):
        free = torch.cuda.mem_get_info(device)[0]
        # Networks, activations and captured graphs are allocated after the replay.
        room = free - max(4 * 2**30, free // 4) if asked == "auto" else free
        if needed <= room:
            return "device"
        if asked == "device":
            raise _no_room(asked, needed, f"{device} has {human_size(free)} free")
    if asked in ("auto", "memory"):
        available = available_memory()
        room = available - available // 4 if asked == "auto" else available
        if needed <= room:
            return "memory"
        if asked == "memory":
            raise _no_room(asked, needed, f"{human_size(available)} of memory is available")
    if directory is None:
        raise ValueError(f"the replay needs {human_size(needed)} on disk, but no directory was given for it")
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise _no_room(asked, needed, f"{directory} has {human_size(free)} free")
    return "disk"


def _no_room(asked: str, needed: int, found: str) -> ValueError:
    return ValueError(
        f'replay.storage is "{asked}": the replay needs {human_size(needed)} and {found}; lower replay.capacity, '
        "or choose another storage or run directory"
    )


def map_unnamed_file(directory: Path, size: int) -> Tensor:
    """(size,) uint8 in a new unlinked file, which is deleted when the process ends."""
    with tempfile.TemporaryFile(dir=directory) as file:
        # Reserve the blocks now: on a full disk, a later write to the mapping would kill the process (SIGBUS).
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            os.ftruncate(file.fileno(), size)  # macOS
        mapping = mmap.mmap(file.fileno(), size)
    return torch.frombuffer(mapping, dtype=torch.uint8)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process can still allocate, as limited by the machine and its control groups.

    Args:
        root: where ``proc`` and ``sys`` are mounted. Without ``proc/meminfo``, the machine's total memory is assumed.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([available, *_control_group_room(root)]))


def _control_group_room(root: Path) -> Iterator[int]:
    """The memory left under the limit of each control group of this process, and of each of their ancestors.

    Read directly, because psutil reports the machine's memory and ignores control groups.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            mount, limit_file, used_file, cache_key = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, cache_key = "sys/fs/cgroup/memory", "total_inactive_file"
            limit_file, used_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        for folder in (Path(group.strip("/")), *Path(group.strip("/")).parents):
            place = root / mount / folder
            try:
                limit, used = (place / limit_file).read_text().strip(), int((place / used_file).read_text())
                statistics = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            except OSError:
                continue  # absent in the root group, and in a container that cannot see its host's groups
            if limit != "max":
                # The kernel drops inactive file cache before it refuses memory.
                yield int(limit) - used + int(statistics.get(cache_key, 0))


def human_size(size: int) -> str:
    """Formats bytes for messages: 3155760000 becomes 3.2 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
