"""What users are told who name a file or a directory without the network that is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curl_rl.runs.errors import UserError
from curl_rl.runs.kinds import KINDS, Kind

_RUNS_WITH: Mapping[str, tuple[Kind, ...]] = {
    "encoder": ("pretraining", "text", "pairs", "agent"),
    "head": ("pretraining", "pairs"),
    "text_head": ("pairs",),
    "detector": ("detection",),
    "policy": ("agent",),
}
"""The kinds of runs that have a network, by its name."""
_COMMANDS_WITH = {"classifier": ("scripts/finetune_vision.py", "scripts/distill_vision.py")}
"""The commands other than those of runs that write one."""


def refuse_another(description: Mapping[str, Any], name: str, file: Path) -> None:
    """Refuses the file of a network of another name, which would seem damaged.

    Args:
        description: the one in the file.
        name: the name of the network that is wanted.
        file: the file.

    Raises:
        UserError: it holds another.
    """
    held, wanted = _held_by(description), "head" if name.endswith("head") else name
    if held is not None and wanted in (*_RUNS_WITH, *_COMMANDS_WITH) and held != wanted:
        beside = file.with_name(f"{name}.safetensors")
        remedy = f"; name {beside}" if beside.is_file() else instead(name, file.parent)
        raise UserError(f"{file} holds {_with_article(held)}, not {_with_article(wanted)}{remedy}")


def instead(name: str, directory: Path) -> str:
    """What to name in the place of a directory without such a network: the end of a message; empty if not known."""
    from curl_rl.runs.directory import CONFIG, kind_of  # here, because it takes a while: it brings all settings

    kinds = _RUNS_WITH.get(name, ())
    *others, last = (*(KINDS[kind].by for kind in kinds), *_COMMANDS_WITH.get(name, ())) or ("",)
    if not last:
        return ""
    remedy = f"; name what {', '.join(others)}{' or ' if others else ''}{last} has written"
    if not directory.is_dir():
        return f"{remedy}: there is no {directory}"
    if (directory / CONFIG).is_file():
        with contextlib.suppress(ValueError):
            kind = kind_of(directory)
            own = "; a run writes it with its first checkpoint"
            return own if kind in kinds else f"{remedy}: this is a run of {KINDS[kind].by}"
    return remedy


def _held_by(description: Mapping[str, Any]) -> str | None:
    """The name of a network, by what its description has; None if it might be any."""
    if "all_classes" in description:
        return "detector"
    if "linear" in description:
        return "classifier"
    if description.get("kind") == "policy":
        return "policy"
    if "observation_shape" in description:
        return "encoder"
    return "head" if "layers" in description else None


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
