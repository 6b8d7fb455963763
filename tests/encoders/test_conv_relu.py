"""The fused convolution against conv2d followed by relu."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from curl_rl import EncoderConfig, PixelEncoder
from curl_rl.encoders import Precision, conv_relu


def operands(dtype: torch.dtype, *, batch: int = 3, channels: int = 5, size: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, size, size + 1, generator=generator).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(7, channels, 3, 3, generator=generator), torch.randn(7, generator=generator)
    return [value.to(dtype).requires_grad_() for value in (x, weight, bias)]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_values_and_gradients_are_those_of_the_two_operations(
    dtype: torch.dtype, tolerance: float, stride: int
) -> None:
    ours = operands(dtype)
    exact = [value.detach().double().requires_grad_() for value in ours]
    y, expected = conv_relu.conv_relu(*ours, stride), F.relu(F.conv2d(*exact, stride))
    assert y.dtype == dtype
    assert torch.allclose(y.double(), expected, rtol=tolerance, atol=tolerance * 5)
    probe = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = torch.autograd.grad(y, ours, probe)
    # Near the ReLU's kink, rounding could put a value on the other side.
    exact_gradients = torch.autograd.grad(expected, exact, probe.double())
    for gradient, right in zip(gradients, exact_gradients, strict=True):
        assert (gradient.double() - right).norm() < tolerance * right.norm() + 1e-12


@pytest.mark.skipif(conv_relu._FUSED is None, reason="this PyTorch has no oneDNN")
def test_the_fused_operation_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = conv_relu._FUSED
    monkeypatch.setattr(conv_relu, "_FUSED", lambda *arguments: calls.append(1) or fused(*arguments))  # type: ignore
    for dtype, fuses in ((torch.bfloat16, conv_relu.FUSES_BFLOAT16), (torch.float32, True), (torch.float64, False)):
        calls.clear()
        conv_relu.conv_relu(*operands(dtype), 1)
        assert len(calls) == fuses, dtype


def test_it_can_be_differentiated_twice() -> None:
    """A gradient penalty through it against one through the two operations."""
    penalties = []
    for function in (conv_relu.conv_relu, lambda *a: F.relu(F.conv2d(*a))):
        x, weight, bias = operands(torch.float32)
        (gradient,) = torch.autograd.grad(function(x, weight, bias, 1).square().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    assert torch.allclose(*penalties, rtol=1e-4, atol=1e-3)


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, bias = operands(torch.float32)
    conv_relu.conv_relu(x.detach(), weight, bias, 1).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_an_encoder_is_exported_in_public_operations_only() -> None:
    encoder = PixelEncoder((3, 20, 20), EncoderConfig(filters=4, strides=(2, 1), latent=5)).eval()
    observation = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    exported = torch.export.export(encoder, (observation,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not any(name.startswith("mkldnn") for name in names)
    assert torch.allclose(exported.module()(observation), encoder(observation), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_not_hidden(precision: Precision, broken: float) -> None:
    """oneDNN's ReLU turns NaN into 0, whereas PyTorch's keeps it."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 20, 20)
    images[2, 1, 7, 9] = broken
    encoder = PixelEncoder((3, 20, 20), EncoderConfig(filters=4, strides=(2, 1, 1), latent=5), precision)
    features = encoder(images)
    assert features.isfinite().all(dim=1).tolist() == [True, True, False, True], "the one image, and no other"
    layers = [encoder.convolutions.layers[depth] for depth in range(3)]
    for parameter in (layers[0].weight, layers[1].bias, layers[2].weight):
        with torch.no_grad():
            kept = parameter.flatten()[0].clone()
            parameter.view(-1)[0] = broken
            for sound in (torch.rand(2, 3, 20, 20), torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)):
                assert not encoder(sound).isfinite().any()
            parameter.view(-1)[0] = kept
