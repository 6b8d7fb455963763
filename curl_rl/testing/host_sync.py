"""Detection, on a CPU, of operators at which the host would wait for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# These pass a tensor's data to the host, give a shape that depends on data, or copy numbers from the host.
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


class HostSync(AssertionError):
    """An operator made the host wait for the device."""


class NoHostSync(TorchDispatchMode):
    """A context in which operators that make the host wait for the device raise :class:`HostSync`.

    Examples are ``.item()``, ``bool(tensor)``, indexing with a mask and ``torch.tensor(numbers)``. On a GPU each stalls
    the host until the device has caught up, and none can be captured in a CUDA graph.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _FORBIDDEN:
            raise HostSync(f"{func} makes the host wait for the device")
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if any(index is not None and index.dtype == torch.bool for index in indices):
            raise HostSync(f"{func} with a mask gives a shape that depends on data")
        return func(*args, **(kwargs or {}))
