"""Frames a second of whole training runs, and where their time goes."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import envs
from benchmarks.timing import Row, wait_for
from curl_rl.compute import keep_freed_memory
from curl_rl.config import PRESETS, TASKS, RunConfig, load_preset
from curl_rl.environments import Environment, LocalEnvironment
from curl_rl.training import Trainer

_RANDOM_STEPS, _WARM_UP = 20, 8


def measure(device: torch.device, task: str, updates: int) -> list[Row]:
    """A row for every preset: frames a second of acting and learning on ``task``, and the share of each part.

    Evaluation and saving are left out. On a GPU the update is also timed as a captured graph.
    """
    changes = {"training": {"random_steps": _RANDOM_STEPS}, "replay": {"capacity": 2000}, "device": str(device)}
    rows = []
    for path in tqdm([path for path in sorted(PRESETS.glob("*.yaml")) if path != TASKS], desc="train", leave=False):
        config = load_preset(path.stem, task, changes)
        if device.type == "cpu":
            keep_freed_memory()
        rows.append(_row(config, device, updates))
        if device.type == "cuda":
            captured = replace(config, compute=replace(config.compute, capture=True))
            with _trainer(captured, device) as trainer:
                seconds = _timed_steps(trainer, updates, device) / updates
            note = f"{config.environment.action_repeat / seconds:.3g} frames a second"
            rows.append(Row(f"train {task}, {path.stem}, captured: an agent step", ours_ms=seconds * 1e3, note=note))
    return rows


def _row(config: RunConfig, device: torch.device, updates: int) -> Row:
    # A GPU works on while Python goes on: the total is timed first, the parts in a second run that waits after each.
    with _trainer(config, device) as trainer:
        seconds = _timed_steps(trainer, updates, device) / updates
    with _trainer(config, device) as trainer:
        parts = _watch(trainer, device)
        watched = _timed_steps(trainer, updates, device, parts)
    parts["rest"] = watched - sum(parts.values())
    shares = ", ".join(f"{name} {part / watched:.1%}" for name, part in parts.items())
    note = f"{config.environment.action_repeat / seconds:.3g} frames a second: {shares}"
    return Row(f"train {config.env}, {config.preset}: an agent step", ours_ms=seconds * 1e3, note=note)


@contextlib.contextmanager
def _trainer(config: RunConfig, device: torch.device) -> Iterator[Trainer]:
    e = config.environment

    def make() -> Environment:
        return envs.make(config.env, size=e.size, stack=e.stack, action_repeat=e.action_repeat, quality=e.quality)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        environment, evaluation_environment = make(), make()
        stack.callback(environment.close)
        stack.callback(evaluation_environment.close)
        trainer = Trainer(config, Path(folder), device, LocalEnvironment(environment), evaluation_environment)
        stack.callback(trainer.close)
        yield trainer


def _timed_steps(trainer: Trainer, updates: int, device: torch.device, parts: dict[str, float] | None = None) -> float:
    """Seconds of ``updates`` agent steps with their updates, after the random ones and a few updates to warm up."""
    while trainer.agent.updates < _WARM_UP:
        trainer.step()
    for name in parts or {}:
        parts[name] = 0.0  # type: ignore[index]
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(updates):
        trainer.step()
    wait_for(device)
    return time.perf_counter() - begin


def _watch(trainer: Trainer, device: torch.device) -> dict[str, float]:
    """Seconds of each part, which go on being counted."""
    parts: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any], inside: str | None = None) -> Callable[..., Any]:
        parts[name] = 0.0

        def run(*arguments: Any, **named: Any) -> Any:
            wait_for(device)
            begin = time.perf_counter()
            result = work(*arguments, **named)
            wait_for(device)
            seconds = time.perf_counter() - begin
            parts[name] += seconds
            if inside:
                parts[inside] -= seconds
            return result

        return run

    learner, environments = trainer.learner, trainer.environments
    assert isinstance(environments, LocalEnvironment)
    environment = environments.environment.unwrapped
    trainer._actions = timed("act", trainer._actions)  # type: ignore[method-assign]
    environment.step = timed("step", environment.step)  # type: ignore[method-assign]
    environment.env.render = timed("render", environment.env.render, inside="step")  # type: ignore[attr-defined]
    trainer.replay.add = timed("store", trainer.replay.add)  # type: ignore[method-assign]
    learner.sample = timed("sample", learner.sample)  # type: ignore[method-assign]
    trainer.agent.draw = timed("crop", trainer.agent.draw)  # type: ignore[method-assign]
    trainer.agent.update = timed("update", trainer.agent.update)  # type: ignore[method-assign]
    trainer.means.add = timed("log", trainer.means.add)  # type: ignore[method-assign]
    return parts
