"""The text encoder: padding, the end, its three vectors, and its noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from curl_rl.encoders import TextEncoder, TextEncoderConfig, build_encoder
from curl_rl.encoders.text import PADDING, cut_off

SHAPE = (20, 1, 7)
CONFIG = TextEncoderConfig(width=8, layers=2, heads=2, dropout=0.0)
Pool = Literal["mean", "end", "first"]
VARIANTS: list[tuple[Pool, bool]] = [("mean", False), ("end", False), ("first", False), ("end", True), ("mean", True)]


def encoder(seed: int = 0, **changes: Any) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder(SHAPE, replace(CONFIG, **changes)).double()


# [end] is 2, as in our tokenizers: not the highest number in its row.
TEXTS = torch.tensor([[1, 9, 8, 2, 0, 0, 0], [1, 5, 2, 0, 0, 0, 0], [1, 3, 4, 5, 6, 7, 2]])


@pytest.mark.parametrize(("pool", "causal"), VARIANTS)
def test_padding_does_not_influence_a_text(pool: Pool, causal: bool) -> None:
    network = encoder(pool=pool, causal=causal)
    whole = network.encode(TEXTS)
    for row, length in enumerate((4, 3, 7)):
        alone = network.encode(TEXTS[row : row + 1, :length])
        torch.testing.assert_close(whole.vector[row], alone.vector[0])
        torch.testing.assert_close(whole.map[row, ..., :length], alone.map[0])
        assert not whole.map[row, ..., length:].any()


@pytest.mark.parametrize(("pool", "causal"), VARIANTS)
def test_padding_gets_no_gradient(pool: Pool, causal: bool) -> None:
    network = encoder(pool=pool, causal=causal)
    features = network.encode(TEXTS)
    (features.vector.square().sum() + features.map.square().sum()).backward()  # type: ignore[no-untyped-call]
    gradient = network.tokens.weight.grad
    assert gradient is not None
    assert not gradient[PADDING].any()
    assert gradient[torch.tensor([1, 2, 9, 8, 5])].any(1).all()


def test_the_vector_is_the_mean_the_end_or_the_first_of_the_map() -> None:
    lengths = torch.tensor([4, 3, 7])
    by_hand = {
        "mean": lambda tokens: torch.stack([row[:, :n].mean(1) for row, n in zip(tokens, lengths, strict=True)]),
        "end": lambda tokens: torch.stack([row[:, n - 1] for row, n in zip(tokens, lengths, strict=True)]),
        "first": lambda tokens: tokens[:, :, 0],
    }
    for pool, expected in by_hand.items():
        features = encoder(pool=pool).encode(TEXTS)
        torch.testing.assert_close(features.vector, expected(features.map.squeeze(2)))


def test_a_causal_encoder_does_not_look_ahead() -> None:
    changed = TEXTS.clone()
    changed[:, 2] = 11
    for causal in (True, False):
        network = encoder(pool="end", causal=causal)
        before, after = network.encode(TEXTS).map, network.encode(changed).map
        assert torch.equal(before[..., :2], after[..., :2]) is causal
        assert not torch.allclose(before[2, ..., 3:], after[2, ..., 3:])


def test_the_order_of_the_tokens_matters() -> None:
    network = encoder()
    swapped = TEXTS[:, [0, 2, 1, 3, 4, 5, 6]]
    assert not torch.allclose(network(TEXTS[:1]), network(swapped[:1]))


def test_a_row_of_padding_is_finite() -> None:
    for pool, causal in VARIANTS:
        features = encoder(pool=pool, causal=causal).encode(torch.zeros(2, 7, dtype=torch.int64))
        assert features.vector.isfinite().all()
        assert not features.map.any()


def test_attention_is_the_formula_written_out() -> None:
    """One layer of one head against softmax(QKᵀ/√d)V in plain tensors."""
    network = encoder(layers=1, heads=1, pool="first")
    (layer,) = network.layers
    tokens = TEXTS[:1, :4]
    x = network.tokens(tokens)[0] + network.positions[:4]
    q, k, v = layer.attention_in(layer.attention_norm(x)).chunk(3, 1)  # type: ignore[operator]
    x = x + layer.attention_out(torch.softmax(q @ k.T / 8**0.5, 1) @ v)  # type: ignore[operator]
    hidden = layer.expand(layer.norm(x))  # type: ignore[operator]
    x = x + layer.contract(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)  # type: ignore[operator]
    torch.testing.assert_close(network(tokens)[0], network.norm(x)[0])


def test_dropout_makes_two_passes_differ_in_training_only() -> None:
    network = encoder(dropout=0.3)
    twice = torch.cat([TEXTS, TEXTS])
    first, second = network(twice).chunk(2)
    assert not torch.isclose(first, second).any(), "rows of one batch have masks of their own"
    network.eval()
    assert torch.equal(*network(twice).chunk(2))


def test_token_cutoff_cuts_whole_tokens_at_its_rate() -> None:
    torch.manual_seed(0)
    cut = cut_off(torch.ones(400, 10, 3), torch.ones(400, 10, dtype=torch.bool), "token", 0.2) == 0
    assert (cut == cut[..., :1]).all()
    assert abs(cut.double().mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_feature_cutoff_cuts_features_of_all_tokens_at_its_rate() -> None:
    torch.manual_seed(0)
    cut = cut_off(torch.ones(400, 3, 10), torch.ones(400, 3, dtype=torch.bool), "feature", 0.2) == 0
    assert (cut == cut[:, :1]).all()
    assert abs(cut.double().mean() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_span_cutoff_cuts_a_share_of_each_text_anywhere_in_it() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([4, 8, 1]).repeat(300)
    present = torch.arange(8) < lengths[:, None]
    cut = cut_off(torch.ones(900, 8, 2), present, "span", 0.25)[..., 0] == 0
    assert (cut.sum(1).view(300, 3) == torch.tensor([1, 2, 0])).all()
    starts = {n: sorted({row.nonzero()[0].item() for row in cut[lengths == n]}) for n in (4, 8)}
    assert starts == {4: [0, 1, 2, 3], 8: [0, 1, 2, 3, 4, 5, 6]}
    long = cut[lengths == 8]
    assert all(row.nonzero().diff(dim=0).eq(1).all() for row in long)


def test_cutoff_is_off_in_evaluation() -> None:
    for what in ("token", "feature", "span"):
        network = encoder(cutoff=what, cutoff_rate=0.5)
        assert not torch.equal(network(TEXTS), network(TEXTS))
        network.eval()
        assert torch.equal(network(TEXTS), network(TEXTS))


def test_bfloat16_stays_near_float32() -> None:
    network = encoder().float()
    exact = network(TEXTS)
    network.precision = "bfloat16"
    rounded = network(TEXTS)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_the_description_rebuilds_every_setting() -> None:
    network = encoder(pool="end", causal=True, cutoff="span", dropout=0.25)
    rebuilt = build_encoder(network.describe())
    assert isinstance(rebuilt, TextEncoder)
    assert (rebuilt.config, rebuilt.input_shape) == (network.config, SHAPE)


@pytest.mark.parametrize(
    "tokens",
    [torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 3), torch.zeros(7, dtype=torch.int64)],
    ids=["too long", "floats", "one text"],
)
def test_what_are_no_tokens_is_refused(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^tokens must be \(B, l\) int64 with l from 1 to 7, got .*$"):
        encoder()(tokens)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"heads": 3}, r"encoder\.text\.heads must divide width 8, got 3"),
        ({"causal": True, "pool": "first"}, r"encoder\.text\.pool must be end or mean with causal true, got first"),
        ({"dropout": 1.0}, r"encoder\.text\.dropout must lie in \[0, 1\), got 1\.0"),
        ({"layers": 0}, r"encoder\.text\.layers must be at least 1, got 0"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(CONFIG, **changes)


def test_an_input_shape_has_one_row() -> None:
    with pytest.raises(ValueError, match=r"^input_shape must be \(V, 1, L\), .* got \(20, 2, 7\)$"):
        TextEncoder((20, 2, 7))
