"""Losses against lightly's, if it is installed (its dependencies are heavy, so the setup omits it)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from curl_rl import losses

lightly = pytest.importorskip("lightly.loss")


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nt_xent() -> None:
    first, second = draw(7, 5, seed=0), draw(7, 5, seed=1)
    ours = losses.nt_xent(losses.two_view_scores(F.normalize(first), F.normalize(second)), 0.2)
    assert ours.item() == pytest.approx(lightly.NTXentLoss(temperature=0.2)(first, second).item(), rel=1e-6)


def test_info_nce_over_a_queue() -> None:
    queries, keys, queue = draw(7, 5, seed=0), draw(7, 5, seed=1), F.normalize(draw(11, 5, seed=2))
    oracle = lightly.NTXentLoss(temperature=0.2, memory_bank_size=(11, 5))
    oracle.memory_bank.bank = queue.clone()
    queries, normalized = F.normalize(queries), F.normalize(keys)
    scores = losses.bank_scores(queries, normalized, queue, torch.ones(11, dtype=torch.bool))
    ours = losses.nt_xent(scores, 0.2)
    assert ours.item() == pytest.approx(oracle(queries, keys).item(), rel=1e-5)


def test_negative_cosine() -> None:
    prediction, target = draw(7, 5, seed=0), draw(7, 5, seed=1)
    oracle = lightly.NegativeCosineSimilarity()
    assert losses.negative_cosine(prediction, target).item() == pytest.approx(oracle(prediction, target).item())


def test_barlow_twins() -> None:
    first, second = draw(7, 5, seed=0), draw(7, 5, seed=1)
    ours = losses.redundancy(losses.cross_correlation(first, second), 5e-3)
    assert ours.item() == pytest.approx(lightly.BarlowTwinsLoss(lambda_param=5e-3)(first, second).item(), rel=1e-5)
