"""State that every process computes for itself: checked for equality by digests, and made equal where it differs.

The encoder's gradients are summed over the processes, but heads, memories, the optimizer's state and the online probe
are computed by each process from the same gathered features. They stay equal to the bit only as long as the arithmetic
is reproducible, which some GPU operations and unequal machines are not, and a difference that has arisen stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from curl_rl.pretraining.distributed import world_size

# Integers to read the bits of an element as, by its size in bytes.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Elements that are widened to int64 at a time: bounds the memory of a digest.
_CHUNK = 2**20


def training_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and optimizer state of a module by name: the tensors themselves, not copies."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    yield from module.named_parameters()
    yield from module.named_buffers()
    for parameter, state in optimizer.state.items():
        yield from ((f"{names[parameter]} ({key})", value) for key, value in state.items() if isinstance(value, Tensor))


@torch.no_grad()
def make_equal(tensors: Mapping[str, Tensor]) -> list[str]:
    """Compares tensors between the processes and gives those that differ process 0's values, in place.

    Every process must pass the same names and shapes. The tensors are read once, on their devices, and the processes
    exchange eight bytes for each; only values that differ are sent. The host waits: not for use in a step.

    Returns:
        The names of the tensors that differed, the same on every process; none in a single process.
    """
    if world_size() == 1 or not tensors:
        return []
    own = torch.stack([digest(tensor).cpu() for tensor in tensors.values()])
    received = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(received, own)
    differs = (torch.stack(received) != received[0]).any(0).tolist()
    different = [name for name, differing in zip(tensors, differs, strict=True) if differing]
    for name in different:
        value = tensors[name]
        message = value.detach().contiguous().reshape(-1).view(torch.uint8)  # bytes: gloo supports few types
        dist.broadcast(message, src=0)
        value.detach().copy_(message.view(value.dtype).view(value.shape))
    return different


def digest(tensor: Tensor) -> Tensor:
    """A 64-bit checksum of a tensor's bits in order of its indices, whatever its layout in memory; a scalar int64.

    Σ (2i + 1) · bitsᵢ modulo 2⁶⁴ over the elements i. Odd weights are invertible, so a change of a single element
    always shows. A sum of integers does not depend on the order in which a GPU adds them.
    """
    bits = tensor.detach().contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for number, part in enumerate(bits.split(_CHUNK)):
        first = 2 * _CHUNK * number + 1
        weights = torch.arange(first, first + 2 * len(part), 2, device=bits.device)
        total += (weights * part).sum()
    return total
