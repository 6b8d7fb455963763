"""Exemplars: some scenes of every class are kept, so that learning the next task forgets less (ORE, section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def choose(labels: Tensor, numbers: Sequence[int], classes: Sequence[int], per_class: int) -> list[int]:
    """The numbers of scenes that hold ``per_class`` objects of each class, taken in order.

    A scene is taken if it has an object of a class that still lacks some; a class may end with fewer if there are not
    enough.

    Args:
        labels: ``(N, M)`` of the objects in each scene.
        numbers: the N scenes' numbers.
        classes: those of the task.
        per_class: N_ex, 0 or more.
    """
    missing = dict.fromkeys(classes, per_class)
    chosen = []
    for number, present in zip(numbers, labels.tolist(), strict=True):
        if any(missing.get(label, 0) > 0 for label in present):
            chosen.append(int(number))
            for label in present:
                if label in missing:
                    missing[label] -= 1
    return chosen
