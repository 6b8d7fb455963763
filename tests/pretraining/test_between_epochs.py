"""What a method does between epochs happens once, identically on every process and in a resumed run.

The method is one of the tests that banks a feature of every picture and clusters the bank before each epoch.
"""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from curl_rl.encoders import Features
from curl_rl.objectives import BatchInfo, DeepClusterConfig, ViewSpec, registry
from curl_rl.pretraining import distributed
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.runs.errors import TrainingFault
from curl_rl.runs.seeds import derived_seed
from curl_rl.runs.signals import Stopped
from helpers.dummy_objectives import DUMMIES, Clustered
from helpers.noise_runs import (
    assert_same_networks,
    assert_same_run,
    at_step,
    die,
    networks,
    rows,
    train,
    train_until_killed,
    trainer,
)
from helpers.noise_source import COUNT, PIXEL, RESNET, Plan

CPU = torch.device("cpu")
# Batch norm over five pictures multiplies rounding by a hundred in each step: few steps can be compared.
ENCODERS = {"pixel": (PIXEL, 3), "resnet": (RESNET, 1)}


def center_features(run: Pretrainer) -> Tensor:
    source = run.source
    encoder = run.learner.encoder.eval()
    with torch.no_grad():
        features: Tensor = encoder(source.pictures)  # type: ignore[attr-defined]
    encoder.train()
    return features


# ---- one process


@pytest.mark.usefixtures("dummies")
def test_before_the_first_epoch_every_picture_passes_once_as_in_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Features, BatchInfo]] = []

    def remember(objective: Clustered, features: Features, batch: BatchInfo) -> None:
        assert not objective.training
        assert not torch.is_grad_enabled()
        told.append((features, batch))

    monkeypatch.setattr(Clustered, "remember", remember)
    run = trainer(Plan(tmp_path, encoder=RESNET))
    weights = {name: value.clone() for name, value in run.learner.encoder.state_dict().items()}
    run._before_epoch(0)
    indices = torch.cat([batch.indices for _, batch in told if batch.indices is not None])
    assert indices.tolist() == list(range(COUNT))
    assert [len(features.vector) for features, _ in told] == [5, 5, 1]
    vectors = torch.cat([features.vector for features, _ in told])
    assert torch.allclose(vectors, center_features(run), atol=1e-6)
    assert all(features.map.numel() == 0 for features, _ in told), "a method that reads no maps is handed none"
    # Nothing learns from it, not even running statistics.
    assert all(torch.equal(value, weights[name]) for name, value in run.learner.encoder.state_dict().items())
    assert all(module.training for module in run.learner.modules())
    run.close()


@pytest.mark.usefixtures("dummies")
def test_maps_and_target_features_are_passed_to_methods_that_need_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Features] = []
    monkeypatch.setattr(Clustered, "remember", lambda self, features, batch: told.append(features))
    monkeypatch.setattr(Clustered, "wants_all", lambda self, epoch: "target")
    monkeypatch.setattr(Clustered, "target_views", (ViewSpec(1),))
    monkeypatch.setattr(Clustered, "reads_maps", True)
    run = trainer(Plan(tmp_path, encoder=RESNET))
    assert run.learner.target is not None
    online = center_features(run)
    with torch.no_grad():
        for parameter in run.learner.target.parameters():
            parameter.mul_(1.5)
    run._before_epoch(3)
    target = torch.cat([features.vector for features in told])
    assert not torch.allclose(target, online, rtol=0.1)
    assert torch.allclose(target, run.learner.target.eval()(run.source.pictures), atol=1e-5)  # type: ignore[attr-defined]
    assert all(features.map.shape[1:] == run.learner.encoder.feature_spec.map_shape for features in told)
    run.close()


@pytest.mark.usefixtures("dummies")
def test_it_clusters_once_an_epoch_with_a_generator_of_its_own_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []
    original = Clustered.between_epochs

    def between(self: Clustered, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn.append((epoch, generator.initial_seed()))
        return original(self, epoch, generator)

    monkeypatch.setattr(Clustered, "between_epochs", between)
    train(Plan(tmp_path))
    assert drawn == [(epoch, derived_seed(3, "clusters", epoch)) for epoch in range(3)]
    # In the first row of each epoch of two steps, and in no other.
    assert [row["pictures"] for row in rows(tmp_path) if "clusters/used" in row] == [5, 15, 25]
    assert networks(tmp_path)["objective.clusterings"] == 3


@pytest.mark.usefixtures("dummies")
def test_measuring_leaves_the_bank_unchanged(tmp_path: Path) -> None:
    run = trainer(Plan(tmp_path))
    run._before_epoch(0)
    before = {name: buffer.clone() for name, buffer in run.learner.objective.named_buffers()}
    (batch, _) = run.source.batches(5, seed=3)
    views = run.source.views(batch, run.generator)
    run.learner.measure(views, run.whole_batch(batch), torch.arange(5))
    assert all(torch.equal(value, before[name]) for name, value in run.learner.objective.named_buffers())
    run.step(batch)
    assert not torch.equal(run.learner.objective.bank, before["bank"]), "a step would have changed it"  # type: ignore[arg-type]
    run.close()


# ---- killed and resumed


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize("killed_at", [1, 3, 4, 5])
def test_a_run_killed_in_mid_epoch_and_resumed_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Checkpoints are written at steps 3 and 6; step 3 is in the middle of a two-step epoch."""
    alone = Plan(tmp_path / "alone")
    train(alone)
    killed = replace(alone, directory=tmp_path / "killed")

    def prepare() -> None:
        at_step(monkeypatch, killed_at, die)

    train_until_killed(killed, prepare)
    epochs: list[int] = []
    original = Clustered.between_epochs

    def between(self: Clustered, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        epochs.append(epoch)
        return original(self, epoch, generator)

    monkeypatch.setattr(Clustered, "between_epochs", between)
    train(killed)
    # Step 3 is the first of epoch 1, so its checkpoint has the clusters of that epoch.
    assert epochs == ([0, 1, 2] if killed_at <= 3 else [2])
    assert_same_run(killed.directory, alone.directory)


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize("step", [2, 3])
def test_stopped_at_an_epochs_end_and_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    alone, stopped = Plan(tmp_path / "alone"), Plan(tmp_path / "stopped")
    train(alone)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(stopped)
    train(stopped)
    assert networks(stopped.directory)["objective.clusterings"] == 3
    assert_same_run(stopped.directory, alone.directory)


@pytest.mark.usefixtures("dummies")
def test_stopped_while_it_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, stopped = Plan(tmp_path / "alone"), Plan(tmp_path / "stopped")
    train(alone)
    original = Clustered.between_epochs

    def between(self: Clustered, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, epoch, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Clustered, "between_epochs", between)
        with pytest.raises(Stopped):
            train(stopped)
    train(stopped)
    assert_same_run(stopped.directory, alone.directory)


def real(directory: Path) -> Plan:
    """A run of a method of the package that clusters."""
    settings = registry.ObjectiveConfigs(deepcluster=DeepClusterConfig(clusters=3, dim=4))
    return Plan(directory, method="deepcluster", objectives=settings)


def test_deepcluster_killed_in_mid_epoch_and_resumed_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, killed = real(tmp_path / "alone"), real(tmp_path / "killed")
    train(alone)
    train_until_killed(killed, lambda: at_step(monkeypatch, 5, die))
    train(killed)
    assert_same_run(killed.directory, alone.directory)
    clustered = [row["pictures"] for row in rows(alone.directory) if "clusters/stability" in row]
    assert clustered == [15, 25], "the first clustering has none before it"
    assert (networks(alone.directory)["objective.assignment"] >= 0).all()


def test_embeddings_that_cannot_be_clustered_end_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collapse() -> None:
        bank = run.learner.objective.first_bank
        bank.embeddings.copy_(bank.embeddings[:1].expand_as(bank.embeddings))  # type: ignore[union-attr, operator, index]

    run = trainer(real(tmp_path))
    at_step(monkeypatch, 2, collapse)
    with pytest.raises(
        TrainingFault, match=r"^stopped at epoch 1.00 \(step 2\): .* at most 1, .*; slow down .*$"
    ) as fault:
        run.run()
    assert "\n" not in str(fault.value)
    run.close()


# ---- two processes


class Drifting(Clustered):
    """Simulates GPU sums that differ between processes, by a lot."""

    def between_epochs(self, epoch: int, generator: torch.Generator) -> dict[str, Tensor]:
        metrics = super().between_epochs(epoch, generator)
        self.bank += distributed.rank()
        return metrics


def two_processes(rank: int, port: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    registry.register(DUMMIES["clustered"])
    registry.register(replace(DUMMIES["clustered"], name="drifting", objective=Drifting))
    with distributed.process_group(CPU):
        found: dict[str, Any] = {}
        for name, (encoder, epochs) in ENCODERS.items():
            found[name] = train(Plan(Path(directory) / name, encoder=encoder, epochs=epochs)).learner.state_dict()
        found["deepcluster"] = train(real(Path(directory) / "deepcluster")).learner.state_dict()
        run = trainer(Plan(Path(directory) / "drifting", method="drifting"))
        run._before_epoch(0)
        found["drifting"] = run.learner.objective.bank
        run.close()
        found["broadcast"] = broadcast(rank)
        found["uneven"] = [distributed.gather_uneven(torch.arange(3 * count).view(-1, 3)) for count in (2 - rank, rank)]
        torch.save(found, Path(directory) / f"{rank}.pt")


def broadcast(rank: int) -> dict[str, Tensor]:
    module = torch.nn.Module()
    for number, dtype in enumerate((torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.float64)):
        module.register_buffer(f"buffer{number}", torch.full((2, 3), 1 - rank).to(dtype).t())
    module.register_buffer("scalar", torch.tensor(7 - rank))
    module.register_buffer("empty", torch.empty(0))
    module.register_parameter("parameter", torch.nn.Parameter(torch.full((2,), float(rank))))
    distributed.broadcast_buffers(module)
    return module.state_dict()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(two_processes, (port, str(directory)), nprocs=2)
    return directory, [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_two_processes_end_with_the_bank_and_the_clusters_of_one(
    encoder: str, ranks: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    directory, found = ranks
    config, epochs = ENCODERS[encoder]
    expected = train(Plan(tmp_path, encoder=config, epochs=epochs)).learner.state_dict()
    assert_same_networks(found[0][encoder], found[1][encoder])
    assert_same_networks(networks(directory / encoder), found[0][encoder])
    for name in ("objective.assignment", "objective.clusterings"):
        assert torch.equal(found[0][encoder][name], expected[name])
    bank = expected["objective.bank"]
    assert torch.allclose(found[0][encoder]["objective.bank"], bank, rtol=1e-3, atol=2e-4)
    assert bank.std(0).max() > 0.1, "a bank of one feature would be no test"
    assert len(expected["objective.assignment"].unique()) == 2


def test_two_processes_find_the_clusters_of_one(ranks: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    _, found = ranks
    expected = train(real(tmp_path)).learner.state_dict()
    assert_same_networks(found[0]["deepcluster"], found[1]["deepcluster"])
    assert torch.equal(found[0]["deepcluster"]["objective.assignment"], expected["objective.assignment"])
    for name in ("objective.centroids", "objective.first_bank.embeddings", "objective.second_bank.embeddings"):
        assert torch.allclose(found[0]["deepcluster"][name], expected[name], rtol=1e-3, atol=2e-4), name


def test_process_0_decides_where_processes_compute_different_values(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (first, second) = ranks
    assert torch.equal(first["drifting"], second["drifting"])


def test_buffers_of_every_type_are_broadcast_and_parameters_are_not(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    _, found = ranks
    for rank, state in enumerate(found):
        for name, value in state["broadcast"].items():
            if name.startswith("buffer"):
                assert value.shape == (3, 2)
                assert (value == 1).all(), name
        assert state["broadcast"]["scalar"] == 7
        assert state["broadcast"]["parameter"].tolist() == [float(rank)] * 2


def test_rows_of_shards_of_any_size_are_gathered(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    _, found = ranks
    for state in found:
        assert state["uneven"][0].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
        assert state["uneven"][1].tolist() == [[0, 1, 2]], "process 0 had no row"
