"""Detection of representation collapse, reported in plain language."""

from __future__ import annotations

from collections.abc import Mapping

_ROWS = 3  # consecutive rows of metrics: a single batch or a newly started network may look collapsed for a moment
_FLOORS = {
    "objective/embedding_std": (0.05, "nearly all {units} have the same embedding"),
    "features/effective_rank": (1.5, "the features of all {units} lie on a line"),
    "clusters/used": (0.2, "nearly all {units} are in a few clusters"),
}
_ADVICE = (
    "if this persists, learning has stopped: try a lower learning rate, a longer warm-up, a larger batch, "
    "or a momentum closer to 1 (lower for a short run)"
)


class CollapseWatch:
    """Reads each row of metrics and warns once.

    Args:
        unit: name of a sample.
    """

    def __init__(self, unit: str = "image") -> None:
        self._units = f"{unit}s"
        self._low = dict.fromkeys(_FLOORS, 0)
        self._said = False

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a one-line warning the first time a measure stays below its floor for several rows, else None.

        Args:
            metrics: by name; ``objective/embedding_std`` is 1 when embeddings are spread over all directions and 0
                when they coincide; ``features/effective_rank`` is the number of directions in use.
        """
        for name, (floor, meaning) in _FLOORS.items():
            if name in metrics:
                self._low[name] = self._low[name] + 1 if metrics[name] < floor else 0
            if self._low[name] >= _ROWS and not self._said:
                self._said = True
                shown = meaning.format(units=self._units)
                return f"warning: the representation is collapsing: {shown} ({name} {metrics[name]:.2g}); {_ADVICE}"
        return None
