"""One job of a sweep: a run, and a name for it that no other run of the sweep has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote

_LONGEST = 220  # characters of a folder's name; file systems take 255 bytes


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    env: str
    """Task."""
    preset: str
    """Preset."""
    settings: tuple[tuple[str, str], ...]
    """Names and values of the settings that override the preset, sorted by name."""
    seed: int
    """Seed."""

    @property
    def name(self) -> str:
        """Three folders, ``task/preset,name=value,.../seed1``.

        Two different jobs have different names: a character that could be mistaken for a separator is written as
        ``%2C``; ``gym:Pusher-v5`` becomes ``gym=Pusher-v5``. A name too long for a file system ends in ``@`` and a
        digest of the whole.
        """
        variant = ",".join(
            [_quoted(self.preset), *(f"{_quoted(name)}={_quoted(value)}" for name, value in self.settings)]
        )
        task = _quoted(self.env, also=":").replace(":", "=")
        return f"{_short(task)}/{_short(variant)}/seed{self.seed}"

    @property
    def label(self) -> str:
        """Preset and settings, as curves and tables label them: ``cpu, agent.objective none``."""
        return ", ".join([self.preset, *(f"{name} {value}" for name, value in self.settings)])

    @property
    def flags(self) -> list[str]:
        """The arguments of ``train_agent.py``, without the run's directory."""
        return [
            *("--env", self.env, "--preset", self.preset, "--seed", str(self.seed)),
            *(f"--{name}={value}" for name, value in self.settings),
        ]


def _quoted(text: str, also: str = "") -> str:
    quoted = quote(text, safe=f"[]+{also}")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _short(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}@{hashlib.sha256(name.encode()).hexdigest()[:16]}"
