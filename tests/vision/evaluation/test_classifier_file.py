"""Saved heads and classifiers: loaded ones compute the same, and damaged files raise a one-line error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import safetensors.torch
import torch
from torch import nn

from curl_rl.artifacts.head_file import load_head, save_head
from curl_rl.encoders import Encoder, EncoderConfig, PixelEncoder
from curl_rl.encoders.heads import MLP, Last
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.vision.evaluation.classifier_file import load_classifier, save_classifier
from curl_rl.vision.evaluation.finetuning import Classifier, new_classifier

IMAGES = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def backbone(kind: str) -> Encoder:
    torch.manual_seed(0)
    if kind == "pixel":
        return PixelEncoder((3, 12, 12), EncoderConfig(filters=4, strides=(2, 1), latent=8))
    norm: Literal["batch", "group"] = "group" if kind == "group norm" else "batch"
    return ResNet((3, 12, 12), ResNetConfig(width=1 / 64, stem="small", norm=norm))


def randomized(network: nn.Module) -> None:
    """Values other than a new network's, in weights and running statistics."""
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)


@pytest.mark.parametrize("last", ["affine", "linear", "scaled", "standardized"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_saved_head_loads(tmp_path: Path, last: Last, batch_norm: bool) -> None:
    head = MLP((8, 7, 6, 5), batch_norm=batch_norm, last=last)
    randomized(head)
    save_head(head, tmp_path)
    loaded = load_head(tmp_path)
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    assert len(loaded) == 3
    for layers in range(4):
        assert torch.equal(loaded[:layers](features), head.layers[:layers](features))


@pytest.mark.parametrize("kind", ["pixel", "resnet", "group norm"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_saved_classifier_loads_and_names_its_classes(tmp_path: Path, kind: str, layers: int) -> None:
    encoder = backbone(kind)
    head = MLP((encoder.feature_spec.dim, 7, 6, 5), batch_norm=True, last="scaled")
    network = new_classifier(encoder, IMAGES, classes=3, head_prefix=head.layers[:layers] if layers else None)
    randomized(network)
    save_classifier(network, tmp_path, classes=["ant", "bee", "cat"], image_size=12, provenance={"labels": 0.1})
    loaded = load_classifier(tmp_path / "classifier.safetensors")
    logits = network.eval()(IMAGES)
    assert torch.equal(loaded(IMAGES), logits)
    larger = nn.functional.pad(IMAGES, (2, 2, 2, 2), value=255)
    assert torch.equal(loaded(larger), logits)
    assert loaded.names(IMAGES) == [["ant", "bee", "cat"][place] for place in logits.argmax(1)]
    assert (loaded.image_size, loaded.provenance) == (12, {"labels": 0.1})
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier.json", "classifier.safetensors"]


def test_refusals_to_save_or_load_are_one_line(tmp_path: Path) -> None:
    network = new_classifier(backbone("pixel"), IMAGES, classes=3)
    with pytest.raises(ValueError, match="classes must name 3 classes, got 2"):
        save_classifier(network, tmp_path, classes=["a", "b"], image_size=12, provenance={})
    odd = Classifier(nn.Flatten(), nn.Identity(), nn.Linear(2, 3))
    with pytest.raises(ValueError, match="must be a PixelEncoder or .* or a TwoTowerTextEncoder, got a Flatten"):
        save_classifier(odd, tmp_path, classes=["a", "b", "c"], image_size=12, provenance={})
    with pytest.raises(ValueError, match="no classifier in .*: classifier.safetensors is missing"):
        load_classifier(tmp_path)
    save_classifier(network, tmp_path, classes=["a", "b", "c"], image_size=12, provenance={})
    description = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(description | {"classes": ["c", "b", "a"]}))
    with pytest.raises(ValueError, match="are not of the same classifier: they differ in classes"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").unlink()
    weights = safetensors.torch.load_file(tmp_path / "classifier.safetensors")
    for changes, message in (
        ({"format": 99}, "has format 99, newer than 2: update curl_rl"),
        ({"image_size": "large"}, "the classifier in .* is damaged"),
        ({"linear": 5}, "the classifier in .* is damaged"),
        ({"encoder": {"kind": "magic"}}, "the classifier in .* is damaged"),
    ):
        metadata = {"curl_rl": json.dumps(description | changes)}
        safetensors.torch.save_file(weights, tmp_path / "classifier.safetensors", metadata)
        with pytest.raises(ValueError, match=message):
            load_classifier(tmp_path)
    with pytest.raises(ValueError, match="no head in .*: head.safetensors is missing"):
        load_head(tmp_path)
