"""Network files: self-describing safetensors, and the same description as JSON; writing, checking and reading them.

``<name>.safetensors`` alone is sufficient: its metadata hold the description under ``curl_rl``. ``<name>.json`` is a
readable copy, which also reveals mixed-up files. Neither can run code. Encoders, heads and classifiers are exported
from a run in this format.
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

from curl_rl.artifacts.wrong_file import instead, refuse_another
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_regular, read_file, write_durably

METADATA = "curl_rl"
"""Key of the description in the metadata of safetensors, ONNX and torch.export files."""

# 1: the JSON alone held the description. 2: so do the safetensors, with a hash of the weights as `id`.
_FORMAT = 2

# A description has a few hundred bytes; a larger file is not a description and is not read into memory.
_LONGEST_DESCRIPTION = 2**20

M = TypeVar("M", bound=nn.Module)


# ---- writing


def save_network(network: nn.Module, directory: Path, name: str, description: Mapping[str, Any]) -> None:
    """Writes ``<name>.safetensors`` and ``<name>.json`` into ``directory``, each atomically.

    Args:
        network: the network whose weights are saved.
        directory: an existing directory.
        name: the name of both files, without suffix.
        description: the data from which :func:`load_network` rebuilds the network, and facts for readers;
            JSON-serializable.

    Raises:
        ValueError: the description holds a non-finite number, which JSON cannot represent; nothing is written.
    """
    whole = file_description(network, description)
    write_durably(directory / f"{name}.safetensors", [as_safetensors(network, whole)])
    write_durably(directory / f"{name}.json", [(json.dumps(whole, indent=2) + "\n").encode()])


def file_description(network: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as stored in a file: with the format number and the ``id`` of the weights.

    Raises:
        ValueError: the description holds a non-finite number.
    """
    whole = {"format": _FORMAT, "id": weights_sha256(network.state_dict()), **description}
    # The description as it will be read: JSON turns tuples into lists, and NaN is refused.
    return _from_json(json.dumps(whole))


def as_safetensors(network: nn.Module, description: Mapping[str, Any]) -> bytes:
    """The content of one safetensors file: weights in float32 and the description from :func:`file_description`."""
    weights = {name: value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()}
    # Other libraries look for the format "pt".
    return safetensors.torch.save(weights, {"format": "pt", METADATA: json.dumps(description, allow_nan=False)})


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, as hexadecimal digits, of names, shapes and little-endian float32 values, sorted by name.

    Hashes the weights, not a file, so that weights rewritten with another provenance are still recognized.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{list(weights[name].shape)}".encode())
        digest.update(weights[name].detach().cpu().float().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


# ---- reading


def network_files(path: Path | str, name: str, *other_names: str) -> tuple[Path, Path]:
    """Returns the weights file and the description file that ``path`` refers to; the second may not exist.

    Args:
        path: a safetensors file, the JSON file of the same name next to it, or a directory that holds them.
        name: name of the files in a directory, without suffix.
        other_names: alternative names.

    Raises:
        UserError: there is no weights file.
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
        raise UserError(f"{path} is not a safetensors file: name a run's directory or its {name}.safetensors")
    _missing(name, path / f"{name}.safetensors")


def load_network(files: tuple[Path, Path], name: str, build: Callable[[dict[str, Any]], M]) -> tuple[M, dict[str, Any]]:
    """Loads a network written by :func:`save_network`, and its description.

    Args:
        files: weights file and description file, from :func:`network_files`.
        name: the kind of network, for messages.
        build: builds the network, with arbitrary weights, from the description. It is called twice, first on the meta
            device to get the shapes.

    Raises:
        UserError: a file is missing, damaged or of a newer format, or the two files are of different networks.
    """
    weights_file, description_file = files
    try:
        description, weights = _read(weights_file, description_file, name, build)
        with torch.random.fork_rng(devices=[]):  # initial weights must not consume the caller's random numbers
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
    """One-line error for a file whose contents raised ``error``."""
    place = weights_file.parent if weights_file.name == f"{name}.safetensors" else weights_file
    return UserError(f"the {name} in {place} is damaged ({_reason(error)})")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _missing(name: str, file: Path) -> NoReturn:
    raise UserError(f"no {name} in {file.parent}: {file.name} is missing{instead(name, file.parent)}") from None


def _read(
    weights_file: Path, description_file: Path, name: str, build: Callable[[dict[str, Any]], nn.Module]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads description and weights, after checking that the file's header matches the description exactly."""
    beside = _beside(description_file) if description_file.is_file() else None
    open_regular(weights_file).close()  # safetensors would wait for the other end of a pipe
    with safetensors.safe_open(weights_file, "pt") as file:
        metadata = file.metadata() or {}
        description = _from_json(metadata[METADATA]) if METADATA in metadata else None
        _check_format(description, weights_file)
        if description is None:
            if beside is None:
                _missing(name, description_file)
            description = beside
        elif beside is not None and beside != description and not _of_one_run(beside, description):
            different = sorted(part for part in {*beside, *description} if beside.get(part) != description.get(part))
            raise UserError(
                f"{weights_file} and the {description_file.name} next to it are not of the same {name}: they differ in "
                f"{', '.join(different)}; delete {description_file.name} to load the weights, which describe themselves"
            )
        assert description is not None
        refuse_another(description, name, weights_file)
        found = {part: (file.get_slice(part).get_dtype(), file.get_slice(part).get_shape()) for part in file.keys()}  # noqa: SIM118
        _check_header(description, found, build)
        weights = {part: file.get_tensor(part) for part in found}
    if "id" in description and description["id"] != weights_sha256(weights):
        raise UserError(f"{weights_file} has been changed: the hash of its weights does not match its id")
    return description, weights


def _of_one_run(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two descriptions are of one network at two moments of its training.

    A run replaces its two files one after the other. In between, or after a kill in between, they are of two moments;
    the safetensors, which describe themselves, are then the newer ones, and sound.
    """

    def constant(description: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in description.items() if name not in ("id", "provenance")}

    def run(description: dict[str, Any]) -> Any:
        provenance = description.get("provenance", {})
        return provenance.get("run") if isinstance(provenance, dict) else None

    return constant(one) == constant(other) and run(one) == run(other)


def _beside(path: Path) -> dict[str, Any]:
    """Reads the description in a JSON file; errors name that file, since the safetensors may be intact."""
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
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, too many for a description")
    return _from_json(read_file(path, _LONGEST_DESCRIPTION).decode())


def _from_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"a description must hold finite numbers, got {constant}")

    description = json.loads(text, parse_constant=refuse)
    if not isinstance(description, dict):
        raise TypeError(f"a description must be a mapping, got a {type(description).__name__}")
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
    """Checks that the tensors in a file are those of the described network, before allocating memory for either."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = {name: list(value.shape) for name, value in build(description).state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        dtype, shape = found.get(name, (None, None))
        if shape != wanted.get(name):
            raise ValueError(f"{name} must be {wanted.get(name, 'absent')}, got {shape or 'nothing'}")
        if dtype != "F32":
            raise ValueError(f"{name} must be of type F32, got {dtype}")
