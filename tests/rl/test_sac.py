"""SAC's parts against torch.distributions, numbers worked out by hand, and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from curl_rl.rl import sac


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def actor() -> sac.Actor:
    torch.manual_seed(0)
    return sac.Actor(features=7, actions=3, hidden=16, log_std_min=-4.0, log_std_max=1.0).double()


def test_log_prob_is_that_of_a_squashed_gaussian(actor: sac.Actor) -> None:
    features, noise = draw(200, 7), draw(200, 3, seed=1)
    policy = actor(features, noise)
    gaussian = Normal(policy.mean.atanh(), policy.log_std.exp())
    oracle = Independent(TransformedDistribution(gaussian, TanhTransform()), 1).log_prob(policy.action)
    # The floor of 1e-6 under 1 − a² is the only difference: it matters only near the edge.
    away_from_the_edge = policy.action.abs().max(1).values < 0.9
    assert away_from_the_edge.sum() > 30
    assert torch.allclose(policy.log_prob[away_from_the_edge, 0], oracle[away_from_the_edge], atol=2e-5)


def test_actions_are_the_mean_moved_by_the_noise(actor: sac.Actor) -> None:
    features = draw(6, 7)
    still = actor(features, torch.zeros(6, 3, dtype=torch.float64))
    assert torch.equal(still.action, still.mean)
    moved = actor(features, torch.ones(6, 3, dtype=torch.float64))
    assert torch.allclose(moved.action.atanh() - still.mean.atanh(), still.log_std.exp())
    assert moved.action.abs().max() < 1


def test_the_log_standard_deviation_stays_between_its_bounds(actor: sac.Actor) -> None:
    for scale in (0.0, 1.0, 1e6):
        log_std = actor(scale * draw(50, 7), torch.zeros(50, 3, dtype=torch.float64)).log_std
        assert log_std.min() >= -4
        assert log_std.max() <= 1
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    middle = actor(draw(1, 7), torch.zeros(1, 3, dtype=torch.float64)).log_std
    assert torch.allclose(middle, torch.full_like(middle, -1.5)), "tanh(0) is the middle of the bounds"


def test_log_prob_stays_finite_when_actions_saturate(actor: sac.Actor) -> None:
    policy = actor.float()(torch.zeros(1, 7), torch.full((1, 3), 1e4))
    assert policy.action.abs().max() == 1
    assert policy.log_prob.isfinite().all()


def test_twin_critics_are_two_separate_networks_written_out() -> None:
    torch.manual_seed(0)
    critic = sac.TwinCritic(features=5, actions=2, hidden=8).double()
    with torch.no_grad():
        for bias in critic.biases:
            bias.copy_(torch.randn_like(bias))
    features, action = draw(4, 5), draw(4, 2, seed=1)
    q = critic(features, action)
    assert q.shape == (2, 4, 1)
    for k in range(2):
        x = torch.cat([features, action], 1)
        for depth in range(3):
            x = x @ critic.weights[depth][k] + critic.biases[depth][k]
            if depth < 2:
                x = x.clamp_min(0)
        assert torch.allclose(q[k], x, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(q[0], q[1])


def test_each_critic_starts_orthogonal_with_zero_bias() -> None:
    critic = sac.TwinCritic(features=5, actions=2, hidden=7)
    for weight in critic.weights:
        for matrix in weight:
            rows = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
            assert torch.allclose(rows, torch.eye(len(rows)), atol=1e-5)
    assert all(bias.abs().max() == 0 for bias in critic.biases)


def test_td_target_by_hand() -> None:
    # r = 1, γ = ½, min Q' = 4, α = 0.1, log π' = −2: 1 + ½ (4 + 0.2) = 3.1; if terminal, only the reward is left.
    target = sac.td_target(
        reward=torch.tensor([[1.0], [1.0]]),
        discount=torch.tensor([[0.5], [0.0]]),
        next_q=torch.tensor([[[4.0], [4.0]], [[6.0], [6.0]]]),
        next_log_prob=torch.tensor([[-2.0], [-2.0]]),
        alpha=torch.tensor(0.1),
    )
    assert torch.allclose(target, torch.tensor([[3.1], [1.0]]))


def test_losses_by_hand() -> None:
    q = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]])
    target = torch.tensor([[2.0], [2.0]])
    # First critic: errors −1 and 0, mean square ½; second: 1 and −2, mean square 5/2; their sum is 3.
    assert sac.critic_loss(q, target).item() == pytest.approx(3.0)
    # The smaller Q of each pair is 1 and 0; log π is 4 and −2: mean of (0.4 − 1) and (−0.2 − 0).
    log_prob = torch.tensor([[4.0], [-2.0]])
    assert sac.actor_loss(q, log_prob, torch.tensor(0.1)).item() == pytest.approx(-0.4)
    # α (−log π + 3): mean of 0.1 · (−4 + 3) and 0.1 · (2 + 3).
    assert sac.temperature_loss(torch.tensor(0.1), log_prob, -3.0).item() == pytest.approx(0.2)


def test_the_temperature_rises_when_entropy_is_low_and_leaves_the_policy_alone() -> None:
    log_alpha = torch.tensor(math.log(0.1), requires_grad=True)
    log_prob = torch.tensor([[5.0]], requires_grad=True)  # entropy −5, target −3: short
    sac.temperature_loss(log_alpha.exp(), log_prob, -3.0).backward()
    assert log_alpha.grad is not None
    assert log_alpha.grad < 0, "descending raises the temperature"
    assert log_prob.grad is None
