"""Every command, given a run of another kind: one line that says what this is and what to name or use instead."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from curl_rl.__main__ import COMMANDS
from curl_rl.rl import config as agents
from curl_rl.runs.directory import CONFIG, METRICS_FILE, claimed, kind_of
from curl_rl.runs.kinds import KINDS, Kind
from curl_rl.text import config as texts
from curl_rl.text import pair_config as pairs
from curl_rl.vision import config as images
from curl_rl.vision.detection import config as detection

RUNS: dict[str, Callable[[Path], None]] = {
    "agent": lambda file: agents.SCHEMA.save(agents.load_preset("cpu", "tiny-reach"), file),
    "pretraining": lambda file: images.SCHEMA.save(images.load_preset("digits", "simclr"), file),
    "detection": lambda file: detection.SCHEMA.save(detection.SCHEMA.build({"preset": "digits"}), file),
    "text": lambda file: texts.SCHEMA.save(texts.load_preset("tiny"), file),
    "pairs": lambda file: pairs.SCHEMA.save(pairs.load_preset("tiny"), file),
}
TAKE: dict[str, tuple[list[str], set[str]]] = {
    "detect": (["RUN", "picture.png"], {"detection"}),
    "distill_vision": (["RUN"], {"pretraining"}),
    "evaluate_agent": (["RUN"], {"agent"}),
    "evaluate_text": (["RUN", "--data", "shapes"], {"pairs"}),
    "evaluate_vision": (["RUN"], {"pretraining"}),
    "export_encoder": (
        ["RUN", "--format", "safetensors", "--output", "a.safetensors"], {"agent", "pretraining", "text", "pairs"}
    ),
    "export_policy": (["RUN", "--format", "safetensors", "--output", "a.safetensors"], {"agent"}),
    "finetune_vision": (["RUN", "--labels", "0.1"], {"pretraining"}),
    "record_frames": (["--env", "tiny-reach", "--policy", "RUN", "--agent_steps", "1", "--out", "a"], {"agent"}),
    "search_images": (["RUN", "shapes", "a cat"], {"pairs"}),
    "train_agent": (["--env", "tiny-reach", "--run", "RUN"], {"agent"}),
    "train_detector": (["--data", "digits", "--run", "RUN"], {"detection"}),
    "pretrain_vision": (["--run", "RUN"], {"pretraining"}),
    "pretrain_text": (["--run", "RUN"], {"text"}),
}  # fmt: skip
"""What each command is given, and the kinds of runs that it takes."""
STARTS = ("train_agent", "train_detector", "pretrain_vision", "pretrain_text")
"""Those that begin a run in a directory without one; they look at the data first, which takes a while."""
QUICK = ("pairs", "pretraining", "empty")
CASES = [
    pytest.param(name, kind, marks=pytest.mark.slow if name in STARTS or kind not in QUICK else ())
    for name, (_, taken) in TAKE.items()
    for kind in [*RUNS, *(() if name in STARTS else ("empty", "absent"))]
    if kind not in taken
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("zoo")
    (place / "empty").mkdir()
    for kind, save in RUNS.items():
        (place / kind).mkdir()
        save(place / kind / CONFIG)
        (place / kind / METRICS_FILE).write_text("{}\n")
    return place


def test_every_kind_is_tried(zoo: Path) -> None:
    assert list(RUNS) == list(get_args(Kind)) == list(KINDS)
    assert [kind_of(zoo / kind) for kind in RUNS] == list(RUNS)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_refusal_is_one_line_with_a_remedy(
    name: str,
    kind: str,
    zoo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    words = [str(zoo / kind) if word == "RUN" else word for word in TAKE[name][0]]
    (command,) = [command for command in COMMANDS.values() if command.script == name]
    before = sorted(path.name for path in zoo.rglob("*"))
    try:
        code: Any = command.run(words)
    except SystemExit as left:
        code = left.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith(f"{name}.py: error: ")
    assert str(zoo / kind) in line
    assert "scripts/" in line, "what it is, or what to name instead"
    if kind in RUNS and name not in ("search_images", "evaluate_text"):
        assert f"of {KINDS[kind].by}" in line  # type: ignore[index]
    assert sorted(path.name for path in zoo.rglob("*")) == before


def test_no_run_begins_in_the_directory_of_another_kind(zoo: Path) -> None:
    config = texts.TextConfig()
    for kind in sorted(RUNS.keys() - {"text"}):
        message = f"belongs to a run of {KINDS[kind].by}; choose another --run directory, or set that run aside with"  # type: ignore[index]
        with pytest.raises(ValueError, match=message), claimed(zoo / kind, config):
            pytest.fail("the directory was taken")


def test_no_run_begins_in_the_place_of_a_file(zoo: Path) -> None:
    message = "run must be a directory, got the file .*config.yaml: choose another --run directory"
    with pytest.raises(ValueError, match=message), claimed(zoo / "text" / CONFIG, texts.TextConfig()):
        pytest.fail("the file was taken")


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("module", ["rl.config", "vision.config", "vision.detection.config", "text.config"])
def test_settings_of_another_command_are_named_by_it(zoo: Path, module: str, kind: str) -> None:
    read = importlib.import_module(f"curl_rl.{module}")
    if read.SCHEMA.kind == kind:
        return
    with pytest.raises(ValueError, match="^[^\n]*kind must be") as refused:
        read.SCHEMA.read(zoo / kind / CONFIG)
    assert str(refused.value).endswith(f"got {kind}: {KINDS[kind].by} takes these settings")  # type: ignore[index]
