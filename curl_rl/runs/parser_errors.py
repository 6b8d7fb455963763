"""The errors of the settings' parser as one line in the style of this project."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

_KINDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "tuple": "a list",
    "str": "text",
}


def explained(
    error: Exception, sections: Mapping[str, Any], settings: Mapping[str, Any], taken: Mapping[str, Collection[str]]
) -> str:
    """Rewords an error of the parser. Parses its text, because it carries no name, type or value.

    Args:
        error: the error.
        sections: the usual settings, nested.
        settings: the same by full name.
        taken: settings of which the command takes fewer values than their type has: those it takes.
    """
    text = " ".join(str(error).split())
    if unknown := re.fullmatch(r"unrecognized arguments: (.*)", text):
        flag = unknown[1].split()[0].split("=")[0]
        return text + nearest(flag, [f"--{name}" for name in settings])
    if section := re.match(r'Parser key "([\w.]+)": Unable to load config [\'"](.*?)[\'"]', text):
        own: Any = sections
        for part in section[1].split("."):
            own = own[part]
        return f"{section[1]} must hold settings by name, such as --{section[1]}.{next(iter(own))}, got {section[2]}"
    value = re.fullmatch(r'Parser key "([\w.]+)": (.*?)(?:Given value type: .*?)?(?:Got|Given) value: ?(.*)', text)
    if value is None:
        return text
    name, expected, given = value[1], value[2], value[3] or "nothing"
    kinds = [_KINDS[kind] for kind in re.findall(r"<class '(\w+)'>", expected) if kind in _KINDS]
    if isinstance(settings.get(name), list):
        example = settings[name] or "[one, two]"
        kinds = [f"a list, such as {example}" if kind == _KINDS["tuple"] else kind for kind in kinds]
    choices = re.findall(r"\w+", " ".join(re.findall(r"Literal\[(.*?)\]", expected)))
    # The nearest name may be one that another command takes: refusing it, this one says so.
    right = " or ".join(dict.fromkeys((*taken.get(name, choices), *kinds)))
    return f"{name} must be {right}, got {given}{nearest(given.lower(), choices)}" if right else text


def nearest(name: str, names: list[str]) -> str:
    """A suffix for a message about an unknown name that suggests the closest of ``names``; may be empty."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
