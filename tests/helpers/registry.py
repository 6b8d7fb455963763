"""The registry of methods, restored after a test that adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curl_rl.objectives import METHODS, registry


@contextmanager
def restored_registry() -> Iterator[None]:
    before = dict(METHODS)
    try:
        yield
    finally:
        METHODS.clear()
        METHODS.update(before)
        registry._publish()
