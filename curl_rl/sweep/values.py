"""The values of settings in a sweep: one spelling for each, so that a job has the same name wherever it is written."""

from __future__ import annotations

from typing import Any

from curl_rl.runs.whole_numbers import with_whole_numbers


def spelled(value: Any) -> str:
    """A value as the command line of a run takes it.

    Args:
        value: from YAML, or a text from a command line; ``1e5``, ``100_000`` and 100000 are spelled alike, and so are
            ``1e-3`` and 0.001.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(spelled, value))}]"
    text = str(with_whole_numbers(value)).strip()
    if text.startswith("[") and text.endswith("]"):
        return f"[{','.join(spelled(part) for part in split(text[1:-1]))}]"
    try:
        return text if text.lstrip("+-").isdecimal() else repr(float(text)) if text[-1:].isdecimal() else text
    except ValueError:
        return text


def split(text: str) -> list[str]:
    """Parts between commas that stand outside brackets: ``[2,1],[2]`` has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in ")}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
