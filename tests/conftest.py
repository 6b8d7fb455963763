"""Shared by all tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from curl_rl.objectives import registry
from curl_rl.objectives.method import Method
from curl_rl.testing import NoHostSync
from helpers.registry import restored_registry

# A shell starts what runs in the background with Ctrl-C ignored, and what ignores it hands that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The shapes in the tests are tiny: a second thread only waits for the first one.
torch.set_num_threads(1)


@pytest.fixture
def no_host_sync() -> type[NoHostSync]:
    """A context in which waiting for the device fails."""
    return NoHostSync


@pytest.fixture
def register() -> Iterator[Callable[[Method], None]]:
    """Adds a method to the registry, for one test."""
    with restored_registry():
        yield registry.register
