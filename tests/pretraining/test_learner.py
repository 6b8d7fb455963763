"""One step against loops written out in plain PyTorch, and the order of events in a step."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.objectives import (
    BatchInfo,
    MoCo,
    MoCoConfig,
    Objective,
    ObjectiveConfigs,
    SimCLR,
    SimCLRConfig,
    SimSiam,
    ViewSpec,
    build_objective,
)
from curl_rl.objectives.byol import BYOL
from curl_rl.pretraining.config import OptimizerConfig
from curl_rl.pretraining.learner import Learner

BATCH, SIDE, STEPS = 6, 8, 3
SGD = OptimizerConfig("sgd", lr=0.1, lr_scaling="none", momentum=0.9, weight_decay=1e-2)


def encoder(splits: int = 1) -> ResNet:
    torch.manual_seed(0)
    return ResNet((3, SIDE, SIDE), ResNetConfig(width=1 / 16, stem="small", batch_norm_splits=splits)).double()


def learner(objective: Objective, network: ResNet, config: OptimizerConfig = SGD) -> Learner:
    return Learner(network, objective, config, batch_size=BATCH, steps_per_epoch=STEPS, epochs=1)


def batches() -> list[dict[ViewSpec, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, 3, SIDE, SIDE)
    return [
        {ViewSpec(i): torch.rand(shape, generator=generator, dtype=torch.float64) for i in range(2)}
        for _ in range(STEPS)
    ]


def train(trained: Learner) -> None:
    for views in batches():
        trained.step(views, BatchInfo(), torch.randperm(BATCH))


def by_hand_sgd(modules: list[nn.Module], step: int) -> torch.optim.Optimizer:
    """PyTorch's own, decay on matrices only."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-2},
        {"params": [p for p in parameters if p.ndim <= 1]},
    ]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def cosine(step: int) -> float:
    return (1 + math.cos(math.pi * step / STEPS)) / 2


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-7) for a, b in pairs)


def test_three_steps_of_simclr_are_the_loop_written_out() -> None:
    network, head = encoder(), SimCLR(encoder().feature_spec, SimCLRConfig(temperature=0.5, dim=4)).double()
    trained = learner(copy.deepcopy(head), copy.deepcopy(network))
    train(trained)

    optimizer = by_hand_sgd([network, head.head], 0)
    for step, (first, second) in enumerate(views.values() for views in batches()):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * cosine(step)
        z = F.normalize(head.head(network(torch.cat([first, second]))))
        logits = (z @ z.T / 0.5).masked_fill(torch.eye(2 * BATCH, dtype=torch.bool), -math.inf)
        loss = F.cross_entropy(logits, torch.arange(2 * BATCH).roll(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(trained.encoder, network)
    assert same(trained.objective, head)


def test_three_steps_of_moco_are_the_loop_written_out() -> None:
    config = MoCoConfig(dim=4, hidden=5, queue=13, temperature=0.2, momentum=0.7)
    network, head = encoder(), MoCo(encoder().feature_spec, config).double()
    trained = learner(copy.deepcopy(head), copy.deepcopy(network))
    train(trained)

    query_head = head.head
    slow, slow_head = copy.deepcopy(network), copy.deepcopy(query_head)
    optimizer = by_hand_sgd([network, query_head], 0)
    queue = torch.zeros(0, 4, dtype=torch.float64)
    for step, (first, second) in enumerate(views.values() for views in batches()):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * cosine(step)
        query = F.normalize(query_head(network(first)))
        with torch.no_grad():
            key = F.normalize(slow_head(slow(second)))
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue = torch.cat([queue, key])[-13:]
        with torch.no_grad():
            for module, its_slow in ((network, slow), (query_head, slow_head)):
                for weight, copied in zip(module.parameters(), its_slow.parameters(), strict=True):
                    copied.copy_(0.7 * copied + 0.3 * weight)
    assert same(trained.encoder, network)
    assert trained.target is not None
    assert same(trained.target, slow)
    assert isinstance(trained.objective, MoCo)
    assert same(trained.objective.head, query_head)
    ring = trained.objective.queue
    assert ring is not None
    # 18 keys in 13 slots: the last five overwrite the first five.
    assert torch.allclose(torch.cat([ring.embeddings[5:], ring.embeddings[:5]]), queue, atol=1e-6)


def test_the_slow_copies_of_moco_v3_move_before_the_keys_as_in_the_released_code() -> None:
    """In main_moco.py and moco/builder.py of facebookresearch/moco-v3 a step sets its momentum, encodes the queries,
    moves the momentum encoder, encodes the keys, and then steps the optimizer."""
    config = MoCoConfig("v3", dim=4, hidden=5, momentum=0.6)
    network, method = encoder(), MoCo(encoder().feature_spec, config).double()
    trained = learner(copy.deepcopy(method), copy.deepcopy(network))
    losses = [trained.step(views, BatchInfo(), torch.arange(BATCH))[0]["loss"].item() for views in batches()]

    slow, slow_head = copy.deepcopy(network), copy.deepcopy(method.head)
    optimizer = by_hand_sgd([network, method.head, method.predictor], 0)
    for step, views in enumerate(batches()):
        momentum = 1 - 0.4 * cosine(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * cosine(step)
        queries = [F.normalize(method.predictor(method.head(network(view)))) for view in views.values()]
        with torch.no_grad():
            for module, its_slow in ((network, slow), (method.head, slow_head)):
                for weight, copied in zip(module.parameters(), its_slow.parameters(), strict=True):
                    copied.copy_(momentum * copied + (1 - momentum) * weight)
            keys = [F.normalize(slow_head(slow(view))) for view in views.values()]
        similarities = torch.stack([queries[0] @ keys[1].T, queries[1] @ keys[0].T])
        loss = -2 * similarities.log_softmax(2).diagonal(dim1=1, dim2=2).mean(1).sum()
        assert losses[step] == pytest.approx(loss.item(), rel=1e-6)  # ours has the momentum in float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert trained.target is not None
    assert same(trained.target, slow), "after the last step the momentum is 1, and nothing moves"


def test_the_order_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = MoCo(encoder().feature_spec, MoCoConfig(dim=4, queue=12, momentum=0.5)).double()
    trained, events = learner(objective, encoder()), []
    assert trained.target is not None
    start = trained.encoder.conv1.weight.detach().clone() if isinstance(trained.encoder, ResNet) else torch.empty(0)
    slow = trained.target.conv1.weight if isinstance(trained.target, ResNet) else torch.empty(0)
    assert torch.equal(slow, start)
    step, after = trained.optimizer.step, objective.after_step

    def stepping(*arguments: Any) -> Any:
        events.append(("optimizer", torch.equal(slow, start), int(objective.queue.pushed)))  # type: ignore[union-attr]
        return step(*arguments)

    def after_step(carry: Tensor, momentum: Tensor) -> None:
        stepped = trained.encoder.conv1.weight if isinstance(trained.encoder, ResNet) else torch.empty(0)
        moved = torch.allclose(slow, (start + stepped) / 2)
        events.append(("after_step", moved, int(objective.queue.pushed)))  # type: ignore[union-attr]
        after(carry, momentum)

    monkeypatch.setattr(trained.optimizer, "step", stepping)
    monkeypatch.setattr(objective, "after_step", after_step)
    trained.step(batches()[0], BatchInfo(), torch.arange(BATCH))
    assert events == [("optimizer", True, 0), ("after_step", True, 0)]
    assert objective.queue is not None
    assert int(objective.queue.pushed) == BATCH


def test_only_methods_with_target_views_have_a_momentum_encoder() -> None:
    spec = encoder().feature_spec
    assert learner(SimCLR(spec), encoder()).target is None
    slow = learner(BYOL(spec), encoder()).target
    assert slow is not None
    assert not any(parameter.requires_grad for parameter in slow.parameters())


def test_the_schedules_of_learning_rate_and_momentum() -> None:
    trained = learner(BYOL(encoder().feature_spec).double(), encoder())
    reported = [trained.step(views, BatchInfo(), torch.arange(BATCH))[0] for views in batches()]
    assert [float(row["learning_rate"]) for row in reported] == pytest.approx([0.1, 0.075, 0.025])
    # BYOL's: 1 − 0.004 (cos(πk/K) + 1)/2
    assert [float(row["momentum"]) for row in reported] == pytest.approx([0.996, 0.997, 0.999])


def test_a_predictor_keeps_its_learning_rate() -> None:
    trained = learner(SimSiam(encoder().feature_spec).double(), encoder())
    train(trained)
    fixed = {group.get("fixed_lr", False): group["lr"] for group in trained.optimizer.param_groups}
    assert fixed[True] == 0.1
    assert fixed[False] == pytest.approx(0.025)


def test_keys_are_normalized_together_with_other_images_where_batch_norm_is_split() -> None:
    spec = encoder().feature_spec
    trained = learner(MoCo(spec, MoCoConfig(dim=4, queue=6)).double(), encoder(splits=2))
    views, order = batches()[0], torch.tensor([0, 3, 1, 4, 2, 5])
    first, second = views.values()
    oracle = encoder(splits=2)
    (features,) = trained._encode_target(views, order)
    assert torch.allclose(features.vector, oracle(second[order])[order.argsort()])
    assert not torch.allclose(features.vector, encoder(splits=2)(second))
    # The online views are not shuffled, and each is split by itself.
    both = learner(MoCo(spec, MoCoConfig(dim=4, queue=12, symmetric=True)).double(), encoder(splits=2))
    (one, two) = both._encode_online(views)
    assert torch.allclose(one.vector, encoder(splits=2)(first))
    assert torch.allclose(two.vector, encoder(splits=2)(second))


def test_optimizers_by_name() -> None:
    def made(name: Any, scaling: Any = "none") -> torch.optim.Optimizer:
        config = OptimizerConfig(name, lr=0.1, lr_scaling=scaling, momentum=0.8, weight_decay=0.3)
        return learner(SimCLR(encoder().feature_spec), encoder(), config).optimizer

    assert [type(made(name)).__name__ for name in ("sgd", "lars", "adamw")] == ["SGD", "LARS", "AdamW"]
    assert made("adamw").param_groups[0]["betas"] == (0.8, 0.999)
    assert made("sgd").param_groups[0]["momentum"] == made("lars").param_groups[0]["momentum"] == 0.8
    assert made("lars", "linear").param_groups[0]["lr"] == pytest.approx(0.1 * BATCH / 256)
    for group in made("adamw").param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.3}


@pytest.mark.parametrize(("method", "together"), [("simclr", True), ("byol", False), ("simsiam", False)])
def test_batch_norm_sees_the_views_together_or_one_by_one_as_the_method_requires(method: Any, together: bool) -> None:
    """Compared with direct calls of the encoder, on two views whose statistics differ."""
    torch.manual_seed(0)
    encoder = ResNet((3, 8, 8), ResNetConfig(width=0.0625, stem="small"))
    objective = build_objective(method, encoder.feature_spec, ObjectiveConfigs())
    assert objective is not None
    learner = Learner(encoder, objective, OptimizerConfig(), batch_size=6, steps_per_epoch=1, epochs=1)
    first = torch.rand(6, 3, 8, 8)
    views = [first, 1 - 0.3 * first]
    features = learner._encode_online({ViewSpec(i): view for i, view in enumerate(views)})
    reference = copy.deepcopy(encoder)
    expected = reference(torch.cat(views)).chunk(2) if together else [reference(view) for view in views]
    for ours, theirs in zip(features, expected, strict=True):
        assert torch.allclose(ours.vector, theirs, atol=1e-5)
    assert not torch.allclose(features[1].vector, reference(views[1]), atol=1e-3) or not together


@pytest.mark.parametrize("method", ["moco", "byol"])
def test_measuring_is_the_methods_loss_in_evaluation_and_leaves_no_trace(method: Any) -> None:
    torch.manual_seed(0)
    encoder = ResNet((3, 8, 8), ResNetConfig(width=0.0625, stem="small"))
    objective = build_objective(method, encoder.feature_spec, ObjectiveConfigs(moco=MoCoConfig(dim=4, queue=12)))
    assert objective is not None
    learner = Learner(encoder, objective, OptimizerConfig(), batch_size=6, steps_per_epoch=1, epochs=1)
    views = {ViewSpec(i): torch.rand(6, 3, 8, 8) for i in range(2)}
    order, batch = torch.arange(6), BatchInfo()
    before = copy.deepcopy(learner.state_dict())
    measured = learner.measure(views, batch, order)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert all(module.training for module in learner.modules())
    assert not any(value.requires_grad for value in measured.values())

    by_hand = copy.deepcopy(learner).eval()
    assert by_hand.target is not None
    online = [by_hand.encoder.encode(views[spec]) for spec in objective.online_views]
    target = [by_hand.target.encode(views[spec]) for spec in objective.target_views]
    result = by_hand.objective(online, target, batch)
    assert measured["loss"].item() == pytest.approx(result.loss.item(), rel=1e-5)
    assert measured.keys() == {"loss", *(f"objective/{name}" for name in result.metrics)}
