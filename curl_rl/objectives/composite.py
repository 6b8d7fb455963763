"""Several methods at once on one encoder: the weighted sum of their losses, as one objective.

A view that several methods ask for is made and encoded once. Each keeps its own heads, memory and metrics.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curl_rl.encoders import Features, FeatureSpec
from curl_rl.objectives import registry
from curl_rl.objectives.base import BatchInfo, DataSpec, Objective, Result, ViewSpec
from curl_rl.objectives.registry import METHODS, ObjectiveUser, build_objective


class Composite(Objective):
    """The weighted sum of several objectives.

    Each part's metrics and its loss, before the weight, are reported under its name: ``curl/loss``. A single part's
    metrics keep their names. The encoder's slow copy has the momentum of the first part that uses it.

    Args:
        parts: the objectives by name.
        weights: the weight of each, in the same order.

    Raises:
        ValueError: a part relies on epochs, which one user's epochs could not serve for all of them.
    """

    def __init__(self, parts: Mapping[str, Objective], weights: Sequence[float]) -> None:
        super().__init__()
        for name, part in parts.items():
            if "epochs" in part.needs:
                raise ValueError(f"objectives in a sum must do without epochs, got {name}: use it alone")
        self.parts = nn.ModuleDict(parts)
        self.weights = dict(zip(parts, weights, strict=True))
        own = tuple(parts.values())
        self.online_views = _each_once(part.online_views for part in own)
        self.target_views = _each_once(part.target_views for part in own)
        self.views_together = any(part.views_together for part in own)
        self.reads_maps = any(part.reads_maps for part in own)
        self.batch_dependent = any(part.batch_dependent for part in own)
        self.needs = frozenset[Any]().union(*(part.needs for part in own))
        self.projected = frozenset(f"parts.{name}.{inner}" for name, part in parts.items() for inner in part.projected)
        self.momentum_ahead = self._leader.momentum_ahead

    @property
    def _leader(self) -> Objective:
        return next((part for part in self._parts().values() if part.target_views), next(iter(self._parts().values())))

    def _parts(self) -> dict[str, Objective]:
        parts: dict[str, Any] = dict(self.parts.items())
        return parts

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        seen = dict(zip(self.online_views, online, strict=True))
        slow = dict(zip(self.target_views, target, strict=True))
        losses, metrics, carries = [], dict[str, Tensor](), dict[str, Any]()
        for name, part in self._parts().items():
            views = [seen[spec] for spec in part.online_views], [slow[spec] for spec in part.target_views]
            result: Result = part(*views, batch)
            losses.append(self.weights[name] * result.loss)
            carries[name] = result.carry
            if len(self.parts) == 1:
                metrics = result.metrics
            else:
                metrics |= {f"{name}/{key}": value for key, value in result.metrics.items()}
                metrics[f"{name}/loss"] = result.loss.detach()
        return Result(torch.stack(losses).sum(), metrics, carries)

    def try_out(self, features: FeatureSpec, batch_size: int, data: DataSpec = DataSpec()) -> None:  # noqa: B008 (frozen)
        for part in self._parts().values():
            part.try_out(features, batch_size, data)

    def after_step(self, carry: dict[str, Any], momentum: Tensor) -> None:
        for name, part in self._parts().items():
            part.after_step(carry[name], momentum)

    def momentum(self, progress: Tensor) -> Tensor:
        return self._leader.momentum(progress)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts().values() for group in part.parameter_groups()]


def _each_once(views: Any) -> tuple[ViewSpec, ...]:
    # dict.fromkeys: in a fixed order, because the order determines the views' random numbers.
    return tuple(dict.fromkeys(spec for specs in views for spec in specs))


def methods_in(names: str) -> tuple[str, ...]:
    """The methods in an expression such as ``curl+cpc``, in order; none in ``none``."""
    return () if names == "none" else tuple(names.split("+"))


def check_methods(user: ObjectiveUser, names: str) -> None:
    """Refuses an expression that is neither ``none`` nor one or more known methods joined by ``+``, each once.

    Known methods that the user cannot offer what they need are refused when they are built, with the reason.

    Raises:
        ValueError: ``setting must be ..., got ...``, with the methods that the user can have.
    """
    methods = methods_in(str(names))  # anything else is refused as well
    unknown = next((name for name in methods if name not in METHODS), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown.lower(), [*METHODS, "none"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        usable = registry.usable(user.has)
        if len(methods) == 1:
            raise ValueError(f"{user.setting} must be {' or '.join([*usable, 'none'])}, got {names}{hint}")
        raise ValueError(
            f"{user.setting} must be methods joined by +, such as curl+cpc, got {names}: "
            f"{unknown or 'an empty name'} is none of {', '.join(usable)}{hint}"
        )
    if len(set(methods)) < len(methods):
        raise ValueError(f"{user.setting} must name each method once, got {names}")


def build_composite(
    names: str,
    weights: float | Sequence[float],
    features: FeatureSpec,
    configs: registry.ObjectiveConfigs | None = None,
    data: DataSpec = DataSpec(),  # noqa: B008 (frozen)
    user: ObjectiveUser | None = None,
) -> Objective | None:
    """Builds one or more methods joined by ``+``; None for ``none``, and a single one with weight 1 as it is.

    Args:
        names: such as ``curl`` or ``curl+cpc``.
        weights: one for all, or one for each in order.
        features, configs, data, user: as in :func:`~curl_rl.objectives.registry.build_objective`.

    Raises:
        ValueError: a method is unknown or cannot be used here, or there are fewer or more weights than methods.
    """
    methods = methods_in(names)
    each = [float(weights)] * len(methods) if isinstance(weights, int | float) else list(weights)
    parts = {name: build_objective(name, features, configs, data, user) for name in methods}
    built = {name: part for name, part in parts.items() if part is not None}
    if not built:
        return None
    return built[names] if names in built and each == [1.0] else Composite(built, each)
