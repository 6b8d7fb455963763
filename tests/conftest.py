"""Shared by all tests."""

from __future__ import annotations

import signal

import pytest
import torch

from curl_rl.testing import NoHostSync

# A shell starts what runs in the background with Ctrl-C ignored, and what ignores it hands that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The shapes in the tests are tiny: a second thread only waits for the first one.
torch.set_num_threads(1)


@pytest.fixture
def no_host_sync() -> type[NoHostSync]:
    """A context in which waiting for the device fails."""
    return NoHostSync
