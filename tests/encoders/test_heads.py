"""Heads against their layers written out with numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from curl_rl.encoders.heads import MLP, BatchNorm, ResidualHead


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("last", ["affine", "linear", "scaled", "standardized"])
def test_a_head_is_its_layers_one_after_the_other(
    batch_norm: bool, last: Literal["affine", "linear", "scaled", "standardized"]
) -> None:
    torch.manual_seed(0)
    head = MLP([3, 5, 4, 2], batch_norm=batch_norm, last=last).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    w = {name: value.numpy() for name, value in head.state_dict().items()}
    hidden = {"0.weight", "1.weight", "1.bias"} if batch_norm else {"0.weight", "0.bias"}
    assert {name[len("layers.1.") :] for name in w if name.startswith("layers.1.")} == hidden
    x = torch.randn(6, 3, dtype=torch.float64)
    expected = x.numpy()
    for layer in range(2):
        expected = expected @ w[f"layers.{layer}.0.weight"].T
        if batch_norm:
            expected = normalized(expected) * w[f"layers.{layer}.1.weight"] + w[f"layers.{layer}.1.bias"]
        else:
            expected = expected + w[f"layers.{layer}.0.bias"]
        expected = np.maximum(expected, 0)
    expected = expected @ w["layers.2.0.weight"].T
    names = {name for name in w if name.startswith("layers.2.")} - {"layers.2.0.weight"}
    if last == "affine":
        assert names == {"layers.2.0.bias"}
        expected = expected + w["layers.2.0.bias"]
    elif last == "scaled":
        assert names == {"layers.2.1.weight"}
        expected = normalized(expected) * w["layers.2.1.weight"]
    else:
        assert names == set()
        expected = normalized(expected) if last == "standardized" else expected
    assert np.allclose(head(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_a_residual_head_is_its_layers_beside_the_shortcut(norm: Literal["none", "layer", "batch"]) -> None:
    torch.manual_seed(0)
    head = ResidualHead(3, 5, norm=norm).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    w = {name: value.numpy() for name, value in head.state_dict().items()}
    x = torch.randn(6, 3, dtype=torch.float64)
    hidden = normalized(x.numpy() @ w["hidden.layers.0.0.weight"].T)
    hidden = np.maximum(hidden * w["hidden.layers.0.1.weight"] + w["hidden.layers.0.1.bias"], 0)
    expected = hidden @ w["hidden.layers.1.0.weight"].T + x.numpy() @ w["shortcut.weight"].T
    if norm != "batch":
        expected = expected + w["hidden.layers.1.0.bias"]
    if norm == "layer":
        expected = normalized(expected.T).T
    elif norm == "batch":
        expected = normalized(expected)
    if norm != "none":
        expected = expected * w["norm.weight"] + w["norm.bias"]
    assert np.allclose(head(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_a_residual_head_starts_near_its_input_and_may_be_without_offset() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    assert torch.allclose(ResidualHead(3, 5, zero=True)(x)[:, :3], x, atol=0.1)
    assert "norm.bias" not in ResidualHead(3, 5, norm="layer", shift=False).state_dict()
    assert "norm.bias" not in ResidualHead(3, 5, norm="batch", shift=False).state_dict()


def test_a_head_of_one_size_returns_its_input() -> None:
    x = torch.randn(1, 3)
    head = MLP([3], batch_norm=True, last="scaled")
    assert head(x) is x
    assert list(head.parameters()) == []


def test_the_first_layers_are_a_head_of_their_own() -> None:
    head = MLP([3, 5, 4, 2], batch_norm=True, last="scaled")
    x = torch.randn(6, 3)
    middle = head.layers[:1](x)
    assert middle.shape == (6, 5)
    assert middle.min() >= 0, "its ReLU is included"
    assert torch.equal(head.layers[1:](middle), head(x))


def test_batch_norm_uses_the_batch_and_remembers_nothing() -> None:
    norm = BatchNorm(3, scale=True, shift=True)
    x = 7 + 5 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    trained, evaluated = norm.train()(x), norm.eval()(x)
    assert torch.equal(trained, evaluated)
    assert trained.mean(0).abs().max() < 1e-5
    assert list(norm.state_dict()) == ["weight", "bias"]


def test_batch_norm_of_one_sample_is_refused() -> None:
    for mode in (True, False):
        head = MLP([3, 2], batch_norm=False, last="standardized").train(mode)
        with pytest.raises(ValueError, match=r"at least 2 samples in a batch \(batch_size\), got 1"):
            head(torch.zeros(1, 3))


@pytest.mark.parametrize("sizes", [[], [3, 0], [3, -1, 2]])
def test_impossible_sizes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="sizes of a head must be one or more positive integers"):
        MLP(sizes, batch_norm=False, last="linear")
