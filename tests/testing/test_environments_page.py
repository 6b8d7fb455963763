"""docs/environments.md is true: its environment passes, trains from Python, and trains from the command line."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from curl_rl.runs.logger import read_metrics
from curl_rl.testing import ENVIRONMENT_CHECKS, CheckFailed, check_environment
from helpers.pages import DOCS, blocks, run

ROOT = DOCS.parent
PAGE = "environments.md"
ENVIRONMENT, CHECK, TRAINING, PROGRAM = range(4)  # the page's programs
SMALL = (
    "--device cpu --agent.batch_size 4 --agent.hidden 8 --agent.encoder.filters 2 --training.random_steps 20 "
    "--training.environments 2 --evaluation.every 0 --frames 40 --log.every 20 --replay.capacity 200"
)


def command_line(start: str) -> list[str]:
    """Arguments of the page's command that starts like this."""
    (found,) = re.findall(rf"^{re.escape(start)}.*?(?<!\\)$", (DOCS / PAGE).read_text(), re.DOTALL | re.MULTILINE)
    words = shlex.split(found.replace("\\\n", " "))
    return words[words.index("--env") :]


@pytest.fixture
def chase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's module, importable by the page's programs."""
    (tmp_path / "chase.py").write_text(blocks(PAGE)[ENVIRONMENT])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("chase", None)
    gymnasium.registry.pop("Chase-v0", None)


@pytest.mark.usefixtures("chase")
def test_it_passes_its_checks_and_trains_from_python(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    run(blocks(PAGE)[CHECK], PAGE, namespace)
    run(blocks(PAGE)[TRAINING], PAGE, namespace)
    assert namespace["directory"] == Path("runs/gym_Chase-v0/cpu/seed1")
    assert (tmp_path / "runs/gym_Chase-v0/cpu/seed1/encoder.safetensors").exists()


@pytest.mark.usefixtures("chase")
def test_a_mistake_in_it_is_reported_as_the_page_shows() -> None:
    import chase  # type: ignore[import-not-found]

    import envs

    class Drifting(chase.Chase):  # type: ignore[misc]
        resets = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            state = super().reset(seed=seed)
            self.resets += 1
            self.place = -1 + self.resets % 5 / 2  # its history alone decides, whatever the seed
            return state

    def make() -> Any:
        gymnasium.register("Chase-v0", Drifting, max_episode_steps=50)
        return envs.make("gym:Chase-v0", size=32)

    gymnasium.registry.pop("Chase-v0")
    with pytest.warns(UserWarning, match="Overriding"), pytest.raises(CheckFailed) as error:
        check_environment(make)
    (shown,) = re.findall(r"^```\nCheckFailed: (.*?)^```$", (DOCS / PAGE).read_text(), re.DOTALL | re.MULTILINE)
    assert str(error.value).replace("Drifting", "Chase") == " ".join(shown.split())


def test_the_page_lists_every_check() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / PAGE).read_text(), flags=re.MULTILINE)
    promises = {name: check.__doc__ or "" for name, check in ENVIRONMENT_CHECKS.items()}
    ours = [(name, " ".join(text.split("\n\n")[0].split()).replace("``", "`")) for name, text in promises.items()]
    assert [row for row in rows if row[0] in ENVIRONMENT_CHECKS] == ours


@pytest.mark.slow
def test_its_module_is_named_on_the_command_line(tmp_path: Path) -> None:
    """Trained with two processes from the folder of the module, resumed, evaluated and recorded."""
    (tmp_path / "chase.py").write_text(blocks(PAGE)[ENVIRONMENT])
    line = command_line("python scripts/train_agent.py --env gym:chase:")

    def command(script: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / script, *arguments],
            cwd=tmp_path,
            env={"PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    train = [*line, *SMALL.split(), "--run", "run"]
    command("train_agent.py", *train)
    assert "resumed at 40 of 80 frames" in command("train_agent.py", *train, "--frames", "80")
    assert "80 frames of training; return over 1 episode:" in command("evaluate_agent.py", "run", "--episodes", "1")
    assert "30 frames of " in command("record_frames.py", "--policy", "run", "--agent_steps", "30", "--out", "frames")


def test_a_program_of_ones_own_brings_it_to_the_command_line(tmp_path: Path) -> None:
    """With two environments, so that worker processes must know it too."""
    (tmp_path / "chase.py").write_text(blocks(PAGE)[ENVIRONMENT])
    (tmp_path / "train.py").write_text(blocks(PAGE)[PROGRAM])
    line = command_line("python train.py ")
    done = subprocess.run(
        [sys.executable, tmp_path / "train.py", *line, *SMALL.split(), "--run", tmp_path / "run"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["frames"] == 40
