"""Inputs of a pretrained encoder, compared with the plain encoder on arrays permuted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.auxiliary import AuxiliaryLoss
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig


@pytest.fixture
def encoder() -> PixelEncoder:
    torch.manual_seed(0)
    made = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    with torch.no_grad():
        for parameter in made.parameters():  # biases start at zero, so their loss would go unnoticed
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.fixture
def resnet() -> ResNet:
    torch.manual_seed(0)
    return ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small")).eval()


def pretrained(encoder: PixelEncoder | ResNet, **options: Any) -> PretrainedEncoder:
    return PretrainedEncoder(encoder, 16, {}, freeze=options.pop("freeze", True), **options)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# ---- values


def test_floats_are_multiplied_by_the_scale_and_bytes_divided_by_255_once(encoder: PixelEncoder) -> None:
    seen = noise(7, 6, 12, 12)
    right = encoder(seen.double().div(255).float())
    assert torch.allclose(pretrained(encoder)(seen), right, atol=1e-5)
    assert torch.allclose(pretrained(encoder)(seen.float() / 255), right, atol=1e-5)
    assert torch.allclose(pretrained(encoder, scale=1 / 255)(seen.float()), right, atol=1e-5)
    # The scale applies to floats only.
    assert torch.equal(pretrained(encoder, scale=1 / 255)(seen), pretrained(encoder)(seen))


def test_scaling_depends_on_the_type_never_on_values(encoder: PixelEncoder) -> None:
    # An image of ones is white as floats and nearly black as uint8; dark floats in [0, 255] stay dark.
    white, ones = torch.full((1, 6, 12, 12), 255, dtype=torch.uint8), torch.ones(1, 6, 12, 12)
    plain, scaled = pretrained(encoder), pretrained(encoder, scale=1 / 255)
    assert torch.allclose(plain(ones), plain(white), atol=1e-5)
    assert not torch.allclose(plain(ones.to(torch.uint8)), plain(white), atol=1e-2)
    assert torch.allclose(scaled(ones), plain(ones.to(torch.uint8)), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_types_are_taken(encoder: PixelEncoder, dtype: torch.dtype) -> None:
    seen = noise(2, 6, 12, 12).div(255).to(dtype)
    found = pretrained(encoder)(seen)
    assert found.dtype == torch.float32
    assert torch.allclose(found, encoder(seen.float()), atol=1e-5)


# ---- order


def test_channels_first_or_last_is_inferred_from_the_shape(encoder: PixelEncoder) -> None:
    loaded, seen = pretrained(encoder), noise(2, 3, 6, 17, 16)
    right = encoder(seen[..., 2:14, 2:14].reshape(6, 6, 12, 12)).view(2, 3, 5)
    assert torch.equal(loaded(seen), right)
    assert torch.allclose(loaded(seen.movedim(2, -1)), right, atol=1e-6)
    assert torch.allclose(loaded(seen.movedim(2, -1).contiguous()), right, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize(
    ("layout", "order"), [("CHW", "schw"), ("HWC", "hwsc"), ("SCHW", "schw"), ("SHWC", "shwc"), ("auto", "hwsc")]
)
def test_named_orders_of_a_stack(encoder: PixelEncoder, layout: Layout, order: str, batch: tuple[int, ...]) -> None:
    """Two frames of three channels, written pixel by pixel into an array of the other order."""
    seen = noise(*batch, 2, 3, 14, 13)
    size = {"s": 2, "c": 3, "h": 14, "w": 13}
    given = torch.empty(*batch, *(size[axis] for axis in order), dtype=torch.uint8)
    for s in range(2):
        for c in range(3):
            at = tuple({"s": s, "c": c}.get(axis, slice(None)) for axis in order)
            given[(..., *at)] = seen[..., s, c, :, :]
    joined = {"schw": (*batch, 6, 14, 13), "hwsc": (*batch, 14, 13, 6), "shwc": given.shape}
    if layout in ("CHW", "HWC", "auto"):
        given = given.reshape(joined[order])
    right = torch.stack([encoder(one[None, :, 1:13, 0:12])[0] for one in seen.reshape(-1, 6, 14, 13)])
    assert torch.allclose(pretrained(encoder, layout=layout)(given), right.view(*batch, 5), atol=1e-6)


def test_an_ambiguous_order_must_be_named(resnet: ResNet) -> None:
    seen = noise(2, 3, 9, 3)
    with pytest.raises(
        ValueError, match=r"^observations \(2, 3, 9, 3\) could be CHW or HWC: name the order with layout=$"
    ):
        pretrained(resnet)(seen)
    assert torch.equal(pretrained(resnet, layout="CHW")(seen), resnet(seen))
    assert torch.allclose(pretrained(resnet, layout="HWC")(seen), resnet(seen.permute(0, 3, 1, 2)), atol=1e-6)


def test_separate_frames_are_never_taken_for_a_stack_unless_named(encoder: PixelEncoder) -> None:
    with pytest.raises(ValueError, match=r"got \(2, 12, 12, 3\) \(for a stack of frames, layout='SHWC'\)$"):
        pretrained(encoder)(noise(2, 12, 12, 3))
    with pytest.raises(ValueError, match=r"got \(5, 2, 3, 12, 12\) \(for a stack of frames, layout='SCHW'\)$"):
        pretrained(encoder)(noise(5, 2, 3, 12, 12))


# ---- refusals


@pytest.mark.parametrize(
    ("shape", "dtype", "line"),
    [
        (
            (2, 5, 12, 12),
            torch.uint8,
            r"\(..., 6, H, W\) or \(..., H, W, 6\), H and W at least 12, got \(2, 5, 12, 12\)$",
        ),
        ((2, 6, 11, 12), torch.uint8, r"H and W at least 12, got \(2, 6, 11, 12\)$"),
        ((2, 11, 12, 6), torch.uint8, r"H and W at least 12, got \(2, 11, 12, 6\)$"),
        ((12, 12), torch.uint8, "expected observations"),
        ((), torch.float32, "expected observations"),
        ((2, 6, 12, 12), torch.int64, "^expected uint8 or floating-point observations, got torch.int64$"),
        ((2, 6, 12, 12), torch.bool, "got torch.bool"),
        ((2, 6, 12, 12), torch.int8, "got torch.int8"),
    ],
)
def test_unsuitable_observations_are_refused(
    encoder: PixelEncoder, shape: tuple[int, ...], dtype: torch.dtype, line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        pretrained(encoder)(torch.zeros(shape, dtype=dtype))


def test_an_array_and_another_order_than_named_are_refused(encoder: PixelEncoder) -> None:
    with pytest.raises(
        ValueError, match="^expected a tensor of observations, got ndarray: convert an array with torch.as_tensor"
    ):
        pretrained(encoder)(noise(6, 12, 12).numpy())
    with pytest.raises(
        ValueError, match=r"^expected observations \(..., S, H, W, C\) with S·C = 6, H and W at least 12"
    ):
        pretrained(encoder, layout="SHWC")(noise(2, 6, 12, 12))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"scale": 0}, "^scale must be positive: 1 for floats in .*, got 0$"),
        ({"scale": float("nan")}, "^scale must be positive.*, got nan$"),
        ({"scale": float("inf")}, "^scale must be positive.*, got inf$"),
        ({"layout": "NCHW"}, "^layout must be one of auto, CHW, HWC, SCHW, SHWC, got 'NCHW'$"),
    ],
)
def test_invalid_options_are_refused(encoder: PixelEncoder, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        pretrained(encoder, **options)


# ---- outputs


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_encode_returns_map_and_vector(encoder: PixelEncoder, batch: tuple[int, ...]) -> None:
    seen = noise(*batch, 6, 13, 15)
    found = pretrained(encoder).encode(seen)
    right = encoder.encode(seen[..., 0:12, 1:13].reshape(-1, 6, 12, 12))
    assert found.vector.shape == (*batch, 5)
    assert found.map.shape == (*batch, *encoder.feature_spec.map_shape)
    assert torch.equal(found.vector.flatten(), right.vector.flatten())
    assert torch.equal(found.map.flatten(), right.map.flatten())


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_encode_returns_the_middle_map_of_an_encoder_that_has_one(resnet: ResNet, batch: tuple[int, ...]) -> None:
    seen = noise(*batch, 3, 8, 8)
    found, right = pretrained(resnet).encode(seen), resnet.eval().encode(seen.reshape(-1, 3, 8, 8))
    assert found.middle is not None
    assert right.middle is not None
    assert resnet.feature_spec.middle_shape is not None
    assert found.middle.shape == (*batch, *resnet.feature_spec.middle_shape)
    assert torch.equal(found.middle.flatten(), right.middle.flatten())


def test_frozen_batch_norm_ignores_new_images(resnet: ResNet) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    torch.nn.Sequential(loaded := pretrained(resnet)).train()(noise(4, 3, 8, 8))
    assert loaded.training
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    resnet.requires_grad_(True)
    pretrained(resnet, freeze=False).train()(noise(4, 3, 8, 8))
    assert not torch.equal(resnet.bn1.running_mean, before["bn1.running_mean"])  # type: ignore[arg-type]


def test_it_can_be_trained_further_with_an_auxiliary_loss(encoder: PixelEncoder) -> None:
    loaded = pretrained(encoder, freeze=False, scale=1 / 255)
    loss = AuxiliaryLoss(loaded, "curl")
    assert loss.crop == 12
    loss(noise(4, 6, 16, 16).float()).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
