"""A report on runs as one page of HTML: what was run, how it went, what is wrong with it, and what it looks like."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from curl_rl.report.agent_report import add_agent
from curl_rl.report.charts import curve_charts
from curl_rl.report.curves import RETURN, curves_of, returns_of, samples
from curl_rl.report.diagnosis import Metrics, Series, diagnose, examined, judged, series_of
from curl_rl.report.images_report import add_images
from curl_rl.report.page import Section, figure, page, png
from curl_rl.report.plots import draw_curves
from curl_rl.report.runs import Run, find_runs, named, read_run, warn
from curl_rl.report.sheet import evaluation_sheet
from curl_rl.rl.config import EnvironmentConfig
from curl_rl.rl.config import read_config as read_agent_config
from curl_rl.rl.film import SIDE
from curl_rl.rl.workers import Environment
from curl_rl.runs.compute import resolve_device
from curl_rl.runs.console import counted
from curl_rl.runs.directory import CONFIG, VIDEOS, kind_of
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import FAULT
from curl_rl.runs.files import read_file
from curl_rl.runs.lock import LOCK, is_locked
from curl_rl.vision.evaluation.protocols import Protocol

MakeOfRun = Callable[[str, EnvironmentConfig], Environment]
"""Makes the environment of this name with a run's settings."""

_GROUPS = {
    "Returns": ("evaluation/return_mean", "episode/return", "episode/length"),
    "Loss and schedule": ("loss", "learning_rate", "momentum"),
    "Evaluation": ("knn/", "probe/", "test/"),
    "Objective": ("objective/", "features/", "clusters/"),
    "Critics": ("critic/", "batch/"),
    "Actor and temperature": ("actor/", "temperature/"),
    "Speed": ("speed/",),
}
"""The curves of each part, by name or by the beginning of the name."""
_IN_THE_TABLE = (
    *(f"evaluation/return_{name}" for name in ("median", "std", "min", "max")),
    "episode/number",
)

_ENCODER_FILE = "encoder.json"  # of a run that has saved its encoder
_LARGEST_VIDEO = 32 * 2**20  # bytes
_LARGEST_TEXT = 2**20


@dataclass(frozen=True)
class Contents:
    """How much a report shows."""

    moments: int = 300
    """Agent steps that are played for crops, saliency and the map of embeddings."""
    videos: int = 3
    """Evaluation videos of each run: the first, the last, and some between them."""
    protocols: tuple[Protocol, ...] = ("knn",)
    """Protocols that an encoder of images is evaluated by."""
    device: str = "auto"
    """Device to compute on."""


def run_directories(paths: Sequence[Path]) -> list[Path]:
    """The directories of all runs at and below the paths, each once, in order.

    Raises:
        UserError: a path is no directory, or there is no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a directory: name a run or a folder of runs")
        own = [path] if (path / CONFIG).is_file() else list(find_runs(path))
        found |= {directory.resolve(): directory for directory in own}
    of_detectors = [place for place, directory in found.items() if kind_of(directory) == "detection"]
    for place in of_detectors:
        warn(f"{found.pop(place)} is left out: a detector's report is its gallery and evaluation.json")
    if of_detectors and not found:
        raise UserError(f"no run below {named(paths)} but of detectors: name runs of other kinds")
    if not found:
        raise UserError(f"no run below {named(paths)}: a run has a {CONFIG}")
    return list(found.values())


def report_page(directories: Sequence[Path], make: MakeOfRun, contents: Contents) -> str:
    """The page about some runs. Changes none of them.

    Args:
        directories: the runs.
        make: makes an agent's environment; what it raises becomes a remark on the page.
        contents: how much the page shows.

    Raises:
        UserError: the settings or metrics of a run cannot be read, or the device is missing.
        ImportError: matplotlib is missing.
    """
    device = resolve_device(contents.device)
    runs = [read_run(directory) for directory in directories]
    sections = [] if len(runs) == 1 else [_comparison(runs)]
    for run, title in zip(runs, _titles(runs), strict=True):
        sections.append(_section(title, run, make, contents, device))
    title = f"{runs[0].env}: {runs[0].label}" if len(runs) == 1 else counted(len(runs), "run")
    return page(title, sections)


def _comparison(runs: Sequence[Run]) -> Section:
    """The table of all runs, and the learning curves of the agents among them."""
    section = Section("All runs")
    rows = [["run", "task or data", "kind", "seed", "done", "newest score"]]
    for run in runs:
        metrics = series_of(run.rows, run.axis)
        rows.append([str(run.source), run.env, run.label, f"{run.seed}", _progress(run), _score(metrics)])
    section.table(rows)
    agents = [run for run in runs if run.axis == "frames" and any(row.get(RETURN) is not None for row in run.rows)]
    if agents:
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "curves.svg"
            try:
                draw_curves(curves_of(samples(agents)), picture)
                section.figure(figure(picture.read_bytes(), "svg+xml", "Evaluation returns, by task and kind of run."))
            except ValueError as error:
                section.note(f"No learning curves: {one_line(error)}")
    return section


def _titles(runs: Sequence[Run]) -> list[str]:
    """Task or data and seed of each run, and where several have the same, their directories as far as they differ."""
    titles = [f"{run.env if run.axis == 'frames' else Path(run.env).name}, seed {run.seed}" for run in runs]
    common = os.path.commonpath([run.source.absolute().parent for run in runs])
    places = [os.path.relpath(run.source.absolute(), common) for run in runs]
    return [
        title if titles.count(title) == 1 else f"{title} ({place})" for title, place in zip(titles, places, strict=True)
    ]


def _section(title: str, run: Run, make: MakeOfRun, contents: Contents, device: torch.device) -> Section:
    section = Section(title)
    metrics = series_of(run.rows, run.axis)
    _add_facts(section, run)
    _add_diagnosis(section, run, metrics)
    _add_scores(section, run)
    _add_curves(section, run, metrics)
    if run.axis == "frames":
        _add_videos(section, run, contents.videos)
        if contents.moments:
            config = read_agent_config(run.source / CONFIG)
            add_agent(
                section,
                run.source,
                lambda: make(config.env, config.environment),
                moments=contents.moments,
                device=str(device),
            )
    elif run.axis == "images":
        add_images(section, run.source, protocols=contents.protocols, device=device)
    return section


def _progress(run: Run) -> str:
    """How far a run is, and whether it is going on, in words."""
    count = max((row[run.axis] for row in run.rows), default=0)
    if run.axis == "frames":
        done = f"{count:,} of {int(run.settings.get('frames', count)):,} frames"
    else:
        done = f"{count:,} {run.axis}, in {counted(int(run.settings.get('epochs', 0)), 'epoch')} when complete"
    return f"{done}; still running" if is_locked(run.source / LOCK) else done


def _score(metrics: Metrics) -> str:
    for name, form in (("evaluation/return_mean", "return {:.1f}"), ("knn/accuracy", "kNN {:.1%}")):
        if name in metrics:
            return form.format(metrics[name].values[-1])
    return "–"


def _add_facts(section: Section, run: Run) -> None:
    times = [row["wall_time"] for row in run.rows if row.get("wall_time") is not None]
    facts = [
        ["directory", str(run.source)],
        ["task" if run.axis == "frames" else "data", run.env],
        ["kind", run.label],
        ["seed", f"{run.seed}"],
        ["done", _progress(run)],
        ["device", str(run.settings.get("device", "not known"))],
    ]
    if code := _code(run.source):
        facts.append(["code", code])
    if times:
        began, ended = (datetime.fromtimestamp(one, timezone.utc) for one in (min(times), max(times)))
        took = ended - began
        facts.append(["time", f"{began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC ({str(took).partition('.')[0]})"])
    section.table([["", ""], *facts])
    if (run.source / FAULT).is_file():
        text = _text(run.source / FAULT)
        last = [line for line in text.splitlines() if line.strip()]
        section.box("fault", "A fault has ended this run, or an earlier start of it", last[-1:])
        section.folded(FAULT, text)
    section.folded("All settings", _text(run.source / CONFIG))


def _code(directory: Path) -> str:
    """The versions of the code that saved the run's encoder, in words; empty if they are not known."""
    try:
        provenance = json.loads(_text(directory / _ENCODER_FILE)).get("provenance", {})
        versions = [f"{name} {provenance[name]}" for name in ("curl_rl", "revision", "torch") if provenance.get(name)]
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return ", ".join(versions)


def _text(path: Path) -> str:
    return read_file(path, _LARGEST_TEXT).decode(errors="replace")


def _add_diagnosis(section: Section, run: Run, metrics: Metrics) -> None:
    section.heading("Diagnosis")
    if not any(name.startswith(("critic/", "objective/", "loss")) for name in metrics):
        section.note("Nothing has been learned yet, so there is nothing to diagnose.")
        return
    agent: dict[str, Any] = run.settings.get("agent", {})
    method = str(run.settings.get("method") or agent.get("objective", "curl"))
    if not judged(metrics):
        section.note("Too little has been logged to judge, so only the plainest faults would show here.")
    found = diagnose(metrics, method=method, discount=float(agent.get("discount", 0.99)))
    for finding in found:
        section.box("fault", finding.fault, [finding.evidence, f"What to try: {finding.remedy}"])
        shown = {name: metrics[name] for name in finding.curves if name in metrics}
        section.figure(figure(curve_charts(shown, run.axis), "svg+xml", f"Evidence: {', '.join(shown)}"))
    if not found and judged(metrics):
        sound = examined(metrics, method=method) or ["what was logged says nothing about the known faults"]
        words = "; ".join(sound)
        section.box("sound", "No known fault", [f"{words[0].upper()}{words[1:]}."])


def _add_scores(section: Section, run: Run) -> None:
    """The table of evaluations."""
    prefixes = ("evaluation/",) if run.axis == "frames" else ("knn/", "probe/test", "test/loss")
    names = list(dict.fromkeys(name for row in run.rows for name in row if name.startswith(prefixes)))
    if not names:
        return
    section.heading("Evaluations")
    rows = [[run.axis, *(name.removeprefix("evaluation/").replace("/", " ").replace("_", " ") for name in names)]]
    for row in run.rows:
        if any(row.get(name) is not None for name in names):
            cells = ("–" if row.get(name) is None else _four_digits(row[name]) for name in names)
            rows.append([f"{row[run.axis]:,}", *cells])
    section.table(rows, numbers=True)


def _four_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def _add_curves(section: Section, run: Run, metrics: Metrics) -> None:
    section.heading("Curves")
    if not metrics:
        section.note("The run has logged nothing yet.")
    left: dict[str, Series] = dict(metrics)
    # Metrics of your own come last.
    for title, prefixes in (*_GROUPS.items(), ("Others", ("",))):
        group = {name: left.pop(name) for name in metrics if name in left and name.startswith(prefixes)}
        group = {name: series for name, series in group.items() if name not in _IN_THE_TABLE}
        if group:
            section.heading(title, small=True)
            section.figure(figure(curve_charts(group, run.axis), "svg+xml", f"Curves: {title}", captioned=False))


def _add_videos(section: Section, run: Run, count: int) -> None:
    """All evaluations in one picture; the first and the last video, and some between them."""
    try:
        sheet = evaluation_sheet(run.source, returns_of(run))
    except UserError as error:
        section.note(f"No picture of all evaluations: {error}")
        sheet = None
    if sheet is not None:
        section.heading("All evaluations")
        words = "One evaluation a row, its first episode from beginning to end."
        section.figure(figure(png(sheet), "png", words))
    videos = sorted((run.source / VIDEOS).glob("*.gif"))
    if not videos or not count:
        return
    places = torch.linspace(0, len(videos) - 1, min(count, len(videos))).round().long().tolist()
    if count == 1:
        places = [len(videos) - 1]
    section.heading("Videos")
    figures = []
    for video in [videos[place] for place in dict.fromkeys(places)]:
        try:
            content = read_file(video, _LARGEST_VIDEO)
        except (UserError, OSError) as error:
            section.note(f"{video.name} is left out: {one_line(error)}")
            continue
        frames = f"after {int(video.stem):,} frames" if video.stem.isdecimal() else video.stem
        figures.append(figure(content, "gif", f"Evaluation {frames}", width=_enlarged(content)))
    section.figure(*figures)


def _enlarged(video: bytes) -> int | None:
    """The width on the page of a video that is too small to be seen in its own size, as earlier versions made them."""
    try:
        with Image.open(io.BytesIO(video), formats=["GIF"]) as gif:
            return None if gif.width >= SIDE else gif.width * (SIDE // gif.width)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
