"""How TensorBoard lays a run out: related curves in one chart, and settings by which runs can be sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary

from curl_rl.runs.console import printable

_CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "Returns": {
        "evaluation and training": ("evaluation/return_mean", "episode/return"),
        "spread of the evaluation": ("evaluation/return_min", "evaluation/return_median", "evaluation/return_max"),
        "accuracy on test images": ("knn/accuracy", "probe/test_accuracy"),
    },
    "Losses": {
        "critics": ("critic/loss",),
        "Q values and their targets": ("critic/q", "critic/target"),
        "actor": ("actor/loss",),
        "objective": ("objective/loss", "loss", "test/loss"),
        "gradients": ("critic/gradient_norm", "actor/gradient_norm", "objective/gradient_norm"),
    },
    "Contrastive health": {
        "accuracy and confidence": ("objective/accuracy", "objective/confidence"),
        "spread": ("objective/logits_std", "objective/embedding_std", "objective/alignment"),
        "effective rank": ("objective/effective_rank", "features/effective_rank"),
    },
    "Exploration": {"entropy": ("actor/entropy",), "temperature": ("temperature/value",)},
    "Speed": {
        "steps": ("speed/frames_per_second", "speed/images_per_second"),
        "updates": ("speed/updates_per_second",),
    },
}
SCORES = {"frames": ("evaluation/return_mean",), "images": ("knn/accuracy", "probe/test_accuracy")}
"""The metrics by which runs are sorted, by the x axis of the run; TensorBoard takes their newest values."""

_PLACES = ("run", "device", "kind", "compute", "checkpoint", "log", "encoder_sha256")
"""Settings that do not change what a run learns."""


def charts() -> Summary:
    """The layout of the custom scalars, with one chart for curves that are read together."""
    # Imported when a run begins: it takes a tenth of a second, and commands that only read runs need it not.
    from torch.utils.tensorboard.summary import custom_scalars

    return custom_scalars(
        {
            title: {chart: ["Multiline", [f"^{name}$" for name in names]] for chart, names in of_title.items()}
            for title, of_title in _CHARTS.items()
        }
    )


def hyperparameters(settings: Mapping[str, Any], axis: str) -> list[Summary]:
    """What TensorBoard's table of hyperparameters needs to list a run with its settings and scores.

    Args:
        settings: the content of config.yaml.
        axis: the x axis of the run.
    """
    from torch.utils.tensorboard.summary import hparams

    flat = {name: value for name, value in _flat(settings) if name.partition(".")[0] not in _PLACES}
    experiment, start, _ = hparams(flat, dict.fromkeys(SCORES.get(axis, ()), 0.0))
    return [experiment, start]


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """The settings by dotted name, but for those left open; lists and names that are not UTF-8 as they print."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value if isinstance(value, (bool, int, float)) else printable(str(value))
