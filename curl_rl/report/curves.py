"""Learning curves of finished and running runs, read from their metrics and grouped by seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from curl_rl.rl.config import SCHEMA, RunConfig, load_preset, read_config
from curl_rl.runs.directory import CONFIG, kind_of
from curl_rl.runs.errors import UserError
from curl_rl.runs.logger import METRICS_FILE, read_metrics


@dataclass
class Curve:
    """Runs that differ only in their seeds."""

    env: str
    label: str
    seeds: dict[int, dict[int, float]] = field(default_factory=dict)
    """For each seed, the mean evaluation return by environment frames."""
    random_returns: list[float] = field(default_factory=list)
    """Returns of the training episodes that ended within the random steps."""

    def frames(self) -> list[int]:
        """The frame counts at which any seed was evaluated, in order."""
        return sorted({at for seed in self.seeds.values() for at in seed})

    def returns_at(self, frames: int) -> list[float]:
        """The returns at ``frames`` of the seeds evaluated there."""
        return [seed[frames] for seed in self.seeds.values() if frames in seed]


def read_curves(directories: list[Path]) -> list[Curve]:
    """The curves of all runs below ``directories``, sorted by task and label.

    Skips runs that were set aside (``--fresh``) and pretraining runs, which have no returns.

    Raises:
        ValueError: no run has an evaluation, a run cannot be read, or two runs have the same task, label and seed.
    """
    curves: dict[tuple[str, str], Curve] = {}
    for path in sorted({path for directory in directories for path in directory.rglob(METRICS_FILE)}):
        run = path.parent
        if not (run / CONFIG).is_file() or ".before-" in run.name or kind_of(run) != "agent":
            continue
        try:
            config, rows = read_config(run / CONFIG), read_metrics(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        returns = {row["frames"]: row["evaluation/return_mean"] for row in rows if "evaluation/return_mean" in row}
        if not returns:
            continue
        label = _label(config)
        curve = curves.setdefault((config.env, label), Curve(config.env, label))
        if config.seed in curve.seeds:
            raise ValueError(
                f"{run} is a second run of {config.env}, {label}, seed {config.seed}: name fewer directories"
            )
        curve.seeds[config.seed] = returns
        random_frames = config.training.random_steps * config.environment.action_repeat
        curve.random_returns += [
            row["episode/return"] for row in rows if "episode/return" in row and row["frames"] <= random_frames
        ]
    if not curves:
        raise ValueError(f"no run with an evaluation below {', '.join(map(str, directories))}")
    return [curves[key] for key in sorted(curves)]


def _label(config: RunConfig) -> str:
    """The preset, and every setting that differs from it, except for seed, budget and the encoder's hash."""
    preset = replace(load_preset(config.preset, config.env), seed=config.seed, frames=config.frames)
    changed = SCHEMA.distinguishing_fields(preset, config)
    return ", ".join(
        [config.preset, *(f"{name} {value}" for name, (_, value) in changed.items() if name != "encoder_sha256")]
    )
