"""What every objective keeps, so that all of its users can rely on it: one row here for each method and variant."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from curl_rl.objectives import (
    BYOL,
    METHODS,
    BarlowConfig,
    BarlowTwins,
    BatchInfo,
    BYOLConfig,
    Curl,
    Features,
    FeatureSpec,
    MoCo,
    MoCoConfig,
    Objective,
    ObjectiveConfigs,
    ObjectiveName,
    SimCLR,
    SimCLRConfig,
    SimSiam,
    SimSiamConfig,
    build_objective,
)

SPEC = FeatureSpec(6, (2, 3, 3))


class Row(NamedTuple):
    name: ObjectiveName
    kind: type[Objective]
    configs: ObjectiveConfigs


SIMCLR = {
    "simclr": SimCLRConfig(),
    "simclr linear": SimCLRConfig(head_layers=1),
    "simclr v2": SimCLRConfig(head_layers=3, hidden=5, dim=4),
    "simclr inner product": SimCLRConfig(normalize=False),
    "simclr debiased and hard": SimCLRConfig(temperature=0.5, tau_plus=0.1, beta=1.0),
    "simclr logistic": SimCLRConfig(loss="nt_logistic"),
    "simclr triplet": SimCLRConfig(loss="margin_triplet", margin=1.5),
}
MOCO = {
    "moco v1": MoCoConfig("v1", dim=4, queue=13),
    "moco v2": MoCoConfig("v2", dim=4, queue=13),
    "moco v2 symmetric": MoCoConfig("v2", dim=4, queue=23, symmetric=True),
    "moco v3": MoCoConfig("v3", dim=4),
    "moco v3 one way": MoCoConfig("v3", dim=4, symmetric=False),
}
ROWS = {
    "curl": Row("curl", Curl, ObjectiveConfigs()),
    **{row: Row("simclr", SimCLR, ObjectiveConfigs(simclr=config)) for row, config in SIMCLR.items()},
    **{row: Row("moco", MoCo, ObjectiveConfigs(moco=config)) for row, config in MOCO.items()},
    "byol": Row("byol", BYOL, ObjectiveConfigs(byol=BYOLConfig(dim=4))),
    "byol, multi-crop": Row("byol", BYOL, ObjectiveConfigs(byol=BYOLConfig(dim=4, local_views=2))),
    "simsiam, multi-crop": Row("simsiam", SimSiam, ObjectiveConfigs(simsiam=SimSiamConfig(dim=8, local_views=1))),
    "simsiam": Row("simsiam", SimSiam, ObjectiveConfigs(simsiam=SimSiamConfig(dim=8))),
    "barlow": Row("barlow", BarlowTwins, ObjectiveConfigs(barlow=BarlowConfig(dim=7, loss_scale=0.1))),
}
Views = list[Features]


def draw(views: int, batch: int, seed: int) -> Views:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    return [Features(normal(batch, SPEC.dim), normal(batch, *SPEC.map_shape)) for _ in range(views)]


def views(objective: Objective, batch: int = 5, seed: int = 0) -> tuple[Views, Views]:
    drawn = draw(len(objective.online_views) + len(objective.target_views), batch, seed)
    return drawn[: len(objective.online_views)], drawn[len(objective.online_views) :]


def taken(features: Views, rows: torch.Tensor) -> Views:
    return [Features(view.vector[rows], view.map[rows]) for view in features]


@pytest.fixture(params=ROWS)
def objective(request: pytest.FixtureRequest) -> Objective:
    """One step old, so that what it remembers is not empty."""
    row = ROWS[request.param]
    torch.manual_seed(0)
    built = build_objective(row.name, SPEC, row.configs)
    assert type(built) is row.kind
    built = built.double()
    built.after_step(built(*views(built, seed=9), BatchInfo()).carry, torch.tensor(0.9))
    return built


def test_none_is_no_objective() -> None:
    assert build_objective("none", SPEC, ObjectiveConfigs()) is None


def test_every_name_has_a_row() -> None:
    assert {row.name for row in ROWS.values()} | {"none"} == {*METHODS, "none"}


def test_forward_is_pure(objective: Objective) -> None:
    online, target = views(objective)
    before = copy.deepcopy(objective.state_dict())
    random = torch.get_rng_state()
    first = objective(online, target, BatchInfo())
    second = objective.eval()(online, target, BatchInfo())
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert before.keys() == objective.state_dict().keys()
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_result_is_a_scalar_loss_and_detached_scalar_metrics(objective: Objective) -> None:
    result = objective(*views(objective), BatchInfo())
    assert result.loss.shape == ()
    assert result.loss.requires_grad
    assert result.metrics
    for name, value in result.metrics.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert value.isfinite(), name


def test_embedding_std_tells_collapse(objective: Objective) -> None:
    if isinstance(objective, Curl):
        return  # it has no embedding but the encoder's, of which the agent reports the effective rank
    online, target = views(objective, batch=8)
    assert 0.5 < objective(online, target, BatchInfo()).metrics["embedding_std"] <= 1
    one = torch.zeros(8, dtype=torch.int64)
    assert objective(taken(online, one), taken(target, one), BatchInfo()).metrics["embedding_std"] < 1e-6


def test_every_parameter_is_in_one_group_and_learns(objective: Objective) -> None:
    objective(*views(objective), BatchInfo()).loss.backward()
    grouped = [parameter for group in objective.parameter_groups() for parameter in group["params"]]
    assert len(grouped) == len(set(map(id, grouped)))
    assert set(map(id, grouped)) == set(map(id, objective.parameters()))
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 1e-9, name  # a bias that batch norm takes away has rounding errors


def test_the_gradient_is_right_and_none_goes_to_the_slow_copy(objective: Objective) -> None:
    online, target = views(objective, batch=3)
    vectors = [view.vector.requires_grad_() for view in online + target]

    def loss(*vectors: torch.Tensor) -> torch.Tensor:
        given = [Features(vector, view.map) for vector, view in zip(vectors, online + target, strict=True)]
        return objective(given[: len(online)], given[len(online) :], BatchInfo()).loss

    gradients = torch.autograd.grad(loss(*vectors), vectors, allow_unused=True)
    assert all(gradient is not None for gradient in gradients[: len(online)])
    if isinstance(objective, Curl):
        return  # its user encodes the target without gradient; tests/objectives/test_curl.py checks the rest
    assert all(gradient is None for gradient in gradients[len(online) :])
    if isinstance(objective, SimSiam):
        return  # a stopped gradient is not that of the value: see tests/objectives/test_simsiam.py
    fixed = [view.vector.detach() for view in target]
    assert torch.autograd.gradcheck(lambda *free: loss(*free, *fixed), vectors[: len(online)])


def test_the_order_of_the_batch_does_not_matter(objective: Objective) -> None:
    online, target = views(objective, batch=7)
    order = torch.tensor([3, 1, 6, 5, 0, 2, 4])
    plain = objective(online, target, BatchInfo())
    shuffled = objective(taken(online, order), taken(target, order), BatchInfo())
    assert torch.allclose(plain.loss, shuffled.loss, rtol=1e-10)
    for name, value in plain.metrics.items():
        assert torch.allclose(value, shuffled.metrics[name]), name


def test_batch_dependent_says_whether_small_batches_add_up(objective: Objective) -> None:
    online, target = views(objective, batch=5)
    whole = objective(online, target, BatchInfo()).loss
    parts = [torch.arange(3), torch.arange(3, 5)]
    losses = [objective(taken(online, rows), taken(target, rows), BatchInfo()).loss for rows in parts]
    summed = (3 * losses[0] + 2 * losses[1]) / 5
    assert torch.allclose(whole, summed, rtol=1e-10) is not objective.batch_dependent


def test_shards_of_the_batch_get_their_share_of_its_gradient(objective: Objective) -> None:
    """Each process has the gathered features and the gradient of its own: summed up, that of one process."""
    encoder = torch.randn(SPEC.dim, SPEC.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    online, target = views(objective, batch=5)

    def encoded(weight: torch.Tensor, own: slice) -> torch.Tensor:
        given = []
        for view in online:
            vector = view.vector @ encoder
            vector[own] = view.vector[own] @ weight
            given.append(Features(vector, view.map))
        return objective(given, target, BatchInfo()).loss

    def gradient(own: slice) -> torch.Tensor:
        weight = encoder.clone().requires_grad_()
        return torch.autograd.grad(encoded(weight, own), weight)[0]

    assert torch.allclose(gradient(slice(0, 2)) + gradient(slice(2, 5)), gradient(slice(0, 5)), rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_is_refused_in_one_line_where_it_means_nothing(objective: Objective) -> None:
    if isinstance(objective, Curl):
        return  # no batch norm, and no negatives is a loss of 0
    one = views(objective, batch=1)
    if not objective.batch_dependent:
        assert objective(*one, BatchInfo()).loss.isfinite()
        return
    with pytest.raises(ValueError, match=r"^[^\n]*at least 2 samples in a batch \(batch_size\), got 1$"):
        objective(*one, BatchInfo())


def test_single_precision_gives_the_same_loss(objective: Objective) -> None:
    online, target = views(objective)
    exact = objective(online, target, BatchInfo()).loss
    single = [[Features(view.vector.float(), view.map.float()) for view in group] for group in (online, target)]
    rounded = objective.float()(*single, BatchInfo()).loss
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-4)


def test_momentum_is_a_share_at_any_progress(objective: Objective) -> None:
    for progress in (0.0, 0.5, 1.0):
        momentum = objective.momentum(torch.tensor(progress))
        assert momentum.shape == ()
        assert 0 <= momentum <= 1


def test_after_step_changes_buffers_only(objective: Objective) -> None:
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1)
    before = copy.deepcopy(objective.state_dict())
    objective.after_step(objective(*views(objective), BatchInfo()).carry, torch.tensor(0.9))
    changed = {name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in objective.named_buffers()}


def test_state_survives_saving_and_loading_between_steps(objective: Objective) -> None:
    other = copy.deepcopy(objective)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            value.zero_()
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    for seed in range(3):  # enough to go once around the rings
        ours, theirs = (o(*views(o, seed=seed), BatchInfo()) for o in (objective, other))
        assert torch.equal(ours.loss, theirs.loss)
        objective.after_step(ours.carry, torch.tensor(0.7))
        other.after_step(theirs.carry, torch.tensor(0.7))


Refusal = tuple[Callable[[], object], str]
REFUSALS: list[Refusal] = [
    (lambda: SimCLRConfig(temperature=0), "objectives.simclr.temperature must be positive, got 0"),
    (lambda: SimCLRConfig(head_layers=-1), "objectives.simclr.head_layers must be 0 (no head) or more, got -1"),
    (lambda: SimCLRConfig(hidden=0), "objectives.simclr.hidden must be at least 1, got 0"),
    (lambda: SimCLRConfig(dim=0), "objectives.simclr.dim must be at least 1, got 0"),
    (lambda: SimCLRConfig(margin=0), "objectives.simclr.margin must be positive, got 0"),
    (lambda: SimCLRConfig(tau_plus=1), "objectives.simclr.tau_plus must lie in [0, 1), got 1"),
    (lambda: SimCLRConfig(beta=float("nan")), "objectives.simclr.beta must be 0 or more, got nan"),
    (lambda: SimCLRConfig(beta=1.0, loss="nt_logistic"), "set both to 0 for nt_logistic"),
    (lambda: SimCLRConfig(tau_plus=0.1, normalize=False), "objectives.simclr.tau_plus 0.1 needs normalize true"),
    (lambda: MoCoConfig(queue=0), "objectives.moco.queue must be at least 1, got 0"),
    (lambda: MoCoConfig(temperature=-1), "objectives.moco.temperature must be positive, got -1"),
    (lambda: MoCoConfig(momentum=1.5), "objectives.moco.momentum must lie in [0, 1], got 1.5"),
    (lambda: BYOLConfig(hidden=0), "objectives.byol.hidden must be at least 1, got 0"),
    (lambda: BYOLConfig(momentum=-0.1), "objectives.byol.momentum must lie in [0, 1], got -0.1"),
    (lambda: SimSiamConfig(projector_layers=0), "objectives.simsiam.projector_layers must be at least 1, got 0"),
    (lambda: BarlowConfig(dim=0), "objectives.barlow.dim must be at least 1, got 0"),
    (lambda: BarlowConfig(off_diagonal_weight=-1), "objectives.barlow.off_diagonal_weight must be 0 or more, got -1"),
    (lambda: BarlowConfig(loss_scale=0), "objectives.barlow.loss_scale must be positive, got 0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_what_cannot_be_meant_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below, without a pattern's escapes)
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trial_without_contents_refuses_what_the_first_step_would() -> None:
    with torch.device("meta"):
        queue = build_objective("moco", SPEC, ObjectiveConfigs(moco=MoCoConfig(queue=4)))
        curl = build_objective("curl", SPEC, ObjectiveConfigs())
    assert queue is not None
    assert curl is not None
    queue.try_out(SPEC, 4)
    with pytest.raises(ValueError, match="queue 4 is smaller than the 5 keys"):
        queue.try_out(SPEC, 5)
    curl.try_out(SPEC, 2)
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        curl.try_out(SPEC, 1)
