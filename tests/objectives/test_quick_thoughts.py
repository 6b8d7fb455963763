"""Quick-Thoughts against loops, and as CPC where both towers are one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from curl_rl.encoders import Features, FeatureSpec, TextEncoder, TextEncoderConfig, TwoTowerTextEncoder, build_encoder
from curl_rl.objectives import CPC, BatchInfo, CPCConfig, QuickThoughts, QuickThoughtsConfig

STREAMS = FeatureSpec(6, (6, 1, 4), streams=2)
CONFIG = TextEncoderConfig(8, 1, 2, dropout=0.0)


def features(vectors: Tensor) -> Features:
    return Features(vectors, vectors.new_empty(len(vectors), 0))


def drawn() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 6, dtype=torch.float64, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("before", [True, False])
def test_each_sentence_finds_the_next_and_the_one_before_term_by_term(before: bool) -> None:
    now, then = drawn()
    total, terms = 0.0, 0
    for asking, candidates in ((now, then), (then, now))[: 1 + before]:
        for i, row in enumerate(asking):
            scores = [math.exp(float(row[:3] @ other[3:]) / 2) for other in candidates]
            total -= math.log(scores[i] / sum(scores))
            terms += 1
    objective = QuickThoughts(STREAMS, QuickThoughtsConfig(before, 2.0))
    loss = objective([features(now), features(then)], [], BatchInfo()).loss
    assert float(loss) == pytest.approx(total / terms, rel=1e-12)


def test_with_one_tower_it_is_cpc_whose_form_is_the_identity() -> None:
    now, then = (view[:, :3] for view in drawn())
    cpc = CPC(FeatureSpec(3, (3, 1, 4)), CPCConfig(steps=1, target="online")).double()
    with torch.no_grad():
        cpc.contrast.W.copy_(torch.eye(3)[None])
    expected = cpc([features(now), features(then)], [], BatchInfo()).loss
    both = [features(torch.cat([view, view], 1)) for view in (now, then)]
    found = QuickThoughts(STREAMS, QuickThoughtsConfig(before=False))(both, [], BatchInfo()).loss
    torch.testing.assert_close(found, expected)


def test_an_encoder_of_one_tower_is_refused() -> None:
    with pytest.raises(ValueError, match="^objectives.quick_thoughts needs an encoder of two towers, got 1: take a"):
        QuickThoughts(STREAMS._replace(streams=1))


def test_two_towers_are_two_encoders_side_by_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    both = TwoTowerTextEncoder((20, 1, 5), CONFIG)
    tokens = torch.tensor([[1, 4, 2, 0, 0], [1, 9, 8, 7, 2]])
    found = both.encode(tokens)
    assert both.feature_spec == FeatureSpec(16, (16, 1, 5), streams=2)
    for place, tower in enumerate((both.first, both.second)):
        assert torch.equal(found.vector[:, 8 * place : 8 * place + 8], tower(tokens))
        assert torch.equal(found.map[:, 8 * place : 8 * place + 8], tower.encode(tokens).map)
    assert not torch.equal(both.first.tokens.weight, both.second.tokens.weight)
    rebuilt = build_encoder(both.describe())
    assert isinstance(rebuilt, TwoTowerTextEncoder)
    rebuilt.load_state_dict(both.state_dict())
    assert torch.equal(rebuilt(tokens), both(tokens))
    assert torch.equal(both.fresh(3)(tokens), both.fresh(3)(tokens))
    both.precision = "bfloat16"
    assert both.second.precision == "bfloat16"
    assert isinstance(both.first, TextEncoder)
