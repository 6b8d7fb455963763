"""Shared by all tests."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# A shell starts what runs in the background with Ctrl-C ignored, and what ignores it hands that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The shapes in the tests are tiny: a second thread only waits for the first one.
torch.set_num_threads(1)


# Operators that hand a tensor's data to the host, give a shape that depends on data, or copy numbers from the host.
_FORBIDDEN = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "lift_fresh",
    "_pin_memory",
}


class _NoHostSync(TorchDispatchMode):
    """Fails where an operator would make the host wait for a device, which on a CPU cannot be felt."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in _FORBIDDEN, func
        indices = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        assert all(index is None or index.dtype != torch.bool for index in indices), "a mask gives a shape by its data"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_host_sync() -> type[TorchDispatchMode]:
    """A context in which waiting for the device fails."""
    return _NoHostSync
