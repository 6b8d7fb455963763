"""Work that writes files, disturbed and done again: runs, recordings and exports.

A disturbance is a kill at one of the file operations, found by counting them, a kill at a random moment, or an error of
the disk. What it leaves must be readable, and the same command must then bring about the end of the undisturbed work,
bit for bit.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curl_rl.commands import export_encoder, export_policy
from curl_rl.rl.config import TrainingConfig
from curl_rl.rl.training import train
from curl_rl.runs.command_line import exit_code_of
from curl_rl.vision.pretraining import pretrain
from helpers import corridor
from helpers.faults import subjects
from helpers.faults.attempts import DEFECT, RESUMED, SAME, STOPPED, Kind, Ran, Result, fail, in_child, ran
from helpers.faults.operations import Mode, Operations


@dataclass(frozen=True, eq=False)
class Work:
    """A command that writes into a folder."""

    name: str
    begin: Callable[[], Path] | None
    """Makes the folder with which it begins; None: there is none yet."""
    work: Callable[[Path], int]
    """The command; returns its exit code."""
    fingerprint: Callable[[Path, Path], None]
    """As those of the subjects' readers."""
    readers: tuple[Callable[[Path, Path], Any], ...] = ()
    """Load what an interruption has left, or refuse it."""
    needs: tuple[Callable[[], Path], ...] = ()
    """Makes what it reads."""


def _folder(work: Work, inside: Path) -> Path:
    folder = inside / "folder"
    if work.begin is not None:
        shutil.copytree(work.begin(), folder, symlinks=True)
    return folder


@functools.cache
def undisturbed(work: Work) -> tuple[str, list[str], float]:
    """The fingerprint of the end, the file operations, and the seconds that it takes."""
    inside = subjects.base() / "undisturbed" / work.name.replace(" ", "-").replace(":", "")
    inside.mkdir(parents=True)
    for make in work.needs:  # before any child does
        make()
    folder = _folder(work, inside)

    def all_of_it() -> str:
        operations, begun = Operations(folder).install(), time.monotonic()
        ended = ran(lambda: work.work(folder))
        if ended.code:
            fail(ended.err)
        seconds = time.monotonic() - begun
        log = list(operations.log)
        work.fingerprint(folder, inside)
        (inside / "log").write_text("\n".join([str(seconds), *log]))
        return SAME

    outcome, detail = in_child(all_of_it, 120)
    assert outcome == SAME, detail
    seconds, *log = (inside / "log").read_text().splitlines()
    return (inside / "fingerprint").read_text(), log, float(seconds)


def _again(work: Work, folder: Path, inside: Path, outcome: str) -> str:
    """Does the work without disturbance; the end must be as if there had never been one."""
    for reader in work.readers:
        if folder.exists():
            left = ran(lambda reader=reader: reader(folder, inside))
            if left.code not in (0, 2):
                fail(f"what is left cannot be read: {left.err[-1500:]}")
    (inside / "fingerprint").unlink(missing_ok=True)
    ended = ran(lambda: work.work(folder))
    if ended.code:
        fail(f"cannot be resumed: {ended.err[-1500:]}")
    work.fingerprint(folder, inside)
    if (inside / "fingerprint").read_text() != undisturbed(work)[0]:
        fail(f"ends differently: {ended.err[-1500:]}")
    left = [str(path) for path in folder.rglob("*.partial")]
    if left:
        fail(f"leaves {left} behind")
    return outcome


# ---- kills


def killed_at_an_operation(work: Work, source: random.Random, inside: Path) -> Result:
    """Before, in the middle of or after one of the file operations, also with what was not synced lost."""
    _, log, _ = undisturbed(work)
    at, mode = source.randrange(len(log)), source.choice(["before", "torn", "after", "power cut"])
    return _killed(
        work, inside, f"{mode} {log[at]} ({at} of {len(log)})", lambda f: Operations(f, mode, at).install(), None
    )


def killed_at_a_moment(work: Work, source: random.Random, inside: Path) -> Result:
    """After a random time."""
    seconds = source.uniform(0, undisturbed(work)[2])
    return _killed(work, inside, f"after {seconds:.3f} s", lambda folder: None, seconds)


def _killed(work: Work, inside: Path, where: str, prepare: Callable[[Path], object], seconds: float | None) -> Result:
    folder = _folder(work, inside)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            prepare(folder)
            ran(lambda: work.work(folder))
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        _end(child)
    if not _ended_within(child, 120):
        return Result(DEFECT, f"killed {where}: hangs")
    outcome, detail = in_child(lambda: _again(work, folder, inside, RESUMED), 120)
    return Result(outcome, detail and f"killed {where}: {detail}")


def _end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)  # before it had a session of its own


def _ended_within(child: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    _end(child)
    os.waitpid(child, 0)
    return False


# ---- errors of the disk


def on_a_failing_disk(work: Work, source: random.Random, inside: Path) -> Result:
    """An operation, or all from there on, raises ENOSPC, EACCES or EIO."""
    log = undisturbed(work)[1]
    at = source.randrange(len(log))
    mode: Mode = source.choice(["full disk", "once full", "no permission", "input/output"])
    return _failing(
        work, inside, f"{mode} at {log[at]} ({at} of {len(log)})", lambda f: Operations(f, mode, at).install()
    )


def with_a_largest_file(work: Work, source: random.Random, inside: Path) -> Result:
    """The operating system refuses to write beyond a length, as with a quota."""
    size = int(2 ** source.uniform(0, 18))

    def limit(_: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return _failing(work, inside, f"files of at most {size} bytes", limit)


def _failing(work: Work, inside: Path, where: str, prepare: Callable[[Path], object]) -> Result:
    folder = _folder(work, inside)

    def fails() -> str:
        prepare(folder)
        return _one_line(ran(lambda: work.work(folder)))

    outcome, detail = in_child(fails, 120)
    if outcome != DEFECT:
        stopped = outcome
        outcome, detail = in_child(lambda: _again(work, folder, inside, stopped), 120)
    return Result(outcome, detail and f"{where}: {detail}")


def _one_line(ended: Ran) -> str:
    """The end of a command that the disk has stopped."""
    if ended.code == 0:
        return RESUMED
    if ended.code not in (1, 2):
        fail(f"exit code {ended.code}: {ended.err[-1500:]}")
    lines = [line for line in ended.err.splitlines() if ".py: " in line]
    if len(lines) != 1:
        fail(f"does not stop in one line: {ended.err[-1500:]}")
    return STOPPED


# ---- the work


def _agent(config: Callable[[Path], Any]) -> Callable[[Path], int]:
    return lambda run: exit_code_of("train_agent.py", lambda: corridor.trained(config(run)))


def _with_workers(run: Path) -> int:
    config = subjects.agent_config(run, training=TrainingConfig(random_steps=6, environments=2, overlap=True))
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # a checkpoint holds the state of these generators
        seed(0)
    return exit_code_of("train_agent.py", lambda: train(replace(config, frames=30), corridor.Corridor))


def _workers_fingerprint(run: Path, out: Path) -> None:
    found = subjects.checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    subjects.fingerprint(out, {name: value for name, value in found[1].items() if name != "replay"}, corridor.rows(run))


def _pretrains(method: str, recorded: bool = False) -> Callable[[Path], int]:
    def work(run: Path) -> int:
        data = subjects.recording() if recorded else None
        return exit_code_of("pretrain_vision.py", lambda: pretrain(subjects.vision_config(run, method, data)))

    return work


def _exports(main: Callable[[list[str]], int], of: Callable[[], Path]) -> Callable[[Path], int]:
    def work(folder: Path) -> int:
        line = [str(of()), "--format", "safetensors", "--overwrite", "--output", str(folder / "it.safetensors")]
        return main(line)

    return work


def _content(folder: Path, out: Path) -> None:
    """Of the header and the data: safetensors writes the header's entries in an order that differs by chance."""
    whole = (folder / "it.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    subjects.fingerprint(out, json.dumps(json.loads(whole[8:end]), sort_keys=True), str(whole[end:]))


_READERS = (subjects.PRETRAINING.readers["load_encoder"],)

_OF_FRAMES = (subjects.RECORDING.readers["RecordedFrames"],)

_ALL = (
    Work(
        "an agent's run",
        None,
        _agent(lambda run: subjects.agent_config(run, 30)),
        subjects.agent_fingerprint,
        _READERS,
    ),
    Work(
        "an agent's run, resumed",
        subjects.agent_run,
        _agent(lambda run: subjects.agent_config(run, 60)),
        subjects.agent_fingerprint,
        _READERS,
    ),
    Work("an agent's run with workers", None, _with_workers, _workers_fingerprint, _READERS),
    Work(
        "pretraining on images",
        None,
        _pretrains("moco"),
        subjects.pretraining_fingerprint,
        _READERS,
        needs=(subjects.images,),
    ),
    Work(
        "pretraining with a bank",
        None,
        _pretrains("instdisc"),
        subjects.pretraining_fingerprint,
        _READERS,
        needs=(subjects.images,),
    ),
    Work(
        "pretraining on recorded frames",
        None,
        _pretrains("simclr", recorded=True),
        subjects.pretraining_fingerprint,
        _READERS,
        needs=(subjects.recording,),
    ),
    Work("a recording", None, lambda folder: subjects.record(folder, 30), subjects.recording_fingerprint, _OF_FRAMES),
    Work(
        "a recording, extended",
        subjects.recording,
        lambda folder: subjects.record(folder, 40),
        subjects.recording_fingerprint,
        _OF_FRAMES,
    ),
    Work(
        "the export of an encoder",
        None,
        _exports(export_encoder.main, subjects.agent_run),
        _content,
        needs=(subjects.agent_run,),
    ),
    Work(
        "the export of a policy",
        None,
        _exports(export_policy.main, subjects.agent_run),
        _content,
        needs=(subjects.agent_run,),
    ),
)

DISTURBANCES = {
    "killed at a file operation": killed_at_an_operation,
    "killed at a random moment": killed_at_a_moment,
    "on a failing disk": on_a_failing_disk,
    "with a limit on files": with_a_largest_file,
}


def kinds() -> list[Kind]:
    """Each disturbance of each work."""
    return [
        Kind(f"{work.name}, {name}", lambda source, folder, w=work, d=disturbance: d(w, source, folder))
        for work in _ALL
        for name, disturbance in DISTURBANCES.items()
    ]
