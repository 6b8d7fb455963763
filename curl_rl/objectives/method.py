"""The entry of a method in the registry: what the command line, the settings and the documentation know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curl_rl.objectives.base import Objective


@dataclass(frozen=True)
class Method:
    """A self-supervised method by name. Each method's file ends with its own."""

    name: str
    """On the command line and in YAML."""
    objective: type[Objective]
    """The loss, its heads and its memory."""
    config: type[Any]
    """Its settings: a frozen dataclass, every field with a default."""
    paper: str
    """Authors, year and arXiv number."""
    summary: str
    """One sentence, for ``--help`` and the documentation's table."""
    instead: str = "simclr"
    """The method to name where this one lacks what it needs."""
