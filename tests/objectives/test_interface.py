"""What every objective keeps, so that all of its users can rely on it: one row here for each method and variant."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch

from curl_rl.encoders import map_features, take_features
from curl_rl.objectives import (
    BYOL,
    METHODS,
    BarlowConfig,
    BarlowTwins,
    BatchInfo,
    BYOLConfig,
    Curl,
    DataSpec,
    Features,
    FeatureSpec,
    MoCo,
    MoCoConfig,
    Need,
    Objective,
    ObjectiveConfigs,
    ObjectiveName,
    ObjectiveUser,
    SimCLR,
    SimCLRConfig,
    SimSiam,
    SimSiamConfig,
    build_objective,
)
from helpers.dummy_objectives import DUMMIES, Local

SPEC = FeatureSpec(6, (2, 3, 3))


MIDDLE = FeatureSpec(6, (2, 3, 3), (3, 5, 4))
DATA = DataSpec(count=23, classes=3, action_dim=2)


class Row(NamedTuple):
    name: ObjectiveName
    kind: type[Objective]
    configs: ObjectiveConfigs
    features: FeatureSpec = SPEC


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
# The interface's parts that no method uses yet, each by an objective of the tests.
DUMMY_ROWS = {name: Row(name, method.objective, ObjectiveConfigs()) for name, method in DUMMIES.items()}
DUMMY_KINDS = {method.objective for method in DUMMIES.values()}
DUMMY_ROWS["local, middle"] = DUMMY_ROWS["local"]._replace(features=MIDDLE)
Views = list[Features]
Given = tuple[Views, Views, BatchInfo]


def given(objective: Objective, batch: int = 5, seed: int = 0) -> Given:
    """What ``forward`` takes: random features, indices without repetition, labels and actions."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    def view() -> Features:
        vector, map_ = normal(batch, spec.dim), normal(batch, *spec.map_shape)
        return Features(vector, map_, None if spec.middle_shape is None else normal(batch, *spec.middle_shape))

    spec = getattr(objective, "features_of_the_row", SPEC)
    online, target = ([view() for _ in specs] for specs in (objective.online_views, objective.target_views))
    assert DATA.count is not None
    assert DATA.classes is not None
    assert DATA.action_dim is not None
    info = BatchInfo(
        torch.randperm(DATA.count, generator=generator)[:batch],
        torch.randint(DATA.classes, (batch,), generator=generator),
        normal(batch, 3, DATA.action_dim),
    )
    return online, target, info


def taken(some: Given, rows: torch.Tensor) -> Given:
    """The samples in ``rows``, of everything."""
    online, target, info = some
    views = ([take_features(view, rows) for view in group] for group in (online, target))
    return (*views, BatchInfo(*(value[rows] for value in info if value is not None)))  # type: ignore[return-value]


def pass_over_all(objective: Objective, seed: int = 5) -> None:
    """What a user does before an epoch: every sample in two batches of unequal size, then the clustering."""
    assert DATA.count is not None
    order = torch.randperm(DATA.count, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for rows in order.split(13):
            online, *_ = given(objective, batch=len(rows), seed=seed)
            objective.remember(online[0], BatchInfo(indices=rows))
    objective.between_epochs(0, torch.Generator().manual_seed(seed))


@pytest.fixture(params=[*ROWS, *DUMMY_ROWS])
def objective(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Objective:
    """One step old, so that what it remembers is not empty."""
    row = (ROWS | DUMMY_ROWS)[request.param]
    for name, method in DUMMIES.items():
        monkeypatch.setitem(METHODS, name, method)
    torch.manual_seed(0)
    built = build_objective(row.name, row.features, row.configs, DATA)
    assert type(built) is row.kind
    built = built.double()
    built.features_of_the_row = row.features  # type: ignore[assignment]
    pass_over_all(built)
    built.after_step(built(*given(built, seed=9)).carry, torch.tensor(0.9))
    return built


def test_none_is_no_objective() -> None:
    assert build_objective("none", SPEC, ObjectiveConfigs()) is None


def test_every_name_has_a_row() -> None:
    assert {row.name for row in ROWS.values()} | {"none"} == {*METHODS, "none"}


def test_forward_is_pure(objective: Objective) -> None:
    everything = given(objective)
    before = copy.deepcopy(objective.state_dict())
    random = torch.get_rng_state()
    first = objective(*everything)
    second = objective.eval()(*everything)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(torch.get_rng_state(), random)
    assert before.keys() == objective.state_dict().keys()
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_result_is_a_scalar_loss_and_detached_scalar_metrics(objective: Objective) -> None:
    result = objective(*given(objective))
    assert result.loss.shape == ()
    assert result.loss.requires_grad
    assert result.metrics
    for name, value in result.metrics.items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert value.isfinite(), name


def test_embedding_std_tells_collapse(objective: Objective) -> None:
    everything = given(objective, batch=8)
    metrics = objective(*everything).metrics
    if isinstance(objective, Curl) or type(objective) in DUMMY_KINDS:
        assert "embedding_std" not in metrics
        return  # it has no embedding but the encoder's, of which the agent reports the effective rank
    assert 0.5 < metrics["embedding_std"] <= 1
    one = torch.zeros(8, dtype=torch.int64)
    assert objective(*taken(everything, one)).metrics["embedding_std"] < 1e-6


def test_every_parameter_is_in_one_group_and_learns(objective: Objective) -> None:
    objective(*given(objective)).loss.backward()
    grouped = [parameter for group in objective.parameter_groups() for parameter in group["params"]]
    assert len(grouped) == len(set(map(id, grouped)))
    assert set(map(id, grouped)) == set(map(id, objective.parameters()))
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 1e-9, name  # a bias that batch norm takes away has rounding errors


def leaves(views: Views) -> list[torch.Tensor]:
    """Every tensor of the features, in the order in which :func:`rebuilt` takes them."""
    return [value for view in views for value in view if value is not None]


def rebuilt(views: Views, tensors: Sequence[torch.Tensor]) -> Views:
    """The same views made of other tensors."""
    rest = iter(tensors)
    return [Features(*(None if value is None else next(rest) for value in view)) for view in views]  # type: ignore[arg-type]


def test_the_gradient_is_right_and_none_goes_to_the_slow_copy(objective: Objective) -> None:
    online, target, info = given(objective, batch=3)
    of_online, of_target = ([leaf.requires_grad_() for leaf in leaves(views)] for views in (online, target))

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        one, other = rebuilt(online, tensors[: len(of_online)]), rebuilt(target, tensors[len(of_online) :])
        return objective(one, other, info).loss

    gradients = torch.autograd.grad(loss(*of_online, *of_target), [*of_online, *of_target], allow_unused=True)
    read = [gradient is not None for gradient in gradients[: len(of_online)]]
    if not objective.reads_maps:
        assert read == [leaf.ndim == 2 for leaf in of_online], "of vectors alone"
    elif isinstance(objective, Local):
        by_view = [read[: len(read) // 2], read[len(read) // 2 :]]
        # The first view's vector and most local map, the second view's vector and last map.
        middle = len(by_view[0]) == 3
        assert by_view == [[True, not middle, *[True] * middle], [True, True, *[False] * middle]]
    if isinstance(objective, Curl):
        return  # its user encodes the target without gradient; tests/objectives/test_curl.py checks the rest
    assert all(gradient is None for gradient in gradients[len(of_online) :])
    if isinstance(objective, SimSiam):
        return  # a stopped gradient is not that of the value: see tests/objectives/test_simsiam.py
    fixed = [leaf.detach() for leaf in of_target]
    used = [place for place, is_read in enumerate(read) if is_read]

    def of_used(*free: torch.Tensor) -> torch.Tensor:
        tensors = [leaf.detach() for leaf in of_online]
        for place, value in zip(used, free, strict=True):
            tensors[place] = value
        return loss(*tensors, *fixed)

    assert torch.autograd.gradcheck(of_used, [of_online[place] for place in used])


def test_the_order_of_the_batch_does_not_matter(objective: Objective) -> None:
    everything = given(objective, batch=7)
    order = torch.tensor([3, 1, 6, 5, 0, 2, 4])
    plain, shuffled = objective(*everything), objective(*taken(everything, order))
    assert torch.allclose(plain.loss, shuffled.loss, rtol=1e-10)
    for name, value in plain.metrics.items():
        assert torch.allclose(value, shuffled.metrics[name]), name


def test_batch_dependent_says_whether_small_batches_add_up(objective: Objective) -> None:
    everything = given(objective, batch=5)
    whole = objective(*everything).loss
    losses = [objective(*taken(everything, rows)).loss for rows in (torch.arange(3), torch.arange(3, 5))]
    summed = (3 * losses[0] + 2 * losses[1]) / 5
    assert torch.allclose(whole, summed, rtol=1e-10) is not objective.batch_dependent


def test_shards_of_the_batch_get_their_share_of_its_gradient(objective: Objective) -> None:
    """Each process has the gathered features and the gradient of its own: summed up, that of one process.

    The gradient goes through a scale for each of vector, map and middle, the network that all processes share.
    """
    online, target, info = given(objective, batch=5)

    def gradient(own: slice) -> list[torch.Tensor]:
        scales = [torch.full((), 1.3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        shown = []
        for view in online:
            parts: list[torch.Tensor | None] = []
            for value, scale in zip(view, scales, strict=True):
                gathered = None if value is None else 1.3 * value
                if value is not None and gathered is not None:
                    gathered[own] = value[own] * scale
                parts.append(gathered)
            shown.append(Features(*parts))  # type: ignore[arg-type]
        found = torch.autograd.grad(objective(shown, target, info).loss, scales, allow_unused=True)
        return [torch.zeros(()) if value is None else value for value in found]

    whole = gradient(slice(0, 5))
    shards = zip(gradient(slice(0, 2)), gradient(slice(2, 5)), strict=True)
    for one, two in zip(whole, shards, strict=True):
        assert torch.allclose(one, two[0] + two[1], rtol=1e-9, atol=1e-12)
    if objective.reads_maps:
        assert whole[1].abs() > 1e-6


def test_a_batch_of_one_is_refused_in_one_line_where_it_means_nothing(objective: Objective) -> None:
    if isinstance(objective, Curl):
        return  # no batch norm, and no negatives is a loss of 0
    one = given(objective, batch=1)
    if not objective.batch_dependent:
        assert objective(*one).loss.isfinite()
        return
    with pytest.raises(ValueError, match=r"^[^\n]*at least 2 samples in a batch \(batch_size\), got 1$"):
        objective(*one)


def test_single_precision_gives_the_same_loss(objective: Objective) -> None:
    online, target, info = given(objective)
    exact = objective(online, target, info).loss
    single = [[map_features(torch.Tensor.float, view) for view in group] for group in (online, target)]
    rounded = objective.float()(*single, info).loss
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-4)


def test_momentum_is_a_share_at_any_progress(objective: Objective) -> None:
    for progress in (0.0, 0.5, 1.0):
        momentum = objective.momentum(torch.tensor(progress))
        assert momentum.shape == ()
        assert 0 <= momentum <= 1


def test_after_step_changes_buffers_and_projected_parameters_only(objective: Objective) -> None:
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1)
    before = copy.deepcopy(objective.state_dict())
    objective.after_step(objective(*given(objective)).carry, torch.tensor(0.9))
    changed = {name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])}
    may_change = {name for name, _ in objective.named_buffers()} | objective.projected
    assert changed <= may_change
    assert bool(changed) is bool(may_change)
    assert objective.projected <= {name for name, _ in objective.named_parameters()}
    if not objective.wants_all(0):  # assignments and the like stand still within an epoch
        assert changed == may_change


def test_projected_parameters_stay_where_they_are_put(objective: Objective) -> None:
    for seed in range(2):
        objective.after_step(objective(*given(objective, seed=seed)).carry, torch.tensor(0.9))
    before = copy.deepcopy(objective.state_dict())
    objective.after_step(objective(*given(objective, seed=2)).carry, torch.tensor(0.9))
    for name in objective.projected:
        assert torch.allclose(objective.state_dict()[name], before[name]), name


def test_state_survives_saving_and_loading_between_steps(objective: Objective) -> None:
    other = copy.deepcopy(objective)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            value.zero_()
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    for seed in range(3):  # enough to go once around the rings
        ours, theirs = (o(*given(o, seed=seed)) for o in (objective, other))
        assert torch.equal(ours.loss, theirs.loss)
        objective.after_step(ours.carry, torch.tensor(0.7))
        other.after_step(theirs.carry, torch.tensor(0.7))
        for one in (objective, other):
            one.between_epochs(seed, torch.Generator().manual_seed(seed))
    for name, value in objective.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_pass_over_all_fills_what_it_should_and_depends_on_its_generator_alone(objective: Objective) -> None:
    again = copy.deepcopy(objective)
    random = torch.get_rng_state()
    for one in (objective, again):
        pass_over_all(one, seed=3)
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    if objective.wants_all(0) is None:
        return
    assert "indices" in objective.needs
    before = copy.deepcopy(objective.state_dict())
    pass_over_all(objective, seed=4)
    assert any(not torch.equal(value, before[name]) for name, value in objective.named_buffers())


def test_evaluation_leaves_banks_alone(objective: Objective) -> None:
    before = copy.deepcopy(objective.state_dict())
    objective.eval()
    with torch.no_grad():
        objective(*given(objective, seed=6))
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", DUMMIES)
def test_needs_are_refused_by_name_where_a_user_lacks_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = dataclasses.replace(DUMMIES[name], instead="moco")
    monkeypatch.setitem(METHODS, name, method)
    everything: frozenset[Need] = frozenset({"labels", "indices", "actions", "epochs"})
    for has in (frozenset[Need](), everything):
        user = ObjectiveUser("agent.objective", "a replay", has)
        missing = sorted(method.objective.needs - has)
        if not missing:
            assert build_objective(name, SPEC, None, DATA, user) is not None
            continue
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
            build_objective(name, SPEC, None, DATA, user)
        lacking = " and ".join(missing)
        assert str(error.value) == f"agent.objective {name} needs {lacking}, which a replay does not have: take moco"


@pytest.mark.parametrize(
    ("name", "what"), [("clustered", "samples"), ("labeled", "classes"), ("dynamics", "an action")]
)
def test_a_size_that_is_not_known_is_asked_for(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, name, DUMMIES[name])
    with pytest.raises(
        ValueError, match=rf"^objectives.{name} needs the (number|size) of {what}, got none: give data="
    ):
        build_objective(name, SPEC)


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
    for method in DUMMIES.values():
        with torch.device("meta"):
            dummy = method.objective.build(MIDDLE, method.config(), DATA)
        dummy.try_out(MIDDLE, 2, DATA)  # with indices, labels, actions and a middle where it needs them
    curl.try_out(SPEC, 2)
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        curl.try_out(SPEC, 1)
