"""Parameter groups: which weights are decayed, and which LARS scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def parameter_groups(groups: Iterable[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    """Splits optimizer groups so that biases and norms go without weight decay and without LARS's scaling.

    Each group becomes two: its parameters of two or more dimensions, with ``weight_decay`` unless the group names its
    own, and the others with ``"weight_decay": 0`` and ``"adapt": False``, which other optimizers ignore. Everything
    else that a group names is kept in both; a half without parameters is left out. For a single module, give
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
