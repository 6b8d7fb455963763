"""Distributed training whose gradients equal those of one process on the whole batch.

Every process encodes its shard of the batch, gathers the features of all shards with gradient, and computes the loss of
the whole batch, so objectives need not know about processes. The encoder's gradients are summed; the heads see the same
features in every process, so their gradients are already equal. The encoder's batch norm is synchronized, or keeps the
statistics of equal parts of the batch. In a single process without a group, every function here is the identity.

Gradient accumulation is not offered: where the loss couples the samples of a batch, small batches do not add up to a
large one.
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
    """Joins the process group that ``torchrun`` started and leaves it on exit; a no-op without torchrun.

    GPU tensors are sent by NCCL, CPU tensors by gloo.

    Args:
        device: ``cpu`` or ``cuda``; with ``cuda`` each process makes its own GPU the current one.

    Raises:
        UserError: this machine runs more processes than it has GPUs.
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
    """Returns whether this is process 0 or the only one; works before the processes join, from torchrun's variables."""
    return int(os.environ.get("RANK", "0")) == 0


def share_of_machine(cores: int) -> int:
    """This process's equal share of a machine's cores, at least 1."""
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def rank() -> int:
    """Index of this process, from 0; only process 0 writes files."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _in_group() else 1


def shard_sizes(total: int) -> list[int]:
    """Sizes of the processes' shards of ``total`` samples, as in ``Tensor.tensor_split``: the first may have one more.

    Computed without communication, so that no step makes the host wait.

    Raises:
        UserError: ``total`` is smaller than the number of processes.
    """
    processes = world_size()
    if total < processes:
        raise UserError(f"batch_size must be at least the number of processes, {processes}, got {total}")
    return [total // processes + (number < total % processes) for number in range(processes)]


def gather(shard: Tensor, total: int) -> Tensor:
    """Concatenates each process's ``(b, ...)`` rows into ``(total, ...)``, in the order of ranks; differentiable.

    Every process must compute the same loss from the result. The backward pass keeps this process's rows of the
    gradient and does not sum over processes: all of them compute the same loss, and a sum would count it repeatedly.

    Args:
        shard: this process's rows, of the size given by :func:`shard_sizes`.
        total: number of rows over all processes.

    Raises:
        ValueError: ``shard`` has another number of rows.
    """
    sizes = shard_sizes(total)
    if len(shard) != sizes[rank()]:
        raise ValueError(f"process {rank()} must pass {sizes[rank()]} of {total} rows, got {len(shard)}")
    if len(sizes) == 1:
        return shard
    gathered: Tensor = _Gather.apply(shard, sizes)
    return gathered


def gather_uneven(shard: Tensor) -> Tensor:
    """Concatenates each process's ``(b, ...)`` rows, in the order of ranks; shards may differ in size or be empty.

    The processes exchange their sizes first, which makes the host wait: not for use in a step.
    """
    if world_size() == 1:
        return shard
    sizes = [torch.zeros((), dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor(len(shard)))
    gathered: Tensor = _Gather.apply(shard, [int(size) for size in sizes])
    return gathered


def gather_features(features: list[Features], total: int, *, maps: bool) -> list[Features]:
    """Gathers each view's features from all processes, with gradient: see :func:`gather`.

    Without ``maps`` only the vectors are gathered: the result's map is an empty ``(total, 0)``, without a middle map.
    """
    if maps:
        return [map_features(lambda part: gather(part, total), view) for view in features]
    return [Features(gather(view.vector, total), view.map.new_empty(total, 0)) for view in features]


@torch.no_grad()
def encode_shuffled(encode: Callable[[Tensor], Features], images: Tensor, order: Tensor, *, maps: bool) -> Features:
    """Encodes the whole batch in shuffled order: MoCo's shuffled batch norm (arXiv 1911.05722, section 3.3).

    A key is then normalized with other images than its query, so batch statistics do not give the match away. Returns
    the features of all processes in the batch's original order, without gradient.

    Args:
        encode: the momentum encoder's ``encode``.
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
    """Replaces each gradient with its sum over the processes, in place; for the encoder, which sees one shard in each.

    Parameters without a gradient are skipped; they must be the same on every process.
    """
    if world_size() > 1:
        _reduce([parameter.grad for parameter in parameters if parameter.grad is not None])


@torch.no_grad()
def average_running_statistics(module: nn.Module) -> None:
    """Replaces batch norm's running statistics with their mean over the processes, in place.

    Split batch norm needs this before saving or evaluation, because each process only tracks its own parts. The
    statistics are running means, so averaging them more often changes nothing.
    """
    if world_size() > 1:
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        _reduce(statistics)
        for value in statistics:
            value.div_(world_size())


@torch.no_grad()
def broadcast_buffers(module: nn.Module) -> None:
    """Replaces a module's buffers with those of process 0, in place, in one message.

    For values that every process computes identically up to rounding: GPU sums are not reproducible to the last bit.
    """
    # Largest types first: each part of the message must start at a multiple of its element size.
    buffers = sorted((buffer for buffer in module.buffers()), key=lambda buffer: -buffer.element_size())
    if world_size() == 1 or not buffers:
        return
    parts = [buffer.reshape(-1).view(torch.uint8) for buffer in buffers]  # bytes: gloo supports few types
    message = torch.cat(parts)
    dist.broadcast(message, src=0)
    for buffer, received in zip(buffers, message.split([len(part) for part in parts]), strict=True):
        buffer.copy_(received.view(buffer.dtype).view_as(buffer))


def bytes_of_first(content: bytes) -> bytes:
    """Returns the bytes of process 0 on every process; those of the others do not matter. The host waits."""
    if world_size() == 1:
        return content
    size = torch.tensor(len(content))
    dist.broadcast(size, src=0)
    message = torch.zeros(int(size), dtype=torch.uint8)
    if rank() == 0:
        message = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    dist.broadcast(message, src=0)
    return message.numpy().tobytes()


def any_process(flag: bool) -> bool:
    """Returns whether ``flag`` is true on any process; a barrier.

    For decisions that all processes must make together, such as stopping: a signal reaches them at different steps. The
    flag is exchanged in host memory, so no GPU waits for it.
    """
    if world_size() == 1:
        return flag
    count = torch.tensor(int(flag))
    dist.all_reduce(count)
    return bool(count)


@contextmanager
def raised_together(kind: type[Exception]) -> Iterator[None]:
    """If the block raises an exception of this kind in one process, raises it in all, so that none waits forever."""
    raised: Exception | None = None
    try:
        yield
    except kind as error:
        raised = error
    if any_process(raised is not None):
        messages: list[str | None] = [None] * world_size()
        if world_size() > 1:
            dist.all_gather_object(messages, None if raised is None else one_line(raised))
        raise raised or kind(ELSEWHERE.format("; ".join(dict.fromkeys(line for line in messages if line))))


def distribute_batch_norm(module: nn.Module) -> None:
    """Makes an encoder's batch norm compute on shards what it computes on the whole batch, in place.

    Batch norm over the whole batch becomes synchronized (:class:`SyncBatchNorm2d`). Split batch norm gives each of W
    processes ``splits / W`` parts, which equals one process with ``splits``. A single process changes nothing.

    Raises:
        UserError: the number of splits is not divisible by the number of processes.
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
    """Batch norm with statistics over the samples of all processes, differentiable through those statistics.

    Shards are weighted by their size. Unlike PyTorch's own it also runs on CPUs, by gloo. In evaluation mode, and in a
    single process, it is :class:`torch.nn.BatchNorm2d`.
    """

    @classmethod
    def from_plain(cls, norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
        """Returns a synchronized version of ``norm`` that shares its parameters and running statistics."""
        synchronized = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synchronized.weight, synchronized.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(synchronized, name, buffer)
        return synchronized.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        normalized, mean, var, count = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps)
        self._remember(mean, var, count)
        result: Tensor = normalized
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        # Unbiased, as in PyTorch.
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _reduce(tensors: list[Tensor]) -> None:
    """Sums each tensor over the processes, in place, in one message per dtype."""
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.all_reduce(flat)
        for tensor, summed in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(summed.view_as(tensor))


class _Gather(torch.autograd.Function):
    """:func:`gather` for several processes."""

    @staticmethod
    def forward(ctx: Any, shard: Tensor, sizes: list[int]) -> Tensor:
        ctx.set_materialize_grads(False)
        before = sum(sizes[: rank()])
        ctx.own = slice(before, before + len(shard))
        # Padded to the largest shard: gloo and NCCL gather messages of equal size only.
        padded = shard.new_zeros(max(sizes), *shard.shape[1:])
        padded[: len(shard)] = shard
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        return torch.cat([rows[:size] for rows, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        return None if gradient is None else gradient[ctx.own], None


class _SyncBatchNorm(torch.autograd.Function):
    """Batch norm over all processes' samples: ``(b, C, H, W)`` to the same shape, and the ``(C,)`` statistics.

    Ioffe & Szegedy 2015 (arXiv 1502.03167), section 3 and algorithm 1, with sums over all processes.
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
        # Variance within plus variance between the shards: a difference of sums of squares would cancel.
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        inverse = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        scale = weight * inverse
        normalized = x * _per_channel(scale) + _per_channel(bias - mean * scale)
        ctx.mark_non_differentiable(mean, var, count)
        return normalized.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradient.to(mean.dtype)
        standardized = (x - _per_channel(mean)) * _per_channel(inverse)
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * standardized).sum((0, 2, 3))])
        summed = own.clone()
        dist.all_reduce(summed)
        shift, slope = summed / count
        centered = gradient - _per_channel(shift) - standardized * _per_channel(slope)
        own_shift, own_slope = own
        # The gradients of weight and bias cover this shard only: sum_gradients adds the others.
        return (
            (centered * _per_channel(weight * inverse)).to(x.dtype),
            own_slope.to(weight.dtype),
            own_shift.to(weight.dtype),
            None,
        )


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
