"""CURL's loss against the paper's definition written out, and its properties."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.objectives import BatchInfo, Curl, CurlConfig, Features, FeatureSpec

SPEC = FeatureSpec(4, (2, 3, 3))


def features(vector: torch.Tensor) -> Features:
    return Features(vector, torch.zeros(len(vector), *SPEC.map_shape))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_cross_entropy_of_each_query_to_its_own_key() -> None:
    objective = Curl(SPEC, CurlConfig(similarity_init="uniform")).double()
    query, key = draw(5, 4), draw(5, 4, seed=1)
    result = objective([features(query)], [features(key)], BatchInfo())
    total = 0.0
    for i in range(5):
        scores = [float(query[i] @ objective.W.detach() @ key[j]) for j in range(5)]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[i]
    assert result.loss.item() == pytest.approx(total / 5, rel=1e-10)


def test_the_identity_start_scores_layer_normalized_features_by_their_cosine_times_root_d() -> None:
    objective = Curl(FeatureSpec(50, SPEC.map_shape))
    z = torch.nn.functional.layer_norm(torch.randn(6, 50, generator=torch.Generator().manual_seed(2)), (50,))
    logits = z @ objective.W @ z.T
    cosine = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    assert torch.allclose(logits, math.sqrt(50) * cosine, rtol=1e-3, atol=1e-3)


def test_the_uniform_start_is_positive_and_saturates_independent_embeddings() -> None:
    """With the released start, logits of independent layer-normalized embeddings have a standard deviation near 14."""
    torch.manual_seed(0)
    objective = Curl(FeatureSpec(50, SPEC.map_shape), CurlConfig(similarity_init="uniform"))
    assert objective.W.min() >= 0
    assert objective.W.max() < 1
    z = torch.nn.functional.layer_norm(torch.randn(2, 400, 50), (50,))
    deviations = {
        start: (z[0] @ Curl(FeatureSpec(50, SPEC.map_shape), CurlConfig(similarity_init=start)).W @ z[1].T).std().item()
        for start in ("uniform", "identity")
    }
    # Entries have mean ½ and variance 1/12. The mean contributes nothing because each embedding sums to zero, so the
    # variance of a logit is 50 · 50 / 12 = 14.4². With I/√50 it is 50 / 50 = 1.
    assert deviations["uniform"] == pytest.approx(math.sqrt(2500 / 12), rel=0.1)
    assert deviations["identity"] == pytest.approx(1, rel=0.1)


def test_only_queries_and_w_get_a_gradient_and_it_is_right() -> None:
    objective = Curl(SPEC).double()
    query, key = draw(3, 4).requires_grad_(), draw(3, 4, seed=1)

    def loss(query: torch.Tensor) -> torch.Tensor:
        return objective([features(query)], [features(key)], BatchInfo()).loss

    assert torch.autograd.gradcheck(loss, (query,))
    loss(query).backward()
    assert objective.W.grad is not None
    assert objective.W.grad.abs().sum() > 0


def test_the_order_of_the_batch_does_not_matter() -> None:
    objective = Curl(SPEC, CurlConfig(similarity_init="uniform")).double()
    query, key, order = draw(6, 4), draw(6, 4, seed=1), torch.tensor([3, 1, 5, 0, 2, 4])
    plain = objective([features(query)], [features(key)], BatchInfo())
    shuffled = objective([features(query[order])], [features(key[order])], BatchInfo())
    assert torch.allclose(plain.loss, shuffled.loss, rtol=1e-12)
    for name, value in plain.metrics.items():
        assert torch.allclose(value, shuffled.metrics[name]), name


def test_metrics_distinguish_a_solved_task_from_one_without_information() -> None:
    objective = Curl(SPEC).double()
    apart = 20 * torch.eye(4, dtype=torch.float64)
    solved = objective([features(apart)], [features(apart)], BatchInfo())
    assert solved.metrics["accuracy"] == 1
    assert solved.loss < 1e-6
    # Each row of logits has one 200 and three 0s: standard deviation 100.
    assert solved.metrics["logits_std"].item() == pytest.approx(100, rel=1e-9)
    same = torch.ones(4, 4, dtype=torch.float64)
    blind = objective([features(same)], [features(same)], BatchInfo())
    assert blind.loss.item() == pytest.approx(math.log(4), rel=1e-9)
    assert blind.metrics["logits_std"] == pytest.approx(0, abs=1e-9)


def test_layer_norm_takes_mean_and_scale_out_of_each_embedding() -> None:
    objective = Curl(SPEC, CurlConfig(similarity_init="uniform", layer_norm=True)).double()
    query, key = (draw(5, 4, seed=seed) for seed in (0, 1))
    plain = Curl(SPEC).double()
    plain.load_state_dict(objective.state_dict())
    standard = [
        (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for z in (query, key)
    ]
    result = objective([features(query)], [features(key)], BatchInfo())
    expected = plain([features(standard[0])], [features(standard[1])], BatchInfo())
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
    moved = objective([features(1000 * query + 70)], [features(1000 * key - 3)], BatchInfo())
    assert moved.loss.item() == pytest.approx(result.loss.item(), rel=1e-3)
