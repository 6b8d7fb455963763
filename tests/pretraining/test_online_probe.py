"""The online probe: a linear map that it must learn, and its first step by hand."""

from __future__ import annotations

import io
import math

import pytest
import torch

from curl_rl.pretraining.online_probe import OnlineProbe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def test_the_online_probe_learns_a_linear_map() -> None:
    probe, weight = OnlineProbe(5, 3, learning_rate=0.05), draw(5, 3, seed=1).float()
    accuracies = []
    for step in range(150):
        features = draw(64, 5, seed=step + 10).float()
        accuracies.append(probe.learn(features, (features @ weight).argmax(1))["accuracy"])
    assert torch.stack(accuracies[-20:]).mean() > 0.95


def test_the_first_metrics_are_those_of_uniform_logits_before_the_step() -> None:
    probe = OnlineProbe(2, 4)
    metrics = probe.learn(torch.ones(8, 2), torch.tensor([1, 1, 1, 1, 1, 0, 2, 3]))
    assert metrics["loss"].item() == pytest.approx(math.log(4))
    assert metrics["accuracy"] == 1 / 8  # all logits are zero, and argmax breaks ties by the lowest class
    assert not any(metric.requires_grad or metric.shape for metric in metrics.values())
    # Adam's first step is the learning rate, against the sign of the gradient.
    assert probe.classifier.bias.tolist() == pytest.approx([-1e-3, 1e-3, -1e-3, -1e-3], rel=1e-4)


def test_the_encoder_gets_no_gradient() -> None:
    features = torch.randn(6, 3, generator=seeded()).requires_grad_()
    probe = OnlineProbe(3, 2)
    probe.learn(features, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert features.grad is None
    assert not probe.requires_grad_(False)(features).requires_grad


def test_a_saved_probe_resumes_exactly() -> None:
    def learn(probe: OnlineProbe, step: int) -> None:
        features = draw(8, 3, seed=step).float()
        probe.learn(features, (features[:, 0] > 0).long())

    probe = OnlineProbe(3, 2)
    for step in range(3):
        learn(probe, step)
    file = io.BytesIO()
    torch.save(probe.state_dict(), file)
    file.seek(0)
    resumed = OnlineProbe(3, 2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3, 6):
        learn(probe, step)
        learn(resumed, step)
    assert torch.equal(probe.classifier.weight, resumed.classifier.weight)


def test_no_global_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    OnlineProbe(3, 2).learn(torch.ones(2, 3), torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), state)
