"""Encoder files in the format of :mod:`~curl_rl.artifacts.network_file`: describing, saving and loading them."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import torch

from curl_rl.artifacts import network_file
from curl_rl.artifacts.network_file import damaged, file_description, load_network, network_files, save_network
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.encoders import Encoder, TextEncoder, TwoTowerTextEncoder, build_encoder
from curl_rl.encoders.kinds import require_registered
from curl_rl.runs.errors import UserError

ENCODER = "encoder"
"""Name of an encoder's files in a run: ``encoder.safetensors``, ``encoder.json``."""
TEXT_ENCODER = "text_encoder"
"""Name of the files of the text encoder in a run that trains one beside an encoder of images."""
HUB_NAME = "model"
"""Name of the same files on the Hugging Face Hub."""

# Side of a frame or image, in pixels: programs are tested on images of the rendered size before they are written.
_LARGEST_SIDE = 2**14


class OfTexts(UserError):
    """A file holds an encoder of texts where one of images is wanted."""


def save_encoder(
    encoder: Encoder, directory: Path, *, rendered_size: int, provenance: dict[str, Any], name: str = ENCODER
) -> None:
    """Writes ``encoder.safetensors`` and ``encoder.json`` into ``directory``, each atomically.

    Args:
        encoder: the encoder to save.
        directory: an existing directory.
        rendered_size: side of the frames or images from which the encoder's training crops were cut; of texts, the
            largest number of tokens.
        provenance: what the encoder was trained on, JSON-serializable. Unless present already, the versions of curl_rl
            and torch, the ``revision`` of the code (in a git clone) and the last three names of the directory, as
            ``run``, are added.
        name: the name of both files, without suffix.

    Raises:
        ValueError: the encoder has a fixed input size that is not square or larger than ``rendered_size``, or its class
            cannot be loaded from a file.
    """
    check_size(require_registered(encoder), rendered_size)
    run = last_names(directory.resolve())
    save_network(encoder, directory, name, _description(encoder, rendered_size, {"run": run, **provenance}))


def last_names(path: Path | str) -> str:
    """The last three names of a path, for provenance: a shared file should not reveal its author's full path."""
    path = Path(path)
    return "/".join(path.relative_to(path.anchor).parts[-3:])


def describe(pretrained: PretrainedEncoder) -> dict[str, Any]:
    """The description that this encoder's file holds, JSON-serializable."""
    own = _description(pretrained.encoder, pretrained.rendered_size, pretrained.provenance)
    return file_description(pretrained.encoder, own)


def as_safetensors(pretrained: PretrainedEncoder) -> bytes:
    """An encoder as one self-describing file, for :func:`load_encoder`."""
    return network_file.as_safetensors(pretrained.encoder, describe(pretrained))


def load_encoder(
    path: Path | str, *, freeze: bool = True, scale: float = 1.0, layout: Layout = "auto"
) -> PretrainedEncoder:
    """Loads the encoder of a run, ready to take an environment's observations.

    Args:
        path: a run's directory, or an ``encoder.safetensors`` under that or another name. The directory may also be one
            for the Hugging Face Hub, with a ``model.safetensors``.
        freeze: no gradients, and permanent evaluation mode; False to train the encoder further.
        scale: factor on floating-point observations: 1 if they lie in [0, 1], 1/255 if they lie in [0, 255]. uint8 is
            always divided by 255.
        layout: order of an observation's dimensions, needed if its shape is ambiguous
            (:class:`~curl_rl.PretrainedEncoder`).

    Raises:
        UserError: a file is missing, damaged or of a newer format, or the two files are of different encoders.
        OfTexts: the encoder is one of texts.
        ValueError: scale or layout is invalid.
    """
    files = network_files(path, ENCODER, HUB_NAME)

    def build(description: dict[str, Any]) -> Encoder:
        if description.get("kind") in (TextEncoder.kind, TwoTowerTextEncoder.kind):
            raise OfTexts(
                f"{files[0]} is an encoder of texts, not of images: load it with "
                "curl_rl.text.load_sentence_encoder, or name an encoder of images"
            )
        return build_encoder(description)

    encoder, description = load_network(files, ENCODER, build)
    try:
        rendered_size, provenance = description["rendered_size"], description["provenance"]
        check_size(encoder, rendered_size)
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be a mapping, got a {type(provenance).__name__}")
    except (KeyError, ValueError) as error:
        raise damaged(ENCODER, files[0], error) from None
    return PretrainedEncoder(encoder, rendered_size, provenance, scale=scale, layout=layout, freeze=freeze)


def check_size(encoder: Encoder, rendered_size: int) -> None:
    """Refuses a frame size from which the encoder's input cannot have been cropped."""
    least, width = (1, 1) if encoder.any_size else encoder.input_shape[1:]
    if least != width:
        raise ValueError(f"observation_shape {list(encoder.input_shape)} must be square: (C, side, side)")
    if type(rendered_size) is not int or not least <= rendered_size <= _LARGEST_SIDE:
        raise ValueError(f"rendered_size must be a side from {least} to {_LARGEST_SIDE}, got {rendered_size!r}")


def _description(encoder: Encoder, rendered_size: int, provenance: dict[str, Any]) -> dict[str, Any]:
    software = {**_software(), **provenance}
    return {**require_registered(encoder).describe(), "rendered_size": rendered_size, "provenance": software}


@functools.lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    """Versions of the training software and, if known, the git revision of this code."""
    import curl_rl  # not at the top: curl_rl imports this file before it has a version

    versions = {"curl_rl": curl_rl.__version__, "torch": torch.__version__}
    clone = Path(__file__).resolve().parents[2]
    if not (clone / ".git").exists():  # an installed package may be inside another repository
        return versions
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return versions
    return {**versions, "revision": answer.stdout.strip()}
