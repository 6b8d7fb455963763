"""Any module as an encoder, against the module called directly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curl_rl.encoders import FeatureSpec, ModuleEncoder

SHAPE = (2, 10, 10)


def trunk() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6))


def images() -> Tensor:
    return torch.randint(256, (4, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_module_gives_a_vector_and_a_map_of_one_place() -> None:
    module = trunk()
    encoder, bytes_, floats = ModuleEncoder(module, SHAPE), images(), images().float() / 255
    assert encoder.feature_spec == FeatureSpec(6, (6, 1, 1))
    assert encoder.input_shape == encoder.observation_shape == SHAPE
    features = encoder.encode(bytes_)
    torch.testing.assert_close(features.vector, module(floats))
    assert torch.equal(features.map.flatten(1), features.vector)
    torch.testing.assert_close(ModuleEncoder(module, SHAPE, divisor=1)(bytes_), module(bytes_.float()))
    torch.testing.assert_close(encoder(floats), module(floats))


def test_it_is_tried_in_evaluation_mode_and_left_unchanged() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()).train()
    ModuleEncoder(module, SHAPE)  # a single image, which batch norm in training mode would count
    assert module[0].num_batches_tracked == 0
    assert module.training


def test_the_callers_autocast_applies_unless_the_precision_is_bfloat16() -> None:
    module, floats = trunk(), images().float() / 255
    encoder = ModuleEncoder(module, SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(floats)
        assert torch.equal(encoder(floats), expected)
    assert expected.dtype == torch.bfloat16
    rounded = ModuleEncoder(module, SHAPE, precision="bfloat16")(floats)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, expected.float())


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nn.Conv2d(2, 3, 3), {}, r"module Conv2d must return \(B, D\), got \(1, 3, 8, 8\): end it with nn.Flatten"),
        (nn.Conv2d(2, 3, 3), {"divisor": 0}, "divisor must be positive, got 0"),
    ],
)
def test_modules_that_cannot_be_encoders_are_refused(module: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModuleEncoder(module, SHAPE, **options)


def test_a_part_that_cannot_be_reinitialized_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x

    encoder = ModuleEncoder(nn.Sequential(trunk(), Scaled()), SHAPE)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"module Scaled must have reset_parameters\(\) to be reinitialized"):
        encoder.fresh(0)
    assert torch.equal(torch.get_rng_state(), before)
