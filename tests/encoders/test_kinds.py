"""Descriptions exactly as earlier versions wrote them, and those of no encoder."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from curl_rl.encoders import EncoderConfig, ModuleEncoder, PixelEncoder, ResNet, ResNetConfig, build_encoder
from curl_rl.encoders.kinds import require_registered

# As curl_rl wrote them before the norm was configurable.
RESNET = (
    '{"kind": "resnet", "observation_shape": [3, 8, 8], '
    '"preprocessing": "uint8 divided by 255, floating point as it is; then less config.mean, over config.std", '
    '"config": {"depth": 18, "width": 0.015625, "stem": "small", "zero_init_residual": false, '
    '"batch_norm_splits": 1, "mean": [0.4, 0.5, 0.6], "std": [0.2]}}'
)
PIXEL = (
    '{"kind": "pixel", "observation_shape": [6, 12, 12], '
    '"flattening": "the last convolution\'s map row by row, channels innermost", '
    '"preprocessing": "crop to the middle; uint8 divided by 255, floating point as it is", '
    '"config": {"filters": 4, "strides": [2, 1], "latent": 5}}'
)


def test_descriptions_are_those_of_earlier_versions_to_the_letter() -> None:
    config = ResNetConfig(width=1 / 64, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,), batch_norm_splits=2)
    assert json.dumps(ResNet((3, 8, 8), config).describe()) == RESNET
    assert json.dumps(PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5)).describe()) == PIXEL


def test_descriptions_of_earlier_versions_are_read() -> None:
    resnet, pixel = build_encoder(json.loads(RESNET)), build_encoder(json.loads(PIXEL))
    assert isinstance(resnet, ResNet)
    assert resnet.config == ResNetConfig(width=1 / 64, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,))
    assert isinstance(pixel, PixelEncoder)
    assert pixel.config == EncoderConfig(4, (2, 1), 5)
    unnamed = json.loads(PIXEL)
    del unnamed["kind"]  # the very first had none
    assert isinstance(build_encoder(unnamed), PixelEncoder)


def test_group_norm_is_described() -> None:
    config = ResNetConfig(width=1 / 64, stem="small", norm="group")
    description = ResNet((3, 8, 8), config).describe()
    assert description["config"]["norm"] == "group"
    rebuilt = build_encoder(description)
    assert isinstance(rebuilt, ResNet)
    assert rebuilt.config == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "transformer"},
            "kind must be pixel or resnet or .* or two_tower_text, got 'transformer'",
        ),
        ({"observation_shape": [6, 12]}, r"observation_shape must be three positive integers .*, got \[6, 12\]"),
        ({"observation_shape": [6, 12, True]}, "observation_shape must be three positive integers"),
        ({"observation_shape": [6, 12, 0]}, "observation_shape must be three positive integers"),
        ({"config": {"filters": 0, "strides": [2], "latent": 5}}, "filters must be at least 1"),
    ],
)
def test_descriptions_of_no_encoder_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(json.loads(PIXEL) | changes)


def test_other_peoples_modules_cannot_be_rebuilt() -> None:
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        wrapped = ModuleEncoder(trunk, (3, 2, 2))
    assert wrapped.describe()["kind"] == "module"
    with pytest.raises(ValueError, match="kind must be pixel or resnet or .* or two_tower_text, got 'module'"):
        build_encoder(wrapped.describe())
    for module in (wrapped, trunk):
        classes = "must be a PixelEncoder or a ResNet or a TwoStreamEncoder or a TextEncoder or a TwoTowerTextEncoder"
        with pytest.raises(ValueError, match=f"{classes}, got a (ModuleEncoder|Sequential)"):
            require_registered(module)
