"""The jobs of a sweep over tasks, presets, settings and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from curl_rl.sweep.job import Job


@dataclass(frozen=True)
class Grid:
    """Every combination of these is a job."""

    envs: Sequence[str]
    """Tasks."""
    presets: Sequence[str]
    """Presets."""
    seeds: Sequence[int]
    """Seeds."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of each setting, as :func:`curl_rl.sweep.values.spelled` spells them."""

    def jobs(self, also: Mapping[str, str] | None = None) -> list[Job]:
        """The jobs, those of one seed together: each comparison has its first seeds early.

        Args:
            also: further settings of all of them.
        """
        return [
            Job(env, preset, settings, seed) for seed in self.seeds for env, preset, settings in self._kinds(also or {})
        ]

    def _kinds(self, also: Mapping[str, str]) -> Iterator[tuple[str, str, tuple[tuple[str, str], ...]]]:
        axes = {**{name: list(dict.fromkeys(values)) for name, values in self.settings.items()}}
        axes |= {name: [value] for name, value in also.items()}
        for env, preset, *values in itertools.product(self.envs, self.presets, *axes.values()):
            yield env, preset, tuple(sorted(zip(axes, values, strict=True)))
