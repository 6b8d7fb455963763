"""An objective under test: copies of it, random inputs for it, and snapshots of its state."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec, map_features, take_features
from curl_rl.objectives import BatchInfo, DataSpec, Method, Objective, ViewSpec

_LONGEST_AHEAD = 3  # minimum number of agent steps of actions in a batch
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


class Inputs(NamedTuple):
    """The arguments of ``forward``."""

    online: list[Features]
    target: list[Features]
    batch: BatchInfo

    def rows(self, chosen: Tensor) -> Inputs:
        """The inputs restricted to these samples."""
        online, target = ([take_features(view, chosen) for view in views] for views in (self.online, self.target))
        return Inputs(online, target, BatchInfo(*(None if value is None else value[chosen] for value in self.batch)))


@dataclass(frozen=True)
class ObjectiveCase:
    """An objective, and everything that determines its inputs. Every check works on copies."""

    built: Objective
    """The newly built objective, in float64 on the CPU, in training mode."""
    features: FeatureSpec
    data: DataSpec
    batch_size: int
    seed: int
    stops_gradient: bool
    method: Method | None
    """The registry entry, if the objective was built from one."""

    def fresh(self) -> Objective:
        """A copy that has taken no steps."""
        return copy.deepcopy(self.built)

    def warm(self) -> Objective:
        """A copy that has taken one step, so that its memory is not empty."""
        objective = self.fresh()
        self.pass_over_all(objective)
        self.step(objective, seed=9)
        return objective

    def step(self, objective: Objective, seed: int = 0, momentum: float = 0.9) -> Tensor:
        """One step without an optimizer; returns the loss."""
        result = objective(*self.inputs(seed=seed))
        objective.after_step(result.carry, torch.tensor(momentum))
        return result.loss.detach()

    def pass_over_all(self, objective: Objective, epoch: int = 0, seed: int = 5) -> dict[str, Tensor]:
        """Does what a user does before an epoch, with two batches of unequal size; returns the metrics."""
        generator = self._generator(seed)
        if objective.wants_all(epoch) is not None:
            for indices in torch.randperm(self._count, generator=generator).split(self._count // 2 + 1):
                some = self.inputs(len(indices), seed)
                labels = some.batch.labels if "labels" in objective.needs else None
                with torch.no_grad():
                    objective.remember(some.online[0], BatchInfo(indices=indices, labels=labels))
        return objective.between_epochs(epoch, generator)

    def inputs(self, batch_size: int | None = None, seed: int = 0) -> Inputs:
        """Random features in float64, indices without repetition, labels, float32 actions, contents with repeats."""
        size, generator = batch_size or self.batch_size, self._generator(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(size, *shape, dtype=torch.float64, generator=generator)

        def view(spec: ViewSpec) -> Features:
            sizes = self.data.text if spec.modality == "text" and self.data.text else self.features
            middle = None if sizes.middle_shape is None else normal(*sizes.middle_shape)
            return Features(normal(sizes.dim), normal(*sizes.map_shape), middle)

        specs = self.built.online_views, self.built.target_views
        online, target = ([view(spec) for spec in some] for some in specs)
        ahead = max(_LONGEST_AHEAD, *(spec.future for some in specs for spec in some))
        return Inputs(
            online,
            target,
            BatchInfo(
                torch.randperm(self._count, generator=generator)[:size],
                torch.randint(self.data.classes or 3, (size,), generator=generator),
                normal(ahead, self.data.action_dim or 1).float(),
                torch.randint(2 * size, (size, 2), generator=generator),
                self._hidden(size, generator),
            ),
        )

    def _hidden(self, size: int, generator: torch.Generator) -> Tensor:
        """``(size, 2, 2)``: places of the map and tokens, some of which are padding."""
        places = torch.randint(self.features.map_shape[-1], (size, 2), generator=generator)
        return torch.stack([places, torch.randint(self.data.vocabulary or 2, (size, 2), generator=generator)], 2)

    def encoded(self) -> Inputs:
        """:meth:`inputs` whose online features have a gradient, as a trained encoder's do."""
        online, target, batch = self.inputs()
        return Inputs([map_features(lambda values: values.requires_grad_(), view) for view in online], target, batch)

    def nudge(self, objective: Objective) -> None:
        """Moves the parameters a little, as an optimizer would."""
        generator = self._generator(0)
        with torch.no_grad():
            for parameter in objective.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))

    def push(self, objective: Objective, by: float) -> None:
        """Moves the parameters in ``projected`` far, out of any bounded set if ``by`` has the right sign."""
        with torch.no_grad():
            for name, parameter in objective.named_parameters():
                if name in objective.projected:
                    parameter.add_(by)

    def permutation(self, size: int) -> Tensor:
        """A random permutation of ``size`` rows that moves every row."""
        cycle = torch.randperm(size, generator=self._generator(1))
        return torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1))

    @property
    def _count(self) -> int:
        return self.data.count or 4 * self.batch_size

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + seed)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def state_of(objective: nn.Module) -> dict[str, Any]:
    """Parameters, buffers and plain attributes by name, as immutable values that compare by ``==``."""
    found: dict[str, Any] = {}
    for path, part in objective.named_modules():
        held = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        held |= {name: value for name, value in vars(part).items() if name not in _MODULE_ATTRIBUTES}
        found |= {f"{path}.{name}".lstrip("."): comparable(value) for name, value in held.items()}
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of the differences between two results of :func:`state_of`."""
    return sorted(name for name in {**before, **after} if before.get(name) != after.get(name))


def comparable(value: Any) -> Any:
    """A copy that compares by ``==``, bit by bit for tensors. Objects of the same unknown type count as equal."""
    if isinstance(value, Tensor):
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()  # NumPy has no bfloat16
        return str(value.dtype), tuple(value.shape), hashlib.sha256(data.data).digest()  # banks may be large
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return [(str(key), comparable(item)) for key, item in value.items()]
    if isinstance(value, AbstractSet):
        return sorted(map(repr, value))
    if isinstance(value, Iterator):
        return type(value)  # reading it would consume it
    if isinstance(value, float):
        return repr(value)  # NaN is not equal to itself
    if value is None or isinstance(value, (bool, int, complex, str, bytes)):
        return value
    if hasattr(value, "__len__") and hasattr(value, "__iter__"):  # lists, tuples, deques
        return [comparable(item) for item in value]
    return type(value)


def random_states() -> tuple[Any, ...]:
    """States of the global generators that a method might draw from: torch's, NumPy's and Python's."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002 (it is the legacy state that must not change)
    return comparable(torch.get_rng_state()), comparable(numpy_state), comparable(random.getstate())
