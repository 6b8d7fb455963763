"""The schedule of a run, counted by hand; its reports; and settings that must not change its results."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from curl_rl.rl import training
from curl_rl.rl.agent import Agent
from curl_rl.rl.config import (
    CheckpointConfig,
    EvaluationConfig,
    LogConfig,
    TrainingConfig,
)
from curl_rl.rl.film import BAND, SIDE
from curl_rl.rl.learner import Learner
from curl_rl.rl.replay import Replay, ReplayConfig
from curl_rl.runs import checkpoint
from curl_rl.runs.logger import read_metrics
from curl_rl.runs.signals import Stopped
from helpers.corridor import (
    REPEAT,
    SIZE,
    STACK,
    Corridor,
    assert_same_run,
    at,
    differing,
    networks,
    rows,
    state,
    terminate,
    tiny,
    trained,
)

# ---- invariance


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


# ---- schedules


def test_the_frames_of_updates_evaluations_rows_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = training.Trainer.save
    monkeypatch.setattr(
        training.Trainer, "save", lambda trainer: (saved.append(trainer.progress.frames), save(trainer))[1]
    )
    config = tiny(tmp_path / "run", training=TrainingConfig(random_steps=6, update_every=3), frames=55)
    directory = trained(config)

    # The frames after each step, from an environment stepped directly: the length of an episode depends only on its
    # seed.
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


def test_random_steps_are_uniform_and_the_policy_acts_only_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions: list[npt.NDArray[np.float32]] = []
    acted: list[int] = []
    step, act = Corridor.step, Agent.act

    def noting(env: Corridor, action: npt.NDArray[np.float32]) -> Any:
        actions.append(action.copy())
        return step(env, action)

    def counting(agent: Any, *seen: torch.Tensor | None) -> torch.Tensor:
        acted.append(len(actions))
        return act(agent, *seen)

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


@pytest.mark.parametrize(("objective", "diagnosed"), [("curl", 5), ("none", 0)])
def test_one_update_per_row_is_diagnosed_and_it_includes_the_objective(
    objective: Any, diagnosed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diagnosed update runs eagerly on a GPU, and makes the host wait."""
    seen: list[tuple[bool, bool]] = []
    update = Learner.update

    def watched(learner: Learner, *, diagnose: bool = False) -> dict[str, torch.Tensor]:
        seen.append((diagnose, learner.agent.due.objective))
        return update(learner, diagnose=diagnose)

    monkeypatch.setattr(Learner, "update", watched)
    config = tiny(tmp_path / "run", evaluation=EvaluationConfig(every=0))
    trained(replace(config, agent=replace(config.agent, objective=objective, objective_every=3)))
    assert all(due for diagnose, due in seen if diagnose)
    assert sum(diagnose for diagnose, _ in seen) == diagnosed, seen


def test_terminated_and_truncated_reach_the_replay(undisturbed: Path) -> None:
    found = checkpoint.load_newest(undisturbed / "checkpoints", read_only=True)
    assert found is not None
    manifest = found[1]["replay"]
    replay = Replay(ReplayConfig(20), (3 * STACK, SIZE, SIZE), 2, stack=STACK, device="cpu")
    replay.restore(undisturbed / "checkpoints" / "segments", manifest)
    discounts = replay.sample(500, torch.Generator().manual_seed(0), discount=0.9).discount.unique()
    # The lengths of the episodes determine which of the 20 newest transitions terminated.
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


# ---- reports


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
        assert gif.size == (2 * SIDE + 4, SIDE + BAND)


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


def test_the_contents_of_the_directory(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir() if not path.name.startswith("events.")}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "encoder.safetensors", "encoder.json", "videos"} <= names
    provenance = json.loads((undisturbed / "encoder.json").read_text())["provenance"]
    frames = state(undisturbed)["/progress/frames"]
    assert provenance.items() >= {"env": "corridor", "preset": "curl", "seed": 3, "frames": frames}.items()
