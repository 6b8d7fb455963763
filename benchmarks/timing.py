"""Side-by-side timing, and the rows that a benchmark writes."""

from __future__ import annotations

import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from curl_rl.runs.compute import precision_in_words
from curl_rl.runs.files import write_json


@dataclass(frozen=True)
class Row:
    """One line of a benchmark. Times are medians in milliseconds; a spread is the interquartile range."""

    name: str
    plain_ms: float | None = None
    """Of the plain implementation; None if there is none."""
    ours_ms: float | None = None
    ratio: float | None = None
    """plain / ours: above 1, ours is faster."""
    plain_spread_ms: float | None = None
    ours_spread_ms: float | None = None
    note: str = ""
    """Results that are not in milliseconds."""
    machine: str = ""
    """Filled in when the rows are written."""


def compared(name: str, plain: list[float], ours: list[float], note: str = "") -> Row:
    """A row from two lists of seconds."""
    plain_ms, ours_ms = _median_ms(plain), _median_ms(ours)
    return Row(name, plain_ms, ours_ms, plain_ms / ours_ms, _spread_ms(plain), _spread_ms(ours), note)


def alone(name: str, ours: list[float], note: str = "") -> Row:
    """A row from one list of seconds."""
    return Row(name, ours_ms=_median_ms(ours), ours_spread_ms=_spread_ms(ours), note=note)


def _median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e3


def _spread_ms(seconds: list[float]) -> float:
    if len(seconds) < 2:
        return 0.0
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive")
    return (quartiles[2] - quartiles[0]) * 1e3


def side_by_side(
    cases: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int,
    device: torch.device,
    description: str,
    cycle: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each case by name; every round runs all cases in turn, so that load on the machine affects all alike.

    Args:
        cases: the work to time.
        rounds: measurements per case.
        warm_up: rounds before, which are not counted.
        device: synchronized before the clock is read.
        description: of the progress bar.
        cycle: calls per measurement, which is their mean: for work whose calls alternate.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    with tqdm(total=(rounds + warm_up) * len(cases), desc=description, leave=False) as bar:
        for number in range(-warm_up, rounds):
            for name, work in cases.items():
                wait_for(device)
                begin = time.perf_counter()
                for _ in range(cycle):
                    work()
                wait_for(device)
                if number >= 0:
                    seconds[name].append((time.perf_counter() - begin) / cycle)
                bar.update()
    return seconds


def as_graph(
    work: Callable[[], object], device: torch.device, generators: Iterable[torch.Generator] = ()
) -> Callable[[], object]:
    """``work`` as a graph on a GPU, which excludes Python's time; on a CPU ``work`` itself.

    Args:
        work: does the same on every call, on this device.
        device: of the work.
        generators: random generators that it uses.
    """
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        work()
    return functools.partial(_replay, graph, work)


def _replay(graph: torch.cuda.CUDAGraph, work: object) -> None:
    """Replays a graph. A graph refers to its tensors by address only, so ``work``, which holds them, must be kept."""
    graph.replay()


def wait_for(device: torch.device) -> None:
    """Waits until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> str:
    """The machine and software versions, in one line."""
    gpu = []
    if device.type == "cuda":
        gpu = [torch.cuda.get_device_name(device)]
        if (precision := precision_in_words("float32", device)) != "float32":
            gpu.append(precision)
    threads = f"{torch.get_num_threads()} CPU threads"
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    return ", ".join([*gpu, _cpu_name(), threads, versions])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


_HEADINGS = ("name", "plain ms", "ours ms", "ratio", "± plain", "± ours", "note")


def table(rows: Iterable[Row]) -> str:
    """The rows as a table to read."""

    def number(value: float | None, digits: int = 3) -> str:
        return "–" if value is None else f"{value:,.{digits}g}" if value < 1000 else f"{value:,.0f}"

    cells = [
        (
            row.name,
            number(row.plain_ms),
            number(row.ours_ms),
            number(row.ratio),
            number(row.plain_spread_ms, 2),
            number(row.ours_spread_ms, 2),
            row.note,
        )
        for row in rows
    ]
    return aligned([_HEADINGS, *cells])


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Columns of equal width; the first and last are left-aligned, numbers right-aligned."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def text(line: tuple[str, ...]) -> str:
        last = len(line) - 1
        padded = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join(text(line) for line in lines)


def write_rows(path: Path, rows: list[Row], measured_on: str) -> None:
    """Writes all rows as a JSON list."""
    write_json(path, [{**asdict(row), "machine": measured_on} for row in rows])


def read_rows(path: Path) -> list[Row]:
    """Reads a file written by :func:`write_rows`.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    try:
        rows = [Row(**fields) for fields in json.loads(path.read_text())]
        for row in rows:
            _check_types(row)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a list of benchmark rows ({type(error).__name__})") from None
    return rows


def _check_types(row: Row) -> None:
    for name, value in asdict(row).items():
        if name in ("name", "note", "machine"):
            valid = isinstance(value, str)
        else:
            valid = value is None or type(value) in (int, float)
        if not valid:
            raise TypeError(f"{name} is {value!r}")


def comparison(before: list[Row], after: list[Row]) -> str:
    """Two runs of a benchmark compared row by row, with the machines they ran on."""
    machines = [" and ".join(dict.fromkeys(row.machine or "not known" for row in rows)) for rows in (before, after)]
    heads = [f"{letter}: {machine}" for letter, machine in zip("AB", machines, strict=True)]
    if machines[0] != machines[1]:
        heads.append("warning: machine or software differs: A / B does not compare the code alone")
    old = {row.name: row for row in before}
    lines: list[tuple[str, ...]] = [("name", "A ms", "B ms", "A / B", "A ratio", "B ratio", "")]
    for row in after:
        was = old.pop(row.name, None)
        lines.append(_pair(row.name, was, row))
    lines += [_pair(name, row, None) for name, row in old.items()]
    return "\n".join([*heads, aligned(lines)])


def _pair(name: str, a: Row | None, b: Row | None) -> tuple[str, ...]:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}"

    times = [row.ours_ms if row else None for row in (a, b)]
    quotient = times[0] / times[1] if times[0] and times[1] else None
    ratios = [row.ratio if row else None for row in (a, b)]
    only = "" if a and b else "only in A" if a else "only in B"
    return name, *(cell(value) for value in (*times, quotient, *ratios)), only
