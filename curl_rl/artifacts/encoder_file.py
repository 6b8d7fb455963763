"""Encoders as files, in the form of :mod:`~curl_rl.artifacts.network_file`: how one is described, saved and loaded."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from pathlib import Path
from typing import Any

import torch

from curl_rl.artifacts import network_file
from curl_rl.artifacts.network_file import damaged, described, load_network, network_files, save_network
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig

ENCODER = "encoder"
"""Name of an encoder's files in a run: ``encoder.safetensors``, ``encoder.json``."""
HUB_NAME = "model"
"""What the Hugging Face Hub calls the same files."""

# Of a frame or an image, in pixels: programs are tried out on images of that size before they are written.
_LARGEST_SIDE = 2**14


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

    Raises:
        ValueError: a PixelEncoder whose crop is no square, or is larger than ``rendered_size``.
    """
    _check_size(encoder, rendered_size)
    run = last_names(directory.resolve())
    save_network(encoder, directory, ENCODER, _description(encoder, rendered_size, {"run": run, **provenance}))


def last_names(path: Path | str) -> str:
    """The last three names of a path, for provenance: a file that is handed on need not tell whose disk it is from."""
    path = Path(path)
    return "/".join(path.relative_to(path.anchor).parts[-3:])


def describe(pretrained: PretrainedEncoder) -> dict[str, Any]:
    """What a file of this encoder says about it, as JSON can hold it."""
    own = _description(pretrained.encoder, pretrained.rendered_size, pretrained.provenance)
    return described(pretrained.encoder, own)


def as_safetensors(pretrained: PretrainedEncoder) -> bytes:
    """An encoder as one file that describes itself, for :func:`load_encoder`."""
    return network_file.as_safetensors(pretrained.encoder, describe(pretrained))


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
    files = network_files(path, ENCODER, HUB_NAME)
    encoder, description = load_network(files, ENCODER, described_encoder)
    try:
        rendered_size, provenance = description["rendered_size"], description["provenance"]
        _check_size(encoder, rendered_size)
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be a mapping, got a {type(provenance).__name__}")
    except (KeyError, ValueError) as error:
        raise damaged(ENCODER, files[0], error) from None
    return PretrainedEncoder(encoder, rendered_size, provenance, scale=scale, layout=layout, freeze=freeze)


def describe_encoder(encoder: PixelEncoder | ResNet) -> dict[str, Any]:
    """Kind and shape of an encoder and what its input must be, for JSON."""
    if isinstance(encoder, PixelEncoder):
        return {
            "kind": "pixel",
            "observation_shape": list(encoder.observation_shape),
            "flattening": "the last convolution's map row by row, channels innermost",
            "preprocessing": "crop to the middle; uint8 divided by 255, floating point as it is",
            "config": dataclasses.asdict(encoder.config),
        }
    # Split batch norm serves pretraining; whoever trains the network further has batches of another size.
    config = dataclasses.replace(encoder.config, batch_norm_splits=1)
    return {
        "kind": "resnet",
        "observation_shape": list(encoder.image_shape),
        "preprocessing": "uint8 divided by 255, floating point as it is; then less config.mean, over config.std",
        "config": dataclasses.asdict(config),
    }


def described_encoder(description: dict[str, Any]) -> PixelEncoder | ResNet:
    """An encoder of the kind and shape that :func:`describe_encoder` gave; one that names no kind is a PixelEncoder."""
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


def _check_size(encoder: PixelEncoder | ResNet, rendered_size: int) -> None:
    """Whether the encoder's crops can have been cut from frames of that side."""
    if not isinstance(encoder, PixelEncoder):
        least = 1
    else:
        least, width = encoder.observation_shape[1:]
        if least != width:
            raise ValueError(f"observation_shape {list(encoder.observation_shape)} must be square: (C, side, side)")
    if type(rendered_size) is not int or not least <= rendered_size <= _LARGEST_SIDE:
        raise ValueError(f"rendered_size must be a side from {least} to {_LARGEST_SIDE}, got {rendered_size!r}")


def _description(encoder: PixelEncoder | ResNet, rendered_size: int, provenance: dict[str, Any]) -> dict[str, Any]:
    software = {**_software(), **provenance}
    return {**describe_encoder(encoder), "rendered_size": rendered_size, "provenance": software}


@functools.lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    """Versions of what trains here, and the git revision of this code, if it is known."""
    import curl_rl  # which imports this file, before it has a version

    versions = {"curl_rl": curl_rl.__version__, "torch": torch.__version__}
    clone = Path(__file__).resolve().parents[2]
    if not (clone / ".git").exists():  # an installed package may lie in somebody else's repository
        return versions
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return versions
    return {**versions, "revision": answer.stdout.strip()}
