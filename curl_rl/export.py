"""An encoder as files: safetensors that describe themselves and the same description as JSON, written and checked.

``encoder.safetensors`` alone is enough: its metadata hold the description under ``curl_rl``. ``encoder.json`` is the
same for people, and tells a mix-up. Neither can run code.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from curl_rl.durable import write_durably
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.errors import UserError
from curl_rl.pretrained import Layout, PretrainedEncoder
from curl_rl.resnet import ResNet, ResNetConfig

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"
HUB_WEIGHTS = "model.safetensors"
"""What the Hugging Face Hub calls the same file."""
METADATA = "curl_rl"
"""Key of the description in the metadata of safetensors, ONNX and torch.export files."""

# 1: encoder.json alone held the description. 2: so do the safetensors, with a hash of the weights as `id`.
_FORMAT = 2

# A description has some hundred bytes; more than this is no description, and is not read into memory.
_LONGEST_DESCRIPTION = 2**20


def save_encoder(
    encoder: PixelEncoder | ResNet, directory: Path, *, rendered_size: int, provenance: dict[str, Any]
) -> None:
    """Writes ``encoder.safetensors`` and ``encoder.json`` into ``directory``, each whole or not at all.

    Args:
        encoder: what to save.
        directory: where to.
        rendered_size: side of the frames or images that the encoder's crops were cut from in training.
        provenance: what the encoder was trained on, as JSON can hold it. Versions of curl_rl and torch and, in a git
            clone, the ``revision`` of the code are added, unless they are there already, and as ``run`` the last
            three names of the directory.
    """
    # Not all of the path: a file that is handed on need not tell whose home it comes from.
    run = "/".join(directory.resolve().parts[-3:])
    description, weights = _described_weights(encoder, rendered_size, {"run": run, **provenance})
    write_durably(directory / WEIGHTS, [_as_safetensors(description, weights)])
    write_durably(directory / DESCRIPTION, [(json.dumps(description, indent=2) + "\n").encode()])


def describe(pretrained: PretrainedEncoder) -> dict[str, Any]:
    """What a file of this encoder says about it, as JSON can hold it."""
    return _described_weights(pretrained.encoder, pretrained.rendered_size, pretrained.provenance)[0]


def as_safetensors(pretrained: PretrainedEncoder) -> bytes:
    """An encoder as one file that describes itself, for :func:`load_encoder`."""
    return _as_safetensors(*_described_weights(pretrained.encoder, pretrained.rendered_size, pretrained.provenance))


def load_encoder(
    path: Path | str, *, freeze: bool = True, scale: float = 1.0, layout: Layout = "auto"
) -> PretrainedEncoder:
    """The encoder of a run, ready to use on what an environment gives.

    Args:
        path: a run's directory, or an ``encoder.safetensors``, under that or another name. A directory may also be one
            for the Hugging Face Hub, with a ``model.safetensors``.
        freeze: no gradients, and evaluation mode for good; False to train it further.
        scale: factor on floating-point observations: 1 where they lie in [0, 1], 1/255 where they lie in [0, 255].
            uint8 is always divided by 255.
        layout: order of an observation's dimensions, where its shape alone does not tell
            (:class:`~curl_rl.PretrainedEncoder`).

    Raises:
        UserError: a file is missing, damaged, of another encoder than the one beside it, or of a newer format.
        ValueError: scale or layout cannot be.
    """
    weights_file, description_file = _files(Path(path))
    try:
        description, weights = _read(weights_file, description_file)
        encoder = _rebuilt(description, weights)
        rendered_size, provenance = description["rendered_size"], description["provenance"]
        if type(rendered_size) is not int or rendered_size < 1 or not isinstance(provenance, dict):
            raise ValueError(f"rendered_size {rendered_size!r} and provenance must be a size and a mapping")
    except UserError:
        raise
    except FileNotFoundError as error:
        _missing(weights_file.parent, Path(error.filename or weights_file).name)
    except (
        KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError, OSError, MemoryError,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        cause = " ".join(str(error).split())[:200]
        place = weights_file.parent if weights_file.name in (WEIGHTS, HUB_WEIGHTS) else weights_file
        raise UserError(f"the encoder in {place} is damaged ({type(error).__name__}: {cause})") from None
    return PretrainedEncoder(encoder, rendered_size, provenance, scale=scale, layout=layout, freeze=freeze)


def _missing(directory: Path, name: str) -> NoReturn:
    raise UserError(f"no encoder in {directory}: {name} is missing") from None


def _files(path: Path) -> tuple[Path, Path]:
    """Weights and description that ``path`` stands for; the description need not be there."""
    if path.suffix == ".safetensors":
        if not path.is_file():
            _missing(path.parent, path.name)
        return path, path.with_suffix(".json")
    if not (path / WEIGHTS).is_file() and (path / HUB_WEIGHTS).is_file():
        return path / HUB_WEIGHTS, path / "model.json"
    if not (path / WEIGHTS).is_file():
        _missing(path, WEIGHTS)
    return path / WEIGHTS, path / DESCRIPTION


# ---- writing


def _described_weights(
    encoder: PixelEncoder | ResNet, rendered_size: int, provenance: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(encoder, PixelEncoder):
        kind: dict[str, Any] = {
            "kind": "pixel",
            "observation_shape": list(encoder.observation_shape),
            "flattening": "the last convolution's map row by row, channels innermost",
            "preprocessing": "crop to the middle; uint8 divided by 255, floating point as it is",
        }
        config: Any = encoder.config
    else:
        # Split batch norm serves pretraining; whoever trains the network further has batches of another size.
        config = dataclasses.replace(encoder.config, batch_norm_splits=1)
        kind = {
            "kind": "resnet",
            "observation_shape": list(encoder.image_shape),
            "preprocessing": "uint8 divided by 255, floating point as it is; then less config.mean, over config.std",
        }
    weights = {name: value.detach().cpu().float().contiguous() for name, value in encoder.state_dict().items()}
    description = {
        "format": _FORMAT,
        "id": weights_sha256(weights),
        **kind,
        "rendered_size": rendered_size,
        "config": dataclasses.asdict(config),
        "provenance": {**_software(), **provenance},
    }
    # As it will be read: tuples are lists in JSON.
    return json.loads(json.dumps(description)), weights


def _as_safetensors(description: dict[str, Any], weights: dict[str, Tensor]) -> bytes:
    # Readers of other libraries look for the format "pt".
    return safetensors.torch.save(weights, {"format": "pt", METADATA: json.dumps(description)})


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, as hexadecimal digits, of names, shapes and float32 values, little-endian, in the order of the names.

    Of the weights and not of a file, so that a file that was written anew, with other provenance, is known again.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{list(weights[name].shape)}".encode())
        digest.update(weights[name].detach().cpu().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    """Versions of what trains here, and the git revision of this code, if it is known."""
    import curl_rl  # which imports this file, before it has a version

    versions = {"curl_rl": curl_rl.__version__, "torch": torch.__version__}
    clone = Path(__file__).resolve().parent.parent
    if not (clone / ".git").exists():  # an installed package may lie in somebody else's repository
        return versions
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return versions
    return {**versions, "revision": answer.stdout.strip()}


# ---- reading


def _read(weights_file: Path, description_file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights, after the file's own header has shown that it holds what is described, and no more."""
    beside = _parsed(description_file) if description_file.is_file() else None
    _check_format(beside, description_file)
    with safetensors.safe_open(weights_file, "pt") as file:
        metadata = file.metadata() or {}
        description = _from_json(metadata[METADATA]) if METADATA in metadata else None
        _check_format(description, weights_file)
        if description is None:
            if beside is None:
                _missing(weights_file.parent, description_file.name)
            description = beside
        elif beside is not None and beside != description:
            different = sorted(name for name in {*beside, *description} if beside.get(name) != description.get(name))
            raise UserError(
                f"{weights_file} and {description_file.name} beside it are not of one encoder: they differ in "
                f"{', '.join(different)}; delete {description_file.name} to go by the former, which describes itself"
            )
        assert description is not None
        found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_header(description, found)
        weights = {name: file.get_tensor(name) for name in found}
    if "id" in description and description["id"] != weights_sha256(weights):
        raise UserError(f"{weights_file} has been changed: its weights have another hash than its id says")
    return description, weights


def _parsed(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LONGEST_DESCRIPTION:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, which is no description of an encoder")
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


def _check_header(description: dict[str, Any], found: dict[str, tuple[str, list[int]]]) -> None:
    """Whether the tensors in a file are those of the described encoder, before memory is taken for either."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = {name: list(value.shape) for name, value in _described(description).state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        dtype, shape = found.get(name, (None, None))
        if shape != wanted.get(name):
            raise ValueError(f"{name} is {shape or 'missing'} and should be {wanted.get(name, 'no part of it')}")
        if dtype != "F32":
            raise ValueError(f"{name} is of type {dtype} and should be F32")


def _rebuilt(description: dict[str, Any], weights: dict[str, Tensor]) -> PixelEncoder | ResNet:
    with torch.random.fork_rng(devices=[]):  # what the weights start from is nobody's business
        encoder = _described(description)
    encoder.load_state_dict(weights)
    for name, value in (*encoder.named_parameters(), *encoder.named_buffers()):
        if not value.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return encoder


def _described(description: dict[str, Any]) -> PixelEncoder | ResNet:
    """An encoder of the kind and shape that a description names; one that names no kind is a PixelEncoder."""
    shape, fields = tuple(description["observation_shape"]), description["config"]
    if len(shape) != 3 or any(type(side) is not int for side in shape) or min(shape) < 1:
        raise ValueError(f"observation_shape must be three positive integers (C, H, W), got {list(shape)}")
    kind = description.get("kind", "pixel")
    if kind == "pixel":
        return PixelEncoder(shape, EncoderConfig(fields["filters"], tuple(fields["strides"]), fields["latent"]))
    if kind == "resnet":
        # JSON has lists where the configuration has tuples.
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        config: Any = ResNetConfig
        return ResNet(shape, config(**values))
    raise ValueError(f"there is no encoder of the kind {kind!r}")
