"""Frames a second of whole training runs, where their time goes, and what environments in their own processes gain."""

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
from curl_rl.rl.config import PRESETS, TASKS, RunConfig, load_preset
from curl_rl.rl.training import Trainer
from curl_rl.rl.workers import Environment, LocalEnvironment, open_environments
from curl_rl.runs.compute import resolve_precision

_RANDOM_STEPS, _WARM_UP = 20, 8
_ENOUGH_SECONDS = 5.0  # timed at least, where the steps that were asked for take less
_WINDOWS = 5  # that the timed steps are shared among, for a median and a spread

# --training.environments and --training.overlap; and whether there are updates beside the steps.
_ARRANGEMENTS = [
    (environments, overlap, updates)
    for updates in (True, False)
    for environments, overlap in ((1, False), (1, True), (2, False), (2, True), (4, False), (4, True))
    if updates or not overlap
]


def measure(device: torch.device, task: str, steps: int) -> list[Row]:
    """A row for every preset: frames a second of acting and learning on ``task``, and the share of each part; one in
    float32 where a preset takes what the device is fastest in; and one for every arrangement of ``cpu``'s environments.

    At least ``steps`` agent steps are timed, in several windows of which each makes one time. Evaluation and saving are
    left out. On a GPU the update is also timed as a captured graph.
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
    # A GPU works on while Python goes on: the total is timed first, the parts in a second run that waits after each.
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
    # Of all of it, for what is rare, such as the end of an episode, counts as well.
    rate = sum(window.frames for window in windows) / sum(window.seconds for window in windows)
    of_a_step = [window.seconds / window.agent_steps for window in windows]
    return alone(f"train {config.env}, {name}: an agent step", of_a_step, f"{rate:.3g} frames a second")


@contextlib.contextmanager
def _trainer(config: RunConfig, device: torch.device) -> Iterator[Trainer]:
    e = config.environment

    def make() -> Environment:
        return envs.make(config.env, size=e.size, stack=e.stack, action_repeat=e.action_repeat, quality=e.quality)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        evaluation_environment = make()
        stack.callback(evaluation_environment.close)
        t = config.training
        environments = stack.enter_context(open_environments(make, t.environments, overlap=t.overlap))
        trainer = Trainer(config, Path(folder), device, environments, evaluation_environment)
        stack.callback(trainer.close)
        yield trainer


class Window(NamedTuple):
    """Some agent steps in a row."""

    seconds: float
    agent_steps: int
    frames: int
    """The environment's."""


def _timed_steps(
    trainer: Trainer, steps: int, device: torch.device, parts: dict[str, float] | None = None
) -> list[Window]:
    """At least ``steps`` agent steps, by the clock, in windows of alike length.

    The random steps and a few updates to warm up come before, and are not counted.
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
        # An even number, because an actor and targets that move every other update make the costs of two differ.
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
    trainer.session.means.add = timed("log", trainer.session.means.add)  # type: ignore[method-assign]
    trainer._log = timed("log", trainer._log)  # type: ignore[method-assign]
    trainer._log_pictures = timed("log", trainer._log_pictures)  # type: ignore[method-assign]
    return parts
