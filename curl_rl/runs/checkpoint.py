"""Checkpoints: the state a run resumes from, saved atomically and loaded without running code.

A checkpoint is one file `<frames, ten digits>.ckpt`. It is written under a temporary name, synced, and renamed, so a
file with that ending is complete unless it was damaged later; a digest detects damage. Large data that only grows (the
replay's segments) is stored next to it in `segments/`, in files shared by several checkpoints. Each checkpoint lists
the files it needs, its *attachments*; an attachment that no kept checkpoint lists is deleted.

File layout, integers little-endian: magic (8 bytes), format version (4), length of the attachments' JSON (4), length
of the payload (8), SHA-256 of the payload (32), SHA-256 of all preceding fields and the JSON (32), the JSON (a list of
file names), the payload (written by `torch.save`). Everything before the payload has this layout in every format
version.

Why not safetensors and JSON: a state nests dicts, lists and tuples with integer keys at any depth (optimizers, episodes
in progress), its digest is computed while the payload streams to disk, and checkpoints share segments.

Only one process at a time may save into a directory: hold `lock.lock_run` on the run while training.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from curl_rl.runs.console import printable
from curl_rl.runs.errors import one_line
from curl_rl.runs.files import PARTIAL, delete_file, open_regular, own_folder, sync_directory

__all__ = ["SEGMENTS", "load_newest", "save"]

SEGMENTS = "segments"
"""Folder inside a checkpoint directory that holds the attachments."""

_MAGIC = b"CURLRLCK"
_VERSION = 2  # 1: one environment only, as progress.episode and the like
_FIELDS = struct.Struct("<8sIIQ32s")
_DIGEST_BYTES = 32
_PREFIX_BYTES = _FIELDS.size + _DIGEST_BYTES
_NAME = re.compile(r"\d{10}\.ckpt")
_DAMAGED = ".damaged"
# The names of the replay's segments, and of files that a killed process has left half-written.
_ATTACHMENT = re.compile(rf"segment-[\w-]+(\.safetensors)?|[^/]+{re.escape(PARTIAL)}")
# A running process replaces checkpoints while another one reads: how often the reader looks again.
_LOOKS = 20


class _UnusableError(Exception):
    """A checkpoint cannot be used; the message completes a sentence that begins with the file's name."""


class _NewerFormatError(ValueError):
    """A newer curl_rl wrote the checkpoint. It is not damaged, so an older one must not silently replace it."""


def save(
    directory: Path, frames: int, state: dict[str, Any], *, attachments: Sequence[str] = (), keep: int = 2
) -> Path:
    """Writes a checkpoint, then deletes the files it supersedes.

    If the write is interrupted (a kill, a full disk, a power cut), every earlier checkpoint stays usable: older ones,
    and the attachments that only they list, are deleted after the new file is safely in place.

    Args:
        directory: the checkpoint directory; created if missing.
        frames: environment frames trained so far; must not be lower than the count of any checkpoint in `directory`.
        state: nested dicts (keys: str or int), lists and tuples of dense tensors, ints, floats, bools, strings
            and None. A tensor that is a slice of a larger one is saved without the rest.
        attachments: names of the files in `directory/segments` that this checkpoint needs, already synced to disk.
        keep: number of intact checkpoints to keep, including this one.

    Returns:
        The path of the new checkpoint.

    Raises:
        ValueError: `state` holds a value that cannot be saved (the message names its place), an attachment is missing,
            or the directory holds a later checkpoint.
        OSError: the file could not be written; on a full disk the message states the space needed and the space free.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
    if not 0 <= frames < 10**10:
        raise ValueError(f"frames must be from 0 to {10**10 - 1}, got {frames}")
    directory = Path(directory)
    later = [path.name for path in _newest_first(directory) if int(path.stem) > frames]
    if later:
        raise ValueError(
            f"frames={frames}: {directory} already holds the later {later[0]}; resume from it or save elsewhere"
        )
    for name in attachments:
        if Path(name).name != name or not (directory / SEGMENTS / name).is_file():
            raise ValueError(f"attachments: {name!r} is not a file in {directory / SEGMENTS}")
    if not isinstance(state, dict):
        raise ValueError(f"state must be a dict, got a {type(state).__name__}")
    plain = _plain(state, "state")

    path = directory / f"{frames:010d}.ckpt"
    partial = path.with_name(path.name + PARTIAL)
    try:
        own_folder(directory.parent, directory.name)
        # Only one process saves here, so a partial file was left by a killed process, and its space may be needed.
        for stale in directory.glob(f"*.ckpt{PARTIAL}"):
            delete_file(stale)
        with open(partial, "xb") as file:
            _write(file, plain, attachments)
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, _why_not_written(path, plain, error)) from error
        raise
    sync_directory(directory)
    _prune(directory, keep)
    return path


def load_newest(
    directory: Path,
    *,
    usable: Callable[[dict[str, Any]], None] | None = None,
    read_only: bool = False,
    incomplete: bool = False,
) -> tuple[Path, dict[str, Any]] | None:
    """Loads the newest intact checkpoint.

    A damaged checkpoint is skipped with a warning that names it and its replacement, and is renamed to
    `<name>.damaged`, so that `save` does not count it among the checkpoints to keep.

    A run in progress may delete a checkpoint, or its attachments, while another process reads it: it has a newer one
    by then, which is loaded instead.

    Args:
        directory: the checkpoint directory; need not exist.
        usable: called with the state; raises ValueError or OSError if the state cannot be used (for example, a replay
            segment is damaged), in which case the previous checkpoint is tried.
        read_only: rename nothing; for a process that does not hold the run's lock.
        incomplete: accept a checkpoint without its attachments.

    Returns:
        The path and the state, its tensors on the CPU; None if the directory holds no checkpoint.

    Raises:
        ValueError: none of the checkpoints can be used, or one has a newer format version.
    """
    directory = Path(directory)
    if not read_only and directory.exists():
        own_folder(directory.parent, directory.name)  # damaged files are renamed in it
    for _ in range(_LOOKS):
        found, rejected = _first_usable(directory, usable, incomplete)
        if all(os.path.lexists(path) for path, _ in rejected):
            break
    if found is not None:
        for damaged, reason in rejected:
            text = f"{damaged} {reason}; using {found[0].name} instead"
            warnings.warn(printable(text), RuntimeWarning, stacklevel=2)
            if not read_only:
                os.replace(damaged, damaged.with_name(damaged.name + _DAMAGED))
        return found
    if rejected:
        newest, reason = rejected[0]
        raise ValueError(
            f"none of the {len(rejected)} checkpoints in {directory} can be used: {newest.name} {reason}; "
            "restore one from a backup, or delete them to start over"
        )
    aside = sorted(directory.glob(f"*.ckpt{_DAMAGED}"))
    if aside:
        raise ValueError(
            f"{directory} holds only checkpoints set aside as damaged ({aside[-1].name}); "
            "restore one from a backup, or delete them to start over"
        )
    return None


# ---- writing


class _HashingWriter:
    """Hashes data while writing it, so that the payload is never copied in memory.

    `torch.save` replaces an OSError from `write` with its own error about positions. The first OSError is therefore
    stored in `error` for the caller to raise, and later data is discarded.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.count = 0
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            else:
                self.digest.update(data)
                self.count += len(data)
        return len(data)

    def flush(self) -> None:
        """Does nothing: `torch.save` requires the method, and the caller flushes."""


def _write(file: BinaryIO, state: dict[str, Any], attachments: Sequence[str]) -> None:
    names = json.dumps(list(attachments)).encode()
    file.seek(_PREFIX_BYTES + len(names))
    writer = _HashingWriter(file)
    torch.save(state, writer)  # type: ignore[arg-type]  # needs only write() and flush()
    if writer.error is not None:
        raise writer.error
    fields = _FIELDS.pack(_MAGIC, _VERSION, len(names), writer.count, writer.digest.digest())
    file.seek(0)
    file.write(fields + hashlib.sha256(fields + names).digest() + names)
    file.flush()


def _plain(value: Any, place: str) -> Any:
    """Copies the containers, but not the tensors' data, into types that `torch.load(weights_only=True)` accepts.

    Types are compared exactly: isinstance takes a numpy float64 for a float, but `torch.load` refuses its class.
    """
    kind = type(value)
    if kind in (int, float, bool, str) or value is None:
        return value
    if kind in (Tensor, nn.Parameter) and value.layout is torch.strided:
        tensor = value.detach()
        # torch.save writes a tensor's whole storage: a slice of the replay would save the entire replay.
        whole = tensor.untyped_storage().nbytes() <= tensor.numel() * tensor.element_size()
        return tensor if whole else tensor.clone()
    if kind in (list, tuple):
        return kind(_plain(item, f"{place}[{i}]") for i, item in enumerate(value))
    if kind in (dict, OrderedDict):
        for key in value:
            if type(key) not in (str, int):
                raise ValueError(f"{place} has the key {key!r}, a {type(key).__name__}: keys must be str or int")
        copy: Any = kind((key, _plain(item, f"{place}[{json.dumps(key)}]")) for key, item in value.items())
        if hasattr(value, "_metadata"):  # module versions, set by nn.Module.state_dict()
            copy._metadata = _plain(value._metadata, f"{place}._metadata")
        return copy
    raise ValueError(
        f"{place} is a {kind.__name__}: a checkpoint holds dicts, lists and tuples of "
        "dense tensors, ints, floats, bools, strings and None"
    )


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_tensor_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_tensor_bytes, value))
    return 0


def _why_not_written(path: Path, state: dict[str, Any], error: OSError) -> str:
    reason = f"checkpoint {path} was not written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason += f": it needs about {_tensor_bytes(state) / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
    return f"{reason}; earlier checkpoints are intact"


# ---- reading


def _first_usable(
    directory: Path, usable: Callable[[dict[str, Any]], None] | None, incomplete: bool
) -> tuple[tuple[Path, dict[str, Any]] | None, list[tuple[Path, str]]]:
    """The newest usable checkpoint, as :func:`load_newest` returns it, and those before it with the reasons."""
    rejected: list[tuple[Path, str]] = []
    for path in _newest_first(directory):
        try:
            state = _load(path, incomplete)
            if usable is not None:
                usable(state)
        except _NewerFormatError:
            raise
        except _UnusableError as error:
            rejected.append((path, str(error)))
        except (ValueError, OSError) as error:
            rejected.append((path, f"cannot be used ({one_line(error)})"))
        else:
            return (path, state), rejected
    return None, rejected


def _newest_first(directory: Path) -> list[Path]:
    return sorted((path for path in directory.glob("*.ckpt") if _NAME.fullmatch(path.name)), reverse=True)


def _read_header(file: BinaryIO, path: Path, incomplete: bool = False) -> tuple[list[str], bytes]:
    """Returns the attachments' names and the payload's digest; leaves `file` at the payload's first byte.

    Raises:
        _UnusableError: the header is damaged, the file's length does not match it, or an attachment is missing and the
            checkpoint may not be `incomplete`.
        _NewerFormatError: a newer version wrote the file.
    """
    prefix = file.read(_PREFIX_BYTES)
    if len(prefix) < _PREFIX_BYTES:
        raise _UnusableError(f"is damaged (only {len(prefix)} bytes long)")
    fields, digest = prefix[: _FIELDS.size], prefix[_FIELDS.size :]
    magic, version, names_bytes, payload_bytes, payload_digest = _FIELDS.unpack(fields)
    if magic != _MAGIC:
        raise _UnusableError("is damaged or not a checkpoint (it does not begin with the magic bytes)")
    size = os.fstat(file.fileno()).st_size
    names = file.read(min(names_bytes, size))  # a damaged length must not allocate gigabytes
    if hashlib.sha256(fields + names).digest() != digest:
        raise _UnusableError("is damaged (its header does not match its digest)")
    if version > _VERSION:
        raise _NewerFormatError(
            f"{path} has checkpoint format {version}, this curl_rl reads format {_VERSION}: update curl_rl to resume"
        )
    expected = _PREFIX_BYTES + names_bytes + payload_bytes
    if size != expected:
        raise _UnusableError(f"is damaged ({size} bytes long instead of {expected})")
    try:
        attachments = json.loads(names)
    except (ValueError, RecursionError):
        attachments = None
    listed = isinstance(attachments, list) and all(isinstance(name, str) for name in attachments)
    if not listed or any(Path(name).name != name for name in attachments):
        raise _UnusableError("is damaged (its header does not list names of files)")
    for name in attachments:
        if not incomplete and not (path.parent / SEGMENTS / name).is_file():
            raise _UnusableError(f"cannot be used (its file {SEGMENTS}/{name} is missing)")
    return attachments, payload_digest


def _load(path: Path, incomplete: bool) -> dict[str, Any]:
    """Returns the state of one checkpoint.

    Raises:
        _UnusableError: as `_read_header`; or the payload is damaged or holds something that `save` never writes.
        _NewerFormatError: as `_read_header`.
        ValueError: it is not a regular file.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        _, digest = _read_header(file, path, incomplete)
        # Loaded from the same bytes that were hashed: the file on disk might change in between.
        payload = file.read()
    if hashlib.sha256(payload).digest() != digest:
        raise _UnusableError("is damaged (its content does not match its digest)")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what torch.load raises on foreign bytes is not documented
        raise _UnusableError(f"cannot be used (not tensors and numbers: {type(error).__name__})") from error
    if not isinstance(state, dict):
        raise _UnusableError(f"cannot be used (holds a {type(state).__name__} instead of a dict)")
    return state


# ---- deleting


def _prune(directory: Path, keep: int) -> None:
    """Deletes all but the newest `keep` intact checkpoints, and the attachments that none of these lists.

    A file in `segments/` that no deleted checkpoint lists, and that is not named like an attachment, is not ours.
    """
    needed: set[str] = set()
    listed: set[str] = set()
    whole = 0
    superfluous: list[Path] = []
    for path in _newest_first(directory):
        superseded = whole == keep
        with contextlib.suppress(_UnusableError, ValueError, OSError), open_regular(path) as file:
            attachments, _ = _read_header(file, path, incomplete=superseded)
            if superseded:
                listed.update(attachments)
            else:
                needed.update(attachments)
                whole += 1
        if superseded:
            superfluous.append(path)
    # Checkpoints before segments: a kill in between leaves no checkpoint without a file that it lists.
    for path in superfluous:
        delete_file(path)
    segments = directory / SEGMENTS
    if segments.is_dir() and not segments.is_symlink():
        for path in segments.iterdir():
            if path.name not in needed and (path.name in listed or _ATTACHMENT.fullmatch(path.name)):
                delete_file(path)
