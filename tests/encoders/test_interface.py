"""The interface that every encoder implements: one row here for each kind and variant."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from curl_rl.encoders import (
    Encoder,
    EncoderConfig,
    FeatureSpec,
    ModuleEncoder,
    PixelEncoder,
    ResNet,
    ResNetConfig,
    TextEncoder,
    TextEncoderConfig,
    TwoStreamEncoder,
    TwoTowerTextEncoder,
)
from curl_rl.encoders.base import weights_from
from curl_rl.encoders.kinds import KINDS, build_encoder, require_registered

SHAPE = (3, 20, 20)
TEXT = (20, 1, 6)
TEXT_CONFIG = TextEncoderConfig(width=8, layers=1, heads=2)


class Row(NamedTuple):
    build: Callable[[], Encoder]
    features: FeatureSpec
    """Counted by hand."""
    shape: tuple[int, int, int] = SHAPE


def pixel() -> PixelEncoder:
    return PixelEncoder(SHAPE, EncoderConfig(filters=4, strides=(2, 1), latent=5))


def resnet18() -> ResNet:
    return ResNet(SHAPE, ResNetConfig(width=1 / 16, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,)))


def resnet50() -> ResNet:
    return ResNet(SHAPE, ResNetConfig(depth=50, width=1 / 32))


def group() -> ResNet:
    return ResNet(SHAPE, ResNetConfig(width=1 / 16, stem="small", norm="group"))


def two_stream() -> TwoStreamEncoder:
    return TwoStreamEncoder(SHAPE, ResNetConfig(width=1 / 16, stem="small"))


def text() -> TextEncoder:
    return TextEncoder(TEXT, TEXT_CONFIG)


def two_tower_text() -> TwoTowerTextEncoder:
    return TwoTowerTextEncoder(TEXT, TEXT_CONFIG)


def module() -> ModuleEncoder:
    trunk = nn.Sequential(nn.Conv2d(3, 2, 5, 5), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 4, 6))
    return ModuleEncoder(trunk, SHAPE)


ROWS = {
    # 20 pixels: (20 − 3) // 2 + 1 = 9, then 9 − 2 = 7.
    "pixel": Row(pixel, FeatureSpec(5, (4, 7, 7))),
    # 20, 20, 10, 5, 3 pixels in stem and stages; 4 channels, doubled three times.
    "resnet18": Row(resnet18, FeatureSpec(32, (32, 3, 3), (16, 5, 5))),
    # Two halvings in the stem, to 5; then 5, 3, 2, 1. A bottleneck of 16 has 64 channels.
    "resnet50": Row(resnet50, FeatureSpec(64, (64, 1, 1), (32, 2, 2))),
    "group norm": Row(group, FeatureSpec(32, (32, 3, 3), (16, 5, 5))),
    # Two of resnet18's.
    "two streams": Row(two_stream, FeatureSpec(64, (64, 3, 3), (32, 5, 5), streams=2)),
    "module": Row(module, FeatureSpec(6, (6, 1, 1))),
    "text": Row(text, FeatureSpec(8, (8, 1, 6)), TEXT),
    "two towers": Row(two_tower_text, FeatureSpec(16, (16, 1, 6), streams=2), TEXT),
}
NAMES = list(ROWS)
OF_IMAGES = [name for name in NAMES if ROWS[name].shape == SHAPE]
REGISTERED = [name for name in NAMES if name != "module"]


def made(name: str, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return ROWS[name].build()


def images(batch: int = 3, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def inputs(name: str) -> Tensor:
    """Images, or the tokens of texts, for the encoder of a row."""
    if name in OF_IMAGES:
        return images()
    return torch.randint(1, TEXT[0], (3, TEXT[2]), generator=torch.Generator().manual_seed(0))


def shaken(encoder: Encoder) -> Encoder:
    """Moves every number of its state away from that of an untrained encoder."""
    generator = torch.Generator().manual_seed(1)
    for value in encoder.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator) * 0.1)
    return encoder


@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_sizes_that_the_encoder_announces(name: str) -> None:
    encoder, expected = made(name), ROWS[name].features
    assert encoder.feature_spec == expected
    assert encoder.input_shape == ROWS[name].shape
    features = encoder.encode(inputs(name))
    assert features.vector.shape == (3, expected.dim)
    assert features.map.shape == (3, *expected.map_shape)
    if expected.middle_shape is None:
        assert features.middle is None
        assert features.local is features.map
    else:
        assert features.middle is not None
        assert features.middle.shape == (3, *expected.middle_shape)
    encoder.eval()
    assert torch.equal(encoder(inputs(name)), encoder.encode(inputs(name)).vector)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "group norm"])
def test_the_middle_is_the_third_stages_own_output(name: str) -> None:
    encoder, seen = made(name), []
    stage: nn.Module = encoder.layer3  # type: ignore[assignment]
    stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    middle = encoder.encode(images()).middle
    (output,) = seen
    assert middle is output, "no copy: the backward pass holds it anyway"
    assert middle.requires_grad


@pytest.mark.parametrize("name", OF_IMAGES)
def test_bytes_and_their_fractions_are_the_same_images(name: str) -> None:
    encoder = made(name).double().eval()
    torch.testing.assert_close(encoder(images().double() / 255), encoder(images()))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_only_an_encoder_of_any_size_takes_another(name: str) -> None:
    encoder = made(name).eval()
    larger = images(shape=(3, 27, 22))
    if encoder.any_size:
        assert encoder(larger).shape == (3, encoder.feature_spec.dim)
    else:
        with pytest.raises((ValueError, RuntimeError)):
            encoder(larger)


@pytest.mark.parametrize("name", NAMES)
def test_the_precision_can_be_set_and_set_back(name: str) -> None:
    encoder = made(name).eval()
    assert encoder.precision == "float32"
    exact = encoder(inputs(name))
    encoder.precision = "bfloat16"
    assert encoder.precision == "bfloat16"
    rounded = encoder(inputs(name))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact), "bfloat16 has 8 bits and cannot give the same numbers"
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    encoder.precision = "float32"
    assert torch.equal(encoder(inputs(name)), exact)


# ---- fresh


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_encoder_depends_only_on_its_seed(name: str) -> None:
    encoder = shaken(made(name))
    before = copy.deepcopy(encoder.state_dict())
    torch.manual_seed(11)
    one = encoder.fresh(5)
    after_first = torch.get_rng_state()
    torch.manual_seed(12)
    again, other = encoder.fresh(5), encoder.fresh(6)
    differs = False
    for entry, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[entry]), entry
        differs |= not torch.equal(value, other.state_dict()[entry])
    assert differs
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), after_first), "the global generator has moved"
    assert all(torch.equal(value, before[entry]) for entry, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_encoder_equals_a_newly_built_one_and_keeps_nothing_of_the_old(name: str) -> None:
    fresh = shaken(made(name)).fresh(5)
    torch.manual_seed(5)
    built = ROWS[name].build()
    for entry, value in built.state_dict().items():
        assert torch.equal(fresh.state_dict()[entry], value), entry


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_encoder_has_the_precision_and_type_of_the_old_and_learns(name: str) -> None:
    encoder = made(name).double().requires_grad_(False).eval()
    encoder.precision = "bfloat16"
    fresh = encoder.fresh(0)
    assert type(fresh) is type(encoder)
    assert (fresh.precision, fresh.feature_spec, fresh.input_shape) == (
        "bfloat16",
        encoder.feature_spec,
        ROWS[name].shape,
    )
    assert fresh.training
    for parameter in fresh.parameters():
        assert parameter.requires_grad
        assert parameter.dtype == torch.float64
    assert not any(part is own for part in fresh.modules() for own in encoder.modules())


def test_weights_are_drawn_on_the_cpu_whatever_the_default_device_is() -> None:
    with torch.device("meta"), weights_from(3):
        drawn = torch.randn(4)
    assert torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(3)))


# ---- descriptions


@pytest.mark.parametrize("name", REGISTERED)
def test_a_description_rebuilds_the_encoder(name: str) -> None:
    encoder = shaken(made(name))
    description = json.loads(json.dumps(encoder.describe()))
    torch.manual_seed(99)
    rebuilt = build_encoder(description)
    assert type(rebuilt) is type(encoder)
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt.eval()(inputs(name)), encoder.eval()(inputs(name)))
    assert rebuilt.describe() == encoder.describe()
    assert require_registered(encoder) is encoder
    assert KINDS[encoder.kind] is type(encoder)


@pytest.mark.parametrize("name", NAMES)
def test_titles(name: str) -> None:
    titles = {
        "pixel": "PixelEncoder, 2 layers of 4",
        "resnet18": "ResNet-18, width 0.0625",
        "resnet50": "ResNet-50, width 0.03125",
        "group norm": "ResNet-18, width 0.0625, group norm",
        "two streams": "two ResNet-18, width 0.0625 on L and ab",
        "module": "Sequential, 6 features",
        "text": "Transformer, 1 layer of 8",
        "two towers": "two towers of Transformer, 1 layer of 8",
    }
    assert made(name).title == titles[name]


# ---- the other images of a batch


def test_only_batch_norm_lets_an_image_know_the_others_of_its_batch() -> None:
    """In training mode: this decides if the features of a patch depend on the other patches of the batch."""
    batch = images(6)
    for name, apart in (("resnet18", False), ("group norm", True), ("pixel", True)):
        encoder = made(name).double().train()
        together = encoder.encode(batch)
        alone = encoder.encode(batch[2:3])
        swapped = encoder.encode(torch.cat([batch[2:3], images(5, seed=9)]))
        for found in (alone, swapped):
            assert torch.allclose(found.vector[0], together.vector[2], rtol=1e-9, atol=1e-9) is apart, name
            assert torch.allclose(found.local[0], together.local[2], rtol=1e-9, atol=1e-9) is apart, name
