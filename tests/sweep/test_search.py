"""Searches over settings. A job's return is a formula of its setting, so the best setting is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.grid import Grid
from curl_rl.sweep.job import Job
from curl_rl.sweep.progress import Progress
from curl_rl.sweep.search import Between, OneOf, Search
from helpers.stand_in_jobs import driver, notes

optuna = pytest.importorskip("optuna", reason="Optuna is not installed")

GRID = Grid(("task",), ("cpu",), (1, 2))
ROW = '{\\"frames\\": 100, \\"evaluation/return_mean\\": $((VALUE * SEED))}'
EVALUATES = f'mkdir -p "$RUN"; echo "{ROW}" >> "$RUN/metrics.jsonl"'


def search(folder: Path, trials: int = 3, ranges: Mapping[str, Between | OneOf] | None = None) -> Search:
    return Search(GRID, ranges or {"x": Between(1, 9)}, trials, folder)


def states(folder: Path) -> list[str]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "search.journal")))
    return [trial.state.name for trial in optuna.load_study(study_name="sweep", storage=storage).trials]


def test_a_trials_value_is_the_mean_of_its_seeds_last_returns(tmp_path: Path) -> None:
    source = search(tmp_path)
    assert driver(tmp_path, source, EVALUATES).run() == 0
    trials = source._study.trials
    assert [trial.value for trial in trials] == [1.5 * trial.params["x"] for trial in trials]
    best = max(trial.params["x"] for trial in trials)
    assert source.best == f"best of 3 complete trials: {1.5 * best:.1f} with x {best}"
    assert {job.settings for job in source.jobs} == {(("x", str(trial.params["x"])),) for trial in trials}
    # The finished search runs nothing more; with more trials it continues.
    before = notes(tmp_path)
    assert driver(tmp_path, search(tmp_path), EVALUATES).run() == 0
    assert notes(tmp_path) == before
    assert driver(tmp_path, search(tmp_path, trials=4), EVALUATES).run() == 0
    assert states(tmp_path) == ["COMPLETE"] * 4


def test_killed_search_keeps_the_trials_that_are_under_way(tmp_path: Path) -> None:
    first = search(tmp_path, trials=5)
    first.advance({}, room=3)  # then the process dies
    jobs = first.jobs
    assert len(jobs) == 4  # two trials: the second had room for one of its two jobs
    again = search(tmp_path, trials=5)
    assert list(again.jobs) == list(jobs)
    assert not again.closed
    assert driver(tmp_path, again, EVALUATES).run() == 0
    assert states(tmp_path) == ["COMPLETE"] * 5


def test_trial_that_died_before_it_had_all_its_settings_gets_them(tmp_path: Path) -> None:
    ranges = {"x": Between(1, 9), "y": OneOf(("a", "b"))}
    source = search(tmp_path, ranges=ranges)
    source._study.ask().suggest_int("x", 1, 9)
    (one,) = {job.settings for job in search(tmp_path, ranges=ranges).jobs}
    assert [name for name, _ in one] == ["x", "y"]


class Curves:
    """Runs whose evaluations are written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def evaluate(self, job: Job, frames: int, value: float) -> None:
        run = JobFiles(self.folder, job.name).run
        run.mkdir(parents=True, exist_ok=True)
        with open(run / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"frames": frames, "evaluation/return_mean": value}) + "\n")


def test_pruned_trial_is_stopped_and_stays_pruned(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    source = Search(Grid(("task",), ("cpu",), (1,)), {"x": Between(1, 1000)}, 7, tmp_path)
    # Five trials reach 50 and end there: the median, from which on Optuna's pruner gives trials up.
    for number in range(5):
        source.advance({}, room=1)
        job = source.jobs[number]
        curves.evaluate(job, 10, 50.0)
        source.advance({job.name: Progress(job, "running", 100, 10, 50.0)}, room=0)
        source.advance({job.name: Progress(job, "done", 100, 100, 50.0)}, room=0)
    source.advance({}, room=2)
    good, bad = source.jobs[5:]
    for job, value in ((good, 60.0), (bad, 40.0)):
        curves.evaluate(job, 0, 0.0)
        curves.evaluate(job, 10, value)
    source.advance({job.name: Progress(job, "running", 100, 10, None) for job in (good, bad)}, room=0)
    assert bad.name in source.closed
    assert good.name not in source.closed
    assert states(tmp_path) == ["COMPLETE"] * 5 + ["RUNNING", "PRUNED"]

    # After a crash: the good one continues, the bad one is left as it was saved.
    again = Search(Grid(("task",), ("cpu",), (1,)), {"x": Between(1, 1000)}, 7, tmp_path)
    assert driver(tmp_path, again, EVALUATES.replace("$((VALUE * SEED))", "60")).run() == 0
    assert notes(tmp_path) == ["start 1", "end 1"]
    assert states(tmp_path) == ["COMPLETE"] * 6 + ["PRUNED"]
    record = JobFiles(tmp_path, bad.name).read_record()
    assert record is not None
    assert record.state == "pruned"


def test_running_job_of_a_trial_that_is_given_up_saves_and_stops(tmp_path: Path) -> None:
    class GivesUp:
        """A source that closes its job once it runs."""

        is_exhausted = True

        def __init__(self) -> None:
            self.jobs = [Job("task", "cpu", (), 1)]
            self.closed: set[str] = set()

        def advance(self, progress: Mapping[str, Progress], room: int) -> None:
            if notes(tmp_path):
                self.closed.add(self.jobs[0].name)

    script = 'trap "echo saved >> notes; exit 143" TERM; while :; do sleep 0.05; done'
    assert driver(tmp_path, GivesUp(), script).run() == 0
    assert notes(tmp_path) == ["start 1", "saved"]
    record = JobFiles(tmp_path, "task/cpu/seed1").read_record()
    assert record is not None
    assert record.state == "pruned"


def test_failed_trial_is_not_tried_again(tmp_path: Path) -> None:
    assert driver(tmp_path, search(tmp_path, trials=1), "exit 3").run() == 2
    assert states(tmp_path) == ["FAIL"]
    before = notes(tmp_path)
    assert driver(tmp_path, search(tmp_path, trials=1), "exit 3").run() == 0
    assert notes(tmp_path) == before


def test_watching_changes_nothing(tmp_path: Path) -> None:
    search(tmp_path)._study.ask()
    before = (tmp_path / "search.journal").read_bytes()
    assert list(Search(GRID, {"x": Between(1, 9)}, 3, tmp_path, watch=True).jobs) == []
    assert (tmp_path / "search.journal").read_bytes() == before


def test_journal_cut_anywhere_continues_with_the_trials_that_it_still_holds(tmp_path: Path) -> None:
    source = search(tmp_path / "whole", trials=5)
    source.advance({}, room=3)
    content = (tmp_path / "whole" / "search.journal").read_bytes()
    for number, end in enumerate(range(len(content) - 1, 0, -97)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "search.journal").write_bytes(content[:end])
        (folder / "search.journal.lock").symlink_to("nowhere")
        one = search(folder, trials=5)
        one.advance({}, room=5)
        assert list(search(folder, trials=5).jobs) == list(one.jobs)
        assert len({job.settings for job in one.jobs}) >= 2
