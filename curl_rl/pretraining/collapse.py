"""Whether the representation is collapsing, in plain language."""

from __future__ import annotations

from collections.abc import Mapping

_ROWS = 3  # of metrics in a row: a single batch may be odd, and a network just started may look so for a moment
_FLOORS = {
    "objective/embedding_std": (0.05, "nearly all images have the same embedding"),
    "features/effective_rank": (1.5, "the features of all images lie on a line"),
    "clusters/used": (0.2, "nearly all images are in a few of the clusters"),
}
_ADVICE = (
    "learning has come to a stop if it stays so: try a lower learning rate, a longer warm-up, a larger batch, "
    "or a momentum nearer to 1 (less for a short run)"
)


class CollapseWatch:
    """Reads each row of metrics, and speaks up once."""

    def __init__(self) -> None:
        self._low = dict.fromkeys(_FLOORS, 0)
        self._said = False

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """One line, if by now a measure has lain below its floor for some rows, and it was not said before.

        Args:
            metrics: by name; ``objective/embedding_std`` is 1 where embeddings are spread over all directions and 0
                where they are one point, ``features/effective_rank`` is the number of directions in use.
        """
        for name, (floor, meaning) in _FLOORS.items():
            if name in metrics:
                self._low[name] = self._low[name] + 1 if metrics[name] < floor else 0
            if self._low[name] >= _ROWS and not self._said:
                self._said = True
                return f"warning: the representation is collapsing: {meaning} ({name} {metrics[name]:.2g}); {_ADVICE}"
        return None
