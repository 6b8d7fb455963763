"""Parameter groups that exempt biases and norms from weight decay and from LARS's scaling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def parameter_groups(groups: Iterable[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    """Splits optimizer groups so that biases and norms have no weight decay and no LARS scaling.

    Each group becomes two: its parameters of two or more dimensions, with ``weight_decay`` unless the group sets its
    own, and the others, with ``"weight_decay": 0`` and ``"adapt": False``, which other optimizers ignore. Both keep all
    other options of the group; a half without parameters is omitted. For a single module, pass
    ``[{"params": module.parameters()}]``.
    """
    result = []
    for group in groups:
        parameters = list(group["params"])
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        if matrices:
            result.append({"weight_decay": weight_decay, **group, "params": matrices})
        if vectors:
            result.append({**group, "params": vectors, "weight_decay": 0.0, "adapt": False})
    return result
