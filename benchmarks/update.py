"""Milliseconds of one update, compared with a plain one and with the floor set by the convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Row, alone, as_graph, compared, side_by_side
from curl_rl.encoders import EncoderConfig
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.learner import Learner
from curl_rl.rl.replay import Replay, ReplayConfig
from curl_rl.runs.compute import resolve_precision
from examples import curl_in_one_file as plain_curl

SHAPE, ACTIONS, STACK = (9, 100, 100), 6, 3  # of cheetah-run with the paper's settings
TRANSITIONS = 2000  # stored: enough that a batch is not in the caches


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """Rows for the update with the paper's network, compared with the plain one: the exact and the joint update."""
    plain = plain_update(device, batch)
    precision = resolve_precision("auto", device)
    learners = {
        "float32": our_learner(device, AgentConfig(batch_size=batch)),
        precision: our_learner(device, AgentConfig(batch_size=batch, precision=precision)),
        f"{precision}, joint": our_learner(
            device, AgentConfig(batch_size=batch, precision=precision, update_rule="joint")
        ),
    }
    if device.type == "cuda":
        for name in list(learners):
            config = learners[name].agent.config
            learners[f"{config.precision}, {config.update_rule}, captured"] = our_learner(device, config, capture=True)
    # The updates compared with their floor: on a GPU the captured ones, as one would run them.
    against: dict[tuple[str, str], str] = {("exact", "float32"): "float32", ("exact", precision): precision}
    against["joint", precision] = f"{precision}, joint"
    if device.type == "cuda":
        against = {(update, its): f"{its}, {update}, captured" for update, its in against}
    best = {update: against[update, precision] for update in ("exact", "joint")}
    cases: dict[str, Callable[[], object]] = {"plain": plain}
    cases |= {name: learner.update for name, learner in learners.items()}
    cases["sample and crop"] = _sampling(learners[best["exact"]], device)
    floors = {kind: floor(device, batch, precision=kind[1], update=kind[0]) for kind in against}
    cases |= {f"floor, {update}, {its}": convolutions.run for (update, its), convolutions in floors.items()}
    # Actor and targets move every other update, so two updates make one time. Captures finish in the warm-up.
    seconds = side_by_side(
        cases,
        rounds=rounds,
        warm_up=3 if device.type == "cuda" else 1,
        cycle=2,
        device=device,
        description=f"update, batch {batch}",
    )

    rows = []
    for name in learners:
        rows.append(
            compared(f"update, batch {batch}, {name}", seconds["plain"], seconds[name], _per_second(seconds[name]))
        )
    drawing = _median(seconds["sample and crop"])
    shares = [f"{drawing / _median(seconds[name]):.1%} of the {update} update" for update, name in best.items()]
    rows.append(alone(f"sample and crop, batch {batch}", seconds["sample and crop"], ", ".join(shares)))
    for (update, its), learner_name in against.items():
        name, work = f"floor, {update}, {its}", floors[update, its]
        fastest = _median(seconds[name])
        times, plain_times = (_median(seconds[case]) / fastest for case in (learner_name, "plain"))
        note = (
            f"convolutions alone: {work.flops / 1e9:.1f} GFLOP at {work.flops / fastest / 1e9:.0f} GFLOP/s and "
            f"{work.bytes / 1e9:.2f} GB at {work.bytes / fastest / 1e9:.0f} GB/s; the update takes "
            f"{times:.2f} times as long, the plain one {plain_times:.2f}"
        )
        rows.append(alone(f"{name}, batch {batch}", seconds[name], note))
    return rows


def _median(seconds: list[float]) -> float:
    return float(np.median(seconds))


def _sampling(learner: Learner, device: torch.device) -> Callable[[], object]:
    """Draws a batch and its crops, on a GPU as a separate graph."""

    def draw() -> object:
        return learner.agent.draw(learner.sample(), learner.generator)

    return as_graph(draw, device, {learner.generator, learner.replay_generator})


def _per_second(seconds: list[float]) -> str:
    return f"{1 / _median(seconds):.3g} updates a second"


def plain_update(device: torch.device, batch: int) -> Callable[[], object]:
    """Sampling, cropping and updating in the plain implementation."""
    torch.manual_seed(0)
    agent = plain_curl.Agent(SHAPE[0], 84, ACTIONS, device=device)
    replay = plain_curl.Replay(TRANSITIONS, SHAPE, ACTIONS, device)
    generator = np.random.default_rng(0)
    for _ in range(TRANSITIONS):
        stack = generator.integers(0, 256, SHAPE, dtype=np.uint8)
        replay.add(stack, generator.uniform(-1, 1, ACTIONS).astype(np.float32), 0.5, stack[::-1], terminated=False)
    return lambda: agent.update(replay.sample(batch, 84, 0.99, generator))


def our_learner(device: torch.device, config: AgentConfig, *, capture: bool = False) -> Learner:
    """The same in this package."""
    torch.manual_seed(0)
    agent = Agent(SHAPE, ACTIONS, config).to(device)
    replay = Replay(ReplayConfig(TRANSITIONS), SHAPE, ACTIONS, stack=STACK, device=device)
    fill(replay, TRANSITIONS)
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(2)]
    return Learner(agent, replay, *generators, capture=capture)


def fill(replay: Replay, transitions: int, *, episode: int = 250) -> None:
    """Stores transitions of random pixels in episodes of equal length."""
    generator = np.random.default_rng(0)

    def frame() -> np.ndarray:
        return generator.integers(0, 256, (3, *SHAPE[1:]), dtype=np.uint8)

    for number in range(transitions):
        if number % episode == 0:
            observation = np.tile(frame(), (STACK, 1, 1))
            replay.start_episode(observation)
        observation = np.concatenate([observation[3:], frame()])
        action = generator.uniform(-1, 1, ACTIONS)
        replay.add(action, 0.5, observation, terminated=False, truncated=number % episode == episode - 1)


class Convolutions(NamedTuple):
    """The minimum work of an update."""

    run: Callable[[], object]
    flops: int
    """A multiply-add counts as two."""
    bytes: int
    """Bytes read and written, each input and each result once."""


def floor(device: torch.device, batch: int, precision: str, update: str) -> Convolutions:
    """Only the convolutions of one update, each in the fastest known way.

    Forward passes: the next observation through the encoder and its momentum copy, the key, and the observation once
    (joint) or twice (exact); the passes of the observation have a backward pass. No ReLU, no conversion, no bias
    gradient; inputs are ready in the layout that suits the convolutions; on a GPU it is a graph, like the updates that
    are compared with it.
    """
    config = EncoderConfig()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    channels, size = SHAPE[0], 84
    passes, learned = (5, 2) if update == "exact" else (4, 1)
    layers, flops, moved = [], 0, 0
    for depth, stride in enumerate(config.strides):
        after = (size - 3) // stride + 1

        def random_input(*shape: int) -> Tensor:
            return torch.rand(shape, device=device).to(dtype, memory_format=torch.channels_last)

        x, weight = random_input(batch, channels, size, size), random_input(config.filters, channels, 3, 3)
        grad = random_input(batch, config.filters, after, after)
        layers.append((x, weight, grad, stride, depth > 0))
        backward = 2 if depth else 1  # for weights and input, except that pixels need no gradient
        flops += (passes + learned * backward) * 2 * batch * after**2 * config.filters * channels * 9
        # Input and output forward and the same again backward, plus the input's gradient; weights are negligible.
        moved += (passes + learned) * (x.nbytes + grad.nbytes) + learned * (backward - 1) * x.nbytes
        channels, size = config.filters, after

    def work() -> None:
        with torch.no_grad():
            for x, weight, _, stride, _ in layers * passes:
                F.conv2d(x, weight, stride=stride)
            for x, weight, grad, stride, inner in layers * learned:
                torch.ops.aten.convolution_backward(
                    grad, x, weight, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1, [inner, True, False]
                )

    return Convolutions(as_graph(work, device), flops, moved)
