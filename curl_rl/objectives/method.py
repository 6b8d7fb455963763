"""The registry entry of a method, from which the command line, the settings and the documentation are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curl_rl.objectives.base import Objective


@dataclass(frozen=True)
class Method:
    """A named self-supervised method. Each method's file ends with its entry."""

    name: str
    """Name on the command line and in YAML."""
    objective: type[Objective]
    """The loss, with its heads and its memory."""
    config: type[Any]
    """Its settings: a frozen dataclass with a default for every field."""
    paper: str
    """Authors, year and arXiv number, or where it appeared if it has none."""
    summary: str
    """One sentence, for ``--help`` and the documentation's table."""
    instead: str = "simclr"
    """The method to suggest where the needs of this one are not met."""
