"""Files of settings: YAML that is complete, of a sensible size, and free of what only an attack would hold.

A run's ``config.yaml`` states in a comment how many settings it holds. A value may be edited by hand; a file that was
cut short is refused, since it would read as the defaults of what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import read_file, write_durably

Layer = dict[str, Any]
"""Settings by name, nested like the dataclasses; settings not named keep their value from the layers below."""

_LARGEST = 2**20  # bytes; a run's file has a few thousand
_MOST_VALUES = 100_000  # with aliases written out: a short file can stand for billions of values, or for itself
_COUNT = re.compile(rb"^# settings: (\d+)$", re.MULTILINE)


def as_yaml(settings: Layer) -> str:
    """The settings as YAML, in their order."""
    text: str = yaml.safe_dump(settings, sort_keys=False)
    return text


def write_settings(path: Path, settings: Layer, kind: str | None = None) -> None:
    """Writes a run's settings, after its kind and a comment with their number; the file is replaced atomically."""
    head = "" if kind is None else f"kind: {kind}\n"
    write_durably(path, [f"{head}# settings: {_count(settings)}\n{as_yaml(settings)}".encode()])


def read_yaml(path: str | Path, *, example: str = "frames: 100000", as_text: bool = False) -> Layer:
    """Reads settings by name from a YAML file.

    Args:
        path: the file.
        example: a line such as it may hold, for the message about one that holds something else.
        as_text: leave every value as it is spelled: ``yes`` and ``007`` are names then, not true and 7.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        loader = yaml.BaseLoader if as_text else yaml.SafeLoader  # neither makes objects that run code
        content = yaml.load(_read(Path(path)).decode(), loader)
        if _values(content) > _MOST_VALUES:
            raise UserError(f"{path} must hold settings, and stands for more than {_MOST_VALUES:,} values")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path} is not valid YAML: it is nested too deeply") from None
    except ValueError as error:  # such as a date with a month 13
        raise error if isinstance(error, UserError) else UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings by name, such as `{example}`")
    return content


def check_complete(path: Path, settings: Layer, always: Sequence[str] = ()) -> None:
    """Checks that a run's file still holds all the settings that were written into it.

    Args:
        path: a file of :func:`write_settings`, or of an earlier version, which did not count the settings.
        settings: its settings, without the kind.
        always: the names at the top level that every version has written.

    Raises:
        UserError: some are missing.
    """
    text = read_file(path, _LARGEST)
    found, stated = _count(settings), _COUNT.search(text)
    missing = [name for name in always if name not in settings]
    if stated is not None and found < int(stated[1]):
        lacks = f"it holds {found} of its {int(stated[1])} settings"
    elif missing:
        lacks = f"it has no {missing[0]}"
    elif not text.endswith(b"\n"):
        lacks = "its last line is incomplete"
    else:
        return
    raise UserError(f"{path} is damaged: {lacks}; restore it from a backup, or start over with --fresh")


def _read(path: Path) -> bytes:
    """A file, or what another command writes into a pipe of the system's: ``--config <(...)``."""
    if path.is_fifo() and path.absolute().parts[1] in ("dev", "proc"):
        with open(path, "rb") as pipe:
            return pipe.read(_LARGEST)
    return read_file(path, _LARGEST)


def _count(settings: Any) -> int:
    """Settings in these sections, at any depth."""
    return sum(map(_count, settings.values())) if isinstance(settings, dict) and settings else 1


def _values(content: Any) -> int:
    """Values at any depth, with aliases written out; counted up to a limit, which is then exceeded."""
    open_parts, count = [content], 0
    while open_parts and count <= _MOST_VALUES:
        part = open_parts.pop()
        count += 1
        if isinstance(part, dict):
            open_parts += part.values()
        elif isinstance(part, (list, tuple, set)):
            open_parts += part
    return count
