"""Milliseconds of each method's loss, and of its work after a step and between epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Row, alone, side_by_side
from curl_rl.encoders import Features, FeatureSpec
from curl_rl.encoders.heads import MLP, ResidualHead
from curl_rl.objectives import METHODS, BatchInfo, DataSpec, Objective, ObjectiveConfigs, ViewSpec, build_objective
from curl_rl.vision.config import load_preset

PRESET = "cifar10"
_LATE = 10_000  # an epoch after all warm-ups


@dataclass(frozen=True)
class Sizes:
    """Sizes of what the methods are measured on."""

    batch: int = 256
    """Samples in a step."""
    features: int = 512
    """Size of the encoder's vector: ResNet-18's."""
    embedding: int = 128
    """Size of the embeddings of a loss without heads."""
    samples: int = 50_000
    """Samples in an epoch: CIFAR-10's."""
    steps_before: int = 320
    """Calls of ``after_step`` before measuring, which fill queues and end SwAV's 313 steps with frozen prototypes."""


def measure(
    device: torch.device, rounds: int, sizes: Sizes = Sizes(), configs: ObjectiveConfigs | None = None
) -> list[Row]:
    """Rows for every registered method on random features.

    - ``heads and loss``: forward and backward, to the features of each view and to all parameters.
    - ``loss alone``: the same on embeddings, with each head replaced by the identity; metrics are included.
    - ``after_step`` and ``between_epochs``, for methods that have them; a fifth as many rounds of the latter, since
      clustering may take half a minute.

    Args:
        device: of features and methods.
        rounds: measurements of each case.
        sizes: sizes of the inputs.
        configs: settings of every method; None for those of the preset ``cifar10``.
    """
    steps: dict[str, Callable[[], object]] = {}
    epochs: dict[str, Callable[[], object]] = {}
    rows: dict[str, Row] = {}
    for name in METHODS:
        preset = load_preset(PRESET, name)
        settings = configs if configs is not None else preset.objectives
        patches = configs is None and preset.encoder.patch is not None
        try:
            work = MethodWork(name, settings, sizes, device, patches=patches)
        except ValueError as error:  # the sizes do not suit the settings
            rows[name] = Row(f"{name}: not measured", note=str(error))
            continue
        steps[f"{name}: heads and loss"] = work.backward
        if not patches:  # their context network is no head
            steps[f"{name}: loss alone"] = work.without_heads(settings).backward
        if _overrides(work.objective, "after_step"):
            steps[f"{name}: after_step"] = work.after_step
        if _overrides(work.objective, "between_epochs"):
            epochs[f"{name}: between_epochs"] = work.between_epochs
    seconds = side_by_side(
        steps, rounds=rounds, warm_up=2, device=device, description=f"objectives, batch {sizes.batch}"
    )
    seconds |= side_by_side(
        epochs, rounds=max(1, rounds // 5), warm_up=0, device=device, description=f"epochs of {sizes.samples:,}"
    )
    of = {
        "heads and loss": f"batch {sizes.batch}, features {sizes.features}",
        "loss alone": f"batch {sizes.batch}, embeddings {sizes.embedding}",
        "after_step": f"batch {sizes.batch}",
        "between_epochs": f"{sizes.samples:,} samples",
    }
    for case, values in seconds.items():
        rows[case] = alone(f"{case}, {of[case.split(': ')[1]]}", values)
    order = list(METHODS)
    return [rows[case] for case in sorted(rows, key=lambda case: order.index(case.split(":")[0]))]


class MethodWork:
    """A method in the middle of training, and one batch of features for it.

    Every sample's embedding is in its bank and clustered, if it clusters, and its queue is full: otherwise some losses
    would be 0 and have nothing to compute.

    Raises:
        ValueError: the method cannot be built with these settings for these sizes.
    """

    def __init__(
        self,
        name: str,
        configs: ObjectiveConfigs,
        sizes: Sizes,
        device: torch.device,
        memory: dict[str, Tensor] | None = None,
        *,
        patches: bool = False,
    ) -> None:
        self.name, self.sizes, self.device = name, sizes, device
        self.generator = torch.Generator().manual_seed(0)
        maps = (sizes.features, 4, 4), (sizes.features // 2, 8, 8)
        if patches:  # of 8 pixels, half overlapping, in an image of 32
            maps = (sizes.features, 7, 7), (sizes.features, 7, 7)
        self.spec = FeatureSpec(sizes.features, *maps, streams=METHODS[name].objective.streams, patches=patches)
        data = DataSpec(count=sizes.samples, classes=10, action_dim=6, text=self.spec)
        torch.manual_seed(0)
        built = build_objective(name, self.spec, configs, data)
        assert built is not None
        self.objective: Objective = built.to(device)
        views = (*self.objective.online_views, *self.objective.target_views)
        self._bases: dict[int, Tensor] = {}
        self.online = [self._features(view, learned=True) for view in self.objective.online_views]
        self.target = [self._features(view, learned=False) for view in self.objective.target_views]
        ahead = max((view.future for view in views), default=0)
        self.batch = BatchInfo(
            indices=torch.randperm(sizes.samples, generator=self.generator)[: sizes.batch].to(device),
            labels=torch.randint(10, (sizes.batch,), generator=self.generator).to(device),
            actions=self._normal(sizes.batch, ahead, 6),
        )
        own = self.objective.state_dict()
        if memory is not None and all(own[buffer].shape == value.shape for buffer, value in memory.items()):
            self.objective.load_state_dict(memory, strict=False)
        else:
            self._fill()
        self.carry = self.objective(self.online, self.target, self.batch).carry

    def backward(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The loss, and its gradients by the parts of each online view's features and by the parameters."""
        loss = self.objective(self.online, self.target, self.batch).loss
        return loss.detach(), torch.autograd.grad(loss, self.leaves(), allow_unused=True)

    def leaves(self) -> list[Tensor]:
        """What the loss is differentiated by."""
        learned = [part for view in self.online for part in view if part is not None and part.requires_grad]
        return learned + [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def after_step(self) -> None:
        """What the method does after each step."""
        self.objective.after_step(self.carry, torch.tensor(0.99, device=self.device))

    def between_epochs(self) -> dict[str, Tensor]:
        """What the method does between epochs, from the same random numbers in every call."""
        return self.objective.between_epochs(_LATE, torch.Generator().manual_seed(0))

    def without_heads(self, configs: ObjectiveConfigs) -> MethodWork:
        """The method on embeddings. Clustering is slow: if the memory is of the same shape, it is taken from here."""
        own = getattr(configs, self.name, None)
        if own is not None and any(field.name == "dim" for field in dataclasses.fields(own)):
            configs = _with(configs, self.name, dataclasses.replace(own, dim=self.sizes.embedding // self.spec.streams))
        sizes = dataclasses.replace(self.sizes, features=self.sizes.embedding)
        buffers = {name for name, _ in self.objective.named_buffers()} - {
            f"{path}.{name}"
            for path, part in self.objective.named_modules()
            if isinstance(part, MLP)
            for name, _ in part.named_buffers()
        }
        memory = {name: value for name, value in self.objective.state_dict().items() if name in buffers}
        work = MethodWork(self.name, configs, sizes, self.device, memory)
        for part in list(work.objective.modules()):
            for name, child in list(part.named_children()):
                # Methods that compare places need the blocks that bring them to the vector's size.
                if name == "head" or (isinstance(child, MLP) and not isinstance(part, ResidualHead)):
                    setattr(part, name, nn.Identity())
        return work

    @torch.no_grad()
    def _fill(self) -> None:
        count, size = self.sizes.samples, self.sizes.batch
        for epoch in (0, _LATE):
            if self.objective.wants_all(epoch) is None:
                continue
            for indices in torch.arange(count, device=self.device).split(size):
                features = Features(self._normal(len(indices), self.spec.dim), self._normal(len(indices), 0, 0, 0))
                labels = torch.zeros_like(indices)
                self.objective.remember(features, BatchInfo(indices=indices, labels=labels))
        self.between_epochs()
        self.carry = self.objective(self.online, self.target, self.batch).carry
        for _ in range(self.sizes.steps_before):
            self.after_step()

    def _features(self, view: ViewSpec, *, learned: bool) -> Features:
        """Features of a view, similar to those of the other views of each sample."""
        if not self._bases:
            self._bases[0] = self._normal(self.sizes.batch, self.spec.dim)
        vector = self._bases[0] + 0.5 * self._normal(self.sizes.batch, self.spec.dim)
        if not self.objective.reads_maps:
            return Features(vector.requires_grad_(learned), self._normal(self.sizes.batch, 0, 0, 0))
        last, middle = (
            self._normal(self.sizes.batch, *shape).requires_grad_(learned)
            for shape in (self.spec.map_shape, self.spec.middle_shape or self.spec.map_shape)
        )
        return Features(vector.requires_grad_(learned), last, middle)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)


def _overrides(objective: Objective, method: str) -> bool:
    return getattr(type(objective), method) is not getattr(Objective, method)


def _with(configs: ObjectiveConfigs, name: str, own: Any) -> ObjectiveConfigs:
    return dataclasses.replace(configs, **{name: own})  # type: ignore[type-var]
