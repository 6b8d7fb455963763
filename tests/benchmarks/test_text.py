"""Where the text encoder and the losses are compared with plain PyTorch, both compute the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import text
from benchmarks.text import PlainTextEncoder
from curl_rl.encoders import TextEncoder, TextEncoderConfig

CPU = torch.device("cpu")
CONFIG = TextEncoderConfig(width=8, layers=3, heads=2, dropout=0.0)
TOKENS = text.texts(6, 12, 30)


def both(config: TextEncoderConfig) -> tuple[TextEncoder, PlainTextEncoder]:
    torch.manual_seed(0)
    ours = TextEncoder((30, 1, 12), config).double()
    with torch.no_grad():
        for parameter in ours.parameters():  # norms and biases as well
            parameter.add_(0.3 * torch.randn_like(parameter))
    return ours, PlainTextEncoder(ours)


def test_features_and_gradients_are_those_of_pytorchs_transformer() -> None:
    ours, plain = both(CONFIG)
    features, expected = ours(TOKENS), plain(TOKENS)
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-12)
    assert features.std(0).min() > 0.01
    gradients = torch.autograd.grad(features.square().sum(), [ours.tokens.weight, ours.positions])
    theirs = torch.autograd.grad(expected.square().sum(), [plain.tokens.weight, plain.positions])
    for one, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_both_drop_as_much() -> None:
    """Neither has a dropout that the other lacks: both draw as many random numbers."""
    states = []
    for network in both(replace(CONFIG, dropout=0.25)):
        torch.manual_seed(1)
        assert not torch.equal(network(TOKENS), network(TOKENS))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_texts_are_followed_by_padding_alone_and_one_fills_its_row() -> None:
    tokens = text.texts(400, 32, 100)
    present = tokens != 0
    lengths = present.sum(1)
    assert torch.equal(present, torch.arange(32) < lengths[:, None])
    assert (int(lengths.min()), int(lengths.max())) == (8, 32)
    assert 3 <= int(tokens[present].min()) < int(tokens.max()) < 100


@pytest.mark.parametrize("change", [{"pool": "end"}, {"causal": True}, {"cutoff": "token"}])
def test_other_encoders_are_not_compared(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="^the encoder must have pool mean, no causal mask and no cutoff, got "):
        PlainTextEncoder(TextEncoder((30, 1, 12), replace(CONFIG, **change)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["SimCSE", "CLIP"])
def test_losses_and_gradients_are_those_of_the_formula(name: str) -> None:
    work = text.loss_work(CPU, pairs=12, dim=6)[name]
    (loss, gradients), (expected, theirs) = work.ours(), work.plain()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(gradients, theirs, strict=True):
        assert one.norm() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_suite_has_a_row_for_each_comparison() -> None:
    rows = {row.name: row for row in text.measure(CPU, 2, rounds=1)}
    encoder = rows["Transformer, 2 layers of 128, 2 × 32 tokens, float32"]
    assert encoder.plain_ms is not None
    assert encoder.ours_ms is not None
    assert encoder.ratio == pytest.approx(encoder.plain_ms / encoder.ours_ms)
    assert "tokens a second" in encoder.note
    for name in ("SimCSE", "CLIP"):
        assert rows[f"loss of {name}, 256 pairs of 256"].ratio is not None
