"""Saves and loads classifiers, in the format of :mod:`~curl_rl.artifacts.network_file`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from curl_rl.artifacts.head_file import describe_layers, described_layers
from curl_rl.artifacts.network_file import damaged, load_network, network_files, save_network
from curl_rl.augment import center_crop
from curl_rl.encoders import Encoder, build_encoder
from curl_rl.encoders.kinds import require_registered
from curl_rl.vision.evaluation.finetuning import Classifier

CLASSIFIER = "classifier"


class SavedClassifier(nn.Module):
    """A loaded classifier: images to logits, with the crop of its training.

    Takes images ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], of ``image_size`` or larger; larger
    ones are center-cropped. Returns ``(B, classes)`` logits.
    """

    def __init__(
        self, network: Classifier, classes: tuple[str, ...], image_size: int, provenance: dict[str, Any]
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        """Names of the classes, in the order of the logits."""
        self.image_size = image_size
        """Side of the images, in pixels."""
        self.provenance = provenance
        """Training data, training settings and final accuracy."""

    @property
    def encoder(self) -> Encoder:
        """The network's encoder, always one of this package: others cannot be saved."""
        return cast("Encoder", self.network.encoder)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(center_crop(images, self.image_size))
        return logits

    @torch.no_grad()
    def names(self, images: Tensor) -> list[str]:
        """Returns the name of the likeliest class of each image."""
        return [self.classes[place] for place in self(images).argmax(1).tolist()]


def save_classifier(
    network: Classifier, directory: Path, *, classes: Sequence[str], image_size: int, provenance: dict[str, Any]
) -> None:
    """Writes ``classifier.safetensors`` and ``classifier.json`` into ``directory``, each atomically.

    Args:
        network: classifier with an encoder of this package.
        directory: an existing directory.
        classes: names of the classes, in the order of the logits.
        image_size: side of the training images.
        provenance: training data, training settings and final accuracy.

    Raises:
        ValueError: the numbers of names and logits differ, or the encoder is not of this package.
    """
    if len(classes) != network.linear.out_features:
        raise ValueError(f"classes must name {network.linear.out_features} classes, got {len(classes)}")
    prefix = network.head_prefix
    description = {
        "classes": list(classes),
        "image_size": image_size,
        "encoder": require_registered(network.encoder).describe(),
        "layers": describe_layers(prefix) if isinstance(prefix, nn.Sequential) else [],
        "linear": network.linear.in_features,
        "provenance": provenance,
    }
    save_network(network, directory, CLASSIFIER, description)


def load_classifier(path: Path | str) -> SavedClassifier:
    """Loads a classifier saved by :func:`save_classifier`, in evaluation mode and without gradients.

    Args:
        path: the directory, or the ``classifier.safetensors`` in it.

    Raises:
        ValueError: a file is missing, damaged, or of a newer format, in a one-line message.
    """

    def build(description: dict[str, Any]) -> Classifier:
        return Classifier(
            build_encoder(description["encoder"]),
            described_layers(description["layers"]),
            nn.Linear(description["linear"], len(description["classes"])),
        )

    files = network_files(path, CLASSIFIER)
    network, description = load_network(files, CLASSIFIER, build)
    try:
        classes, image_size, provenance = (description[name] for name in ("classes", "image_size", "provenance"))
        if type(image_size) is not int or image_size < 1 or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"image_size {image_size!r} and classes {classes!r} must be a size and names")
    except (KeyError, ValueError) as error:
        raise damaged(CLASSIFIER, files[0], error) from None
    saved = SavedClassifier(network, tuple(classes), image_size, provenance)
    return saved.requires_grad_(False).eval()
