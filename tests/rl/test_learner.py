"""One update from replay to metrics: its random draws, and that it never waits for a number on the device."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import BatchInfo, Features, Objective, Result, ViewSpec
from curl_rl.objectives.method import Method
from curl_rl.rl import learner as learner_module
from curl_rl.rl import replay as replay_module
from curl_rl.rl.agent import Agent, AgentConfig, Due
from curl_rl.rl.learner import Learner
from curl_rl.rl.replay import Replay, ReplayConfig
from helpers.dummy_objectives import DUMMIES

SHAPE, ACTIONS = (6, 24, 24), 2
CONFIG = AgentConfig(batch_size=5, crop=20, hidden=12, encoder=EncoderConfig(filters=3, strides=(2, 1), latent=4))

FROZEN = {"freeze_encoder": True, "objective": "none"}
AHEAD = {"objective": "dynamics"}


def filled(replay: Replay, transitions: int = 12) -> Replay:
    generator = np.random.default_rng(0)

    def frame() -> Any:
        return generator.integers(0, 256, (3, 24, 24), dtype=np.uint8)

    observation = np.concatenate([frame()] * 2)
    observation[3:] = observation[:3]
    replay.start_episode(observation)
    for _ in range(transitions):
        observation = np.concatenate([observation[3:], frame()])
        action = generator.uniform(-1, 1, ACTIONS)
        replay.add(action, float(generator.normal()), observation, terminated=False, truncated=False)
    return replay


def grow(replay: Replay, seed: int) -> None:
    """One more episode of a single step."""
    first = np.random.default_rng(seed).integers(0, 256, (3, 24, 24), dtype=np.uint8)
    replay.start_episode(np.concatenate([first, first]))
    following = np.concatenate([first, first // 2])
    replay.add(np.zeros(ACTIONS), 0.5, following, terminated=False, truncated=True)


def make_learner(device: str = "cpu", *, capture: bool = False, seed: int = 0, **changes: Any) -> Learner:
    torch.manual_seed(seed)
    agent = Agent(SHAPE, ACTIONS, AgentConfig(**{**vars(CONFIG), **changes})).to(device)
    storage: Any = "memory" if device == "cpu" else "device"
    replay = filled(Replay(ReplayConfig(20, storage), SHAPE, ACTIONS, stack=2, device=device))
    generators = [torch.Generator(device).manual_seed(seed + i) for i in range(2)]
    return Learner(agent, replay, *generators, capture=capture)


def test_it_samples_draws_and_updates() -> None:
    learner = make_learner(n_step=2)
    agent, generators = copy.deepcopy(learner.agent), [torch.Generator().manual_seed(i) for i in range(2)]
    for _ in range(3):
        batch = learner.replay.sample(5, generators[1], discount=0.99, n_step=2)
        expected = agent.update(agent.draw(batch, generators[0]))
        metrics = learner.update()
        assert {name: value.item() for name, value in metrics.items()} == {
            name: value.item() for name, value in expected.items()
        }
        assert learner.newest is not None
        assert torch.equal(learner.newest[0].observation, batch.observation)


def test_it_samples_the_objectives_future_offsets() -> None:
    class Ahead(Objective):
        online_views = (ViewSpec(0),)
        target_views = (ViewSpec(1, future=2), ViewSpec(2, future=4))

        def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
            return Result((online[0].vector - target[0].vector - target[1].vector).square().mean())

    learner = make_learner()
    learner.agent.objective = Ahead()
    learner.update()
    assert learner.newest is not None
    batch, inputs = learner.newest
    again = learner.replay.sample(5, torch.Generator().manual_seed(1), discount=0.99, future=(2, 4))
    assert len(batch.future) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch.future, again.future, strict=True))
    assert set(inputs.views) == set(Ahead.target_views)


def test_the_replays_actions_reach_the_objective(register: Callable[[Method], None]) -> None:
    register(DUMMIES["dynamics"])
    learner = make_learner(objective="dynamics", n_step=2)
    handed: list[BatchInfo] = []
    assert learner.agent.objective is not None
    learner.agent.objective.register_forward_pre_hook(lambda _, given: handed.append(given[2]))
    learner.update()
    again = learner.replay.sample(5, torch.Generator().manual_seed(1), discount=0.99, n_step=2, future=(1, 3))
    (batch,) = handed
    assert batch.actions is not None
    assert again.actions_ahead is not None
    assert batch.actions.shape == (5, 3, ACTIONS)
    assert torch.equal(batch.actions, again.actions_ahead)


@pytest.mark.parametrize("update", ["exact", "joint"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [{}, FROZEN, AHEAD], ids=["trained", "frozen", "ahead"])
def test_an_update_never_reads_a_tensors_contents(
    register: Callable[[Method], None],
    monkeypatch: pytest.MonkeyPatch,
    update: Any,
    precision: Any,
    kind: dict[str, Any],
) -> None:
    """On tensors without contents, where reading a number or branching on it fails: a CUDA graph can hold it all."""
    register(DUMMIES["dynamics"])
    monkeypatch.setattr(replay_module, "choose_storage", lambda *_: "device")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    with torch.device("meta"):
        changes = {"update_rule": update, "precision": precision, **kind}
        agent = Agent(SHAPE, ACTIONS, AgentConfig(**{**vars(CONFIG), **changes}))
    for optimizer in agent.optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = False  # nor does the fused Adam
    replay = filled(Replay(ReplayConfig(20), SHAPE, ACTIONS, stack=2, device="meta"))
    learner = Learner(agent, replay, torch.Generator(), torch.Generator())
    for _ in range(3):
        metrics = learner.update()
    assert {value.device.type for value in metrics.values()} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError)):
        metrics["critic/loss"].item()


def test_transitions_that_came_later_are_sampled_too() -> None:
    learner = make_learner(batch_size=400)
    grow(learner.replay, 0)
    assert (learner.sample().action == 0).all(1).any(), "only the last of thirteen transitions has such an action"


def test_the_parts_due_in_each_update() -> None:
    agent = make_learner(actor_every=3, target_every=2, objective_every=5).agent
    without = make_learner(objective="none").agent
    seen = []
    for step in range(31):
        agent.updates = without.updates = step
        seen.append(tuple(agent.due))
        assert not without.due.objective
    assert seen[:7] == [
        (True, True, True),
        (False, False, False),
        (False, True, False),
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, True, False),
    ]
    assert seen[30] == seen[0]
    assert len(set(seen)) == 8


class PretendedGPU:
    """Streams and graphs on the CPU: a capture undoes the device's work, and a replay does it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learner: Learner
        self.graphs: list[PretendedGPU.Graph] = []
        self.eager: list[int] = []  # updates that ran on the side stream, by number
        gpu = self

        class Stream:
            def __init__(self, device: Any = None) -> None: ...

            def wait_stream(self, other: Any) -> None: ...

        @contextlib.contextmanager
        def on_stream(stream: Any) -> Any:
            yield
            gpu.eager.append(gpu.learner.agent.updates)

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", on_stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: PretendedGPU.Graph(gpu))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: graph.captured(pool))
        monkeypatch.setattr(learner_module, "check_capture", lambda *_: None)
        monkeypatch.setattr(Agent, "make_capturable", lambda _: None)  # which Adam would refuse on a CPU

    class Graph:
        def __init__(self, gpu: PretendedGPU) -> None:
            self.gpu, self.generators, self.shared = gpu, set[torch.Generator](), None
            gpu.graphs.append(self)

        def register_generator_state(self, generator: torch.Generator) -> None:
            self.generators.add(generator)

        def pool(self) -> Any:
            return id(self)

        @contextlib.contextmanager
        def captured(self, pool: Any) -> Any:
            learner, self.shared = self.gpu.learner, pool
            before = copy.deepcopy(learner.agent.training_state())
            states = [generator.get_state() for generator in (learner.generator, learner.replay_generator)]
            yield
            number = learner.agent.updates  # the host's work is done in a capture
            learner.agent.load_training_state(before)
            learner.agent.updates = number
            for generator, state in zip((learner.generator, learner.replay_generator), states, strict=True):
                if generator in self.generators:
                    generator.set_state(state)

        def replay(self) -> None:
            learner = self.gpu.learner
            (update,) = [captured for captured in learner._graphs.values() if captured.graph is self]
            learner.agent.updates -= 1
            metrics = learner._learn(diagnose=False)
            update._values.copy_(torch.stack([value.float() for value in metrics.values()]))


def test_the_bookkeeping_of_captures_on_a_pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's work around a graph: it counts, warms up, and captures each kind of update once."""
    gpu = PretendedGPU(monkeypatch)
    rhythm = {"actor_every": 2, "target_every": 2, "objective_every": 3}
    eager, captured = (make_learner(capture=capture, **rhythm) for capture in (False, True))
    gpu.learner = captured
    kinds = []
    for number in range(24):
        kinds.append(tuple(captured.agent.due))
        wanted, found = (learner.update(diagnose=number == 17) for learner in (eager, captured))
        assert {name: value.item() for name, value in found.items()} == {
            name: pytest.approx(value.item()) for name, value in wanted.items()
        }
        assert captured.agent.updates == eager.agent.updates == number + 1
    for ours, theirs in zip(captured.agent.state_dict().values(), eager.agent.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    # By hand: kinds repeat after six updates, and there are four of them; the first two of each are eager.
    assert len(set(kinds)) == len(gpu.graphs) == 4
    warm_up = sorted(n for kind in set(kinds) for n in [i for i, other in enumerate(kinds) if other == kind][:2])
    assert gpu.eager == [number + 1 for number in sorted({*warm_up, 17})]
    assert [graph.shared for graph in gpu.graphs] == [None, *[gpu.graphs[0].pool()] * 3]
    for graph in gpu.graphs:
        assert graph.generators == {captured.generator, captured.replay_generator}
    assert captured.newest is captured._graphs[Due(*kinds[-1])]._newest


def test_capture_without_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="cpu has no CUDA graphs"):
        make_learner(capture=True)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.gpu
@needs_gpu
def test_capture_with_the_replay_in_memory_is_refused() -> None:
    agent = Agent(SHAPE, ACTIONS, CONFIG).cuda()
    replay = Replay(ReplayConfig(20, "memory"), SHAPE, ACTIONS, stack=2, device="cuda")
    with pytest.raises(ValueError, match="needs the replay on the GPU, got a replay in memory"):
        Learner(agent, replay, torch.Generator("cuda"), torch.Generator(), capture=True)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("update", ["exact", "joint"])
@pytest.mark.parametrize(
    ("kind", "graphs"),
    [
        ({}, 2),
        (FROZEN, 2),
        # Of thirty updates the four kinds without the objective come four or eight times, those with it once or twice.
        ({"actor_every": 3, "target_every": 2, "objective_every": 5}, 4),
    ],
    ids=["trained", "frozen", "in long turns"],
)
def test_captured_updates_equal_eager_ones(
    update: Any, kind: dict[str, Any], graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over warm-up, capture and many graph replays, with a growing replay and one diagnosed update."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # Adam makes whole steps of a gradient's noise
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    eager, captured = (make_learner("cuda", capture=c, update_rule=update, **kind) for c in (False, True))
    for step in range(30):
        diagnose = step == 11
        metrics = [learner.update(diagnose=diagnose) for learner in (eager, captured)]
        assert metrics[0].keys() == metrics[1].keys()
        for name, value in metrics[0].items():
            assert metrics[1][name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-5), (step, name)
        drawn = [learner.newest for learner in (eager, captured)]
        assert drawn[0] is not None
        assert drawn[1] is not None
        for ours, theirs in zip(drawn[0][1][:5], drawn[1][1][:5], strict=True):
            assert torch.equal(ours, theirs), "the same batch, and the same crops"
        if step % 5 == 0:
            for learner in (eager, captured):
                grow(learner.replay, step)
    weights = [learner.agent.state_dict() for learner in (eager, captured)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert eager.agent.updates == captured.agent.updates == 30
    assert len(captured._graphs) == graphs, "each kind of update is captured once, after two eager ones"


@pytest.mark.gpu
@needs_gpu
def test_metrics_of_a_captured_update_outlive_the_next() -> None:
    learner = make_learner("cuda", capture=True)
    for _ in range(6):
        learner.update()
    first = learner.update()
    before = first["critic/loss"].item()
    for _ in range(4):
        learner.update()
    assert first["critic/loss"].item() == before
