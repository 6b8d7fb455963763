"""State that processes compute for themselves: the digest on its own, and runs of two processes, one disturbed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from curl_rl.pretraining import distributed, replicas
from curl_rl.pretraining.config import OptimizerConfig
from curl_rl.pretraining.learner import Learner
from curl_rl.pretraining.replicas import digest, make_equal
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.runs.errors import UserError
from curl_rl.runs.session import Session
from helpers.noise_runs import assert_same_networks, at_step, networks, train, trainer
from helpers.noise_source import NoiseSource, Plan

ADAM = OptimizerConfig("adamw", lr=0.01, lr_scaling="none", weight_decay=0.0)


# ---- the digest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_a_change_of_any_element_shows(dtype: torch.dtype) -> None:
    tensor = (torch.arange(24) % 2).to(dtype).view(2, 3, 4)
    before = int(digest(tensor))
    assert int(digest(tensor.clone())) == before
    for place in range(24):
        changed = tensor.clone()
        changed.view(-1)[place] = 1 - changed.view(-1)[place].float()
        assert int(digest(changed)) != before
    exchanged = tensor.flip(-1)
    assert int(digest(exchanged)) != before, "the same values in other places"


def test_a_digest_is_the_weighted_sum_of_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.tensor([[1.5, -2.0], [0.0, float("nan")]])
    bits = [0x3FC00000, 0xC0000000 - 2**32, 0, 0x7FC00000]  # IEEE 754, as signed integers
    expected = sum((2 * place + 1) * value for place, value in enumerate(bits))
    for chunk in (1, 3, 100):
        monkeypatch.setattr(replicas, "_CHUNK", chunk)
        assert int(digest(tensor)) == expected
    assert int(digest(torch.empty(0))) == 0


def test_the_layout_in_memory_does_not_matter() -> None:
    maps = torch.rand(2, 3, 4, 5)
    assert torch.equal(digest(maps), digest(maps.to(memory_format=torch.channels_last)))


def test_a_single_process_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "digest", lambda tensor: pytest.fail("read"))
    assert make_equal({"weight": torch.ones(2)}) == []


# ---- two processes


class Labeled(NoiseSource):
    has = NoiseSource.has | {"labels"}

    def __init__(self) -> None:
        super().__init__(classes=("dark", "bright"))


def plan(directory: Path) -> Plan:
    return Plan(directory, method="byol", optimizer=ADAM, epochs=2)  # saves after steps 3 and 4


def disturb(run: Pretrainer) -> None:
    """What differing arithmetic would leave behind: a weight, a slow copy, the optimizer's and the probe's state."""
    head = run.learner.objective.get_submodule("projector.layers.0.0")
    weight = head.weight
    assert isinstance(weight, torch.nn.Parameter)
    weight.data[0, 0] += 1e-6
    next(run.learner.objective.buffers())[0] += 1
    run.learner.optimizer.state[weight]["exp_avg"][1, 0] += 1e-9
    assert run.probe is not None
    run.probe.classifier.bias.data[1] -= 1e-3


def saying(patch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    patch.setattr(Session, "say", lambda self, line: lines.append(line))
    return lines


def state(run: Pretrainer) -> dict[str, Tensor]:
    assert run.probe is not None
    optimizer = {
        f"{number} {key}": value
        for number, entry in run.learner.optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    return run.learner.state_dict() | optimizer | {"probe": run.probe.classifier.bias.detach()}


def in_turn(rank: int, directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def noted(name: str, act: Callable[[pytest.MonkeyPatch], Pretrainer]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            lines = saying(patch)
            run = act(patch)
        found[name] = (state(run), [line for line in lines if "process 0's" in line])

    def undisturbed(patch: pytest.MonkeyPatch) -> Pretrainer:
        return train(plan(directory / "undisturbed"), Labeled())

    def at_a_checkpoint(patch: pytest.MonkeyPatch) -> Pretrainer:
        run = trainer(plan(directory / "drifted"), Labeled())
        if rank == 1:
            at_step(patch, 3, lambda: disturb(run))
        run.run()
        run.close()
        return run

    def at_the_start(patch: pytest.MonkeyPatch) -> Pretrainer:
        build = Learner.__init__

        def built(self: Learner, *arguments: Any, **named: Any) -> None:
            build(self, *arguments, **named)
            self.encoder.get_parameter("projection.linear.weight").data += rank

        patch.setattr(Learner, "__init__", built)
        return train(plan(directory / "begun"), Labeled())

    def when_resumed(patch: pytest.MonkeyPatch) -> Pretrainer:
        load = Learner.load_training_state

        def loaded(self: Learner, saved: dict[str, Any]) -> None:
            load(self, saved)
            self.objective.get_parameter("predictor.layers.1.0.weight").data *= 1 + rank

        patch.setattr(Learner, "load_training_state", loaded)
        run = trainer(plan(directory / "undisturbed"), Labeled())
        run.close()
        return run

    noted("undisturbed", undisturbed)
    noted("drifted", at_a_checkpoint)
    noted("begun", at_the_start)
    noted("resumed", when_resumed)
    try:
        trainer(plan(directory / ("undisturbed" if rank == 0 else "elsewhere")), Labeled())
    except UserError as error:
        found["unseen"] = str(error)
    return found


def two_processes(rank: int, port: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    with distributed.process_group(torch.device("cpu")):
        torch.save(in_turn(rank, Path(directory)), Path(directory) / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(two_processes, (port, str(directory)), nprocs=2)
    return directory, [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2)]


ENDS_WITH = ": all continue with process 0's"


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("undisturbed", None),
        (
            "drifted",
            "objective.projector.layers.0.0.weight, objective.target_projector.layers.0.0.weight, "
            "objective.projector.layers.0.0.weight (exp_avg) and 1 more",
        ),
        ("begun", "encoder.projection.linear.weight"),
        ("resumed", "objective.predictor.layers.1.0.weight"),
    ],
)
def test_processes_that_have_drifted_apart_continue_with_process_0(
    case: str, line: str | None, ranks: tuple[Path, list[dict[str, Any]]]
) -> None:
    _, found = ranks
    (first, said), (second, _) = (state[case] for state in found)
    assert_same_networks(first, second)
    assert said == ([] if line is None else [f"the processes had different values in {line}{ENDS_WITH}"])


def test_process_0_is_not_disturbed(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    """Process 1 drifted just before a checkpoint, so the run goes on as if it had not."""
    directory, (first, _) = ranks
    assert_same_networks(first["drifted"][0], first["undisturbed"][0])
    assert_same_networks(networks(directory / "drifted"), networks(directory / "undisturbed"))


def test_checkpoints_that_only_some_processes_see_are_refused(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    _, found = ranks
    for state in found:
        assert state["unseen"].startswith(
            "all processes must resume from the same checkpoint, got those of steps 4, 0: "
        )
        assert state["unseen"].endswith(" must be on a file system that all of them share")
