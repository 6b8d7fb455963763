"""The commands have no environments of their own: they use any factory passed to them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import envs
from curl_rl.commands import evaluate_agent, record_frames, train_agent
from curl_rl.recordings.store import RecordedFrames
from curl_rl.rl.config import read_config
from curl_rl.runs.logger import read_metrics

ROOT = Path(__file__).resolve().parents[2]
LINE = (
    "--preset cpu --device cpu --frames 60 --environment.size 12 --environment.action_repeat 1 --agent.crop 10 "
    "--agent.batch_size 4 --agent.hidden 8 --agent.encoder.filters 2 --agent.encoder.strides [2] "
    "--agent.encoder.latent 4 --agent.precision float32 --training.random_steps 20 --replay.capacity 100 "
    "--evaluation.every 0"
)
TINY = LINE.split()


class NoPermit(RuntimeError):
    """Raised by ``make`` for an unavailable environment."""


def make(name: str, **settings: Any) -> Any:
    if name == "closed-house":
        raise NoPermit("the house\nis closed")
    if name != "my-house":
        raise ValueError(f"there is only my-house, got {name}")
    return envs.make("tiny-reach", **settings)


def test_a_run_in_a_custom_environment_is_played_and_recorded(tmp_path: Path) -> None:
    run, score, frames = tmp_path / "run", tmp_path / "score.json", tmp_path / "frames"
    assert train_agent.main(["--env", "my-house", *TINY, "--run", str(run)], make) == 0
    assert evaluate_agent.main([str(run), "--episodes", "1", "--json", str(score)], make) == 0
    assert json.loads(score.read_text())["frames"] == 60
    assert record_frames.main(["--policy", str(run), "--agent_steps", "5", "--out", str(frames)], make) == 0
    assert RecordedFrames(frames).recording.env == "my-house"


def test_a_limit_holds_in_training_evaluation_and_recording_and_stays_with_the_run(tmp_path: Path) -> None:
    """tiny-reach's own episodes have 25 steps."""
    run, score, frames = tmp_path / "run", tmp_path / "score.json", tmp_path / "frames"
    line = ["--env", "my-house", *TINY, "--run", str(run), "--environment.max_episode_steps", "7"]
    assert train_agent.main(line, make) == 0
    lengths = [row["episode/length"] for row in read_metrics(run / "metrics.jsonl") if "episode/length" in row]
    assert lengths == [7] * (60 // 7)
    assert read_config(run / "config.yaml").environment.max_episode_steps == 7
    played = {}
    for limit in (None, 7, 9):
        flags = [] if limit is None else ["--max_episode_steps", str(limit)]
        assert evaluate_agent.main([str(run), "--episodes", "1", "--json", str(score), *flags], make) == 0
        played[limit] = json.loads(score.read_text())["returns"]
    assert played[None] == played[7]
    assert played[9] > played[7]  # every reward is positive
    assert record_frames.main(["--policy", str(run), "--agent_steps", "20", "--out", str(frames)], make) == 0
    assert RecordedFrames(frames).episodes.bincount().tolist() == [7, 7, 6]
    assert RecordedFrames(frames).recording.max_episode_steps == 7


def test_a_run_saved_before_there_was_a_limit_is_the_same_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = ["--env", "my-house", *TINY, "--run", str(run)]
    assert train_agent.main(line, make) == 0
    config = run / "config.yaml"
    before = config.read_text()
    assert "max_episode_steps: null\n" in before
    earlier = before.replace("  max_episode_steps: null\n", "")
    config.write_text(re.sub(r"# settings: \d+\n", "", earlier))  # nor were the settings counted
    assert train_agent.main([*line, "--frames", "70"], make) == 0
    assert train_agent.main([*line, "--frames", "80", "--environment.max_episode_steps", "7"], make) == 2


def test_a_factory_without_a_setting_is_called_as_before_and_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plain(name: str, *, size: int, stack: int, action_repeat: int, quality: str) -> Any:
        return envs.make("tiny-reach", size=size, stack=stack, action_repeat=action_repeat)

    out = ["--agent_steps", "3", "--out", str(tmp_path / "frames")]
    assert record_frames.main(["--env", "any", *out], plain) == 0
    with pytest.raises(SystemExit, match="2"):
        record_frames.main(["--env", "any", *out, "--max_episode_steps", "7"], plain)
    assert "environment.max_episode_steps must be left out, got 7: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "line"), [("shed", "there is only my-house, got shed"), ("closed-house", "the house is closed")]
)
def test_an_unavailable_environment_is_one_line_and_exit_code_2(
    name: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_agent.main(["--env", name, *TINY, "--run", str(tmp_path / "run")], make, NoPermit) == 2
    with pytest.raises(SystemExit, match="2"):
        record_frames.main(["--env", name, "--out", str(tmp_path / "frames")], make, NoPermit)
    said = capsys.readouterr().err.splitlines()
    assert [each.partition(": error: ")[2] for each in said] == [line, line]
    assert not list(tmp_path.iterdir())


def test_an_unlisted_exception_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(NoPermit):
        record_frames.main(["--env", "closed-house", "--out", str(tmp_path / "frames")], make)


def test_every_command_can_be_imported_without_environments_or_the_rest_of_a_clone(tmp_path: Path) -> None:
    names = [path.stem for path in (ROOT / "curl_rl" / "commands").glob("*.py") if path.stem != "__init__"]
    assert "train_agent" in names
    lines = [
        "import sys",
        "sys.modules.update(dict.fromkeys(('envs', 'benchmarks', 'scripts', 'dm_control', 'mujoco')))",
    ]
    lines += [f"import curl_rl.commands.{name}" for name in names]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
