"""LARS against a step worked out by hand and against its formulas evaluated number by number."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.lars import LARS


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def scalar_reference(
    weight: list[float],
    gradients: list[list[float]],
    lrs: list[float],
    *,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
    adapt: bool,
) -> list[float]:
    """The docstring's formulas on lists of floats."""
    velocity = [0.0] * len(weight)
    for gradient, lr in zip(gradients, lrs, strict=True):
        g = [d + weight_decay * w for d, w in zip(gradient, weight, strict=True)]
        w_norm, g_norm = math.sqrt(sum(w * w for w in weight)), math.sqrt(sum(d * d for d in g))
        trust = trust_coefficient * w_norm / g_norm if adapt and w_norm > 0 and g_norm > 0 else 1.0
        velocity = [momentum * v + lr * trust * d for v, d in zip(velocity, g, strict=True)]
        weight = [w - v for w, v in zip(weight, velocity, strict=True)]
    return weight


def test_two_steps_by_hand() -> None:
    weight = parameter(3.0, 4.0)
    optimizer = LARS([weight], lr=2.0, momentum=0.5, weight_decay=1.0, trust_coefficient=0.1)
    weight.grad = torch.tensor([5.0, -4.0], dtype=torch.float64)
    optimizer.step()
    # ‖w‖ = 5, g = [5 + 3, −4 + 4] = [8, 0], trust = 0.1 · 5 / 8 = 1/16, v = 2/16 · [8, 0] = [1, 0].
    assert weight.tolist() == pytest.approx([2.0, 4.0])
    weight.grad = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    optimizer.step()
    # ‖w‖ = √20, g = [0, 2], trust = 0.1 · √20 / 2, v = [0.5, 0.2 · √20].
    assert weight.tolist() == pytest.approx([1.5, 4 - 0.2 * math.sqrt(20)])


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_many_steps_under_a_changing_rate_are_the_formulas(adapt: bool, weight_decay: float, tensor_lr: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((2, 3), (4,))]
    start = [weight.detach().flatten().tolist() for weight in weights]
    lrs = [0.5, 1.0, 0.7, 0.0, 2.0]
    settings = {"momentum": 0.8, "weight_decay": weight_decay, "trust_coefficient": 0.02}
    lr = torch.tensor(0.0, dtype=torch.float64) if tensor_lr else 0.0
    optimizer = LARS([{"params": weights, "adapt": adapt}], lr=lr, **settings)
    gradients = [[torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights] for _ in lrs]
    for rate, step in zip(lrs, gradients, strict=True):
        if tensor_lr:
            optimizer.param_groups[0]["lr"].fill_(rate)
        else:
            optimizer.param_groups[0]["lr"] = rate
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        for weight, gradient in zip(weights, step, strict=True):
            assert weight.grad is not None
            assert torch.equal(weight.grad, gradient), "the gradient itself is left as it is"
    for i, weight in enumerate(weights):
        expected = scalar_reference(
            start[i], [g[i].flatten().tolist() for g in gradients], lrs, adapt=adapt, **settings
        )
        assert weight.detach().flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_a_zero_weight_takes_the_plain_step_and_a_zero_gradient_none() -> None:
    born, still = parameter(0.0, 0.0), parameter(1.0, 2.0)
    optimizer = LARS([born, still], lr=0.5, weight_decay=0.0)
    born.grad, still.grad = torch.ones_like(born), torch.zeros_like(still)
    optimizer.step()
    assert born.tolist() == [-0.5, -0.5]
    assert still.tolist() == [1.0, 2.0]


def test_the_adapted_step_does_not_depend_on_the_gradients_scale() -> None:
    steps = []
    for scale in (1.0, 1e6):
        weight = parameter(1.0, -2.0, 0.5)
        optimizer = LARS([weight], lr=1.0)
        weight.grad = scale * torch.tensor([0.3, 0.1, -0.7], dtype=torch.float64)
        optimizer.step()
        steps.append(weight.detach())
    assert torch.allclose(steps[0], steps[1], rtol=1e-12)
    moved = (steps[0] - torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).norm()
    assert moved.item() == pytest.approx(0.001 * math.sqrt(1 + 4 + 0.25)), "trust coefficient · ‖w‖"


def test_parameters_without_a_gradient_stay() -> None:
    used, unused = parameter(1.0), parameter(1.0)
    optimizer = LARS([used, unused], lr=1.0, weight_decay=0.1)
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert used.item() != 1.0
    assert unused.item() == 1.0
    assert unused not in optimizer.state


def test_resumed_from_its_state_it_goes_on_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    groups = parameter_groups([{"params": network.parameters()}], 0.1)
    optimizer = LARS(groups, lr=0.3)

    def train(network: nn.Linear, optimizer: LARS, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            network(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()

    train(network, optimizer, range(3))
    resumed = copy.deepcopy(network)
    resumed_optimizer = LARS(parameter_groups([{"params": resumed.parameters()}], 0.9), lr=0.7)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer, range(3, 6))
    train(resumed, resumed_optimizer, range(3, 6))
    assert torch.equal(network.weight, resumed.weight)
    assert torch.equal(network.bias, resumed.bias)


def test_a_closure_computes_the_gradient_and_its_loss_comes_back() -> None:
    weight = parameter(2.0)
    optimizer = LARS([{"params": [weight], "adapt": False}], lr=0.25)

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert weight.item() == 1.0


def test_a_step_waits_for_no_number_on_the_device() -> None:
    """Meta tensors hold no numbers: reading the value of one would fail."""
    weights = [nn.Parameter(torch.empty(3, 2, device="meta")), nn.Parameter(torch.empty(4, device="meta"))]
    optimizer = LARS(parameter_groups([{"params": weights}], 0.1), lr=0.1)
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    optimizer.step()


def test_biases_and_norms_are_separated_from_the_rest() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    decayed, free = parameter_groups([{"params": network.parameters()}], 1e-4)
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(3, 2, 3, 3), (2, 3)]
    assert decayed["weight_decay"] == 1e-4
    assert decayed.get("adapt", True)
    assert [tuple(weight.shape) for weight in free["params"]] == [(3,), (3,), (3,), (2,)]
    assert free["weight_decay"] == 0
    assert free["adapt"] is False


def test_groups_keep_their_options_and_empty_halves_are_omitted() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [matrix], "weight_decay": 0.5, "lr": 3.0}, {"params": iter([vector]), "fixed_lr": True}]
    first, second = parameter_groups(groups, 0.1)
    assert first == {"params": [matrix], "weight_decay": 0.5, "lr": 3.0}
    assert second == {"params": [vector], "weight_decay": 0.0, "adapt": False, "fixed_lr": True}
    torch.optim.AdamW([first, second])  # other optimizers ignore the mark


@pytest.mark.parametrize(
    "fields", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -0.1}, {"trust_coefficient": 0.0}]
)
def test_numbers_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        LARS([parameter(1.0)], **{"lr": 0.1, **fields})
