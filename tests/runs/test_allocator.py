"""Freed memory is kept by the process."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest

_PAGES_TAKEN = """
import resource, torch
from curl_rl.runs.allocator import keep_freed_memory
keep_freed_memory()
counts = []
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20, dtype=torch.uint8)  # freed immediately
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(counts)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told")
def test_freed_memory_is_reused_instead_of_requested_from_the_system() -> None:
    """In its own process, because the setting cannot be undone. Each fresh page is a fault, 16,384 in 64 MiB."""
    small_pages = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0"}  # huge pages cause fewer faults regardless of glibc
    command = [sys.executable, "-c", _PAGES_TAKEN]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=small_pages)
    counts = json.loads(done.stdout)
    # The first few may be broken up by what is allocated beside them.
    assert max(counts[-10:]) < 1000, counts
