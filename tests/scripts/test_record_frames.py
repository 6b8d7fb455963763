"""The command as a user types it, on tiny-reach, whose frames can be redrawn from their state."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from curl_rl.recordings.recorder import record
from curl_rl.recordings.store import RecordedFrames
from curl_rl.rl.loading import load_agent
from curl_rl.vision import config as vision
from helpers.tiny_reach import train_on_tiny_reach

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "record_frames.py"
FLAGS = "--frames 30 --evaluation.every 1000"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_on_tiny_reach(tmp_path_factory.mktemp("runs") / "run", FLAGS)


@pytest.fixture
def command(command: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the script; returns its exit code and output, with the error last."""

    def run(*arguments: object) -> tuple[int, str]:
        code = command(*arguments)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_random_frames_of_tiny_reach(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "data"
    line = ["--env", "tiny-reach", "--agent_steps", 60, "--out", out, "--seed", 3]
    code, said = command(*line)
    assert code == 0
    assert "1 environment step per frame" in said
    data = RecordedFrames(out)
    r = data.recording
    # Size, quality and action repeat are those of the preset `cpu` for this task.
    assert (r.env, r.size, r.quality, r.action_repeat, r.policy, r.seed) == ("tiny-reach", 32, "fast", 1, "random", 3)
    assert data.episodes.tolist() == [0] * 25 + [1] * 25 + [2] * 10
    # Each frame shows its state: redrawn from the state, it is the same picture.
    env = envs.make("tiny-reach", size=32, stack=1)
    env.reset()
    for index in (0, 24, 25, 59):
        env.env.point, env.env.target = data.states[index].numpy().reshape(2, 2)  # type: ignore[attr-defined]
        picture = env.env.render().transpose(2, 0, 1)  # type: ignore[union-attr]
        assert np.array_equal(data.observations(torch.tensor([index]), 1)[0].numpy(), picture)
    # The action leads from one state to the next, by a fifth of the arena's half at most, walls aside.
    moved = (data.states[:24, :2] + 0.2 * data.actions[:24].double()).clamp(-1, 1)
    assert torch.allclose(data.states[1:25, :2], moved, atol=1e-6)

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert command(*line) == (0, f"{out}: has 60 of 60 frames of tiny-reach; 1 environment step per frame\n"
                                 f"{out}: 60 frames of 3 episodes\n")  # fmt: skip
    assert {name: content for name, content in before.items() if name != "run.lock"} == {
        path.name: path.read_bytes() for path in out.iterdir() if path.name != "run.lock"
    }
    code, said = command(*line[:-1], 4)
    assert (code, "holds another recording (seed: 3 → 4)" in said) == (2, True)
    code, _ = command(*line, "--agent_steps", 90)
    assert (code, len(RecordedFrames(out))) == (0, 90)


def test_a_run_acts_in_its_own_environment(command: Any, run: Path, tmp_path: Path) -> None:
    code, said = command("--policy", run, "--actions", "mean", "--agent_steps", 30, "--out", tmp_path / "a")
    assert code == 0, said
    data = RecordedFrames(tmp_path / "a")
    assert (data.recording.env, data.recording.size) == ("tiny-reach", 12)
    assert data.recording.policy == f"{run} at 30 frames, mean actions"
    agent = load_agent(run, "cpu")[0]
    acted = torch.cat([agent.act(data.observations(torch.tensor([i]), 3)) for i in range(30)])
    assert torch.allclose(acted, data.actions, atol=1e-6)
    assert command("--policy", run, "--agent_steps", 30, "--out", tmp_path / "b")[0] == 0
    assert not torch.equal(RecordedFrames(tmp_path / "b").actions, data.actions)


def test_a_policy_on_pixels_and_proprioception_acts_on_both(command: Any, tmp_path: Path) -> None:
    run = train_on_tiny_reach(tmp_path / "run", f"{FLAGS} --environment.proprioception all")
    assert command("--policy", run, "--actions", "mean", "--agent_steps", 30, "--out", tmp_path / "a")[0] == 0
    data, (agent, config, _) = RecordedFrames(tmp_path / "a"), load_agent(run, "cpu")
    assert config.environment.proprioception == "all"
    # tiny-reach's own observation, point and target, is also its physical state.
    indices = [torch.tensor([number]) for number in range(30)]
    acted = [agent.act(data.observations(i, 3), proprioception=data.states[i].float()) for i in indices]
    assert torch.allclose(torch.cat(acted), data.actions, atol=1e-6)
    without = [agent.act(data.observations(i, 3), proprioception=torch.zeros(1, 4)) for i in indices]
    assert not torch.allclose(torch.cat(without), data.actions, atol=1e-3)


def test_a_recording_goes_on_however_the_runs_path_is_spelled(
    command: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(run)
    out = tmp_path / "data"
    monkeypatch.chdir(run)
    for spelled, steps in ((run, 5), (f"../{run.name}", 6), (tmp_path / "link", "1e1")):
        code, said = command("--policy", spelled, "--agent_steps", steps, "--out", out)
        assert code == 0, said
    assert len(RecordedFrames(out)) == 10
    assert RecordedFrames(out).recording.policy == f"{run} at 30 frames, sampled actions"


def test_ctrl_c_keeps_whole_episodes_and_the_same_command_resumes(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--env", "tiny-reach", "--size", 8, "--agent_steps", 60, "--out"]
    assert command(*line, tmp_path / "alone")[0] == 0

    def interrupted(*arguments: Any, after_frame: Any, **keywords: Any) -> bool:
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1
            if seen == 40:
                os.kill(os.getpid(), signal.SIGINT)

        done: bool = record(*arguments, after_frame=count, **keywords)
        return done

    with monkeypatch.context() as patch:
        patch.setattr("curl_rl.commands.record_frames.record", interrupted)
        code, said = command(*line, tmp_path / "stopped")
    assert (code, "the same command resumes" in said) == (130, True)
    assert len(RecordedFrames(tmp_path / "stopped")) == 25
    assert command(*line, tmp_path / "stopped")[0] == 0
    alone, stopped = RecordedFrames(tmp_path / "alone"), RecordedFrames(tmp_path / "stopped")
    assert torch.equal(alone.states, stopped.states)
    assert torch.equal(alone.frames(torch.arange(60)), stopped.frames(torch.arange(60)))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--env is required for a random policy"),
        (["--env", "tiny-reac"], "the nearest is 'tiny-reach'"),
        (["--env", "tiny-reach", "--agent_steps", 0], "--agent_steps must be at least 1, got 0"),
        (["--env", "tiny-reach", "--seed", -1], "--seed must be 0 or more"),
        (["--env", "tiny-reach", "--size", 0], "environment.size must be at least 1, got 0"),
        (["--env", "tiny-reach", "--preset", "cpuu"], "unknown preset cpuu"),
        (
            ["--env", "tiny-reach", "--actions", "mean"],
            "--actions mean does not apply to a random policy: leave it out",
        ),
        (["--env", "tiny-reach", "--device", "cpu"], "--device cpu does not apply to a random policy: leave it out"),
        (["--env", "tiny-reach", "--actions", "sampled"], "--actions sampled does not apply"),
        (["--policy", "{run}", "--preset", "cpu"], "--preset cpu does not apply to {run}, which has its own"),
        (["--policy", "nowhere"], "nowhere is not a run directory (config.yaml is missing)"),
        (
            ["--policy", "{run}", "--env", "cheetah-run"],
            "must be the environment of {run}, tiny-reach, got cheetah-run",
        ),
        (["--policy", "{run}", "--size", 36], "--size, --quality, --action_repeat and --camera must be those of {run}"),
        (["--env", "tiny-reach", "--out", "{run}"], "exists but is not a recording"),
        (["--env", "tiny-reach", "--frames", 3], "unrecognized arguments: --frames 3"),
    ],
)
def test_a_mistake_is_one_line(command: Any, run: Path, tmp_path: Path, arguments: list[Any], line: str) -> None:
    given = [str(argument).replace("{run}", str(run)) for argument in arguments]
    before = sorted(path.name for path in run.iterdir())
    code, said = command("--out", tmp_path / "data", *given)
    assert code == 2
    assert line.replace("{run}", str(run)) in said.splitlines()[-1]
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "data").exists()
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_pretraining_run_has_no_policy(command: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    vision.SCHEMA.save(vision.load_preset("cpu", "curl"), tmp_path / "run" / "config.yaml")
    code, said = command("--policy", tmp_path / "run", "--out", tmp_path / "data")
    assert code == 2
    assert said.splitlines()[-1].endswith("which trains an encoder of images: use scripts/evaluate_vision.py")


def test_a_damaged_recording_is_one_line(command: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "frames.json").write_text(json.dumps({"format": 9}))
    code, said = command("--env", "tiny-reach", "--out", tmp_path / "data")
    assert (code, "has format 9, but this version reads up to 1" in said) == (2, True)
    line = ["--env", "tiny-reach", "--size", 8, "--out", tmp_path / "cut"]
    assert command(*line, "--agent_steps", 30)[0] == 0
    (tmp_path / "cut" / "frames-00000.safetensors").unlink()
    code, said = command(*line, "--agent_steps", 60)
    assert (code, said.count("\n"), "frames-00000.safetensors is missing" in said) == (2, 1, True)
