"""A run's session around a loop of a few lines: faults, messages, and the files that are kept.

Every resumed loop is compared with an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from curl_rl.runs import checkpoint
from curl_rl.runs.errors import TrainingFault, UserError
from curl_rl.runs.faults import ELSEWHERE
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.session import Contents, Position, Processes, Remedies, Session
from curl_rl.runs.signals import Stopped

CPU = torch.device("cpu")
REMEDIES = Remedies(memory="lower it", numbers="slow down")
LENGTH, ROW, SAVE = 20, 3, 4


class Walk:
    """A random walk, whose sum depends on every step."""

    def __init__(
        self, directory: Path, on_step: Callable[[int], object] = lambda step: None, processes: Processes | None = None
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.network, self.steps = nn.Linear(2, 1, bias=False).requires_grad_(False), 0
        nn.init.zeros_(self.network.weight)
        self.generator = random.Random(1)
        self.on_step = on_step
        self.session = Session(directory, CPU, self.position, REMEDIES, keep=2, axis="meters", processes=processes)
        state = self.session.restore()
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.steps = state["steps"]
            self.generator.setstate((3, tuple(state["words"].tolist()), None))
        self.session.begin(resumed=state is not None)

    def position(self) -> Position:
        return Position(2 * self.steps, self.steps, f"{2 * self.steps} meters", f"step {self.steps}")

    def run(self) -> None:
        session = self.session
        with contextlib.closing(session):
            with session.training(2 * LENGTH, unit="meter", description="walk"):
                while not session.stopping and self.steps < LENGTH:
                    self.step()
                    if self.steps % ROW == 0:
                        session.report()
                    if self.steps % SAVE == 0:
                        self.save()
                self.save()
            if self.steps < LENGTH:
                session.leave()

    def step(self) -> None:
        drawn = torch.tensor([[self.generator.random(), 1.0]])
        self.network.weight += drawn
        self.session.means.add({"drawn": drawn[0, 0]})
        self.steps += 1
        self.session.bar.update(2)
        self.on_step(self.steps)

    def save(self) -> None:
        self.session.save(self.network.state_dict(), self.contents)

    def contents(self) -> Contents:
        words = torch.tensor(self.generator.getstate()[1])
        return Contents({"network": self.network.state_dict(), "steps": self.steps, "words": words})


def at(step: int, act: Callable[[], object]) -> Callable[[int], object]:
    return lambda now: act() if now == step else None


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def rows(directory: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(directory / "metrics.jsonl", "meters")
    ]


def saved(directory: Path) -> dict[str, Any]:
    found = checkpoint.load_newest(directory / "checkpoints", read_only=True)
    assert found is not None
    return found[1]


def goes_on_to_the_same_end(directory: Path, alone: Path) -> None:
    Walk(directory).run()
    one, other = saved(directory), saved(alone)
    assert torch.equal(one["network"]["weight"], other["network"]["weight"])
    assert (one["steps"], one["means"]) == (other["steps"], other["means"])
    assert rows(directory) == rows(alone)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "run"
    Walk(directory).run()
    return directory


def test_rows_and_checkpoints_are_written_where_the_loop_asks(alone: Path) -> None:
    assert [row["meters"] for row in rows(alone)] == [2 * step for step in range(ROW, LENGTH + 1, ROW)]
    generator = random.Random(1)
    drawn = [generator.random() for _ in range(LENGTH)]
    means = [sum(drawn[begin : begin + ROW]) / ROW for begin in range(0, LENGTH - ROW + 1, ROW)]
    assert [row["drawn"] for row in rows(alone)] == pytest.approx(means)
    assert {"speed/meters_per_second", "speed/updates_per_second"} <= read_metrics(alone / "metrics.jsonl", "meters")[
        0
    ].keys()
    assert sorted(path.name for path in (alone / "checkpoints").iterdir()) == ["0000000032.ckpt", "0000000040.ckpt"]
    # The two steps since the last row will be part of the next one.
    assert saved(alone)["means"]["counts"] == {"drawn": LENGTH % ROW}


# ---- killed, stopped, damaged


@pytest.mark.parametrize("step", [2, 4, 7, 13, 20])
def test_killed_at_a_step_and_resumed(alone: Path, tmp_path: Path, step: int) -> None:
    killed(tmp_path / "run", lambda: Walk(tmp_path / "run", at(step, die)))
    goes_on_to_the_same_end(tmp_path / "run", alone)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("moment", ["_write", "sync_directory", "_prune"])
def test_killed_while_a_checkpoint_is_written(alone: Path, tmp_path: Path, nth: int, moment: str) -> None:
    def prepare() -> Walk:
        calls, original = iter(range(1, 100)), getattr(checkpoint, moment)

        def deadly(*arguments: Any) -> Any:
            if next(calls) == nth:
                die()
            return original(*arguments)

        setattr(checkpoint, moment, deadly)
        return Walk(tmp_path / "run")

    killed(tmp_path / "run", prepare)
    goes_on_to_the_same_end(tmp_path / "run", alone)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [1, 7, 12])
def test_a_signal_saves_at_once(
    alone: Path, tmp_path: Path, number: int, code: int, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Stopped) as stopped:
        Walk(tmp_path / "run", at(step, lambda: os.kill(os.getpid(), number))).run()
    assert stopped.value.exit_code == code
    assert f"saved at {2 * step} meters; the same command resumes" in capsys.readouterr().err
    assert saved(tmp_path / "run")["steps"] == step
    goes_on_to_the_same_end(tmp_path / "run", alone)


def test_a_signal_at_the_last_step_ends_a_complete_run(tmp_path: Path) -> None:
    Walk(tmp_path / "run", at(LENGTH, lambda: os.kill(os.getpid(), signal.SIGTERM))).run()
    assert saved(tmp_path / "run")["steps"] == LENGTH


def test_a_truncated_checkpoint_is_skipped(alone: Path, tmp_path: Path) -> None:
    killed(tmp_path / "run", lambda: Walk(tmp_path / "run", at(13, die)))
    before, newest = sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    os.truncate(newest, newest.stat().st_size - 1)
    with pytest.warns(RuntimeWarning, match=f"{newest.name} .*using {before.name} instead"):
        goes_on_to_the_same_end(tmp_path / "run", alone)


def test_a_caller_may_refuse_a_checkpoint(alone: Path) -> None:
    session = Session(alone, CPU, lambda: Position(0, 0, "", ""), REMEDIES, keep=2)

    def usable(state: dict[str, Any]) -> None:
        raise ValueError("a segment is\ndamaged")

    with pytest.raises(UserError, match=r"\Anone of the 2 checkpoints in .* \(a segment is damaged\).*\Z"):
        session.restore(usable)


def test_a_damaged_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Walk(tmp_path / "run", at(7, lambda: os.kill(os.getpid(), signal.SIGTERM))).run()
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(UserError, match=r'line 1: must be a JSON object with "meters"'):
        Walk(tmp_path / "run")


# ---- faults


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "[Errno 28] No space left on device; nothing that was saved is lost: free some disk space and start the",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "[Errno 13] Permission denied; nothing that was saved is lost: change the permissions of the",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "[Errno 30] Read-only file system; nothing that was saved is lost: mount the file system for writing and",
        ),
        (UserError("the images\nare gone"), "the images are gone; nothing that was saved is lost: fix this and start"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory; the last checkpoint is intact: lower it"),
        (MemoryError(), "MemoryError; the last checkpoint is intact: lower it"),
    ],
)
def test_a_fault_reports_the_position_and_loses_nothing(
    alone: Path, tmp_path: Path, error: Exception, line: str
) -> None:
    with pytest.raises(TrainingFault) as fault:
        Walk(tmp_path / "run", at(7, raising(error))).run()
    assert str(fault.value).startswith(f"stopped at 14 meters (step 7): {line}")
    assert str(fault.value).endswith(f"(details: {tmp_path / 'run' / 'fault.txt'})")
    assert "\n" not in str(fault.value)
    assert type(error).__name__ in (tmp_path / "run" / "fault.txt").read_text()
    assert saved(tmp_path / "run")["steps"] == 4
    goes_on_to_the_same_end(tmp_path / "run", alone)


def test_a_fault_before_the_first_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match=r"stopped at 4 meters \(step 2\): .*; nothing was saved yet: lower it"):
        Walk(tmp_path / "run", at(2, raising(MemoryError()))).run()


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("another")])
def test_a_bug_keeps_its_traceback(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error.args[0])):
        Walk(tmp_path / "run", at(2, raising(error))).run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_a_disk_that_fills_up_while_saving(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    calls, write = iter(range(1, 100)), checkpoint._write

    def full(file: Any, *arguments: Any) -> None:
        if next(calls) == nth:
            file.write(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(TrainingFault, match=rf"stopped at {8 * nth} meters .*No space left on device.*; nothing"):
            Walk(tmp_path / "run").run()
    assert len(list((tmp_path / "run").glob("checkpoints/*.ckpt"))) == min(nth - 1, 2)
    goes_on_to_the_same_end(tmp_path / "run", alone)


@pytest.mark.parametrize("what", ["metric", "weight"])
def test_non_finite_values_are_never_saved(tmp_path: Path, what: str) -> None:
    walk = Walk(tmp_path / "run")

    def spoil() -> None:
        if what == "metric":
            walk.session.means.add({"loss": torch.tensor(torch.inf)})
        else:
            walk.network.weight[0, 1] = torch.nan

    walk.on_step = at(10, spoil)
    name = "loss" if what == "metric" else "weight"
    with pytest.raises(
        TrainingFault, match=rf"\(step 12\): no longer finite: {name}; the last checkpoint predates it; slow down"
    ):
        walk.run()
    assert saved(tmp_path / "run")["steps"] == 8


# ---- processes


class Second:
    """The second of two processes, which communicate through ``heard``."""

    def __init__(self, stops_at: int = 10**9, fails_at: int = 10**9) -> None:
        self.asked, self.guarded = iter(range(1, 10**9)), iter(range(1, 10**9))
        self.stops_at, self.fails_at = stops_at, fails_at

    def rank(self) -> int:
        return 1

    def any_process(self, flag: bool) -> bool:
        return flag or next(self.asked) >= self.stops_at

    @contextlib.contextmanager
    def raised_together(self, kind: type[Exception]) -> Iterator[None]:
        yield
        if next(self.guarded) == self.fails_at:
            raise kind(ELSEWHERE.format("its disk is full"))


def test_a_process_other_than_the_first_writes_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(tmp_path / "run", processes=Second())
    walk.session.say("nobody hears this")
    walk.run()
    assert walk.steps == LENGTH
    assert list((tmp_path / "run").iterdir()) == []
    assert capsys.readouterr().err == ""


def test_it_stops_with_the_others(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "run", processes=Second(stops_at=6))
    with pytest.raises(Stopped) as stopped:
        walk.run()
    assert stopped.value.exit_code == 143, "it heard of no signal itself"
    assert walk.steps == 5


def test_a_fault_in_another_process_ends_it_too(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match=r"\Astopped at 16 meters \(step 8\): another process has failed: its disk"):
        Walk(tmp_path / "run", processes=Second(fails_at=2)).run()
    assert not (tmp_path / "run" / "fault.txt").exists()


# ---- children


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(directory: Path, prepare: Callable[[], Walk]) -> None:
    child = os.fork()
    if child == 0:
        try:
            prepare().run()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child was to be killed"
