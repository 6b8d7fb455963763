"""Environments that misbehave at a random call, in the trainer's process and in workers.

The run must end in one line, keep what it has, and end as an undisturbed one once the environment is sound.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curl_rl.rl.config import TrainingConfig
from curl_rl.rl.training import train
from curl_rl.runs.command_line import exit_code_of
from helpers import corridor
from helpers.corridor import Corridor
from helpers.faults import subjects
from helpers.faults.attempts import DEFECT, RESUMED, SAME, STOPPED, Kind, Ran, Result, fail, in_child, ran


class Odd(Exception):
    """Neither printed nor pickled without trouble."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd\nin two lines \x1b[31m" + "x" * 5000)

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def _raise(error: BaseException) -> None:
    raise error


def _nest(depth: int = 0) -> None:
    _nest(depth + 1)


ACTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: _raise(RuntimeError("the simulator\nis broken")),
    "raises what is odd": lambda: _raise(Odd(1, 2)),
    "raises an OSError": lambda: _raise(OSError(28, "No space left on device", "/somebody's/file")),
    "raises KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "raises StopIteration": lambda: _raise(StopIteration()),
    "raises GeneratorExit": lambda: _raise(GeneratorExit()),
    "raises MemoryError": lambda: _raise(MemoryError()),
    "raises UserError": lambda: _raise(ValueError("a value")),
    "calls sys.exit": lambda: sys.exit(0),
    "recurses": _nest,
    "prints": lambda: print("x" * 100_000),
    "changes directory": lambda: os.chdir("/"),
    "closes stdin": lambda: sys.stdin.close(),
}
"""What happens in a call; the last ones are harmless."""
ENDS_PROGRAMS = ("raises KeyboardInterrupt", "raises StopIteration", "raises GeneratorExit", "calls sys.exit")
IN_WORKERS: dict[str, Callable[[], Any]] = {
    "hangs": lambda: time.sleep(3600),
    "ends its process": lambda: os._exit(3),
    "ends its process with 0": lambda: os._exit(0),
    "crashes": lambda: os.kill(os.getpid(), 11),
}

PICTURE = (3 * corridor.STACK, corridor.SIZE, corridor.SIZE)
RETURNS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "nothing": lambda outcome: None,
    "too few": lambda outcome: outcome[:-1],
    "a reward of NaN": lambda outcome: (outcome[0], float("nan"), *outcome[2:]),
    "an endless reward": lambda outcome: (outcome[0], 1e300, *outcome[2:]),
    "a reward of text": lambda outcome: (outcome[0], "1", *outcome[2:]),
    "another shape": lambda outcome: (outcome[0][:, :-1], *outcome[1:]),
    "floats": lambda outcome: (outcome[0] / 255, *outcome[1:]),
    "huge frames": lambda outcome: (np.zeros((6, 2000, 2000), np.uint8), *outcome[1:]),
    "a list": lambda outcome: (outcome[0].tolist(), *outcome[1:]),
    "a torn stack": lambda outcome: (outcome[0][::-1].copy(), *outcome[1:]),
    "no info": lambda outcome: (*outcome[:-1], None),
}


class Misbehaving(Corridor):
    """Does ``act`` in a call of ``method``, the one of this number."""

    def __init__(self, method: str, at: int, act: str) -> None:
        self.method, self.at, self.act, self.calls = method, at, act, 0
        self._call("construction")
        super().__init__()

    def _call(self, method: str, outcome: Any = ()) -> Any:
        if method != self.method:
            return outcome
        self.calls += 1
        if self.calls != self.at:
            return outcome
        if self.act in RETURNS:
            return RETURNS[self.act](outcome) if len(outcome) == 5 or self.act in ("nothing", "too few") else outcome
        {**ACTS, **IN_WORKERS}[self.act]()
        return outcome

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._call("reset", super().reset(seed=seed, options=options))

    def step(self, action: Any) -> Any:
        return self._call("step", super().step(action))

    def close(self) -> None:
        self._call("close")


def _config(run: Path, workers: int = 0, patience: float = 120) -> Any:
    """``patience``: seconds for a step in a worker; one that takes a breath must not pass for one that hangs."""
    config = subjects.agent_config(run, 30)
    if workers:
        return replace(config, training=TrainingConfig(random_steps=6, environments=workers, step_timeout=patience))
    return config


@functools.cache
def undisturbed(workers: int) -> str:
    """The fingerprint of a run with sound environments."""
    out = subjects.base() / "environments" / str(workers)
    run = train(_config(out / "run", workers), Corridor)
    _fingerprint(run, out)
    return (out / "fingerprint").read_text()


def _fingerprint(run: Path, out: Path) -> None:
    found = subjects.checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    content = {name: value for name, value in found[1].items() if name not in ("replay", "random")}
    subjects.fingerprint(out, content, corridor.rows(run))


def attempt(workers: int, source: random.Random, folder: Path) -> Result:
    """An environment misbehaves once; then a sound one takes its place."""
    wanted = undisturbed(workers)
    acts = [*ACTS, *RETURNS, *(IN_WORKERS if workers else ())]
    act, method = source.choice(acts), source.choice(["reset", "step", "step", "step", "close", "construction"])
    if method == "construction" and act not in ENDS_PROGRAMS:  # an exception there has its traceback, at the start
        method = "step"
    if act == "hangs" and method == "close":
        method = "step"
    at = 1 if method in ("close", "construction") else source.randint(1, 12)
    run = folder / "run"
    make = functools.partial(Misbehaving, method, at, act)
    where = f"{method} {at} {act}"

    def misbehaves() -> str:
        ended = ran(
            lambda: exit_code_of(
                "train_agent.py", lambda: train(_config(run, workers, 3 if act == "hangs" else 120), make)
            ),
            traceback_allowed=workers > 0,
        )
        return _end(ended, where)

    def sound() -> str:
        ended = ran(lambda: exit_code_of("train_agent.py", lambda: train(_config(run, workers), Corridor)))
        if ended.code:
            fail(f"cannot be resumed: {ended.err[-1500:]}")
        _fingerprint(run, folder)
        if (folder / "fingerprint").read_text() != wanted:
            fail(f"ends differently: {ended.err[-1500:]}")
        return SAME

    first = in_child(misbehaves, 120)
    if first.outcome == DEFECT:
        return Result(DEFECT, f"{where}: {first.detail}")
    second = in_child(sound, 120)
    return Result(first.outcome) if second.outcome == SAME else Result(DEFECT, f"{where}: then {second.detail}")


def _end(ended: Ran, where: str) -> str:
    if ended.code == 0:
        return RESUMED
    if ended.code not in (1, 2):
        fail(f"exit code {ended.code}: {ended.err[-1500:]}")
    lines = [line for line in ended.err.splitlines() if line.startswith("train_agent.py: ")]
    if len(lines) != 1 or ended.err.strip().splitlines()[-1] != lines[0]:
        fail(f"does not stop in one line: {ended.err[-1500:]}")
    return STOPPED


def kinds() -> list[Kind]:
    """In the trainer's process, in one worker, in two."""
    names = {0: "in the trainer's process", 1: "in a worker", 2: "in two workers"}
    return [
        Kind(f"an environment misbehaves {name}", lambda source, folder, w=workers: attempt(w, source, folder))
        for workers, name in names.items()
    ]
