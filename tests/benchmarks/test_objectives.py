"""Every method is measured doing all of its work; how long it takes is not tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from benchmarks import objectives
from benchmarks.objectives import MethodWork, Sizes
from curl_rl.objectives import METHODS, Method, Objective, registry
from helpers.dummy_objectives import DUMMIES
from helpers.registry import restored_registry

CPU = torch.device("cpu")
TINY = Sizes(batch=8, features=12, embedding=6, samples=40, steps_before=12)


def small(value: Any) -> Any:
    """A setting, with large whole numbers replaced by a small one."""
    if isinstance(value, tuple):
        return tuple(small(part) for part in value)
    return min(value, 9) if type(value) is int else value


def small_configs() -> Any:
    """Settings of all methods with small heads, queues and numbers of clusters, whatever they are."""
    made = {}
    for method in METHODS.values():
        own = method.config()
        fields = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
        made[method.name] = method.config(**{name: small(value) for name, value in fields.items()})
    return registry.ObjectiveConfigs(**made)


@pytest.fixture(params=[*METHODS, *DUMMIES])
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each method's name; the dummies are methods that are added later."""
    with with_dummies():
        yield request.param


@contextmanager
def with_dummies() -> Iterator[None]:
    with restored_registry():
        for method in DUMMIES.values():
            registry.register(method)
        yield


def test_gradients_reach_every_view_and_parameter_with_and_without_heads(name: str) -> None:
    work = MethodWork(name, small_configs(), TINY, CPU)
    for part in (work, work.without_heads(small_configs())):
        with torch.no_grad():  # parameters at 0 can block the gradient of those before them
            for parameter in part.objective.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        loss, gradients = part.backward()
        assert loss.isfinite()
        assert loss != 0
        arrived = [gradient is not None and bool((gradient != 0).any()) for gradient in gradients]
        # Of the parts of its features the method that compares places reads no more than it needs.
        read = arrived[3 * len(part.online) :] if part.objective.reads_maps else arrived
        assert all(read)
        assert any(arrived)
    names = [part for part, _ in part.objective.named_parameters()]
    assert not any("head" in part or "projector" in part for part in names)
    assert part.online[0].vector.shape == (TINY.batch, TINY.embedding)


def test_every_method_has_its_rows_and_each_measures_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, str]] = []

    def counted(method: type, what: str) -> None:
        """Notes calls of what the class defines itself; others may inherit it."""
        original = method.__dict__[what]

        def call(self: Any, *arguments: Any) -> Any:
            called.append((names[type(self)], what))
            return original(self, *arguments)

        monkeypatch.setattr(method, what, call)

    def timed(cases: dict[str, Callable[[], object]], **_: object) -> dict[str, list[float]]:
        for case, work in cases.items():
            called.clear()
            work()
            name, what = case.split(": ")
            assert called == [(name, {"heads and loss": "forward", "loss alone": "forward"}.get(what, what))]
        return {case: [0.001, 0.002] for case in cases}

    monkeypatch.setattr(objectives, "side_by_side", timed)
    with with_dummies():
        own: dict[str, Method] = dict(METHODS)
        names = {method.objective: name for name, method in own.items()}
        classes = {one for method in own.values() for one in method.objective.__mro__ if issubclass(one, Objective)}
        for one in classes - {Objective}:
            for what in ("forward", "after_step", "between_epochs"):
                if what in vars(one):
                    counted(one, what)
        rows = objectives.measure(CPU, 2, TINY, small_configs())
    measured = {row.name: row.ours_ms for row in rows}
    for name, method in own.items():
        for what, of in (("after_step", "batch 8"), ("between_epochs", "40 samples")):
            inherited = getattr(method.objective, what) is getattr(Objective, what)
            assert (f"{name}: {what}, {of}" in measured) != inherited
        assert measured[f"{name}: heads and loss, batch 8, features 12"] == pytest.approx(1.5)
        assert measured[f"{name}: loss alone, batch 8, embeddings 6"] == pytest.approx(1.5)
    assert list(dict.fromkeys(row.name.split(":")[0] for row in rows)) == list(own)


def test_memories_are_full_and_clustered_before_they_are_measured() -> None:
    work = MethodWork("deepcluster", small_configs(), TINY, CPU)
    objective: Any = work.objective
    assert objective.first_bank.known.all()
    assert (objective.assignment >= 0).all()
    again: Any = work.without_heads(small_configs()).objective
    assert (again.assignment >= 0).all()
    moco: Any = MethodWork("moco", small_configs(), TINY, CPU).objective
    assert moco.queue.valid.all()


def test_a_method_that_the_sizes_do_not_suit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "METHODS", {"deepcluster": METHODS["deepcluster"]})
    (row,) = objectives.measure(CPU, 1, dataclasses.replace(TINY, samples=8), small_configs())
    assert row.ours_ms is None
    assert "clusters must be at most 8" in row.note
