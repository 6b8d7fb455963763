"""The choice of storage, on machines simulated with files and numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.runs import storage
from curl_rl.runs.storage import available_memory, human_size


@pytest.mark.parametrize(
    ("asked", "free_gib", "chosen"),
    [("auto", 8, "device"), ("auto", 6, "memory"), ("auto", 0, "memory"), ("device", 4, "device")],
)
def test_auto_uses_the_gpu_as_long_as_4_gib_stay_free(
    asked: Any, free_gib: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gib * 2**30, 80 * 2**30))
    monkeypatch.setattr(storage, "available_memory", lambda: 2**36)
    assert storage.choose_storage(asked, 3 * 2**30, torch.device("cuda"), None) == chosen


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "available"),
    [
        pytest.param({}, 4000 * 1024, id="no groups"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/jobs/job7\n",
                "sys/fs/cgroup/jobs/job7/memory.max": "max\n",
                "sys/fs/cgroup/jobs/job7/memory.current": "100\n",
                "sys/fs/cgroup/jobs/job7/memory.stat": "anon 5\ninactive_file 0\n",
                "sys/fs/cgroup/jobs/memory.max": "5000\n",
                "sys/fs/cgroup/jobs/memory.current": "2000\n",
                "sys/fs/cgroup/jobs/memory.stat": "anon 5\ninactive_file 300\n",
            },
            5000 - 2000 + 300,
            id="version 2, the limit on the group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "1200\n",
                "sys/fs/cgroup/memory.stat": "inactive_file 0\n",
            },
            0,
            id="version 2, in a container, over its limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/a\n4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9000\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "4000\n",
                "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
            },
            6000,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": str(2**40),
                "sys/fs/cgroup/memory.current": "0\n",
                "sys/fs/cgroup/memory.stat": "",
            },
            4000 * 1024,
            id="a limit above what the machine has",
        ),
    ],
)
def test_available_memory_respects_the_machine_and_its_control_groups(
    files: dict[str, str], available: int, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n", **files})
    assert available_memory(tmp_path) == available


def test_available_memory_without_proc_is_the_machines_total(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("size", "text"), [(3_155_760_000, "3.2 GB"), (900_000_000, "900.0 MB"), (32_640, "32.6 kB")])
def test_sizes_are_readable(size: int, text: str) -> None:
    assert human_size(size) == text
