"""One step of pretraining: an encoder, its momentum copy where the method has one, an objective and an optimizer.

Data with images and texts have two encoders, one for the views of each modality.

Gradient accumulation is not offered: nearly every loss couples the samples of a batch (by negatives or batch norm
statistics), so the gradients of small batches do not add up to that of a large one. For large batches, train with
several processes: see :mod:`curl_rl.pretraining.distributed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from curl_rl.encoders import Encoder, Features
from curl_rl.losses import effective_rank, uniformity
from curl_rl.objectives import BatchInfo, Objective, ViewSpec, encode_views
from curl_rl.objectives.momentum import momentum_copy, move_towards
from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.lars import LARS
from curl_rl.optim.schedules import scaled_learning_rate, set_learning_rates, warmup_cosine
from curl_rl.pretraining import distributed
from curl_rl.pretraining.config import OptimizerConfig

_DIAGNOSED = 512  # samples; the cost of uniformity and effective rank is at least quadratic


class Learner(nn.Module):
    """The networks in training and their optimizer.

    ``state_dict()`` holds all weights and buffers, ``training_state()`` the optimizer and the step count as well.

    Args:
        encoder: already on its device, its batch norm ready for several processes.
        objective: for the encoder's features.
        optimizer: optimizer settings.
        batch_size: source images per step, over all processes.
        steps_per_epoch: optimizer steps per epoch.
        epochs: length of the whole run.
        text_encoder: encodes the text views, if the data have images as well; None: ``encoder`` encodes all views.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: Objective,
        optimizer: OptimizerConfig,
        *,
        batch_size: int,
        steps_per_epoch: int,
        epochs: int,
        text_encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.objective, self.text_encoder = encoder, objective, text_encoder
        self.target = momentum_copy(encoder) if objective.target_views else None
        """The momentum encoder: a slow copy of the encoder."""
        slow_texts = text_encoder if any(spec.modality == "text" for spec in objective.target_views) else None
        self.text_target = None if slow_texts is None else momentum_copy(slow_texts)
        """The slow copy of the text encoder."""
        # With split batch norm, views are encoded one at a time and keys in shuffled order.
        self.splits = encoder.batch_norm_splits
        self.batch_size = batch_size
        self.total_steps = epochs * steps_per_epoch
        self.warmup_steps = optimizer.warmup_steps(steps_per_epoch)
        self.steps = 0
        """Number of steps taken."""
        self.optimizer = _optimizer(list(self._learned()), objective, optimizer, batch_size)

    def step(
        self, views: Mapping[ViewSpec, Tensor], batch: BatchInfo, order: Tensor, *, diagnose: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Takes one optimizer step.

        Args:
            views: this process's shard of each view, ``(b, C, H, W)``, or ``(b, L)`` tokens.
            batch: indices, labels and actions of the whole batch.
            order: ``(batch_size,)``, a random permutation for shuffled batch norm, the same on every process.
            diagnose: also report the costly metrics, uniformity and effective rank.

        Returns:
            Metrics, scalars on the device; and the detached ``(batch_size, dim)`` features of the whole batch's first
            view.
        """
        device = next(iter(views.values())).device
        share = warmup_cosine(float(self.steps), self.warmup_steps, self.total_steps)
        set_learning_rates(self.optimizer, share)
        moved_for = self.steps + self.objective.momentum_ahead
        momentum = self.objective.momentum(torch.full((), moved_for / self.total_steps, device=device))

        online = self._encode_online(views)
        target = self._encode_target(views, order)
        result = self.objective(online, target, batch)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        distributed.sum_gradients(self._learned())
        self.optimizer.step()
        # Updating the target after this step equals updating it before the next keys, with the momentum of either step.
        if self.target is not None:
            move_towards(self.target.parameters(), self.encoder.parameters(), 1 - momentum)
        if self.text_target is not None and self.text_encoder is not None:
            move_towards(self.text_target.parameters(), self.text_encoder.parameters(), 1 - momentum)
        self.objective.after_step(result.carry, momentum)
        self.steps += 1

        features = online[0].vector.detach()
        metrics = {"loss": result.loss.detach()}
        metrics |= {f"objective/{name}": value for name, value in result.metrics.items()}
        metrics["learning_rate"] = torch.full((), self.optimizer.param_groups[0]["lr"], device=device)
        if self.target is not None:
            metrics["momentum"] = momentum
        if diagnose:
            some = features[:_DIAGNOSED].float()
            metrics |= {"features/effective_rank": effective_rank(some), "features/uniformity": uniformity(some)}
        return metrics, features

    @torch.no_grad()
    def measure(self, views: Mapping[ViewSpec, Tensor], batch: BatchInfo, order: Tensor) -> dict[str, Tensor]:
        """Computes the loss and the method's metrics on a batch in evaluation mode, without changing anything.

        Takes the arguments of :meth:`step`; returns scalars on the device.
        """
        self.eval()
        try:
            online = self._encode_online(views)
            target = self._encode_target(views, order)
            result = self.objective(online, target, batch)
        finally:
            self.train()
        return {"loss": result.loss, **{f"objective/{name}": value for name, value in result.metrics.items()}}

    def _encode_online(self, views: Mapping[ViewSpec, Tensor]) -> list[Features]:
        """Features of the whole batch, with gradient."""
        objective = self.objective
        together = objective.views_together and self.splits == 1
        texts = None if self.text_encoder is None else self.text_encoder.encode
        own = encode_views(self.encoder.encode, views, objective.online_views, together=together, encode_texts=texts)
        return distributed.gather_features(own, self.batch_size, maps=objective.reads_maps)

    @torch.no_grad()
    def _encode_target(self, views: Mapping[ViewSpec, Tensor], order: Tensor) -> list[Features]:
        """Features of the whole batch from the momentum encoder, without gradient."""
        if self.target is None:
            return []
        encode, specs, maps = self.target.encode, self.objective.target_views, self.objective.reads_maps
        texts = encode if self.text_target is None else self.text_target.encode
        if self.splits > 1:
            encoders = [texts if spec.modality == "text" else encode for spec in specs]
            pairs = zip(encoders, specs, strict=True)
            return [distributed.encode_shuffled(own, views[spec], order, maps=maps) for own, spec in pairs]
        own = encode_views(encode, views, specs, encode_texts=texts)
        return distributed.gather_features(own, self.batch_size, maps=maps)

    def _learned(self) -> Iterator[nn.Parameter]:
        """The encoders' parameters: those with gradients of this process's shard alone."""
        yield from self.encoder.parameters()
        if self.text_encoder is not None:
            yield from self.text_encoder.parameters()

    def training_state(self) -> dict[str, Any]:
        """Returns the state from which :meth:`load_training_state` resumes exactly."""
        return {"networks": self.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`training_state`."""
        self.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]


def _optimizer(
    encoders: list[nn.Parameter], objective: Objective, config: OptimizerConfig, batch_size: int
) -> torch.optim.Optimizer:
    lr = scaled_learning_rate(config.lr, batch_size, config.lr_scaling)
    groups = parameter_groups([{"params": encoders}, *objective.parameter_groups()], config.weight_decay)
    name: Literal["sgd", "lars", "adamw"] = config.name
    if name == "sgd":
        return torch.optim.SGD(groups, lr, momentum=config.momentum)
    if name == "lars":
        return LARS(groups, lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr, betas=(config.momentum, 0.999))
