"""Frames per second of whole training runs, a breakdown of their time, and the gain from environment processes."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

import envs
from benchmarks.timing import Row, alone, wait_for
from curl_rl.commands.environments import make_configured
from curl_rl.rl.config import PRESETS, TASKS, RunConfig, load_preset
from curl_rl.rl.training import Trainer
from curl_rl.rl.workers import Environment, LocalEnvironment, open_environments
from curl_rl.runs.compute import resolve_precision

_RANDOM_STEPS, _WARM_UP = 20, 8
_ENOUGH_SECONDS = 5.0  # minimum timed, if the requested steps take less
_WINDOWS = 5  # the timed steps are split into these, for a median and a spread

# --training.environments, --training.overlap, and whether updates run between the steps.
_ARRANGEMENTS = [
    (environments, overlap, updates)
    for updates in (True, False)
    for environments, overlap in ((1, False), (1, True), (2, False), (2, True), (4, False), (4, True))
    if updates or not overlap
]


def measure(device: torch.device, task: str, steps: int) -> list[Row]:
    """A row per preset: frames per second of acting and learning on ``task``, and the share of each part; one more in
    float32 if a preset's precision is automatic and not float32; and one per arrangement of ``cpu``'s environments.

    At least ``steps`` agent steps are timed, in several windows that give one time each. Evaluation and saving are
    excluded. On a GPU the update is also timed as a captured graph.
    """
    changes = {"training": {"random_steps": _RANDOM_STEPS}, "replay": {"capacity": 2000}, "device": str(device)}
    rows = []
    for path in tqdm([path for path in sorted(PRESETS.glob("*.yaml")) if path != TASKS], desc="train", leave=False):
        config = load_preset(path.stem, task, changes)
        rows.append(_row(config, device, steps))
        if config.agent.precision == "auto" and resolve_precision("auto", device) != "float32":
            float32 = replace(config, agent=replace(config.agent, precision="float32"))
            rows.append(_total(float32, device, steps, f"{path.stem}, float32"))
        if device.type == "cuda":
            captured = replace(config, compute=replace(config.compute, capture=True))
            rows.append(_total(captured, device, steps, f"{path.stem}, captured"))
    config = load_preset("cpu", task, changes)
    for environments, overlap, updates in tqdm(_ARRANGEMENTS, desc="environments", leave=False):
        random_steps = _RANDOM_STEPS if updates else 10**9
        training = replace(config.training, environments=environments, overlap=overlap, random_steps=random_steps)
        name = f"cpu{'' if updates else ' at random'}, environments {environments}{', overlap' if overlap else ''}"
        rows.append(_total(replace(config, training=training), device, steps, name))
    return rows


def _row(config: RunConfig, device: torch.device, steps: int) -> Row:
    # A GPU runs asynchronously: the total is timed first, the parts in a second run that synchronizes after each.
    total = _total(config, device, steps, config.preset)
    with _trainer(config, device) as trainer:
        parts = _watch(trainer, device)
        seconds = sum(window.seconds for window in _timed_steps(trainer, steps, device, parts))
    parts["rest"] = seconds - sum(parts.values())
    shares = ", ".join(f"{name} {part / seconds:.1%}" for name, part in parts.items())
    return replace(total, note=f"{total.note}: {shares}")


def _total(config: RunConfig, device: torch.device, steps: int, name: str) -> Row:
    with _trainer(config, device) as trainer:
        windows = _timed_steps(trainer, steps, device)
    # Over all windows, so that rare events, such as the end of an episode, count as well.
    rate = sum(window.frames for window in windows) / sum(window.seconds for window in windows)
    of_a_step = [window.seconds / window.agent_steps for window in windows]
    return alone(f"train {config.env}, {name}: an agent step", of_a_step, f"{rate:.3g} frames a second")


@contextlib.contextmanager
def _trainer(config: RunConfig, device: torch.device) -> Iterator[Trainer]:
    def make() -> Environment:
        return make_configured(envs.make, config.env, config.environment)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        evaluation_environment = make()
        stack.callback(evaluation_environment.close)
        t = config.training
        environments = stack.enter_context(open_environments(make, t.environments, overlap=t.overlap))
        trainer = Trainer(config, Path(folder), device, environments, evaluation_environment)
        stack.callback(trainer.close)
        yield trainer


class Window(NamedTuple):
    """Consecutive agent steps, timed together."""

    seconds: float
    agent_steps: int
    frames: int
    """Environment frames."""


def _timed_steps(
    trainer: Trainer, steps: int, device: torch.device, parts: dict[str, float] | None = None
) -> list[Window]:
    """Times at least ``steps`` agent steps, in windows of similar length.

    The random steps and a few warm-up updates come first and are not counted.
    """
    progress = trainer.progress
    while trainer.agent.updates < _WARM_UP and progress.agent_steps < _RANDOM_STEPS + _WARM_UP:
        trainer.step()
    for name in parts or {}:
        parts[name] = 0.0  # type: ignore[index]
    wait_for(device)
    windows = []
    for _ in range(_WINDOWS):
        steps_before, frames_before, begin = progress.agent_steps, progress.frames, time.perf_counter()
        # An even number, because actor and targets move every other update, so that costs alternate.
        while (
            (done := progress.agent_steps - steps_before) < steps / _WINDOWS
            or done % 2
            or time.perf_counter() - begin < _ENOUGH_SECONDS / _WINDOWS
        ):
            trainer.advance()
        wait_for(device)
        windows.append(Window(time.perf_counter() - begin, done, progress.frames - frames_before))
    return windows


def _watch(trainer: Trainer, device: torch.device) -> dict[str, float]:
    """Seconds of each part, updated as the trainer runs."""
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
    trainer.session.means.add = timed("log", trainer.session.means.add)  # type: ignore[method-assign]
    trainer._log = timed("log", trainer._log)  # type: ignore[method-assign]
    trainer._log_pictures = timed("log", trainer._log_pictures)  # type: ignore[method-assign]
    return parts
