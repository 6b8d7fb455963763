"""The description of a recording, ``frames.json``: what was recorded, and the list of its shards."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import read_file, write_durably

DESCRIPTION = "frames.json"
_FORMAT = 1
_LONGEST = 2**26  # bytes: some 200,000 shards; a larger file is not read


@dataclass(frozen=True)
class Recording:
    """Description of a recording. A folder can be continued only with the same description."""

    env: str
    """Name of the environment."""
    size: int
    """Height and width of a frame, in pixels."""
    action_repeat: int
    """Environment steps from one frame to the next."""
    quality: str
    """Rendering quality of the frames: faithful or fast."""
    seed: int
    """Seed of episodes and actions."""
    policy: str
    """The policy that acted: random, or a run and how its policy was used."""
    state_names: tuple[str, ...]
    """Unique name of each number of the physical state, such as position/slider; empty if there is none."""
    action_size: int
    """Numbers in an action."""
    channels: int = 3
    """Channels of a frame."""
    camera: int | str | None = None
    """Number or name of the camera; None for the environment's usual one."""
    max_episode_steps: int | None = None
    """Environment steps after which episodes were truncated at the latest; None for the environment's own limit."""

    def __post_init__(self) -> None:
        doubled = [name for name, count in Counter(self.state_names).items() if count > 1]
        if doubled:
            raise UserError(f"state_names must be unique, got {doubled[0]} twice")


class Shard(NamedTuple):
    """An entry of the list in ``frames.json``."""

    name: str
    frames: int
    episodes: int
    pixels: str | None = None
    """SHA-256 of its frames; None in recordings of earlier versions, which have no checksums."""
    numbers: str | None = None
    """SHA-256 of its other tensors, in the order of ``_DTYPES``."""


def write_description(folder: Path, recording: Recording, shards: Sequence[Shard], *, cut: bool) -> None:
    """Writes ``frames.json``, atomically.

    Args:
        folder: the recording's folder.
        recording: what is recorded.
        shards: the shards that count, in order.
        cut: whether the last episode continues after its last frame.
    """
    description = {
        "format": _FORMAT,
        **dataclasses.asdict(recording),
        "frames": sum(shard.frames for shard in shards),
        "episodes": sum(shard.episodes for shard in shards),
        "cut": cut,
        "shards": [{name: value for name, value in shard._asdict().items() if value is not None} for shard in shards],
    }
    write_durably(folder / DESCRIPTION, [(json.dumps(description, indent=2) + "\n").encode()])


def read_description(folder: Path) -> tuple[Recording, list[Shard], bool]:
    """Reads ``frames.json``: the recording, its shards, and whether the last episode was cut.

    Raises:
        UserError: it is missing, damaged or of a newer format.
    """
    path = folder / DESCRIPTION
    try:
        content: Any = json.loads(read_file(path, _LONGEST))
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        remedy = "record some with scripts/record_frames.py"
        raise UserError(f"no recorded frames in {folder}: {DESCRIPTION} is missing; {remedy}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # invalid JSON or UTF-8
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    except RecursionError:
        raise UserError(f"{path} is damaged: its brackets are nested too deeply") from None
    try:
        if type(content["format"]) is not int or content["format"] < 1:
            raise UserError(
                f"{path} is damaged: its format must be a whole number from 1, got {content['format']!r:.40}"
            )
        if content["format"] > _FORMAT:
            raise UserError(
                f"{path} has format {content['format']}, but this version reads up to {_FORMAT}: update curl_rl"
            )
        content = {"camera": None, "max_episode_steps": None, **content}  # older recordings have no such fields
        fields = {field.name: content[field.name] for field in dataclasses.fields(Recording)}
        if not isinstance(fields["state_names"], list):
            raise UserError(f"{path} is damaged: state_names must be a list, got {fields['state_names']!r:.40}")
        names = fields["state_names"] = tuple(fields["state_names"])
        shards = [
            Shard(entry["name"], entry["frames"], entry["episodes"], entry.get("pixels"), entry.get("numbers"))
            for entry in content["shards"]
        ]
        counts = [content["frames"], content["episodes"], *(count for shard in shards for count in shard[1:3])]
        texts = [fields["env"], fields["quality"], fields["policy"], *names, *(shard.name for shard in shards)]
        numbers = [fields["size"], fields["action_repeat"], fields["channels"], fields["action_size"]]
        numbers += [fields["seed"], *counts]
        # Older recordings have no such field; recording a complete episode again does no harm.
        cut = content.get("cut", True)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: not a description of a recording ({one_line(error)})") from None
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise UserError(f"{path} is damaged: names must be strings and counts whole numbers")
    if fields["camera"] is not None and type(fields["camera"]) not in (int, str):
        raise UserError(f"{path} is damaged: camera must be a number, a name or null, got {fields['camera']!r:.40}")
    limit = fields["max_episode_steps"]
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"{path} is damaged: max_episode_steps must be null or at least 1, got {limit!r:.40}")
    if not isinstance(cut, bool):
        raise UserError(f"{path} is damaged: cut must be true or false, got {cut!r}")
    for shard in shards:
        if not re.fullmatch(r"frames-\d{5,}\.safetensors", shard.name):
            raise UserError(f"{path} is damaged: {shard.name!r} is not a shard name")
    totals = (sum(shard.frames for shard in shards), sum(shard.episodes for shard in shards))
    if totals != (content["frames"], content["episodes"]):
        raise UserError(
            f"{path} is damaged: its shards have {totals[0]} frames of {totals[1]} episodes in total, but it states "
            f"{content['frames']} of {content['episodes']}"
        )
    try:
        return Recording(**fields), shards, cut
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def differences(earlier: Recording, now: Recording) -> str:
    """The fields in which two recordings differ, with both values; empty if they do not."""
    fields = (field.name for field in dataclasses.fields(Recording))
    changed = [(name, getattr(earlier, name), getattr(now, name)) for name in fields]
    return "; ".join(f"{name}: {old} → {new}" for name, old, new in changed if old != new)
