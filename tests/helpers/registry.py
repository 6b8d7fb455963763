"""The registry of methods, put back after a test that adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curl_rl.objectives import METHODS, registry

_MADE_FROM_IT = ("MethodName", "ObjectiveName", "ObjectiveConfigs")


@contextmanager
def restored_registry() -> Iterator[None]:
    """The very types of before are put back: others like them would not equal what earlier imports hold."""
    methods, types = dict(METHODS), {name: getattr(registry, name) for name in _MADE_FROM_IT}
    try:
        yield
    finally:
        METHODS.clear()
        METHODS.update(methods)
        vars(registry).update(types)
