"""Projection head files in the format of :mod:`~curl_rl.artifacts.network_file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from curl_rl.artifacts.network_file import (
    as_safetensors,
    file_description,
    load_network,
    network_files,
    save_network,
)
from curl_rl.encoders.heads import MLP, BatchNorm, plain_batch_norm

HEAD = "head"
"""Name of a head's files in a run: ``head.safetensors``, ``head.json``."""
TEXT_HEAD = "text_head"
"""Name of the files of the head of texts, in a run that has one beside that of images."""


def save_head(head: MLP, directory: Path, name: str = HEAD) -> None:
    """Writes a projection head as ``head.safetensors`` and ``head.json``, or another ``name``, into ``directory``."""
    save_network(head.layers, directory, name, {"layers": describe_layers(head.layers)})


def head_as_safetensors(layers: nn.Sequential) -> bytes:
    """A head's layers as one self-describing file, for :func:`load_head`."""
    return as_safetensors(layers, file_description(layers, {"layers": describe_layers(layers)}))


def load_head(path: Path | str, name: str = HEAD) -> nn.Sequential:
    """Loads a run's projection head, one child per layer: ``(B, D)`` features to embeddings.

    Its batch norm has no running statistics; :func:`curl_rl.vision.evaluation.finetuning.new_classifier` adds them.

    Raises:
        ValueError: a file is missing, damaged, or of a newer format; the message is one line.
    """
    return load_network(network_files(path, name), name, lambda description: described_layers(description["layers"]))[0]


def describe_layers(layers: nn.Sequential) -> list[dict[str, Any]]:
    """Describes the layers of a head, each a Sequential of a Linear, an optional norm, and an optional ReLU."""
    found = []
    for layer in layers:
        assert isinstance(layer, nn.Sequential)
        linear = layer[0]
        assert isinstance(linear, nn.Linear)
        norms = [part for part in layer if isinstance(part, nn.BatchNorm1d)]
        described: dict[str, Any] = {
            "inputs": linear.in_features,
            "outputs": linear.out_features,
            "bias": linear.bias is not None,
            "relu": isinstance(layer[-1], nn.ReLU),
            "norm": None,
        }
        if norms:
            described["norm"] = {
                "scale": norms[0].weight is not None,
                "shift": norms[0].bias is not None,
                "running_statistics": norms[0].running_mean is not None,
            }
        found.append(described)
    return found


def described_layers(layers: list[dict[str, Any]]) -> nn.Sequential:
    """Builds layers from a description by :func:`describe_layers`, with random weights."""
    head = nn.Sequential()
    for layer in layers:
        parts: list[nn.Module] = [nn.Linear(layer["inputs"], layer["outputs"], bias=layer["bias"])]
        if norm := layer["norm"]:
            own = BatchNorm(layer["outputs"], scale=norm["scale"], shift=norm["shift"])
            parts.append(plain_batch_norm(own) if norm["running_statistics"] else own)
        if layer["relu"]:
            parts.append(nn.ReLU())
        head.append(nn.Sequential(*parts))
    return head
