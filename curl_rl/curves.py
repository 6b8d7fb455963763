"""Learning curves of finished and running runs, read from their metrics and grouped by seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curl_rl.config import read_config
from curl_rl.logger import METRICS_FILE, read_metrics
from curl_rl.run_directory import CONFIG


@dataclass
class Curve:
    """Runs of one task with one preset and objective, that differ in their seeds."""

    env: str
    label: str
    seeds: list[dict[int, float]] = field(default_factory=list)
    """For each seed, the mean evaluation return by environment frames."""
    random_returns: list[float] = field(default_factory=list)
    """Returns of the training episodes that ended within the random steps."""

    def common(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Frames at which every seed was evaluated, ``(N,)``, and the returns there, ``(seeds, N)``."""
        frames = sorted(set.intersection(*(set(seed) for seed in self.seeds)))
        return np.array(frames), np.array([[seed[at] for at in frames] for seed in self.seeds])


def read_curves(directories: list[Path]) -> list[Curve]:
    """The curves of all runs below ``directories``, by task and label.

    Raises:
        ValueError: there is no run with an evaluation, or one cannot be read.
    """
    curves: dict[tuple[str, str], Curve] = {}
    for directory in directories:
        for path in sorted(directory.rglob(METRICS_FILE)):
            if not (path.parent / CONFIG).is_file():
                continue
            config, rows = read_config(path.parent / CONFIG), read_metrics(path)
            returns = {row["frames"]: row["evaluation/return_mean"] for row in rows if "evaluation/return_mean" in row}
            if not returns:
                continue
            label = f"{config.preset}, objective {config.agent.objective}"
            curve = curves.setdefault((config.env, label), Curve(config.env, label))
            curve.seeds.append(returns)
            random_frames = config.training.random_steps * config.environment.action_repeat
            curve.random_returns += [
                row["episode/return"] for row in rows if "episode/return" in row and row["frames"] <= random_frames
            ]
    if not curves:
        raise ValueError(f"no run with an evaluation below {', '.join(map(str, directories))}")
    return [curves[key] for key in sorted(curves)]
