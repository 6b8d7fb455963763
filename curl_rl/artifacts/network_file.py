"""A network as files: safetensors that describe themselves, and the same description as JSON; written, checked, read.

``<name>.safetensors`` alone is enough: its metadata hold the description under ``curl_rl``. ``<name>.json`` is the same
for people, and tells a mix-up. Neither can run code. Encoders, heads and classifiers leave a run in this form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_durably

METADATA = "curl_rl"
"""Key of the description in the metadata of safetensors, ONNX and torch.export files."""

# 1: the JSON alone held the description. 2: so do the safetensors, with a hash of the weights as `id`.
_FORMAT = 2

# A description has some hundred bytes; more than this is no description, and is not read into memory.
_LONGEST_DESCRIPTION = 2**20

M = TypeVar("M", bound=nn.Module)


# ---- writing


def save_network(network: nn.Module, directory: Path, name: str, description: Mapping[str, Any]) -> None:
    """Writes ``<name>.safetensors`` and ``<name>.json`` into ``directory``, each whole or not at all.

    Args:
        network: whose weights are saved.
        directory: where to; it must exist.
        name: of both files.
        description: what :func:`load_network` rebuilds the network from, and what people want to know; as JSON can
            hold it.

    Raises:
        ValueError: the description holds a number that is not finite, which no JSON can; nothing is written.
    """
    whole = file_description(network, description)
    write_durably(directory / f"{name}.safetensors", [as_safetensors(network, whole)])
    write_durably(directory / f"{name}.json", [(json.dumps(whole, indent=2) + "\n").encode()])


def file_description(network: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as a file holds it: with the format's number and the ``id`` of the weights.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    whole = {"format": _FORMAT, "id": weights_sha256(network.state_dict()), **description}
    # As it will be read: tuples are lists in JSON, and NaN is refused.
    return _from_json(json.dumps(whole))


def as_safetensors(network: nn.Module, description: Mapping[str, Any]) -> bytes:
    """Weights in float32, and the whole description of :func:`file_description`, as one file."""
    weights = {name: value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()}
    # Readers of other libraries look for the format "pt".
    return safetensors.torch.save(weights, {"format": "pt", METADATA: json.dumps(description, allow_nan=False)})


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, as hexadecimal digits, of names, shapes and float32 values, little-endian, in the order of the names.

    Of the weights and not of a file, so that a file that was written anew, with other provenance, is known again.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{list(weights[name].shape)}".encode())
        digest.update(weights[name].detach().cpu().float().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


# ---- reading


def network_files(path: Path | str, name: str, *other_names: str) -> tuple[Path, Path]:
    """The file of weights and that of the description that ``path`` stands for; the second need not be there.

    Args:
        path: a file of safetensors, the JSON of the same name beside it, or a directory that holds one.
        name: of the files in a directory, without their suffix.
        other_names: under which they may lie as well.

    Raises:
        UserError: there are none.
    """
    path = Path(path)
    if path.suffix == ".json" and path.is_file() and path.with_suffix(".safetensors").is_file():
        path = path.with_suffix(".safetensors")
    if path.suffix == ".safetensors":
        if not path.is_file():
            _missing(name, path)
        return path, path.with_suffix(".json")
    for stem in (name, *other_names):
        if (path / f"{stem}.safetensors").is_file():
            return path / f"{stem}.safetensors", path / f"{stem}.json"
    if path.is_file():
        raise UserError(f"{path} is no {name}: name the directory of a run, or an {name}.safetensors")
    _missing(name, path / f"{name}.safetensors")


def load_network(files: tuple[Path, Path], name: str, build: Callable[[dict[str, Any]], M]) -> tuple[M, dict[str, Any]]:
    """A network that :func:`save_network` wrote, and its description.

    Args:
        files: of weights and description: see :func:`network_files`.
        name: what kind of network it is, for messages.
        build: makes the network, with any weights, from the description. It is called twice, the first time for the
            shapes alone, without memory.

    Raises:
        UserError: a file is missing, damaged, of another network than the one beside it, or of a newer format.
    """
    weights_file, description_file = files
    try:
        description, weights = _read(weights_file, description_file, name, build)
        with torch.random.fork_rng(devices=[]):  # what the weights start from is nobody's business
            network = build(description)
        network.load_state_dict(weights)
        for part, value in (*network.named_parameters(), *network.named_buffers()):
            if not value.isfinite().all():
                raise ValueError(f"{part} holds numbers that are not finite")
    except UserError:
        raise
    except FileNotFoundError as error:
        _missing(name, Path(error.filename or weights_file))
    except (
        KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError, OSError, MemoryError,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise damaged(name, weights_file, error) from None
    return network, description


def damaged(name: str, weights_file: Path, error: Exception) -> UserError:
    """The one line that a file of this kind deserves when ``error`` came of what it holds."""
    place = weights_file.parent if weights_file.name == f"{name}.safetensors" else weights_file
    return UserError(f"the {name} in {place} is damaged ({_reason(error)})")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _missing(name: str, file: Path) -> NoReturn:
    raise UserError(f"no {name} in {file.parent}: {file.name} is missing") from None


def _read(
    weights_file: Path, description_file: Path, name: str, build: Callable[[dict[str, Any]], nn.Module]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights, after the file's own header has shown that it holds what is described, and no more."""
    beside = _beside(description_file) if description_file.is_file() else None
    with safetensors.safe_open(weights_file, "pt") as file:
        metadata = file.metadata() or {}
        description = _from_json(metadata[METADATA]) if METADATA in metadata else None
        _check_format(description, weights_file)
        if description is None:
            if beside is None:
                _missing(name, description_file)
            description = beside
        elif beside is not None and beside != description:
            different = sorted(part for part in {*beside, *description} if beside.get(part) != description.get(part))
            raise UserError(
                f"{weights_file} and {description_file.name} beside it are not of one {name}: they differ in "
                f"{', '.join(different)}; delete {description_file.name} to go by the former, which describes itself"
            )
        assert description is not None
        found = {part: (file.get_slice(part).get_dtype(), file.get_slice(part).get_shape()) for part in file.keys()}  # noqa: SIM118
        _check_header(description, found, build)
        weights = {part: file.get_tensor(part) for part in found}
    if "id" in description and description["id"] != weights_sha256(weights):
        raise UserError(f"{weights_file} has been changed: its weights have another hash than its id says")
    return description, weights


def _beside(path: Path) -> dict[str, Any]:
    """The description in a JSON file; it is named where it is damaged, since the safetensors may be sound."""
    try:
        description = _parsed(path)
        _check_format(description, path)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is damaged ({_reason(error)})") from None
    return description


def _parsed(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LONGEST_DESCRIPTION:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, which is too long for a description")
    return _from_json(path.read_text())


def _from_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number that a description holds")

    description = json.loads(text, parse_constant=refuse)
    if not isinstance(description, dict):
        raise TypeError(f"a description is a mapping, got a {type(description).__name__}")
    return description


def _check_format(description: dict[str, Any] | None, path: Path) -> None:
    if description is None:
        return
    number = description["format"]
    if type(number) is not int or number < 1:
        raise ValueError(f"format must be a whole number, 1 to {_FORMAT}, got {number!r}")
    if number > _FORMAT:
        raise UserError(f"{path} has format {number}, newer than {_FORMAT}: update curl_rl to read it")


def _check_header(
    description: dict[str, Any],
    found: dict[str, tuple[str, list[int]]],
    build: Callable[[dict[str, Any]], nn.Module],
) -> None:
    """Whether the tensors in a file are those of the described network, before memory is taken for either."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = {name: list(value.shape) for name, value in build(description).state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        dtype, shape = found.get(name, (None, None))
        if shape != wanted.get(name):
            raise ValueError(f"{name} is {shape or 'missing'} and should be {wanted.get(name, 'no part of it')}")
        if dtype != "F32":
            raise ValueError(f"{name} is of type {dtype} and should be F32")
