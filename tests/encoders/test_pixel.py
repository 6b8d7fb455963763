"""The pixel encoder against the layers written out, and its initialization against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from curl_rl import EncoderConfig, PixelEncoder
from curl_rl.encoders import orthogonal_init


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def written_out(encoder: PixelEncoder, x: torch.Tensor) -> torch.Tensor:
    """The same computation from the state dict alone, on pixels in [0, 1]."""
    weights = encoder.state_dict()
    for depth, stride in enumerate(encoder.config.strides):
        name = f"convolutions.layers.{depth}"
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride).clamp_min(0)
    x = (
        x.permute(0, 2, 3, 1).reshape(len(x), -1) @ weights["projection.linear.weight"].T
        + weights["projection.linear.bias"]
    )
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return x * weights["projection.norm.weight"] + weights["projection.norm.bias"]


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((9, 84, 84), EncoderConfig()),
        ((3, 33, 47), EncoderConfig(filters=5, strides=(2, 1, 2), latent=7)),
        ((4, 12, 12), EncoderConfig(filters=3, strides=(1,), latent=2)),
        ((1, 37, 30), EncoderConfig(filters=4, strides=(2, 1, 1, 1, 1, 1), latent=11)),
    ],
)
def test_any_size_stack_width_and_depth_is_the_layers_written_out(
    shape: tuple[int, int, int], config: EncoderConfig
) -> None:
    encoder = PixelEncoder(shape, config).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    pixels = images(3, *shape)
    assert encoder(pixels).shape == (3, config.latent)
    assert torch.allclose(encoder(pixels), written_out(encoder, pixels.double() / 255), rtol=1e-9, atol=1e-9)


def test_bytes_are_divided_by_255_and_floats_taken_as_they_are() -> None:
    encoder = PixelEncoder((3, 16, 16), EncoderConfig(strides=(2, 1))).double()
    pixels = images(2, 3, 16, 16)
    assert torch.allclose(encoder(pixels), encoder(pixels.double() / 255), rtol=1e-9, atol=1e-9)
    dim = torch.full((2, 3, 16, 16), 0.003, dtype=torch.float64)
    assert torch.allclose(encoder.convolutions(dim), 3 * encoder.convolutions(dim / 3)), "zero biases: homogeneous"


def test_delta_orthogonal_convolutions_keep_the_norm_of_a_constant_image() -> None:
    layer = torch.nn.Conv2d(6, 9, 3)
    orthogonal_init(layer)
    center = layer.weight[:, :, 1, 1]
    assert torch.allclose(center.T @ center, 2 * torch.eye(6), atol=1e-5), "orthogonal with ReLU's gain √2"
    off_center = layer.weight.clone()
    off_center[:, :, 1, 1] = 0
    assert off_center.abs().max() == 0
    assert layer.bias is not None
    assert layer.bias.abs().max() == 0


def test_linear_layers_start_orthogonal_with_zero_bias() -> None:
    encoder = PixelEncoder((9, 24, 24), EncoderConfig(filters=4, latent=6))
    weight = encoder.projection.linear.weight
    assert torch.allclose(weight @ weight.T, torch.eye(6), atol=1e-5)
    assert encoder.projection.linear.bias.abs().max() == 0


def test_features_are_layer_normalized() -> None:
    features = PixelEncoder((9, 40, 40))(images(5, 9, 40, 40))
    assert torch.allclose(features.mean(1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(features.norm(dim=1), torch.full((5,), math.sqrt(50)), rtol=1e-3)


def test_bfloat16_is_near_the_exact_numbers_and_its_features_are_float32() -> None:
    torch.manual_seed(0)
    exact = PixelEncoder((9, 40, 40)).double()
    rounded = PixelEncoder((9, 40, 40), precision="bfloat16")
    rounded.load_state_dict(exact.state_dict())
    pixels = images(4, 9, 40, 40)
    coarse, fine = rounded.encode(pixels), exact.encode(pixels)
    assert (coarse.map.dtype, coarse.vector.dtype) == (torch.bfloat16, torch.float32)
    for ours, right, most in ((coarse.map, fine.map, 1e-2), (coarse.vector, fine.vector, 3e-2)):
        error = (ours - right).norm() / right.norm()
        assert 1e-4 < error < most  # bfloat16 has eight bits: the lower bound shows that it is actually used


class Rounded(torch.autograd.Function):
    """To bfloat16 and back; the gradient passes unchanged."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.bfloat16().to(x.dtype)

    @staticmethod
    def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]


def test_gradients_in_bfloat16_are_the_exact_ones_of_a_network_of_rounded_numbers() -> None:
    """So bfloat16 changes only the point where the gradient is taken; the backward pass adds almost nothing."""
    torch.manual_seed(0)
    encoder = PixelEncoder((9, 40, 40), EncoderConfig(filters=32, strides=(3, 2, 1), latent=50), "bfloat16")
    for parameter in encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(
            parameter
        )  # every tap of the kernels, and the biases, as after training
    pixels, probe = images(16, 9, 40, 40), torch.randn(16, 50)

    def round_off(x: torch.Tensor) -> torch.Tensor:
        return Rounded.apply(x)  # type: ignore[no-any-return, no-untyped-call]

    def exact_gradients(number: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The encoder written out in float64, with each result passed through ``number``."""
        own = {name: value.detach().double().requires_grad_() for name, value in encoder.named_parameters()}
        x = pixels.double()
        for depth, stride in enumerate((3, 2, 1)):
            weight, bias = (own[f"convolutions.layers.{depth}.{kind}"] for kind in ("weight", "bias"))
            x = number(F.conv2d(x, number(weight / 255 if depth == 0 else weight), number(bias), stride).relu())
        weight, bias = (number(own[f"projection.linear.{kind}"]) for kind in ("weight", "bias"))
        product = number(F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, bias))
        vector = F.layer_norm(product, (50,), own["projection.norm.weight"], own["projection.norm.bias"])
        # The gradient depends on the features, like that of a loss.
        return torch.autograd.grad((vector * probe.double()).tanh().sum(), list(own.values()))

    ours = torch.autograd.grad((encoder(pixels) * probe).tanh().sum(), list(encoder.parameters()))
    names = [name for name, _ in encoder.named_parameters()]
    for name, gradient, rounded, exact in zip(
        names, ours, exact_gradients(round_off), exact_gradients(torch.clone), strict=True
    ):
        near, far = ((gradient.double() - right).norm() / right.norm() for right in (rounded, exact))
        assert near < 0.008, name
        assert near < 0.7 * far, name


def test_an_empty_batch_gives_no_features() -> None:
    encoder = PixelEncoder((3, 20, 20), EncoderConfig(filters=4, strides=(2, 1), latent=5))
    assert encoder(images(0, 3, 20, 20)).shape == (0, 5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_reach_every_parameter(precision: str) -> None:
    encoder = PixelEncoder((3, 20, 20), EncoderConfig(filters=4, latent=5), precision)  # type: ignore[arg-type]
    (encoder(images(3, 3, 20, 20)) * torch.arange(5.0)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_an_image_too_small_is_refused_by_its_size() -> None:
    with pytest.raises(ValueError, match=r"image of 8×8 is too small for 4 convolutions.*; use larger images"):
        PixelEncoder((9, 8, 8))


def test_an_input_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(9, 40, 40\), got \(9, 41, 40\)"):
        PixelEncoder((9, 40, 40))(images(1, 9, 41, 40))


@pytest.mark.parametrize("fields", [{"filters": 0}, {"latent": 0}, {"strides": ()}, {"strides": (2, 0)}])
def test_impossible_shapes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        EncoderConfig(**fields)  # type: ignore[arg-type]
