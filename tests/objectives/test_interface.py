"""The interface that every objective implements: one row here for each method and variant.

The promises themselves are the checks of ``curl_rl.testing``; here are the rows, and what holds for ours alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from curl_rl.objectives import (
    METHODS,
    AMDIMConfig,
    BarlowConfig,
    BYOLConfig,
    CLIPConfig,
    CMCConfig,
    CPCConfig,
    Curl,
    CurlConfig,
    DataSpec,
    DeepClusterConfig,
    DIMConfig,
    FeatureSpec,
    InstDiscConfig,
    ISBERTConfig,
    Method,
    MoCoConfig,
    Need,
    NNCLRConfig,
    NPairConfig,
    ObjectiveConfigs,
    ObjectiveUser,
    OpenWorldConfig,
    PairMarginConfig,
    PCLConfig,
    QuickThoughtsConfig,
    SimCLRConfig,
    SimCSEConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TripletConfig,
    build_objective,
)
from curl_rl.objectives.cpc_patches import PatchCPC
from curl_rl.testing import OBJECTIVE_CHECKS, check_objective
from curl_rl.testing.objectives.case import ObjectiveCase, changes, state_of
from helpers.dummy_objectives import DUMMIES

SPEC = FeatureSpec(6, (2, 3, 3))
MIDDLE = FeatureSpec(6, (2, 3, 3), (3, 5, 4))
PATCHES = FeatureSpec(6, (6, 4, 3), patches=True)
DATA = DataSpec(count=23, classes=3, action_dim=2)


class Row(NamedTuple):
    """A variant of a method, with the arguments of :func:`check_objective`."""

    method: Method
    config: Any
    features: FeatureSpec = SPEC
    stops_gradient: bool = False
    data: DataSpec = DATA


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
SIMSIAM = {
    "simsiam": SimSiamConfig(dim=8),
    "simsiam, multi-crop": SimSiamConfig(dim=8, local_views=1),
}
BYOL = {
    "byol": BYOLConfig(dim=4),
    "byol, multi-crop": BYOLConfig(dim=4, local_views=2),
}
SWAV = {
    "swav": SwAVConfig(prototypes=7, dim=4, frozen_steps=1),
    "swav, multi-crop and queue": SwAVConfig(
        prototypes=7, dim=4, frozen_steps=0, local_views=2, queue=9, queue_after=1
    ),
    "swav, proto": SwAVConfig(7, 0.1, 0.1, 3, 0, head_layers=1, dim=4, target="slow", future=1, predictor=True),
    "swav, slow": SwAVConfig(prototypes=7, dim=4, frozen_steps=0, queue=9, target="slow", local_views=1),
}
DEEPCLUSTER = {
    "deepcluster": DeepClusterConfig(clusters=5, dim=4),
    "deepcluster, multi-crop": DeepClusterConfig(clusters=4, clusterings=1, dim=4, local_views=1),
}
INSTDISC = {
    "instdisc": InstDiscConfig(dim=4),
    "instdisc nce, a part of the bank": InstDiscConfig(loss="nce", dim=4, negatives=9, proximal=0.5),
}
NNCLR = {
    "nnclr": NNCLRConfig(dim=4, queue=13),
    "nnclr, shallow": NNCLRConfig(dim=4, queue=9, projector_layers=1, predictor_hidden=7),
}
PCL = {
    "pcl": PCLConfig(clusters=(3, 5), warmup_epochs=0, queue=13, dim=4),
    "pcl v1": PCLConfig(clusters=(4,), warmup_epochs=0, restarts=1, queue=13, head_layers=1, dim=4),
}
METRIC = {
    "pair_margin": PairMarginConfig(dim=4, margin=2.0),
    "pair_margin, supervised": PairMarginConfig(dim=4, supervised=True),
    "triplet": TripletConfig(dim=4, margin=0.9),
    "triplet, supervised": TripletConfig(dim=4, margin=0.9, mining="all", supervised=True),
    "triplet, hard": TripletConfig(dim=4, head_layers=1, mining="hard"),
    "n_pair": NPairConfig(dim=4),
    "n_pair, supervised": NPairConfig(dim=4, supervised=True),
}
DIM = {
    "dim": Row(METHODS["dim"], DIMConfig(units=7), MIDDLE),
    "dim, dv, pooled": Row(METHODS["dim"], DIMConfig("dv", units=5, pool=2, global_weight=0.5), MIDDLE),
    "dim, info_nce": Row(METHODS["dim"], DIMConfig("info_nce", units=7, local_weight=0, global_weight=1)),
    "dim, in time": Row(METHODS["dim"], DIMConfig("info_nce", future=1, heads="linear")),
    "dim, in time, residual": Row(METHODS["dim"], DIMConfig("info_nce", future=2, units=6)),
}
AMDIM = {
    "amdim": Row(METHODS["amdim"], AMDIMConfig(), FeatureSpec(5, (2, 2, 1), (3, 2, 2))),
    "amdim, one map, pooled": Row(METHODS["amdim"], AMDIMConfig(clip=3.0, regularization=0.5, pool=1)),
}
STREAMS = SPEC._replace(streams=2)
CMC = {
    "cmc": Row(METHODS["cmc"], CMCConfig(dim=4), STREAMS),
    "cmc nce, a part of the bank": Row(METHODS["cmc"], CMCConfig("nce", dim=4, negatives=9), STREAMS),
}
CPC = {
    "cpc": CPCConfig(steps=2),
    "cpc, actions": CPCConfig(steps=2, actions=True, hidden=5),
    "cpc, online": CPCConfig(steps=2, target="online", layer_norm=True),
}
PATCH_CPC = {
    "cpc, patches": CPCConfig("patches", steps=2, context_layers=2, hidden=5),
    "cpc, normalized patches": CPCConfig("patches", steps=2, skip=0, context_layers=1, layer_norm=True),
}
TEXT = FeatureSpec(6, (6, 1, 5))
SIMCSE = {
    "simcse": SimCSEConfig(),
    "simcse, hard negatives": SimCSEConfig(0.5, head=False, hard_negatives=True, hard_weight=2.0),
}
WORDS = dataclasses.replace(DATA, vocabulary=9)
MASKED_SIMCSE = {
    "simcse, masked": SimCSEConfig(masked_weight=0.1),
    "simcse, hard negatives, masked": SimCSEConfig(head=False, hard_negatives=True, masked_weight=0.5),
}
PAIRS = dataclasses.replace(DATA, text=FeatureSpec(4, (4, 1, 3)))
CLIP = {
    "clip": CLIPConfig(dim=3),
    "clip, duplicates as negatives": CLIPConfig(dim=5, temperature=0.5, duplicates="negative"),
}
ROWS = {
    "curl": Row(METHODS["curl"], CurlConfig()),
    **{row: Row(METHODS["simclr"], config) for row, config in SIMCLR.items()},
    **{row: Row(METHODS["moco"], config) for row, config in MOCO.items()},
    **{row: Row(METHODS["byol"], config) for row, config in BYOL.items()},
    **{row: Row(METHODS["simsiam"], config, stops_gradient=True) for row, config in SIMSIAM.items()},
    **{row: Row(METHODS["swav"], config, stops_gradient=config.target == "online") for row, config in SWAV.items()},
    **{row: Row(METHODS["deepcluster"], config) for row, config in DEEPCLUSTER.items()},
    "supcon": Row(METHODS["supcon"], SupConConfig(dim=4)),
    "open_world": Row(METHODS["open_world"], OpenWorldConfig(margin=3.0, queue=2, burn_in=1, every=1)),
    **{row: Row(METHODS[row.partition(",")[0]], config) for row, config in METRIC.items()},
    "barlow": Row(METHODS["barlow"], BarlowConfig(dim=7, loss_scale=0.1)),
    **{row: Row(METHODS["instdisc"], config) for row, config in INSTDISC.items()},
    **{row: Row(METHODS["nnclr"], config) for row, config in NNCLR.items()},
    **{row: Row(METHODS["pcl"], config) for row, config in PCL.items()},
    **DIM,
    **CMC,
    **AMDIM,
    **{row: Row(METHODS["cpc"], config) for row, config in CPC.items()},
    **{row: Row(METHODS["cpc"], config, PATCHES) for row, config in PATCH_CPC.items()},
    **{row: Row(METHODS["simcse"], config, TEXT) for row, config in SIMCSE.items()},
    **{row: Row(METHODS["simcse"], config, TEXT, data=WORDS) for row, config in MASKED_SIMCSE.items()},
    "quick_thoughts": Row(METHODS["quick_thoughts"], QuickThoughtsConfig(), STREAMS),
    "quick_thoughts, next": Row(METHODS["quick_thoughts"], QuickThoughtsConfig(before=False, temperature=2.0), STREAMS),
    "is_bert": Row(METHODS["is_bert"], ISBERTConfig(windows=(1, 3), dim=4), TEXT),
    **{row: Row(METHODS["clip"], config, data=PAIRS) for row, config in CLIP.items()},
}
# Parts of the interface that no method uses yet, each exercised by an objective of the tests.
DUMMY_ROWS = {name: Row(method, method.config()) for name, method in DUMMIES.items()}
DUMMY_ROWS["local, middle"] = DUMMY_ROWS["local"]._replace(features=MIDDLE)
ALL_ROWS = ROWS | DUMMY_ROWS


def case_of(row: Row) -> ObjectiveCase:
    """The row's objective, built by name as users do."""
    torch.manual_seed(0)
    ours = row.method not in DUMMIES.values()
    configs = ObjectiveConfigs(**{row.method.name: row.config}) if ours else None
    built = build_objective(row.method.name, row.features, configs, row.data)
    assert type(built) is (PatchCPC if row.features.patches else row.method.objective)
    return ObjectiveCase(built.double(), row.features, row.data, 5, 0, row.stops_gradient, row.method)


@pytest.fixture(params=ALL_ROWS)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectiveCase:
    for name, method in DUMMIES.items():
        monkeypatch.setitem(METHODS, name, method)
    return case_of(ALL_ROWS[request.param])


@pytest.mark.parametrize("check", OBJECTIVE_CHECKS)
@pytest.mark.parametrize("row", ALL_ROWS.values(), ids=ALL_ROWS)
def test_conformance(row: Row, check: str) -> None:
    check_objective(
        row.method,
        row.features,
        data=row.data,
        config=row.config,
        stops_gradient=row.stops_gradient,
        checks=[check],
    )


def test_none_builds_no_objective() -> None:
    assert build_objective("none", SPEC, ObjectiveConfigs()) is None


def test_every_name_has_a_row() -> None:
    assert {row.method.name for row in ROWS.values()} == set(METHODS)


def test_metrics_are_reported_and_embedding_std_detects_collapse(case: ObjectiveCase) -> None:
    objective, inputs = case.warm(), case.inputs(8)
    metrics = objective(*inputs).metrics
    assert metrics
    if isinstance(objective, Curl) or case.method in DUMMIES.values():
        assert "embedding_std" not in metrics
        return  # its only embedding is the encoder's, whose effective rank the agent reports
    assert 0.5 < metrics["embedding_std"] <= 1
    one = torch.zeros(8, dtype=torch.int64)
    assert objective(*inputs.rows(one)).metrics["embedding_std"] < 1e-6


@pytest.mark.parametrize("name", [name for name in ROWS if name != "curl"])
def test_a_batch_of_one_is_refused_with_the_setting_that_helps(name: str) -> None:
    case = case_of(ROWS[name])
    objective, one = case.warm(), case.inputs(1)
    if not objective.batch_dependent:
        assert objective(*one).loss.isfinite()
        return
    with pytest.raises(ValueError, match=r"^[^\n]*at least 2 samples in a batch \(batch_size\), got 1$"):
        objective(*one)


def test_after_step_changes_every_buffer_and_projected_parameter(case: ObjectiveCase) -> None:
    """Our methods have no constant buffers; assignments and the like do not change within an epoch."""
    objective = case.warm()
    case.nudge(objective)
    case.push(objective, 10.0)  # beyond a bound on one side, too
    before = state_of(objective)
    case.step(objective)
    changed, may_change = set(changes(before, state_of(objective))), {name for name, _ in objective.named_buffers()}
    assert bool(changed) is bool(may_change | objective.projected)
    if not objective.wants_all(0):
        assert changed == may_change | objective.projected


@pytest.mark.parametrize("name", ["local", "local, middle"])
def test_the_most_local_map_is_the_middle_if_there_is_one(name: str) -> None:
    row = DUMMY_ROWS[name]
    case = ObjectiveCase(row.method.objective(row.features).double(), row.features, DATA, 5, 0, False, row.method)
    online, *rest = case.inputs()
    parts = [[part.requires_grad_() for part in view if part is not None] for view in online]
    loss = case.built(online, *rest).loss
    gradients = [torch.autograd.grad(loss, view, retain_graph=True, allow_unused=True) for view in parts]
    read = [[gradient is not None for gradient in view] for view in gradients]
    middle = row.features.middle_shape is not None
    # The first view's vector and most local map, the second view's vector and last map.
    assert read == [[True, not middle, *[True] * middle], [True, True, *[False] * middle]]


@pytest.mark.parametrize("name", DUMMIES)
def test_unmet_needs_are_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = dataclasses.replace(DUMMIES[name], instead="moco")
    monkeypatch.setitem(METHODS, name, method)
    everything: frozenset[Need] = frozenset({"labels", "indices", "actions", "epochs", "text", "hidden"})
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
    ("name", "what"),
    [
        ("clustered", "samples"),
        ("deepcluster", "images"),
        ("cmc", "images"),
        ("instdisc", "images"),
        ("pcl", "images"),
        ("labeled", "classes"),
        ("dynamics", "an action"),
    ],
)
def test_an_unknown_size_is_requested(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, name, (METHODS | DUMMIES)[name])
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
    (lambda: SimCLRConfig(beta=float("nan")), "objectives.simclr.beta must be at least 0, got nan"),
    (lambda: SimCLRConfig(beta=1.0, loss="nt_logistic"), "set both to 0 for nt_logistic"),
    (lambda: SimCLRConfig(tau_plus=0.1, normalize=False), "objectives.simclr.tau_plus 0.1 needs normalize true"),
    (lambda: MoCoConfig(queue=0), "objectives.moco.queue must be at least 1, got 0"),
    (lambda: MoCoConfig(temperature=-1), "objectives.moco.temperature must be positive, got -1"),
    (lambda: MoCoConfig(momentum=1.5), "objectives.moco.momentum must lie in [0, 1], got 1.5"),
    (lambda: BYOLConfig(hidden=0), "objectives.byol.hidden must be at least 1, got 0"),
    (lambda: BYOLConfig(momentum=-0.1), "objectives.byol.momentum must lie in [0, 1], got -0.1"),
    (lambda: SimSiamConfig(projector_layers=0), "objectives.simsiam.projector_layers must be at least 1, got 0"),
    (lambda: InstDiscConfig(bank_momentum=1.5), "objectives.instdisc.bank_momentum must lie in [0, 1], got 1.5"),
    (lambda: NNCLRConfig(queue=0), "objectives.nnclr.queue must be at least 1, got 0"),
    (lambda: PCLConfig(warmup_epochs=-1), "objectives.pcl.warmup_epochs must be at least 0, got -1"),
    (lambda: PCLConfig(clusters=(4, 0)), "objectives.pcl.clusters must be one or more positive integers"),
    (lambda: BarlowConfig(dim=0), "objectives.barlow.dim must be at least 1, got 0"),
    (lambda: BarlowConfig(off_diagonal_weight=-1), "objectives.barlow.off_diagonal_weight must be at least 0, got -1"),
    (lambda: SupConConfig(temperature=0), "objectives.supcon.temperature must be positive, got 0"),
    (lambda: PairMarginConfig(margin=5), "objectives.pair_margin.margin must lie in (0, 4], got 5"),
    (lambda: TripletConfig(margin=0), "objectives.triplet.margin must lie in (0, 4], got 0"),
    (lambda: TripletConfig(head_layers=0), "objectives.triplet.head_layers must be at least 1, got 0"),
    (lambda: NPairConfig(regularization=-1), "objectives.n_pair.regularization must be at least 0, got -1"),
    (lambda: BarlowConfig(loss_scale=0), "objectives.barlow.loss_scale must be positive, got 0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_impossible_settings_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below, without a pattern's escapes)
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trial_run_refuses_what_the_first_step_would() -> None:
    with torch.device("meta"):
        queue = build_objective("moco", SPEC, ObjectiveConfigs(moco=MoCoConfig(queue=4)))
        curl = build_objective("curl", SPEC, ObjectiveConfigs())
    assert queue is not None
    assert curl is not None
    queue.try_out(SPEC, 4)
    with pytest.raises(ValueError, match="queue must be at least 5, the keys of one batch, got 4"):
        queue.try_out(SPEC, 5)
    for method in DUMMIES.values():
        with torch.device("meta"):
            dummy = method.objective.build(MIDDLE, method.config(), DATA)
        dummy.try_out(MIDDLE, 2, DATA)  # with the indices, labels, actions and middle that it needs
    curl.try_out(SPEC, 2)
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        curl.try_out(SPEC, 1)
