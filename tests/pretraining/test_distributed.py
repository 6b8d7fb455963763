"""Two processes, shards of unequal size: one process on the whole batch is the oracle, with PyTorch's own batch norm.

The processes are started once for all tests; each does everything in :func:`work` and saves what came out.
"""

from __future__ import annotations

import copy
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from curl_rl.encoders import Features, FeatureSpec, TextEncoder, map_features
from curl_rl.encoders.resnet import ResNet, ResNetConfig, SplitBatchNorm2d
from curl_rl.objectives import (
    BarlowConfig,
    BatchInfo,
    BYOLConfig,
    CLIPConfig,
    CMCConfig,
    CPCConfig,
    DataSpec,
    DIMConfig,
    InstDiscConfig,
    ISBERTConfig,
    MoCoConfig,
    NNCLRConfig,
    NPairConfig,
    Objective,
    ObjectiveConfigs,
    ObjectiveName,
    PairMarginConfig,
    SimCLRConfig,
    SimCSEConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TripletConfig,
    build_objective,
)
from curl_rl.pretraining import distributed
from curl_rl.pretraining.config import OptimizerConfig
from curl_rl.pretraining.learner import Learner
from curl_rl.runs.errors import UserError
from helpers.noise_pairs import IMAGE, SMALL_TEXT, TEXT, TOKENS, Matched, texts

RANKS, BATCH, COUNT = 2, 5, 9
SHARDS = (slice(0, 3), slice(3, 5))
SPEC = FeatureSpec(6, (2, 3, 3), streams=2)
MOMENTUM = torch.tensor(0.9)
CONTENTS = torch.tensor([[0, 1], [2, 1], [3, 4], [0, 5], [6, 7]])  # sample 0 shares a part with 1 and with 3
LABELS = torch.tensor([2, 0, 1, 2, 0])
ACTIONS = torch.linspace(-1, 1, 20).view(5, 2, 2)
HIDDEN = torch.tensor([[[0, 1], [4, 2]], [[8, 4], [0, 0]], [[0, 0], [0, 0]], [[2, 1], [0, 0]], [[3, 3], [5, 1]]])
ROWS: dict[str, tuple[ObjectiveName, ObjectiveConfigs]] = {
    "curl": ("curl", ObjectiveConfigs()),
    "simclr": ("simclr", ObjectiveConfigs(simclr=SimCLRConfig(dim=4))),
    "simclr hard": ("simclr", ObjectiveConfigs(simclr=SimCLRConfig(dim=4, tau_plus=0.1, beta=1.0))),
    "simclr triplet": ("simclr", ObjectiveConfigs(simclr=SimCLRConfig(dim=4, loss="margin_triplet", margin=1.5))),
    "moco v1": ("moco", ObjectiveConfigs(moco=MoCoConfig("v1", dim=4, queue=7))),
    "moco v2": ("moco", ObjectiveConfigs(moco=MoCoConfig("v2", dim=4, queue=13, symmetric=True))),
    "moco v3": ("moco", ObjectiveConfigs(moco=MoCoConfig("v3", dim=4))),
    "byol": ("byol", ObjectiveConfigs(byol=BYOLConfig(dim=4))),
    "byol, multi-crop": ("byol", ObjectiveConfigs(byol=BYOLConfig(dim=4, local_views=1))),
    "simsiam": ("simsiam", ObjectiveConfigs(simsiam=SimSiamConfig(dim=8))),
    "barlow": ("barlow", ObjectiveConfigs(barlow=BarlowConfig(dim=7))),
    "supcon": ("supcon", ObjectiveConfigs(supcon=SupConConfig(dim=4))),
    "pair_margin": ("pair_margin", ObjectiveConfigs(pair_margin=PairMarginConfig(dim=4))),
    "triplet": ("triplet", ObjectiveConfigs(triplet=TripletConfig(dim=4, margin=0.9, supervised=True))),
    "triplet all": ("triplet", ObjectiveConfigs(triplet=TripletConfig(dim=4, margin=0.9, mining="all"))),
    "n_pair": ("n_pair", ObjectiveConfigs(n_pair=NPairConfig(dim=4, supervised=True))),
    "swav": ("swav", ObjectiveConfigs(swav=SwAVConfig(7, dim=4, frozen_steps=0, queue=5, local_views=1))),
    "swav, slow": ("swav", ObjectiveConfigs(swav=SwAVConfig(7, dim=4, frozen_steps=0, target="slow"))),
    "instdisc": ("instdisc", ObjectiveConfigs(instdisc=InstDiscConfig(dim=4, negatives=7))),
    "instdisc nce": ("instdisc", ObjectiveConfigs(instdisc=InstDiscConfig("nce", dim=4, proximal=0.5))),
    "cpc": ("cpc", ObjectiveConfigs(cpc=CPCConfig(steps=2, target="online"))),
    "cpc, actions": ("cpc", ObjectiveConfigs(cpc=CPCConfig(steps=2, actions=True))),
    "nnclr": ("nnclr", ObjectiveConfigs(nnclr=NNCLRConfig(dim=4, queue=7))),
    "cmc nce": ("cmc", ObjectiveConfigs(cmc=CMCConfig("nce", dim=4, negatives=7))),
    "amdim": ("amdim", ObjectiveConfigs()),
    "dim": ("dim", ObjectiveConfigs(dim=DIMConfig(units=5, global_weight=0.5))),
    "simcse": ("simcse", ObjectiveConfigs(simcse=SimCSEConfig(hard_negatives=True))),
    "simcse, masked": ("simcse", ObjectiveConfigs(simcse=SimCSEConfig(masked_weight=0.5))),
    "quick_thoughts": ("quick_thoughts", ObjectiveConfigs()),
    "is_bert": ("is_bert", ObjectiveConfigs(is_bert=ISBERTConfig(windows=(1, 3), dim=4))),
    "clip": ("clip", ObjectiveConfigs(clip=CLIPConfig(dim=4))),
    "clip, duplicates as negatives": ("clip", ObjectiveConfigs(clip=CLIPConfig(dim=4, duplicates="negative"))),
    "dim, in time": ("dim", ObjectiveConfigs(dim=DIMConfig("info_nce", future=1, heads="linear"))),
}
Outcome = dict[str, Tensor]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def method(row: str, features: FeatureSpec = SPEC) -> Objective:
    torch.manual_seed(0)
    name, configs = ROWS[row]
    objective = build_objective(name, features, configs, DataSpec(count=COUNT, action_dim=2, vocabulary=5, text=SPEC))
    assert objective is not None
    return objective.double()


def network(splits: int, norm: Literal["batch", "group"] = "batch") -> ResNet:
    torch.manual_seed(1)
    config = ResNetConfig(width=1 / 16, stem="small", batch_norm_splits=splits, norm=norm)
    return ResNet((3, 8, 8), config).double()


def images(batch: int, seed: int) -> Tensor:
    """Each of another brightness, so that the statistics of shards differ a lot."""
    brightness = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1)
    return drawn(batch, 3, 8, 8, seed=seed) + brightness


# ------------------------------------------------------------------------ run in each process


def steps_on_features(row: str, own: slice) -> Outcome:
    """Two steps of an objective, so that the second one sees a filled memory; the encoder is a matrix."""
    objective, weight = method(row), nn.Parameter(drawn(SPEC.dim, SPEC.dim, seed=1))
    outcome: Outcome = {}
    for step in range(2):
        shards = [drawn(BATCH, SPEC.dim, seed=10 * step + view)[own] for view in range(4)]
        maps = drawn(BATCH, *SPEC.map_shape, seed=99)[own] * weight[0, :2, None, None]
        online = [Features(shards[i] @ weight, maps) for i in range(len(objective.online_views))]
        target = [Features(shards[2 + i], maps) for i in range(len(objective.target_views))]
        result = objective(
            distributed.gather_features(online, BATCH, maps=objective.reads_maps),
            distributed.gather_features([map_features(Tensor.detach, view) for view in target], BATCH, maps=True),
            BatchInfo(
                indices=(2 * torch.arange(BATCH) + 3 * step) % COUNT,
                labels=distributed.gather(LABELS[own], BATCH),
                actions=distributed.gather(ACTIONS[own], BATCH),
                contents=distributed.gather(CONTENTS[own], BATCH),
                hidden=distributed.gather(HIDDEN[own], BATCH),
            ),
        )
        objective.zero_grad()
        weight.grad = None
        result.loss.backward()
        distributed.sum_gradients([weight])
        objective.after_step(result.carry, MOMENTUM)
        outcome |= {f"{step} loss": result.loss.detach(), f"{step} weight": _gradient(weight)}
        outcome |= {f"{step} {name}": _gradient(value) for name, value in objective.named_parameters()}
        outcome |= {f"{step} {name}": value.clone() for name, value in objective.named_buffers()}
    return outcome


def steps_of_network(splits: int, batch: int, norm: Literal["batch", "group"] = "batch") -> Outcome:
    """Two forward passes and one backward of SimCLR through a ResNet."""
    encoder, own = network(splits, norm), slice(*_bounds(batch))
    distributed.distribute_batch_norm(encoder)
    objective = method("simclr", encoder.feature_spec)
    online = [encoder.encode(images(batch, seed=view)[own]) for view in range(2)]
    loss = objective(distributed.gather_features(online, batch, maps=False), [], BatchInfo()).loss
    loss.backward()
    distributed.sum_gradients(encoder.parameters())
    distributed.average_running_statistics(encoder)
    evaluated = encoder.eval()(images(batch, seed=0)[own]).detach()
    return {
        "loss": loss.detach(),
        "evaluated": distributed.gather(evaluated, batch),
        **{name: _gradient(value) for name, value in encoder.named_parameters()},
        **{name: value.clone() for name, value in encoder.named_buffers()},
    }


def shuffled_keys(batch: int) -> Outcome:
    encoder, own = network(splits=2), slice(*_bounds(batch))
    distributed.distribute_batch_norm(encoder)
    order = torch.tensor([2, 0, 3, 1])
    features = distributed.encode_shuffled(encoder.encode, images(batch, seed=0)[own], order, maps=True)
    vector_only = distributed.encode_shuffled(encoder.encode, images(batch, seed=0)[own], order, maps=False)
    assert features.middle is not None
    return {
        "vector": features.vector,
        "map": features.map,
        "middle": features.middle,
        "without maps": vector_only.vector,
        "no map": vector_only.map,
    }


def steps_of_two_encoders(own: slice) -> Outcome:
    """Two steps on pairs of a picture and a text."""
    torch.manual_seed(1)
    words = TextEncoder(TOKENS, replace(SMALL_TEXT, dropout=0.0)).double()
    pictures = network(splits=1)
    objective = Matched(pictures.feature_spec, texts=words.feature_spec).double()
    distributed.distribute_batch_norm(pictures)
    config = OptimizerConfig("sgd", lr=0.1, lr_scaling="none")
    learner = Learner(pictures, objective, config, batch_size=BATCH, steps_per_epoch=2, epochs=1, text_encoder=words)
    outcome: Outcome = {}
    for step in range(2):
        views = {IMAGE: images(BATCH, seed=step)[own], TEXT: texts()[BATCH * step : BATCH * (step + 1)][own]}
        outcome[f"{step} loss"] = learner.step(views, BatchInfo(), torch.arange(BATCH))[0]["loss"]
    return outcome | {name: value.detach().clone() for name, value in learner.state_dict().items()}


def services() -> dict[str, Any]:
    rank = distributed.rank()
    encoder = network(splits=3)
    found: dict[str, Any] = {
        "rank": rank,
        "world": distributed.world_size(),
        "sizes": distributed.shard_sizes(BATCH),
        "any": [distributed.any_process(flag) for flag in (rank == 1, rank == 0, False)],
        "of first": distributed.bytes_of_first(b"one tokenizer" if rank == 0 else b"another"),
        "bytes": distributed.gather(torch.arange(10, dtype=torch.uint8).view(5, 2)[SHARDS[rank]], BATCH),
    }
    for name, mistake in {
        "splits": lambda: distributed.distribute_batch_norm(encoder),
        "batch": lambda: distributed.shard_sizes(1),
        "rows": lambda: distributed.gather(torch.zeros(2, 1), 7),
    }.items():
        try:
            mistake()
        except ValueError as error:
            found[name] = (type(error), str(error))
    try:
        with distributed.raised_together(UserError):
            if rank == 1:  # a folder missing on this machine alone
                raise UserError("no folder here")
    except UserError as error:
        found["together"] = str(error)
    return found


def _bounds(batch: int) -> tuple[int, int]:
    sizes = distributed.shard_sizes(batch)
    before = sum(sizes[: distributed.rank()])
    return before, before + sizes[distributed.rank()]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def work(rank: int, port: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS), "RANK": str(rank)}
    with distributed.process_group(torch.device("cpu")):
        found: dict[str, Any] = {row: steps_on_features(row, SHARDS[rank]) for row in ROWS}
        found["synchronized"] = steps_of_network(splits=1, batch=BATCH)
        found["split"] = steps_of_network(splits=2, batch=4)
        found["finer split"] = steps_of_network(splits=4, batch=8)
        found["group norm"] = steps_of_network(splits=1, batch=BATCH, norm="group")
        found["shuffled"] = shuffled_keys(batch=4)
        found["two encoders"] = steps_of_two_encoders(SHARDS[rank])
        found["services"] = services()
        torch.save(found, Path(directory) / f"{rank}.pt")
    assert distributed.world_size() == 1, "the group is left at the end"


# ------------------------------------------------------------------------ compared with one process


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each process."""
    directory = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, str(directory)), nprocs=RANKS)
    return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=1e-8, atol=1e-11), name


@pytest.mark.parametrize("row", ROWS)
def test_gradients_and_memory_of_every_method_are_those_of_one_process(row: str, ranks: list[Any]) -> None:
    expected = steps_on_features(row, slice(None))
    for found in ranks:
        assert_same(found[row], expected)
    for name, value in ranks[0][row].items():
        assert torch.equal(value, ranks[1][row][name]), f"{name} would drift apart"


@pytest.mark.parametrize(("case", "splits", "batch"), [("synchronized", 1, 5), ("split", 2, 4), ("finer split", 4, 8)])
def test_a_network_with_batch_norm_learns_as_in_one_process(
    case: str, splits: int, batch: int, ranks: list[Any]
) -> None:
    expected = steps_of_network(splits, batch)
    for found in ranks:
        assert_same(found[case], expected)


def test_a_network_with_group_norm_learns_as_in_one_process(ranks: list[Any]) -> None:
    expected = steps_of_network(splits=1, batch=BATCH, norm="group")
    for found in ranks:
        assert_same(found["group norm"], expected)


def test_two_encoders_learn_as_in_one_process(ranks: list[Any]) -> None:
    expected = steps_of_two_encoders(slice(None))
    assert any(name.startswith("text_encoder.") for name in expected)
    for found in ranks:
        assert_same(found["two encoders"], expected)


def test_keys_shuffled_among_processes_are_those_of_split_batch_norm(ranks: list[Any]) -> None:
    encoder, given = network(splits=2), images(4, seed=0)
    order = [2, 0, 3, 1]
    features = encoder.encode(given[order])
    assert features.middle is not None
    for found in ranks:
        assert torch.equal(found["shuffled"]["without maps"], found["shuffled"]["vector"])
        assert found["shuffled"]["no map"].numel() == 0
        for place, image in enumerate(order):
            assert torch.allclose(found["shuffled"]["vector"][image], features.vector[place])
            assert torch.allclose(found["shuffled"]["map"][image], features.map[place])
            assert torch.allclose(found["shuffled"]["middle"][image], features.middle[place])
    straight = network(splits=2)(given)
    assert not torch.allclose(ranks[0]["shuffled"]["vector"], straight, rtol=1e-2), "the order must matter"


def test_services(ranks: list[Any]) -> None:
    for rank, found in enumerate(ranks):
        services = found["services"]
        assert (services["rank"], services["world"], services["sizes"]) == (rank, 2, [3, 2])
        assert services["any"] == [True, True, False]
        assert services["of first"] == b"one tokenizer"
        assert services["bytes"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
        assert services["splits"] == (
            UserError,
            "batch_norm_splits must be 1 or a multiple of the 2 processes, got 3",
        )
        assert services["batch"] == (UserError, "batch_size must be at least the number of processes, 2, got 1")
        assert services["rows"][1] == f"process {rank} must pass {4 - rank} of 7 rows, got 2"


def test_an_error_in_one_process_is_raised_in_all(ranks: list[Any]) -> None:
    assert [found["services"]["together"] for found in ranks] == [
        "another process has failed: no folder here",
        "no folder here",
    ]


def test_in_one_process_every_function_is_the_identity() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    with distributed.process_group(torch.device("cpu")):
        assert distributed.world_size() == 1
    assert [distributed.any_process(flag) for flag in (True, False)] == [True, False]
    given = torch.ones(2, 3)
    assert distributed.gather(given, 2) is given
    encoder = network(splits=1)
    before = copy.deepcopy(encoder.state_dict())
    distributed.distribute_batch_norm(encoder)
    distributed.average_running_statistics(encoder)
    assert {type(part) for part in encoder.modules() if isinstance(part, nn.BatchNorm2d)} == {SplitBatchNorm2d}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_synchronized_batch_norm_keeps_the_tensors_of_the_one_it_replaces() -> None:
    plain = SplitBatchNorm2d(3, 1).eval()
    synchronized = distributed.SyncBatchNorm2d.from_plain(plain)
    assert not synchronized.training
    for name, value in plain.state_dict(keep_vars=True).items():
        assert synchronized.state_dict(keep_vars=True)[name] is value
    given = drawn(4, 3, 2, 2, seed=0).float()
    assert torch.equal(synchronized.train()(given), nn.BatchNorm2d(3)(given))


def test_shares_are_those_of_the_data() -> None:
    for total, processes in ((5, 2), (7, 3), (8, 4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "world_size", lambda processes=processes: processes)
            assert distributed.shard_sizes(total) == [len(part) for part in torch.arange(total).tensor_split(processes)]


def test_more_processes_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")  # every process refuses, even one that has a GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(UserError, match="nproc_per_node must be at most 1, the number of GPUs"),
        distributed.process_group(torch.device("cuda")),
    ):
        pass


def test_a_machines_cores_are_shared_by_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert distributed.share_of_machine(7) == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert [distributed.share_of_machine(cores) for cores in (7, 3, 2)] == [2, 1, 1]


def test_what_another_process_raised_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with distributed.raised_together(UserError):
        pass
    with pytest.raises(UserError, match="mine"), distributed.raised_together(UserError):
        raise UserError("mine")
    told: list[bool] = []

    def somewhere(flag: bool) -> bool:
        told.append(flag)
        return True

    monkeypatch.setattr(distributed, "any_process", somewhere)
    with pytest.raises(OSError, match="another process has failed"), distributed.raised_together(OSError):
        pass
    with pytest.raises(OSError, match="full"), distributed.raised_together(OSError):
        raise OSError("full")
    assert told == [False, True]
