"""An encoder on its own: safetensors and JSON beside a run, loaded by anybody with the right preprocessing.

The two files are the form in which every network leaves a run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from curl_rl.augment import center_crop
from curl_rl.durable import write_durably
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.resnet import ResNet, ResNetConfig

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"
_FORMAT = 1

M = TypeVar("M", bound=nn.Module)


class PretrainedEncoder(nn.Module):
    """A trained :class:`PixelEncoder` or :class:`ResNet` with its preprocessing.

    Takes observations ``(..., C, H, W)``: uint8 in [0, 255] or floating point in [0, 1] (scaled by type, never by
    value). A PixelEncoder's are cropped to the middle, as in evaluation, never resized: frames rendered at another size
    than ``rendered_size`` are taken as well, as long as the crop fits, but show the scene at another scale than in
    training. A ResNet's may have any size. Returns ``(..., features)``.
    """

    def __init__(self, encoder: PixelEncoder | ResNet, rendered_size: int, provenance: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.rendered_size = rendered_size
        """Side of the frames or images that the encoder was trained on, in pixels."""
        self.provenance = provenance
        """What the encoder was trained on: task and frames, or data, method and epochs; preset, seed."""

    @property
    def features(self) -> int:
        """Size of the feature vector."""
        return self.encoder.feature_spec.dim

    def forward(self, observation: Tensor) -> Tensor:
        if isinstance(self.encoder, PixelEncoder):
            channels, side, _ = self.encoder.observation_shape
        else:
            channels, side = self.encoder.image_shape[0], 1
        if observation.ndim < 3 or observation.shape[-3] != channels or min(observation.shape[-2:]) < side:
            raise ValueError(
                f"expected observations (..., {channels}, H, W) with H and W at least {side}, "
                f"got {tuple(observation.shape)}"
            )
        if observation.dtype != torch.uint8 and not observation.is_floating_point():
            raise ValueError(f"expected uint8 or floating-point observations, got {observation.dtype}")
        view = center_crop(observation, side) if isinstance(self.encoder, PixelEncoder) else observation
        features: Tensor = self.encoder(view.reshape(-1, *view.shape[-3:]))
        return features.view(*observation.shape[:-3], self.features)


def save_encoder(
    encoder: PixelEncoder | ResNet, directory: Path, *, rendered_size: int, provenance: dict[str, Any]
) -> None:
    """Writes ``encoder.safetensors`` and ``encoder.json`` into ``directory``, each whole or not at all.

    Args:
        encoder: what to save.
        directory: where to.
        rendered_size: side of the frames or images that the encoder's crops were cut from in training.
        provenance: what the encoder was trained on, for people.
    """
    description = {**describe_encoder(encoder), "rendered_size": rendered_size, "provenance": provenance}
    save_network(encoder, directory, "encoder", description)


def load_encoder(path: Path | str, *, freeze: bool = True) -> PretrainedEncoder:
    """The encoder of a run, ready to use.

    Args:
        path: a run's directory, or the ``encoder.safetensors`` in it (its ``encoder.json`` lies beside it).
        freeze: evaluation mode and no gradients; False to train it further.

    Raises:
        ValueError: a file is missing, damaged, or of a newer format, said in one line.
    """

    def build(description: dict[str, Any]) -> PretrainedEncoder:
        encoder = described_encoder(description)
        return PretrainedEncoder(encoder, description["rendered_size"], description["provenance"])

    pretrained = load_network(path, "encoder", build, lambda built: built.encoder)
    return pretrained.requires_grad_(False).eval() if freeze else pretrained


def save_network(network: nn.Module, directory: Path, name: str, description: dict[str, Any]) -> None:
    """Writes ``<name>.safetensors``, the weights, and ``<name>.json``, each whole or not at all.

    Args:
        network: what is saved.
        directory: where to.
        name: of both files.
        description: what :func:`load_network` rebuilds the network from, and what people want to know.
    """
    weights = {key: value.detach().cpu().float().contiguous() for key, value in network.state_dict().items()}
    write_durably(directory / f"{name}.safetensors", [safetensors.torch.save(weights)])
    text = json.dumps({"format": _FORMAT, **description}, indent=2) + "\n"
    write_durably(directory / f"{name}.json", [text.encode()])


def load_network(
    path: Path | str, name: str, build: Callable[[dict[str, Any]], M], weighted: Callable[[M], nn.Module]
) -> M:
    """What :func:`save_network` wrote, its weights put back.

    Args:
        path: the directory, or the file of weights in it.
        name: of both files.
        build: the network, its weights not yet right, from the description.
        weighted: that part of what was built that the weights belong to.

    Raises:
        ValueError: a file is missing, damaged, or of a newer format, said in one line.
    """
    path = Path(path)
    weights, text = f"{name}.safetensors", f"{name}.json"
    directory = path.parent if path.name == weights else path
    try:
        description = json.loads((directory / text).read_text())
        if description["format"] <= _FORMAT:
            built = build(description)
            weighted(built).load_state_dict(safetensors.torch.load_file(directory / weights))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"no {name} in {directory}: {Path(error.filename or weights).name} is missing") from None
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, safetensors.SafetensorError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(f"the {name} in {directory} is damaged ({type(error).__name__}: {cause})") from None
    if description["format"] > _FORMAT:
        raise ValueError(f"{directory / text} has format {description['format']}: update curl_rl to read it")
    return built


def describe_encoder(encoder: PixelEncoder | ResNet) -> dict[str, Any]:
    """Kind and shape of an encoder and what its input must be, for JSON."""
    if isinstance(encoder, PixelEncoder):
        return {
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
    """An encoder of the kind and shape that :func:`describe_encoder` gave; one without a kind is a PixelEncoder."""
    shape, fields = tuple(description["observation_shape"]), description["config"]
    kind = description.get("kind", "pixel")
    if kind == "pixel":
        return PixelEncoder(shape, EncoderConfig(fields["filters"], tuple(fields["strides"]), fields["latent"]))
    if kind == "resnet":
        # JSON has lists where the configuration has tuples.
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        config: Any = ResNetConfig
        return ResNet(shape, config(**values))
    raise ValueError(f"there is no encoder of the kind {kind!r}")
