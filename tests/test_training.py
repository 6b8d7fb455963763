"""The loop on an environment of a page of numpy: its schedules counted by hand, and its faults and signals provoked.

The oracle of every resumption is a run that was left alone: weights, optimizers, random states, what the replay samples
and the rows of metrics have to be the same to the last bit.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from curl_rl import checkpoint, run_agent, run_checks, training
from curl_rl.agent import Agent, AgentConfig
from curl_rl.config import (
    CheckpointConfig,
    ComputeConfig,
    EnvironmentConfig,
    EvaluationConfig,
    LogConfig,
    RunConfig,
    TrainingConfig,
    UserError,
)
from curl_rl.encoders import EncoderConfig
from curl_rl.logger import read_metrics
from curl_rl.replay import Replay, ReplayConfig
from curl_rl.run_agent import load_agent
from curl_rl.run_checks import check_device
from curl_rl.signals import Stopped
from curl_rl.training import TrainingFault, train

SIZE, STACK, REPEAT = 10, 2, 2


class Corridor(gymnasium.Env[npt.NDArray[np.uint8], npt.NDArray[np.float32]]):
    """A picture that slides with the actions, an episode of 5 to 9 environment steps, an action of two of them.

    An episode of even length ends in a terminated state, one of odd length is truncated, in the middle of an action.
    """

    metadata = {"render_fps": 10}

    def __init__(self, on_step: Callable[[int], None] = lambda step: None) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, (3 * STACK, SIZE, SIZE), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.on_step, self.count, self.episodes = on_step, 0, 0
        self.frames: deque[npt.NDArray[np.uint8]] = deque(maxlen=STACK)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes += 1
        self.length, self.steps, self.place = int(self.np_random.integers(5, 10)), 0, 0.0
        self.texture = self.np_random.integers(0, 256, (3, SIZE, SIZE))
        self.frames.extend([self.picture()] * STACK)
        return np.concatenate(self.frames), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.on_step(self.count)
        begin, reward = self.steps, 0.0
        while self.steps < min(begin + REPEAT, self.length):
            self.steps += 1
            self.place += 20 * float(action[0]) + self.np_random.normal()
            reward += math.cos(self.place) + 0.1 * float(action[1])
        self.frames.append(self.picture())
        over, even = self.steps == self.length, self.length % 2 == 0
        info = {"environment_steps": self.steps - begin}
        return np.concatenate(self.frames), reward, over and even, over and not even, info

    def picture(self) -> npt.NDArray[np.uint8]:
        return ((self.texture + round(self.place)) % 256).astype(np.uint8)


def environments(on_step: Callable[[int], None] = lambda step: None) -> Callable[[], Corridor]:
    """The first environment, the one to train on, calls ``on_step`` with the number of each step."""
    hooks = iter([on_step])
    return lambda: Corridor(next(hooks, lambda step: None))


def tiny(run: Path, **changes: Any) -> RunConfig:
    config = RunConfig(
        env="corridor",
        frames=60,
        seed=3,
        device="cpu",
        run=run,
        environment=EnvironmentConfig(size=SIZE, stack=STACK, action_repeat=REPEAT),
        agent=AgentConfig(batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4)),
        replay=ReplayConfig(capacity=20),
        training=TrainingConfig(random_steps=6),
        evaluation=EvaluationConfig(every=20, episodes=2),
        checkpoint=CheckpointConfig(every=14),
        log=LogConfig(every=10, images_every=20),
    )
    return replace(config, **changes)


def trained(config: RunConfig, on_step: Callable[[int], None] = lambda step: None, *, global_seed: int = 0) -> Path:
    random.seed(global_seed)
    np.random.seed(global_seed)
    torch.manual_seed(global_seed)
    return train(config, environments(on_step))


def resumed(config: RunConfig) -> Path:
    """Goes on in a process whose global generators stand elsewhere, which a checkpoint has to bring back."""
    return trained(config, global_seed=1 if any(config.directory.glob("checkpoints/*.ckpt")) else 0)


def in_a_process_that_is_killed(config: RunConfig, prepare: Callable[[], Callable[[int], None]]) -> None:
    """Trains in a child process until it kills itself with SIGKILL; ``prepare`` runs there and returns ``on_step``."""
    child = os.fork()
    if child == 0:
        try:
            trained(config, prepare())
        finally:
            os._exit(0)  # reached only where it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child was to be killed, and ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at(step: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda now: act() and None if now == step else None


def rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of metrics without what tells the time."""
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(directory / "metrics.jsonl")
    ]


def state(directory: Path) -> dict[str, Any]:
    """The newest checkpoint, flat; of the replay what it samples."""
    found = checkpoint.load_newest(directory / "checkpoints", read_only=True)
    assert found is not None
    _, content = found
    manifest = content.pop("replay")
    replay = Replay(
        ReplayConfig(manifest["capacity"]),
        manifest["observation_shape"],
        manifest["action_dim"],
        stack=manifest["stack"],
        device="cpu",
    )
    replay.restore(directory / "checkpoints" / "segments", manifest)
    content["samples"] = replay.sample(64, torch.Generator().manual_seed(0), discount=0.9, n_step=2, future=(1,))
    return dict(flat(content))


def flat(nested: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(nested, dict):
        for name, value in nested.items():
            yield from flat(value, f"{place}/{name}")
    elif isinstance(nested, (list, tuple)):
        yield f"{place}/length", len(nested)
        for index, value in enumerate(nested):
            yield from flat(value, f"{place}/{index}")
    else:
        yield place, nested


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)

    return [name for name in {**one, **other} if not equal(one.get(name), other.get(name))]


def networks(directory: Path) -> dict[str, Any]:
    return {name: value for name, value in state(directory).items() if name.startswith("/agent")}


def assert_same_run(one: Path, other: Path) -> None:
    assert differing(state(one), state(other)) == []
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny(tmp_path_factory.mktemp("undisturbed") / "run"))


# ---- what must not change a run


def test_the_comparison_sees_a_difference(undisturbed: Path, tmp_path: Path) -> None:
    other = trained(tiny(tmp_path / "run", seed=4))
    assert any(name.startswith("/agent/networks") for name in differing(state(undisturbed), state(other)))
    assert any(name.startswith("/agent/optimizers") for name in differing(state(undisturbed), state(other)))
    assert rows(undisturbed) != rows(other)


def test_training_with_and_without_evaluation_gives_the_same_weights(undisturbed: Path, tmp_path: Path) -> None:
    other = trained(tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0)))
    assert differing(networks(undisturbed), networks(other)) == []


def test_other_cadences_of_log_checkpoints_and_pictures_give_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    quiet = tiny(
        tmp_path / "run",
        log=LogConfig(every=7, images_every=0),
        checkpoint=CheckpointConfig(every=1000, keep=1),
        evaluation=EvaluationConfig(every=33, episodes=1, video=False),
    )
    assert differing(networks(undisturbed), networks(trained(quiet))) == []


def test_the_estimate_of_the_time_changes_nothing(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    assert_same_run(trained(tiny(tmp_path / "run")), undisturbed)


# ---- killed and resumed


@pytest.mark.parametrize("step", [5, 20, 33])
def test_killed_at_a_step_and_resumed_is_as_if_nothing_had_happened(
    undisturbed: Path, tmp_path: Path, step: int
) -> None:
    # Step 5 lies before the first checkpoint.
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
def test_a_signal_saves_at_once_and_the_run_goes_on_bit_for_bit(
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
    # The one that was under way is given up, and made up for later.
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


# ---- the environment, brought back by repeating its actions


class Forgetful(Corridor):
    """Has pictures of its own in every process: the same seed and actions do not lead to the same place."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.texture = np.random.default_rng().integers(0, 256, (3, SIZE, SIZE))
        self.frames.extend([self.picture()] * STACK)
        return np.concatenate(self.frames), {}


class Hasty(Corridor):
    """Ends every episode after so many actions, once it is told to, and refuses another action then."""

    last: int | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        self.taken = 0
        return super().reset(seed=seed)

    def step(self, action: npt.NDArray[np.float32]) -> Any:
        assert self.taken != self.last, "the episode is over: call reset()"
        self.taken += 1
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or self.taken == self.last, truncated, info


# After two actions the picture is the saved one, and still the episode cannot go on.
@pytest.mark.parametrize(("kind", "last"), [(Forgetful, None), (Hasty, 1), (Hasty, 2)])
def test_an_environment_that_does_not_repeat_itself_goes_on_with_its_next_episode(
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
    # The unfinished episode is never reported, its number not given again, and none other is missing.
    number = before["/progress/under_way/0/number"]
    assert later == [n for n in range(later[-1] + 1) if n != number]


def test_a_checkpoint_of_format_1_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Written as the older version wrote it: one environment's episode spread over the state, and one stream."""
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


# ---- schedules


def test_updates_evaluations_rows_and_checkpoints_fall_where_they_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = training.Trainer.save
    monkeypatch.setattr(
        training.Trainer, "save", lambda trainer: (saved.append(trainer.progress.frames), save(trainer))[1]
    )
    config = tiny(tmp_path / "run", training=TrainingConfig(random_steps=6, update_every=3), frames=55)
    directory = trained(config)

    # The frames after each step, from an environment that is asked directly: the number of steps of an episode
    # depends on its seed alone.
    frames, counts, lengths = 0, [0], []
    episode = 0
    while frames < 55:
        env = Corridor()
        env.reset(seed=training.derived_seed(3, "training episode", episode))
        over = False
        while not over and frames < 55:
            _, _, terminated, truncated, info = env.step(np.zeros(2, np.float32))
            frames += info["environment_steps"]
            counts.append(frames)
            over = terminated or truncated
        if over:
            lengths.append((frames, math.ceil(env.length / REPEAT)))
        episode += 1
    assert any(after - before == 1 for before, after in itertools.pairwise(counts))

    def firsts(every: int) -> list[int]:
        """The first count at or after each multiple."""
        return [next(c for c in counts if c >= multiple) for multiple in range(every, counts[-1] + 1, every)]

    final = state(directory)
    assert final["/progress/frames"] == counts[-1]
    assert final["/progress/agent_steps"] == len(counts) - 1
    assert final["/agent/updates"] == (len(counts) - 1 - 6) // 3
    reported = rows(directory)
    assert [(r["frames"], r["episode/length"]) for r in reported if "episode/length" in r] == lengths
    assert [r["frames"] for r in reported if "evaluation/return_mean" in r] == [0, *firsts(20), counts[-1]]
    assert list(dict.fromkeys(saved)) == list(dict.fromkeys([*firsts(14), counts[-1]]))
    learning = [row["frames"] for row in read_metrics(directory / "metrics.jsonl") if "speed/frames_per_second" in row]
    assert learning == [*firsts(10), counts[-1]]
    assert len(list((directory / "checkpoints").glob("*.ckpt"))) == 2


@pytest.mark.parametrize(
    ("steps", "every", "updates"), [(6, 1, 0), (7, 1, 1), (9, 1, 3), (8, 3, 0), (9, 3, 1), (11, 3, 1), (12, 3, 2)]
)
def test_updates_are_counted_from_the_end_of_the_six_random_steps(
    tmp_path: Path, steps: int, every: int, updates: int
) -> None:
    config = tiny(tmp_path / "run", training=TrainingConfig(random_steps=6, update_every=every))
    with pytest.raises(Stopped):
        trained(config, at(steps, terminate))
    assert state(tmp_path / "run")["/agent/updates"] == updates


def test_random_steps_are_uniform_and_the_policys_are_not_used_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions: list[npt.NDArray[np.float32]] = []
    acted: list[int] = []
    step, act = Corridor.step, Agent.act

    def noting(env: Corridor, action: npt.NDArray[np.float32]) -> Any:
        actions.append(action.copy())
        return step(env, action)

    def counting(agent: Any, observation: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        acted.append(len(actions))
        return act(agent, observation, noise)

    monkeypatch.setattr(Corridor, "step", noting)
    monkeypatch.setattr(Agent, "act", counting)
    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    random_steps = 400
    config = tiny(
        tmp_path / "run",
        frames=1500,
        training=TrainingConfig(random_steps=random_steps, update_every=1000),
        evaluation=EvaluationConfig(every=0),
        checkpoint=CheckpointConfig(every=10_000),
    )
    trained(config)
    drawn = np.stack(actions[:random_steps])
    assert acted[0] == random_steps
    assert acted == list(range(random_steps, len(actions)))
    # Uniform on [-1, 1]: mean 0, variance 1/3; four standard errors of 800 draws.
    assert abs(drawn.mean()) < 4 * math.sqrt(1 / 3 / drawn.size)
    assert abs(drawn.var() - 1 / 3) < 4 * math.sqrt((1 / 5 - 1 / 9) / drawn.size)
    assert drawn.min() < -0.97
    assert drawn.max() > 0.97


def test_terminated_and_truncated_reach_the_replay(undisturbed: Path) -> None:
    found = checkpoint.load_newest(undisturbed / "checkpoints", read_only=True)
    assert found is not None
    manifest = found[1]["replay"]
    replay = Replay(ReplayConfig(20), (3 * STACK, SIZE, SIZE), 2, stack=STACK, device="cpu")
    replay.restore(undisturbed / "checkpoints" / "segments", manifest)
    discounts = replay.sample(500, torch.Generator().manual_seed(0), discount=0.9).discount.unique()
    # Which of the 20 newest transitions terminated follows from the lengths of the episodes alone.
    ends, episode = [], 0
    while len(ends) < found[1]["progress"]["agent_steps"]:
        env = Corridor()
        env.reset(seed=training.derived_seed(3, "training episode", episode))
        ends += [False] * (math.ceil(env.length / REPEAT) - 1) + [env.length % 2 == 0]
        episode += 1
    ends = ends[: found[1]["progress"]["agent_steps"]]
    assert {bool(d == 0) for d in discounts} == set(ends[-20:]) == {True, False}
    stored = replay._terminated[torch.arange(len(ends) - 20, len(ends)) % 20].tolist()
    assert stored == ends[-20:]


# ---- what is reported


def test_tensorboard_and_the_rows_hold_the_same_metrics(undisturbed: Path) -> None:
    events = EventAccumulator(str(undisturbed), size_guidance={"scalars": 0, "images": 0}).Reload()
    reported = read_metrics(undisturbed / "metrics.jsonl")
    points = {(name, row["frames"]) for row in reported for name in row if name not in ("frames", "wall_time")}
    curves = events.Tags()["scalars"]
    assert {(name, point.step) for name in curves for point in events.Scalars(name)} == points
    assert {
        *(f"evaluation/return_{name}" for name in ("mean", "median", "std", "min", "max")),
        *(f"episode/{name}" for name in ("return", "length", "number")),
        *(f"critic/{name}" for name in ("loss", "q", "target", "gradient_norm")),
        *(f"actor/{name}" for name in ("loss", "entropy", "gradient_norm")),
        *(f"temperature/{name}" for name in ("loss", "value")),
        *(f"objective/{name}" for name in ("loss", "accuracy", "logits_std", "effective_rank", "gradient_norm")),
        *(f"speed/{name}" for name in ("frames_per_second", "updates_per_second")),
    } <= set(curves)


def test_pictures_of_crops_and_of_evaluations(undisturbed: Path) -> None:
    events = EventAccumulator(str(undisturbed), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {"observations/crops", "evaluation/video"}
    evaluated = [row["frames"] for row in rows(undisturbed) if "evaluation/return_mean" in row]
    assert [image.step for image in events.Images("evaluation/video")] == evaluated
    assert [path.name for path in sorted((undisturbed / "videos").iterdir())] == [f"{f:010d}.gif" for f in evaluated]
    with Image.open(undisturbed / "videos" / "0000000000.gif") as gif:
        assert gif.size == (SIZE, SIZE)


def test_every_update_is_in_one_row_the_last_interval_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    update = training.Learner.update

    def noting(learner: Any, **named: Any) -> dict[str, torch.Tensor]:
        metrics = update(learner, **named)
        losses.append(metrics["critic/loss"].item())
        return metrics

    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    monkeypatch.setattr(training.Learner, "update", noting)
    # No interval of the log ends before the run does.
    directory = trained(tiny(tmp_path / "run", log=LogConfig(every=1000)))
    (row,) = [row for row in rows(directory) if "critic/loss" in row]
    assert row["frames"] >= 60
    assert row["critic/loss"] == pytest.approx(sum(losses) / len(losses))
    # A budget that ends with an interval has no second row there.
    learning = [row["frames"] for row in rows(trained(tiny(tmp_path / "whole"))) if "critic/loss" in row]
    assert len(learning) == len(set(learning))


def test_the_means_of_an_interval_survive_a_stop_in_its_middle(undisturbed: Path, tmp_path: Path) -> None:
    # 17 steps end in the middle of an interval of 10 frames.
    config = tiny(tmp_path / "run", checkpoint=CheckpointConfig(every=1000))
    with pytest.raises(Stopped):
        trained(config, at(17, terminate))
    assert any("critic" in name for name in state(tmp_path / "run") if name.startswith("/means/counts"))
    trained(config)
    assert rows(tmp_path / "run") == rows(undisturbed)


# ---- starting again


def test_a_complete_run_says_so_and_a_larger_budget_goes_on(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path / "run", frames=38)
    trained(config)
    before = state(tmp_path / "run")
    capsys.readouterr()
    resumed(config)
    assert re.search(r"this run is complete at \d+ frames; --frames takes it further", capsys.readouterr().err)
    assert differing(before, state(tmp_path / "run")) == []
    resumed(replace(config, frames=60))
    # The rows at the end of the smaller budget are two more (the metrics so far, which the next row then leaves out,
    # and an evaluation), and change nothing.
    assert differing(state(undisturbed), state(tmp_path / "run")) == []
    more = [row for row in rows(tmp_path / "run") if row not in rows(undisturbed)]
    end = before["/progress/frames"]
    assert [(row["frames"] == end, "evaluation/return_mean" in row) for row in more[:2]] == [
        (True, False),
        (True, True),
    ]
    assert ["critic/loss" in row for row in more] == [True, False, True]


def test_compute_and_log_may_change(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    trained(replace(config, frames=30, compute=ComputeConfig(threads=1), log=LogConfig(every=3)))
    assert state(tmp_path / "run")["/progress/frames"] >= 30


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed: 3 → 4"),
        ({"replay": ReplayConfig(capacity=21)}, "replay.capacity: 20 → 21"),
        ({"checkpoint": CheckpointConfig(every=15)}, "checkpoint.every: 14 → 15"),
    ],
)
def test_any_other_change_is_refused_by_name(
    undisturbed: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=named):
        trained(tiny(run, **change))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_automatic_precision_is_no_other_setting_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, frames=30)
    automatic = replace(config, agent=replace(config.agent, precision="auto"))
    found = []
    for precision in ("bfloat16", "float32"):
        for module in (run_agent, run_checks):
            monkeypatch.setattr(module, "resolve_precision", lambda *_, precision=precision: precision)
        trained(replace(automatic, frames=automatic.frames + 10 * len(found)))
        found.append(load_agent(tmp_path, "cpu")[0].config.precision)
    assert found == ["bfloat16", "float32"]


def test_settings_are_compared_while_there_is_a_checkpoint(tmp_path: Path) -> None:
    trained(tiny(tmp_path, frames=30))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="seed: 3 → 4"):
        trained(tiny(tmp_path, frames=30, seed=4))


def test_fresh_renames_and_never_deletes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    before = {p.relative_to(tmp_path / "run"): p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    train(replace(config, seed=9), environments(), fresh=True)
    (aside,) = [path for path in tmp_path.iterdir() if path.name != "run"]
    assert f"the earlier run is now {aside}" in capsys.readouterr().err
    assert {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()} == before
    assert state(tmp_path / "run")["/progress/frames"] >= 20


@pytest.mark.parametrize("where", ["estimate", "update"])
def test_too_little_memory_is_the_agents_fault_and_not_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """PyTorch has no exception of its own for a CPU that has no memory left."""

    def no_room(*_: Any, **__: Any) -> NoReturn:
        torch.empty(2**62, dtype=torch.uint8)
        raise AssertionError("no machine has this much memory")

    if where == "update":
        monkeypatch.setattr(training.Learner, "update", no_room)
    else:
        monkeypatch.setattr(Agent, "update", no_room)
    with pytest.raises(TrainingFault, match=r"lower agent\.batch_size"):
        trained(tiny(tmp_path))


def test_a_replay_without_room_is_refused_before_a_run_is_set_aside(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    config = tiny(run)
    config = replace(config, replay=replace(config.replay, capacity=9 * 10**13, storage="memory"))
    with pytest.raises(UserError, match="the replay needs .* and .* of memory is available"):
        train(config, environments(), fresh=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("device", "capture", "storage", "message"),
    [
        ("cpu", True, "auto", "compute.capture: there are no CUDA graphs on cpu"),
        (
            "cuda:0",
            True,
            "memory",
            "the replay would lie in memory, and an update can be captured only",
        ),
    ],
)
def test_what_a_device_cannot_do_is_refused_before_a_run_is_set_aside(
    undisturbed: Path, tmp_path: Path, device: str, capture: bool, storage: Any, message: str
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    config = tiny(run)
    config = replace(
        config, compute=replace(config.compute, capture=capture), replay=replace(config.replay, storage=storage)
    )
    with pytest.raises(UserError, match=message):
        check_device(config, torch.device(device))
    if device == "cpu":
        with pytest.raises(UserError, match=message):
            train(config, environments(), fresh=True)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("capture", [False, True])
def test_a_run_finds_the_gpu_by_itself(tmp_path: Path, capture: bool) -> None:
    config = tiny(tmp_path / "run")
    config = replace(config, device="auto", compute=replace(config.compute, capture=capture))
    train(config, environments())
    assert state(tmp_path / "run")["/progress/frames"] >= config.frames
    assert "device: cuda:0" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_second_process_is_refused_and_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    before = (run / "config.yaml").read_bytes()
    with (
        checkpoint.lock_run(run),
        pytest.raises(UserError, match=f"{run} is in use by process {os.getpid()}"),
    ):
        trained(tiny(run, frames=90))
    assert (run / "config.yaml").read_bytes() == before


# ---- faults


def test_a_broken_environment_saves_says_why_and_the_run_goes_on_bit_for_bit(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")

    def broken() -> None:
        raise RuntimeError("the renderer\nis gone")

    with pytest.raises(TrainingFault) as fault:
        trained(config, at(17, broken))
    line = str(fault.value)
    assert re.search(r"\Astopped at \d+ frames \(update 10\): the renderer is gone; the run is saved: mend the", line)
    assert "\n" not in line
    assert "RuntimeError: the renderer" in (tmp_path / "run" / "fault.txt").read_text()
    assert state(tmp_path / "run")["/progress/agent_steps"] == 16
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("place", ["training", "evaluation"])
def test_an_environment_that_breaks_in_reset(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    config = tiny(tmp_path / "run")
    made: list[Corridor] = []
    reset = Corridor.reset

    def breaking(env: Corridor, **named: Any) -> Any:
        if env is made[0 if place == "training" else 1] and env.episodes == 5:
            raise OSError("no more licences")
        return reset(env, **named)

    make = environments()
    with monkeypatch.context() as patch:
        patch.setattr(Corridor, "reset", breaking)
        with pytest.raises(TrainingFault, match="no more licences; the run is saved: mend the environment"):
            train(config, lambda: made.append(make()) or made[-1])  # type: ignore[func-returns-value]
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_reward_that_is_not_a_number(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, step = tiny(tmp_path / "run"), Corridor.step

    def nan(env: Corridor, action: npt.NDArray[np.float32]) -> Any:
        observation, reward, *rest = step(env, action)
        return observation, math.nan if env.count == 20 else reward, *rest

    with monkeypatch.context() as patch:
        patch.setattr(Corridor, "step", nan)
        with pytest.raises(TrainingFault, match="reward is nan: it must be finite.*; the run is saved"):
            trained(config)
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_an_environment_that_fails_while_it_is_brought_back(undisturbed: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    with pytest.raises(Stopped):
        trained(config, at(18, terminate))

    def broken() -> None:
        raise RuntimeError("no display")

    with pytest.raises(TrainingFault, match="no display; the run is as it was saved"):
        trained(config, at(1, broken))
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_diverging_networks_overwrite_no_checkpoint(tmp_path: Path) -> None:
    agent = AgentConfig(
        batch_size=4, crop=8, hidden=8, encoder=EncoderConfig(2, (2,), 4), critic_lr=1e30, actor_lr=1e30
    )
    config = tiny(tmp_path / "run", agent=agent, checkpoint=CheckpointConfig(every=2), evaluation=EvaluationConfig(0))
    with pytest.raises(TrainingFault) as fault:
        trained(config)
    assert re.search(
        r"stopped at \d+ frames \(update \d\): .*; the last checkpoint is from before; try a lower", str(fault.value)
    )
    assert "\n" not in str(fault.value)
    assert "mend the environment" not in str(fault.value)
    weights = [value for value in networks(tmp_path / "run").values() if isinstance(value, torch.Tensor)]
    assert all(value.isfinite().all() for value in weights)


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_nan_in_a_loss_or_a_weight_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    update = Agent.update

    def diverging(agent: Agent, inputs: Any, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        metrics = update(agent, inputs, diagnose=diagnose)
        if agent.updates == 11:
            if what == "loss":
                metrics["critic/loss"] = torch.tensor(math.nan)
            else:
                agent.log_alpha.data.fill_(math.inf)
        return metrics

    monkeypatch.setattr(Agent, "update", diverging)
    monkeypatch.setattr(training, "estimated_time", lambda *_: "no estimate")
    config = tiny(tmp_path / "run", checkpoint=CheckpointConfig(every=1), log=LogConfig(every=1000))
    name = "critic/loss" if what == "loss" else "log_alpha"
    with pytest.raises(TrainingFault, match=f"not finite any more: {name}; the last checkpoint is from before"):
        trained(config)
    assert state(tmp_path / "run")["/agent/updates"] == 10


def test_a_first_observation_that_the_replay_refuses_is_said_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset, episodes = Corridor.reset, itertools.count()

    def torn(env: Corridor, **named: Any) -> Any:
        observation, info = reset(env, **named)
        if next(episodes) > 4:
            observation[0, 0, 0] ^= 1  # the stack is no longer one frame repeated
        return observation, info

    for _ in range(2):
        monkeypatch.setattr(Corridor, "reset", torn)
        with pytest.raises(TrainingFault, match="observation is not one frame repeated"):
            train(tiny(tmp_path, evaluation=EvaluationConfig(every=0)), environments())


def test_too_little_memory_in_an_update_names_what_to_lower(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, count = Agent.update, itertools.count()

    def exhausting(agent: Any, inputs: Any, *, diagnose: bool = False) -> Any:
        if next(count) == 17:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(agent, inputs, diagnose=diagnose)

    config = tiny(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training, "estimated_time", lambda *_: "no estimate")
        patch.setattr(Agent, "update", exhausting)
        with pytest.raises(TrainingFault, match=r"CUDA out of memory; .*agent\.batch_size"):
            trained(config)
    assert differing(state(undisturbed), state(resumed(config))) == []


def test_too_little_memory_at_the_start_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "Replay", exhausted)
    with pytest.raises(UserError, match=r"cpu has no room for this run: lower agent\.batch_size"):
        trained(tiny(tmp_path))


def test_a_full_disk_keeps_the_earlier_checkpoint(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, write, saves = tiny(tmp_path / "run"), checkpoint._write, iter(range(1, 100))

    def full(file: Any, *arguments: Any) -> None:
        if next(saves) == 3:
            file.write(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(TrainingFault) as fault:
            trained(config)
    assert "No space left on device" in str(fault.value)
    assert "make room and start the same command again" in str(fault.value)
    assert "\n" not in str(fault.value)
    assert 28 <= state(tmp_path / "run")["/progress/frames"] < 42
    resumed(config)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_broken_environment_on_a_full_disk_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        monkeypatch.setattr(checkpoint, "_write", full)
        raise RuntimeError("the renderer is gone")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saying = "renderer is gone; the last checkpoint is intact, a new one could not be written"
    with pytest.raises(TrainingFault, match=saying):
        trained(tiny(tmp_path / "run"), at(17, broken))


# ---- at the door


class Floats(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 1, (3 * STACK, SIZE, SIZE), np.float32)


class Wide(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)


class Buttons(Corridor):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)


class Long(Corridor):
    max_episode_steps = 21


@pytest.mark.parametrize(
    ("make", "change", "line"),
    [
        (Floats, {}, "must give uint8 observations"),
        (Wide, {}, "must take actions in .-1, 1."),
        (Buttons, {}, "must take a vector of real numbers"),
        (Long, {}, "replay.capacity 20 is smaller than an episode of corridor: 21 agent steps"),
        (Corridor, {"environment": EnvironmentConfig(size=SIZE, stack=4)}, "environment.stack 4 does not divide the 6"),
        (Corridor, {"device": "cuda:99"}, "device cuda:99 is not there: PyTorch sees"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(
    tmp_path: Path, make: Callable[[], Corridor], change: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        train(tiny(tmp_path / "run", **change), make)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("free", [10, 20_000])
def test_a_disk_without_room_is_refused_and_the_corrected_command_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    # The replay's file takes 20 + 1 + 2 + 1 frames of 300 bytes; the rest is for the checkpoints.
    config = tiny(tmp_path / "run", replay=ReplayConfig(capacity=20, storage="disk"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=free, used=0, free=free))
        with pytest.raises(UserError, match="lower replay.capacity") as refused:
            trained(config)
    assert ("replay.storage" in str(refused.value)) == (free == 10)
    trained(replace(config, replay=ReplayConfig(capacity=19), frames=20))


def test_rows_that_somebody_damaged_are_one_clear_line(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", frames=20)
    trained(config)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics.jsonl, line 1: must be a JSON object"):
        trained(replace(config, frames=30))


# ---- MuJoCo


def test_a_mujoco_run_goes_on_in_the_middle_of_an_episode(tmp_path: Path) -> None:
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


def test_the_environments_are_closed_whatever_happens(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Closing(Corridor):
        def close(self) -> None:
            closed.append(True)

        def step(self, action: npt.NDArray[np.float32]) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(TrainingFault):
        train(tiny(tmp_path / "run"), Closing)
    assert len(closed) == 2


def test_the_directory_holds_what_the_design_says(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir() if not path.name.startswith("events.")}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "encoder.safetensors", "encoder.json", "videos"} <= names
    provenance = json.loads((undisturbed / "encoder.json").read_text())["provenance"]
    frames = state(undisturbed)["/progress/frames"]
    assert provenance.items() >= {"env": "corridor", "preset": "curl", "seed": 3, "frames": frames}.items()
