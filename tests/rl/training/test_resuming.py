"""Runs that were killed or stopped, and resumed.

The oracle is an undisturbed run: weights, optimizers, random states, replay samples and rows of metrics must be the
same to the last bit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest

from curl_rl.rl import training
from curl_rl.rl.config import (
    CheckpointConfig,
    EnvironmentConfig,
    EvaluationConfig,
    LogConfig,
    RunConfig,
    UserError,
)
from curl_rl.rl.replay import ReplayConfig
from curl_rl.rl.training import train
from curl_rl.runs import checkpoint
from curl_rl.runs.signals import Stopped
from helpers.corridor import (
    SIZE,
    STACK,
    Corridor,
    assert_same_run,
    at,
    die,
    differing,
    in_a_process_that_is_killed,
    resumed,
    rows,
    state,
    terminate,
    tiny,
    trained,
)

# ---- killed and resumed


@pytest.mark.parametrize("step", [5, 20, 33])
def test_killed_at_a_step_and_resumed_is_as_if_nothing_had_happened(
    undisturbed: Path, tmp_path: Path, step: int
) -> None:
    # Step 5 is before the first checkpoint.
    config = tiny(tmp_path / "run")
    in_a_process_that_is_killed(config, lambda: at(step, die))
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("nth", [1, 3])
def test_killed_in_the_middle_of_writing_a_checkpoint(undisturbed: Path, tmp_path: Path, nth: int) -> None:
    config = tiny(tmp_path / "run")

    def prepare() -> Callable[[int], None]:
        saves = iter(range(1, 100))

        def half(file: Any, *_: Any) -> None:
            if next(saves) == nth:
                file.write(b"half a checkpoint")
                file.flush()
                die()
            write(file, *_)

        write, checkpoint._write = checkpoint._write, half
        return lambda step: None

    in_a_process_that_is_killed(config, prepare)
    assert list((tmp_path / "run" / "checkpoints").glob("*.partial"))
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("moment", ["before the first line of metrics", "between evaluation and checkpoint"])
def test_killed_while_it_evaluates(undisturbed: Path, tmp_path: Path, moment: str) -> None:
    config = tiny(tmp_path / "run")

    def prepare() -> Callable[[int], None]:
        evaluate = training.evaluate
        calls = iter(range(1, 100))
        fatal = 1 if moment.startswith("before") else 3

        def deadly(*arguments: Any, **named: Any) -> Any:
            call = next(calls)
            if call == fatal == 1:
                die()
            result = evaluate(*arguments, **named)
            if call == fatal:
                die()
            return result

        training.evaluate = deadly
        return lambda step: None

    in_a_process_that_is_killed(config, prepare)
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_killed_right_after_a_checkpoint_that_follows_an_evaluation_reports_the_evaluation_once(
    tmp_path: Path,
) -> None:
    # Both fall on the same frames, as in every preset.
    def config(name: str) -> RunConfig:
        return tiny(tmp_path / name, checkpoint=CheckpointConfig(every=20))

    def prepare() -> Callable[[int], None]:
        saved = iter(range(1, 100))
        save = training.Trainer.save

        def deadly(trainer: training.Trainer) -> None:
            save(trainer)
            if next(saved) == 2:
                die()

        training.Trainer.save = deadly  # type: ignore[method-assign]
        return lambda step: None

    in_a_process_that_is_killed(config("killed"), prepare)
    resumed(config("killed"))
    alone = trained(config("alone"))
    assert_same_run(tmp_path / "killed", alone)
    evaluations = [row["frames"] for row in rows(alone) if "evaluation/return_mean" in row]
    assert len(evaluations) == len(set(evaluations)) == 4


def test_killed_again_and_again(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    for step in (12, 12):
        in_a_process_that_is_killed(config, lambda step=step: at(step, die))  # type: ignore[misc]
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    in_a_process_that_is_killed(config, lambda: at(27, die))
    before, newest = sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(RuntimeWarning, match=f"{newest.name} .*using {before.name} instead"):
        resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_only_damaged_checkpoints_are_one_clear_line(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    trained(config)
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        os.truncate(path, 10)
    with pytest.raises(UserError, match=r"\Anone of the 2 checkpoints in .*\Z"):
        trained(config)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [3, 17])
def test_a_signal_saves_at_once_and_the_run_resumes_bit_for_bit(
    undisturbed: Path, tmp_path: Path, number: int, code: int, step: int
) -> None:
    config = tiny(tmp_path / "run")
    taken: list[int] = []

    def signalled(now: int) -> None:
        taken.append(now)
        if now == step:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as stopped:
        trained(config, signalled)
    assert stopped.value.exit_code == code
    assert taken[-1] == step
    assert state(tmp_path / "run")["/progress/agent_steps"] == step
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_signal_in_the_middle_of_an_evaluation(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, evaluate, calls = tiny(tmp_path / "run"), training.evaluate, iter(range(1, 100))

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupted)
        with pytest.raises(Stopped):
            trained(config)
    # The interrupted evaluation is aborted, and repeated after resuming.
    assert [row["frames"] for row in rows(tmp_path / "run") if "evaluation/return_mean" in row] == [0]
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_killed_after_an_evaluation_that_a_signal_had_put_off_reports_it_once(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, evaluate = tiny(tmp_path, checkpoint=CheckpointConfig(every=1000)), training.evaluate

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if calls.pop():
            terminate()
        return evaluate(*arguments, **named)

    calls = [True, False]  # from the end: the evaluation at the start, and the next one
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupted)
        with pytest.raises(Stopped):
            trained(config)
    # Up to four steps repeat the unfinished episode; then comes the evaluation, and then new steps.
    in_a_process_that_is_killed(config, lambda: at(6, die))
    assert differing(state(undisturbed), state(resumed(config))) == []
    assert rows(tmp_path) == rows(undisturbed)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    taken: list[int] = []

    def impatient(now: int) -> None:
        taken.append(now)
        if now == 9:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(tiny(tmp_path / "run"), impatient)
    assert taken[-1] == 9
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---- the environment, restored by replaying its actions


class Forgetful(Corridor):
    """Draws different pictures in every process: the same seed and actions do not reproduce the observation."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.texture = np.random.default_rng().integers(0, 256, (3, SIZE, SIZE))
        self.frames.extend([self.picture()] * STACK)
        return np.concatenate(self.frames), {}


class Hasty(Corridor):
    """Ends every episode after ``last`` actions, if set, and then refuses another action."""

    last: int | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        self.taken = 0
        return super().reset(seed=seed)

    def step(self, action: npt.NDArray[np.float32]) -> Any:
        assert self.taken != self.last, "the episode is over: call reset()"
        self.taken += 1
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or self.taken == self.last, truncated, info


# After two actions the picture is the saved one, but the episode is over.
@pytest.mark.parametrize(("kind", "last"), [(Forgetful, None), (Hasty, 1), (Hasty, 2)])
def test_an_environment_that_is_not_reproducible_continues_with_its_next_episode(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Corridor],
    last: int | None,
) -> None:
    config = tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0))
    with pytest.raises(Stopped):
        train(config, lambda: kind(at(19, terminate)))
    before = state(tmp_path / "run")
    assert before["/progress/under_way/0/actions/length"] == 2, "the test wants an episode that is under way"
    monkeypatch.setattr(Hasty, "last", last)
    train(config, kind)
    assert "an environment did not repeat itself" in capsys.readouterr().err
    later = [row["episode/number"] for row in rows(tmp_path / "run") if "episode/number" in row]
    # The unfinished episode is never reported, its number is not reused, and no other is missing.
    number = before["/progress/under_way/0/number"]
    assert later == [n for n in range(later[-1] + 1) if n != number]


def test_a_checkpoint_of_format_1_resumes_to_the_same_end(tmp_path: Path) -> None:
    """As written by the older version: one environment's episode spread over the state, and one stream."""
    config = tiny(tmp_path / "run")
    undisturbed = trained(replace(config, run=tmp_path / "undisturbed"))
    with pytest.raises(Stopped):
        trained(config, at(19, terminate))
    found = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    path, content = found
    progress = content["progress"]
    episode = progress.pop("under_way")[0]
    assert len(episode["actions"]) == 2, "the test wants an episode that is under way"
    del progress["episodes_begun"]
    progress |= {
        "episode": episode["number"],
        "episode_return": episode["total"],
        "episode_actions": episode["actions"],
    }
    manifest = content["replay"]
    (stream,) = manifest.pop("streams")
    older = {**content, "observation": episode["observation"], "replay": {**manifest, **stream, "format": 1}}
    path.unlink()
    files = [segment["file"] for segment in stream["segments"]]
    checkpoint.save(path.parent, int(path.stem), older, attachments=files)
    trained(config)
    assert differing(state(undisturbed), state(tmp_path / "run")) == []


# ---- MuJoCo


def test_a_mujoco_run_resumes_in_the_middle_of_an_episode(tmp_path: Path) -> None:
    envs = pytest.importorskip("envs")
    rendering = pytest.importorskip("envs.rendering")
    try:
        rendering.choose_backend()
    except rendering.RenderingUnavailable as error:
        pytest.skip(str(error))

    def config(name: str) -> RunConfig:
        return tiny(
            tmp_path / name,
            env="cartpole-swingup",
            frames=8 * 30,
            environment=EnvironmentConfig(size=24, stack=3, action_repeat=8, quality="fast"),
            replay=ReplayConfig(capacity=200),
            evaluation=EvaluationConfig(every=0),
            checkpoint=CheckpointConfig(every=8 * 100),
            log=LogConfig(every=8 * 7),
        )

    def make() -> Any:
        return envs.make("cartpole-swingup", size=24, stack=3, action_repeat=8, quality="fast")

    class Signalling(gymnasium.Wrapper[Any, Any, Any, Any]):
        count = 0

        def step(self, action: Any) -> Any:
            self.count += 1
            if self.count == 13:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(action)

    train(config("alone"), make)
    with pytest.raises(Stopped):
        train(config("stopped"), lambda: Signalling(make()))
    assert state(tmp_path / "stopped")["/progress/under_way/0/actions/length"] == 13
    train(config("stopped"), make)
    one, other = state(tmp_path / "alone"), state(tmp_path / "stopped")
    assert differing(one, other) == []
    assert rows(tmp_path / "alone") == rows(tmp_path / "stopped")
