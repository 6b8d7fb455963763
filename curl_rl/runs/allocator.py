"""How main memory is allocated: settings of the C library and of PyTorch that make an update on a CPU faster."""

from __future__ import annotations

import contextlib
import ctypes
import os


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory, and PyTorch to use huge pages, for the megabytes that each update needs anew.

    By default glibc serves large blocks with fresh ``mmap``s, so every update pays for page faults on zeroed memory and
    takes up to twice as long. Huge pages (a fifth of an update's time at the paper's batch of 512) are used only if
    nothing was allocated before this call.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(AttributeError, OSError):  # another C library has another way, or none
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
