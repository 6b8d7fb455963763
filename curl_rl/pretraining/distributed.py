"""Several processes that train as one: what they share, so that their gradients are one process's on the whole batch.

Every process encodes its shard of the batch and gathers the features of all, with gradient; each then takes the loss
of the whole batch, so that objectives know of no process but their own. The encoder's gradients are summed; those of
the heads, which see the same features everywhere, are the same already. The encoder's batch norm is synchronised, or
keeps the statistics of equal parts of the batch. In one process without a group everything here is the identity.

Gradient accumulation is not offered: where the loss depends on who else is in the batch, small batches do not add up
to a large one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from curl_rl.encoders import Features, map_features, take_features
from curl_rl.encoders.resnet import SplitBatchNorm2d
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import ELSEWHERE


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that ``torchrun`` started, and leaves them at the end; without torchrun it does nothing.

    Tensors on GPUs travel by NCCL, those in memory by gloo.

    Args:
        device: what the processes compute on: ``cpu``, or ``cuda``, which means another GPU to each from here on.

    Raises:
        UserError: more processes than GPUs on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > gpus:
            raise UserError(f"torchrun --nproc_per_node must be at most {gpus}, the number of GPUs, got {here}")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is process 0 or the only one, known from ``torchrun`` before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0


def share_of_machine(cores: int) -> int:
    """How many of a machine's cores are this process's, if all that ``torchrun`` started there have as many."""
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def rank() -> int:
    """Which process this is, from 0; process 0 alone writes files."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _in_group() else 1


def shard_sizes(total: int) -> list[int]:
    """How many of ``total`` samples each process has: ``Tensor.tensor_split``'s shares, the first ones larger by one.

    They are known without asking, so that no step waits for the host to hear of them.

    Raises:
        UserError: fewer samples than processes.
    """
    processes = world_size()
    if total < processes:
        raise UserError(f"batch_size must be at least the number of processes, {processes}, got {total}")
    return [total // processes + (number < total % processes) for number in range(processes)]


def gather(shard: Tensor, total: int) -> Tensor:
    """``(b, ...)`` rows of each process to the ``(total, ...)`` rows of all, in the processes' order; differentiable.

    Each process is meant to take the same loss of the result. Backwards it keeps its own rows of the gradient, which
    is all there is to it: the others' losses are this one, and would count it again.

    Args:
        shard: this process's rows, as many as :func:`shard_sizes` says.
        total: rows of all processes together.

    Raises:
        ValueError: another number of rows.
    """
    sizes = shard_sizes(total)
    if len(shard) != sizes[rank()]:
        raise ValueError(f"process {rank()} must hand over {sizes[rank()]} of {total} rows, got {len(shard)}")
    if len(sizes) == 1:
        return shard
    gathered: Tensor = _Gather.apply(shard, sizes)
    return gathered


def gather_uneven(shard: Tensor) -> Tensor:
    """``(b, ...)`` rows of each process to the rows of all, in the processes' order, for shards of any size, none too.

    The processes ask each other how many rows there are, which makes the host wait: not for use in a step.
    """
    if world_size() == 1:
        return shard
    sizes = [torch.zeros((), dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor(len(shard)))
    gathered: Tensor = _Gather.apply(shard, [int(size) for size in sizes])
    return gathered


def gather_features(features: list[Features], total: int, *, maps: bool) -> list[Features]:
    """Each view's features of all processes, from those of this one, with gradient: see :func:`gather`.

    Without ``maps`` these stay where they are: the result's map is an empty ``(total, 0)``, and it has no middle one.
    """
    if maps:
        return [map_features(lambda part: gather(part, total), view) for view in features]
    return [Features(gather(view.vector, total), view.map.new_empty(total, 0)) for view in features]


@torch.no_grad()
def encode_shuffled(encode: Callable[[Tensor], Features], images: Tensor, order: Tensor, *, maps: bool) -> Features:
    """Features of the whole batch, encoded in another order: MoCo's shuffled batch norm (arXiv 1911.05722, 3.3).

    A key is then normalised together with other images than its query, and cannot be told by their statistics. The
    features come back in the batch's own order, from all processes, without gradient.

    Args:
        encode: the slow copy's.
        images: ``(b, C, H, W)``, this process's shard.
        order: ``(total,)``, a permutation, the same on every process.
        maps: as in :func:`gather_features`.
    """
    total = len(order)
    own = gather(images, total)[order].tensor_split(world_size())[rank()]
    (shuffled,) = gather_features([encode(own)], total, maps=maps)
    return take_features(shuffled, order.argsort())


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over the processes, in place; for the encoder, of which each saw its shard.

    Parameters without a gradient are passed over: they must be the same ones on every process.
    """
    if world_size() > 1:
        _reduce([parameter.grad for parameter in parameters if parameter.grad is not None])


@torch.no_grad()
def average_running_statistics(module: nn.Module) -> None:
    """Replaces batch norm's running statistics by their mean over the processes, in place.

    What split batch norm needs before anything is saved or evaluated: each process has those of its own parts only.
    The statistics are running means, so that it does not matter how often they are averaged.
    """
    if world_size() > 1:
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        _reduce(statistics)
        for value in statistics:
            value.div_(world_size())


@torch.no_grad()
def broadcast_buffers(module: nn.Module) -> None:
    """Replaces a module's buffers by those of process 0, in place, in one message.

    For what every process has computed alike, but for the last bits: sums on a GPU do not come out the same twice.
    """
    # The largest types first: each part of the message must begin at a multiple of its type's size.
    buffers = sorted((buffer for buffer in module.buffers()), key=lambda buffer: -buffer.element_size())
    if world_size() == 1 or not buffers:
        return
    parts = [buffer.reshape(-1).view(torch.uint8) for buffer in buffers]  # bytes: gloo knows few types
    message = torch.cat(parts)
    dist.broadcast(message, src=0)
    for buffer, received in zip(buffers, message.split([len(part) for part in parts]), strict=True):
        buffer.copy_(received.view(buffer.dtype).view_as(buffer))


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is true on any process; every one waits here for the others.

    For decisions that all must take alike, such as to stop: a signal reaches them at different steps. The flag travels
    by the host, and no GPU waits for it.
    """
    if world_size() == 1:
        return flag
    count = torch.tensor(int(flag))
    dist.all_reduce(count)
    return bool(count)


@contextmanager
def raised_together(kind: type[Exception]) -> Iterator[None]:
    """Where one process may raise an exception of this kind: then all do, and none waits for one that has gone."""
    raised: Exception | None = None
    try:
        yield
    except kind as error:
        raised = error
    if any_process(raised is not None):
        said: list[str | None] = [None] * world_size()
        if world_size() > 1:
            dist.all_gather_object(said, None if raised is None else one_line(raised))
        raise raised or kind(ELSEWHERE.format("; ".join(dict.fromkeys(line for line in said if line))))


def distribute_batch_norm(module: nn.Module) -> None:
    """Makes an encoder's batch norm, in place, on a shard what it was on the whole batch.

    That of the whole batch is synchronised (:class:`SyncBatchNorm2d`). Split batch norm gives each process its share of
    the parts: ``splits`` over W processes are one process with ``splits``. One process keeps what it has.

    Raises:
        UserError: the number of parts does not divide by that of the processes.
    """
    processes = world_size()
    if processes == 1:
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, SplitBatchNorm2d):
                continue
            if child.splits == 1:
                setattr(parent, name, SyncBatchNorm2d.from_plain(child))
            elif child.splits % processes:
                raise UserError(
                    f"batch_norm_splits must be 1 or a multiple of the {processes} processes, got {child.splits}"
                )
            else:
                child.splits //= processes


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm by the statistics of all processes' samples together, gradients through them included.

    Shards of any size count by their true size. It runs wherever the processes can talk, gloo on CPUs included, which
    PyTorch's own does not. In evaluation, and in one process, it is :class:`torch.nn.BatchNorm2d`.
    """

    @classmethod
    def from_plain(cls, norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
        """One that has the parameters and the running statistics of ``norm``, the very same tensors."""
        synchronised = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synchronised.weight, synchronised.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(synchronised, name, buffer)
        return synchronised.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        normalised, mean, var, count = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps)
        self._remember(mean, var, count)
        result: Tensor = normalised
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        # Unbiased, as PyTorch keeps it.
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _reduce(tensors: list[Tensor]) -> None:
    """Sums each tensor over the processes, in place, in one message for each type."""
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.all_reduce(flat)
        for tensor, summed in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(summed.view_as(tensor))


class _Gather(torch.autograd.Function):
    """:func:`gather` among several processes."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor, sizes: list[int]) -> Tensor:
        ctx.set_materialize_grads(False)
        before = sum(sizes[: rank()])
        ctx.own = slice(before, before + len(shard))
        # Messages of one size, the largest shard's: gloo and NCCL know no others.
        padded = shard.new_zeros(max(sizes), *shard.shape[1:])
        padded[: len(shard)] = shard
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        return torch.cat([rows[:size] for rows, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        return None if gradient is None else gradient[ctx.own], None


class _SyncBatchNorm(torch.autograd.Function):
    """Batch norm over all processes' samples: ``(b, C, H, W)`` to the same, and the ``(C,)`` statistics.

    Equations of Ioffe & Szegedy 2015 (arXiv 1502.03167), section 3 and algorithm 1, sums running over all processes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        own_var, own_mean = torch.var_mean(x.to(dtype), (0, 2, 3), correction=0)
        own = torch.stack([own_mean, own_var, torch.full_like(own_mean, x.numel() // x.shape[1])])
        parts = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(parts, own)
        means, variances, counts = torch.stack(parts, 1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        # The variance within the shards and that between them: sums of squares would cancel.
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        inverse = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        scale = weight * inverse
        normalised = x * _per_channel(scale) + _per_channel(bias - mean * scale)
        ctx.mark_non_differentiable(mean, var, count)
        return normalised.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradient.to(mean.dtype)
        standardised = (x - _per_channel(mean)) * _per_channel(inverse)
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * standardised).sum((0, 2, 3))])
        summed = own.clone()
        dist.all_reduce(summed)
        shift, slope = summed / count
        centred = gradient - _per_channel(shift) - standardised * _per_channel(slope)
        own_shift, own_slope = own
        # Weight and bias keep their own shard's part: sum_gradients adds the others'.
        return (
            (centred * _per_channel(weight * inverse)).to(x.dtype),
            own_slope.to(weight.dtype),
            own_shift.to(weight.dtype),
            None,
        )


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
