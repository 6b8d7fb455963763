"""The estimate with a fake clock."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch

import envs
from curl_rl.objectives.method import Method
from curl_rl.rl import estimate
from curl_rl.rl.agent import Agent, Due, UpdateInputs
from curl_rl.rl.config import RunConfig, load_preset
from curl_rl.rl.estimate import estimated_time
from helpers.dummy_objectives import DUMMIES

UPDATE, STEP = 0.5, 0.01  # seconds


@pytest.fixture
def config() -> RunConfig:
    small = {"batch_size": 4, "crop": 20, "hidden": 8, "encoder": {"filters": 2, "strides": [2], "latent": 4}}
    changes = {
        "environment": {"size": 24, "action_repeat": 5},
        "evaluation": {"every": 500, "episodes": 3},
        "training": {"random_steps": 150},
    }
    return load_preset("sac", "tiny-reach", {"agent": small, **changes})


@pytest.fixture
def agent(config: RunConfig) -> Agent:
    torch.manual_seed(0)
    return Agent((9, 24, 24), 2, config.agent)


def environment(config: RunConfig) -> gymnasium.Env[np.ndarray, np.ndarray]:
    return envs.make("tiny-reach", size=24, action_repeat=config.environment.action_repeat)


def test_the_time_is_that_of_steps_updates_and_evaluations(
    config: RunConfig, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_seconds_per_update", lambda *_: UPDATE)
    monkeypatch.setattr(estimate, "_seconds_per_step", lambda *_: STEP)
    # 1000 frames are 200 agent steps, the last 50 with an update: 200 · 0.01 s + 50 · 0.5 s. Three evaluations (at 0,
    # 500 and 1000 frames) of 3 episodes of 5 agent steps: 45 · 0.01 s. In all 27.45 s.
    line = estimated_time(config, agent, environment(config), 1000)
    assert line == "estimate: about 27 seconds on this CPU (500 ms per update, 10 ms per step)"
    # After 100 steps 50 random ones are left, after 160 none: 77.45 s and 102.45 s. Only random ones: 1.3 s.
    assert estimated_time(config, agent, environment(config), 1000, 100).startswith("estimate: about 77 seconds")
    assert estimated_time(config, agent, environment(config), 1000, 160).startswith("estimate: about 2 minutes")
    assert estimated_time(config, agent, environment(config), 500).startswith("estimate: about 1 seconds")
    # A thousand times as many frames: 28.4 hours, and a better preset is suggested.
    long = estimated_time(config, agent, environment(config), 1_000_000)
    assert long.startswith("estimate: about 28 hours on this CPU")
    assert "--preset cpu" in long


def test_measuring_leaves_the_agent_as_it_was(config: RunConfig, agent: Agent) -> None:
    before = copy.deepcopy(agent.training_state())
    random = torch.get_rng_state()
    line = estimated_time(config, agent, environment(config), 100)
    assert line.startswith("estimate: about")
    after = agent.training_state()
    assert after["updates"] == before["updates"] == 0
    assert all(torch.equal(value, before["networks"][name]) for name, value in after["networks"].items())
    assert all(not optimizer["state"] for optimizer in after["optimizers"].values())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_objective_that_looks_ahead_gets_the_actions_in_between(
    config: RunConfig, register: Callable[[Method], None]
) -> None:
    register(DUMMIES["dynamics"])
    ahead = dataclasses.replace(config, agent=dataclasses.replace(config.agent, objective="dynamics"))
    trained = Agent((9, 24, 24), 2, ahead.agent)
    assert estimate._seconds_per_update(ahead, trained) > 0  # three actions, or its layers would not fit


def test_the_time_of_an_update_is_the_mean_over_its_kinds(
    config: RunConfig, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Due] = []
    update = Agent.update

    def seen(self: Agent, inputs: UpdateInputs) -> dict[str, torch.Tensor]:
        done.append(self.due)
        return update(self, inputs)

    def clock(work: Callable[[], object]) -> float:
        work()
        first = done.count(done[-1]) == 1  # of its kind: it is slow, and must not count
        return 1000.0 if first else 2.0 + 2.0 * done[-1].targets + 4.0 * done[-1].actor

    monkeypatch.setattr(Agent, "update", seen)
    monkeypatch.setattr(estimate, "_seconds", clock)
    rare = dataclasses.replace(config, agent=dataclasses.replace(config.agent, actor_every=4, target_every=2))
    # Of four consecutive updates one steps actor and targets, one only the targets, two only the critics.
    trained = Agent((9, 24, 24), 2, rare.agent)
    assert estimate._seconds_per_update(rare, trained) == pytest.approx((8.0 + 4.0 + 2 * 2.0) / 4)
    # Practically never: of a thousand updates one steps everything, and the others step the targets every other time.
    never = dataclasses.replace(config, agent=dataclasses.replace(config.agent, actor_every=10**12, target_every=2))
    trained, done[:] = Agent((9, 24, 24), 2, never.agent), []
    assert estimate._seconds_per_update(never, trained) == pytest.approx((8.0 + 499 * 4.0 + 500 * 2.0) / 1000)
