"""How a process's commands are spelled: ``python scripts/train_agent.py`` in a clone, ``curl-rl train`` elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

_commands: dict[str, str] = {}
"""Names of the commands of ``curl-rl`` by those of the scripts; empty if this process runs a script."""


def spell(commands: Mapping[str, str]) -> None:
    """From now on, texts name ``curl-rl COMMAND`` in place of ``python scripts/SCRIPT.py``.

    Args:
        commands: names of the commands by names of the scripts.
    """
    _commands.update(commands)


def in_this_spelling(text: str) -> str:
    """``text``, which names scripts, with the commands as this process is called."""

    def respelled(match: re.Match[str]) -> str:
        if match["script"] not in _commands:  # a program of the clone alone, such as benchmark.py
            return match[0]
        prefix = "-m curl_rl" if match["before"] == "-- " else "curl-rl"  # torchrun -- scripts/SCRIPT.py
        return f"{prefix} {_commands[match['script']]}"

    return re.sub(r"(?P<before>python |-- )?scripts/(?P<script>\w+)\.py", respelled, text) if _commands else text
