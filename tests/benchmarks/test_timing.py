"""What a benchmark says of the times that it was given."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import weakref
from pathlib import Path

import pytest
import torch

from benchmarks.timing import Row, alone, as_graph, compared, comparison, read_rows, side_by_side, table, write_rows


def test_a_row_holds_medians_in_milliseconds_their_ratio_and_interquartile_ranges() -> None:
    row = compared("x", [0.010, 0.030, 0.020, 0.040, 0.900], [0.005, 0.005, 0.010])
    assert (row.plain_ms, row.ours_ms, row.ratio) == (pytest.approx(30), pytest.approx(5), pytest.approx(6))
    # Quartiles by linear interpolation: 20 and 40; 5 and 7.5.
    assert (row.plain_spread_ms, row.ours_spread_ms) == (pytest.approx(20), pytest.approx(2.5))
    assert alone("y", [0.007]) == Row("y", ours_ms=7.0, ours_spread_ms=0.0)


def test_cases_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = side_by_side(cases, rounds=3, warm_up=2, device=torch.device("cpu"), description="")
    assert "".join(calls) == "ababababab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_cycle_of_calls_makes_one_time_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    durations = {"even": itertools.cycle([1.0, 3.0]), "odd": itertools.cycle([4.0, 5.0, 6.0])}

    def work(name: str) -> None:
        clock[0] += next(durations[name])

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    cases = {name: lambda name=name: work(name) for name in durations}
    seconds = side_by_side(cases, rounds=2, warm_up=1, device=torch.device("cpu"), description="", cycle=2)
    assert seconds == {"even": [2.0, 2.0], "odd": [5.0, 5.5]}  # after a warm-up of 4 and 5: 6 and 4, 5 and 6


def test_what_a_graph_works_on_lives_as_long_as_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a pretended GPU: a real graph would read freed memory, and say nothing."""

    class Graph:
        def __init__(self) -> None:
            self.generators: list[torch.Generator] = []
            self.replays = 0

        def register_generator_state(self, generator: torch.Generator) -> None:
            self.generators.append(generator)

        def replay(self) -> None:
            self.replays += 1

    class Stream:
        def __init__(self, device: object = None) -> None: ...

        def wait_stream(self, other: object) -> None: ...

    class Numbers:
        calls = 0

    graphs: list[Graph] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs.append(Graph()) or graphs[-1])
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    generator, numbers = torch.Generator(), Numbers()

    def work(numbers: Numbers = numbers) -> None:
        numbers.calls += 1

    alive = weakref.ref(numbers)
    replay = as_graph(work, torch.device("cuda", 0), [generator])
    del work, numbers
    held = alive()
    assert held is not None
    assert held.calls == 4, "three to warm up, one to be captured"
    replay()
    assert (held.calls, graphs[0].replays, graphs[0].generators) == (4, 1, [generator])
    here = as_graph(lambda: 3, torch.device("cpu"))
    assert here() == 3


def test_rows_survive_writing_with_the_machine_in_each(tmp_path: Path) -> None:
    rows = [compared("x", [0.2], [0.1], "a note"), Row("only a note", note="n")]
    write_rows(tmp_path / "rows.json", rows, "a machine")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [entry["machine"] for entry in written] == ["a machine"] * 2
    assert written[0]["plain_ms"] == 200.0
    assert written[0]["ratio"] == pytest.approx(2)
    assert [row.name for row in read_rows(tmp_path / "rows.json")] == ["x", "only a note"]


NO_ROWS = [
    "",
    "[1]",
    '[{"nome": "x"}]',
    '[{"name": "x", "ours_ms": "5"}]',
    '[{"name": "x", "ratio": true}]',
    '[{"name": ["x"]}]',
    '[{"name": "x", "machine": 3}]',
    None,
]


@pytest.mark.parametrize("content", NO_ROWS)
def test_what_is_no_list_of_rows_is_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"rows.json is not a list of benchmark rows \(\w+\)$"):
        read_rows(path)


def test_a_comparison_pairs_rows_by_name() -> None:
    before = [Row("same", ours_ms=10.0, ratio=2.0), Row("gone", ours_ms=1.0)]
    after = [Row("same", ours_ms=4.0, ratio=5.0), Row("new", ours_ms=3.0)]
    lines = [line.split() for line in comparison(before, after).splitlines()[3:]]
    assert lines[0] == ["same", "10", "4", "2.5", "2", "5"]
    assert lines[1] == ["new", "–", "3", "–", "–", "–", "only", "in", "B"]
    assert lines[2] == ["gone", "1", "–", "–", "–", "–", "only", "in", "A"]


def test_a_comparison_says_on_which_machines_and_warns_where_they_differ() -> None:
    before, after = ([Row("x", ours_ms=1.0, machine=f"{cores} cores")] * 2 for cores in (2, 16))
    heads = ["A: 2 cores", "B: 16 cores", "warning: machine or software differs: A / B does not compare the code alone"]
    lines = comparison(before, after).splitlines()
    assert lines[:3] == heads
    assert lines[3].startswith("name")
    lines = comparison(before, before).splitlines()
    assert lines[:2] == ["A: 2 cores", "B: 2 cores"]
    assert lines[2].startswith("name")
    # Files that were put together, and one that does not say.
    lines = comparison([*before, *after], [Row("x")]).splitlines()
    assert lines[:3] == ["A: 2 cores and 16 cores", "B: not known", heads[2]]


def test_a_table_leaves_out_what_is_not_known() -> None:
    line = table([Row("x", ours_ms=1234.5, note="n")]).splitlines()[1].split()
    assert line == ["x", "–", "1,234", "–", "–", "–", "n"]
