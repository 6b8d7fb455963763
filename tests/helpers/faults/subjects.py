"""What faults are injected into: small runs, encoders, policies and recordings; and all that reads or continues them.

Each is made once per process. A reader is a command, or what a command does with the file, with its errors and exit
codes; it returns a fingerprint of what it has read, for comparison with that of the unharmed original.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from PIL import Image

import envs
from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.head_file import load_head
from curl_rl.commands import evaluate_agent, export_encoder, export_policy, record_frames
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import MoCoConfig, ObjectiveConfigs
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig
from curl_rl.recordings import store
from curl_rl.recordings.store import RecordedFrames
from curl_rl.report.curves import read_curves
from curl_rl.rl.config import EvaluationConfig
from curl_rl.rl.loading import load_learner
from curl_rl.rl.policy_file import load_policy
from curl_rl.runs import checkpoint
from curl_rl.runs.command_line import command_parser, exit_code_of, refusals
from curl_rl.runs.logger import read_metrics
from curl_rl.vision.config import ComputeConfig, KNNConfig, VisionConfig
from curl_rl.vision.pretraining import pretrain
from curl_rl.vision.views import AugmentConfig
from helpers import corridor
from helpers.corridor import Corridor


@functools.cache
def base() -> Path:
    """A folder of this process."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return folder


@dataclass(frozen=True, eq=False)
class Subject:
    """Something saved, with those that load it."""

    name: str
    original: Callable[[], Path]
    """Makes it, once, and returns its folder."""
    readers: dict[str, Callable[[Path, Path], Any]]
    """Each takes a copy of the folder and a folder for its own output, runs as a command, and returns an exit code or
    prints; its fingerprint is the file ``fingerprint`` there."""
    ignored: tuple[str, ...] = ("run.lock",)
    """Files without content."""


def fingerprint(out: Path, *parts: Any) -> None:
    """Writes a digest of nested tensors, numbers and strings."""
    digest = hashlib.sha256()
    for place, value in corridor.flat(parts):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        data = value.detach().cpu().contiguous().numpy().tobytes() if isinstance(value, torch.Tensor) else str(value)
        digest.update(place.encode() + (data if isinstance(data, bytes) else data.encode()))
    (out / "fingerprint").write_text(digest.hexdigest())


def _reading(read: Callable[[Path], Any]) -> Callable[[Path, Path], Any]:
    """A command that does nothing but read."""

    def reader(folder: Path, out: Path) -> int:
        parser = command_parser("reads")
        with refusals(parser):
            fingerprint(out, read(folder))
        return 0

    return reader


# ---- an agent's run


def _make(name: str, **settings: Any) -> Corridor:
    return Corridor()


def agent_config(run: Path, frames: int = 40, **changes: Any) -> Any:
    """The corridor, with fewer evaluations."""
    return replace(corridor.tiny(run, frames=frames), evaluation=EvaluationConfig(20, episodes=1), **changes)


@functools.cache
def agent_run() -> Path:
    """40 frames."""
    return corridor.trained(agent_config(base() / "agent" / "run"))


def agent_fingerprint(run: Path, out: Path) -> None:
    """Of weights, optimizers, random states, replay and rows of metrics."""
    fingerprint(out, corridor.state(run), corridor.rows(run))


def _resume(run: Path, out: Path) -> int:
    code = exit_code_of("train_agent.py", lambda: corridor.trained(agent_config(run, 60)))
    if code == 0:
        agent_fingerprint(run, out)
    return code


def _evaluate(run: Path, out: Path) -> int:
    file = out / "score.json"
    code = evaluate_agent.main([str(run), "--episodes", "1", "--device", "cpu", "--json", str(file)], _make)
    fingerprint(out, json.loads(file.read_text())["returns"])
    return code


def _export(main: Callable[[list[str]], int], read: Callable[[Path], Any], run: Path, out: Path) -> int:
    file = out / "exported.safetensors"
    code = main([str(run), "--format", "safetensors", "--output", str(file)])
    fingerprint(out, read(file))
    return code


def _policy(file: Path) -> Any:
    policy = load_policy(file)
    return policy.actor.state_dict(), policy.encoder.encoder.state_dict(), policy.stack, policy.action_repeat


def _encoder(folder: Path) -> Any:
    encoder = load_encoder(folder)
    return (
        encoder.encoder.state_dict(),
        encoder.rendered_size,
        encoder.provenance["frames" if "frames" in encoder.provenance else "preset"],
    )


def _samples(run: Path) -> Any:
    learner, _ = load_learner(run, "cpu")
    sampled = learner.replay.sample(32, torch.Generator().manual_seed(0), discount=0.9, n_step=2)
    return learner.agent.state_dict(), list(sampled)


AGENT = Subject(
    "a run of an agent",
    agent_run,
    {
        "train_agent.py": _resume,
        "evaluate_agent.py": _evaluate,
        "export_policy.py": functools.partial(_export, export_policy.main, _policy),
        "export_encoder.py": functools.partial(_export, export_encoder.main, _encoder),
        "load_encoder": _reading(_encoder),
        "load_learner": _reading(_samples),
        "read_curves": _reading(lambda run: [vars(curve) for curve in read_curves([run])]),
    },
)


# ---- a pretraining run


@functools.cache
def images() -> Path:
    """A folder of two classes."""
    folder = base() / "images"
    for label, name in enumerate(("bright", "dark")):
        for part, count in (("train", 8), ("test", 3)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([label, number, count]).integers(0, 256, (8, 8, 3)) // (label + 1)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{number:03d}.png")
    return folder


def vision_config(run: Path, method: Any = "moco", data: Path | None = None, **changes: Any) -> VisionConfig:
    """Two epochs of a tiny network."""
    config = VisionConfig(
        method=method,
        data=str(data or images()),
        epochs=3,
        batch_size=5,
        seed=3,
        device="cpu",
        run=run,
        encoder=BackboneConfig(resnet=ResNetConfig(width=1 / 16, stem="small"), precision="float32"),
        augment=AugmentConfig(size=8, views=1 if method == "instdisc" else 2),
        objectives=ObjectiveConfigs(moco=MoCoConfig(dim=4, queue=14)),
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none", warmup_epochs=0.5),
        knn=KNNConfig(every=0 if data else 2, k=3),
        checkpoint=CheckpointConfig(every=2),
        log=LogConfig(every=1, images_every=4, projector=0),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)


@functools.cache
def pretraining_run() -> Path:
    """Complete."""
    return pretrain(vision_config(base() / "pretraining" / "run"))


def pretraining_fingerprint(run: Path, out: Path) -> None:
    """Of everything in the checkpoint, and the rows of metrics."""
    found = checkpoint.load_newest(run / "checkpoints", read_only=True)
    assert found is not None
    rows = [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in read_metrics(run / "metrics.jsonl", "images")
    ]
    fingerprint(out, found[1], rows)


def _repeat(run: Path, out: Path) -> int:
    """Takes the last checkpoint away and trains to the same end."""
    newest = sorted((run / "checkpoints").glob("*.ckpt"))
    if len(newest) > 1:
        with contextlib.suppress(OSError):
            newest[-1].unlink()
    code = exit_code_of("pretrain_vision.py", lambda: pretrain(vision_config(run)))
    if code == 0:
        pretraining_fingerprint(run, out)
    return code


PRETRAINING = Subject(
    "a pretraining run",
    pretraining_run,
    {
        "pretrain_vision.py": _repeat,
        "export_encoder.py": functools.partial(_export, export_encoder.main, _encoder),
        "load_encoder": _reading(_encoder),
        "load_head": _reading(lambda run: load_head(run).state_dict()),
    },
)


# ---- a policy in a file of its own


@functools.cache
def policy_file() -> Path:
    """A folder that holds nothing else."""
    out = base() / "policy" / "folder"
    out.mkdir(parents=True)
    export_policy.main([str(agent_run()), "--format", "safetensors", "--output", str(out / "policy.safetensors")])
    return out


POLICY = Subject(
    "a policy's file", policy_file, {"load_policy": _reading(lambda folder: _policy(folder / "policy.safetensors"))}
)


# ---- a recording


@contextlib.contextmanager
def small_shards() -> Iterator[None]:
    """Recordings get several files."""
    before, store.SHARD_FRAMES = store.SHARD_FRAMES, 12
    try:
        yield
    finally:
        store.SHARD_FRAMES = before


def record(folder: Path, frames: int) -> int:
    """Records from tiny-reach, or extends the recording."""
    line = f"--env tiny-reach --agent_steps {frames} --size 12 --max_episode_steps 7 --seed 3 --out"
    with small_shards(), mock.patch.object(sys, "argv", ["record_frames.py"]):  # messages begin with it
        return record_frames.main([*line.split(), str(folder)], envs.make)


@functools.cache
def recording() -> Path:
    """30 frames: three shards, the last episode cut."""
    folder = base() / "recording" / "frames"
    record(folder, 30)
    return folder


def recording_fingerprint(folder: Path, out: Path) -> None:
    """Of all frames and numbers."""
    fingerprint(out, _frames(folder))


def _frames(folder: Path) -> Any:
    frames = RecordedFrames(folder)
    every = torch.arange(len(frames))
    numbers = frames.states, frames.actions, frames.rewards, frames.episodes
    return [frames.observations(every, 2), *numbers, repr(frames.recording)]


def _extend(folder: Path, out: Path) -> int:
    """Adds frames, and then reads them all: what was there is not read before."""
    return record(folder, 40) or _reading(_frames)(folder, out)


RECORDING = Subject(
    "a recording", recording, {"RecordedFrames": _reading(_frames), "record_frames.py": _extend}, ignored=("run.lock",)
)

SUBJECTS = (AGENT, PRETRAINING, POLICY, RECORDING)


class Expected(NamedTuple):
    """What a reader makes of the unharmed original."""

    fingerprint: str
    opened: tuple[str, ...]
    """The names of the files that it opens, relative to the folder."""


@functools.cache
def expected(subject: Subject, reader: str) -> Expected:
    """Runs the reader once."""
    out = base() / "expected" / f"{subject.name} {reader}".replace("/", " ").replace(" ", "-")
    folder = Path(shutil.copytree(subject.original(), out / subject.original().name))
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    with _opened() as paths:
        code = subject.readers[reader](folder, out)
    assert code == 0
    names = {os.path.relpath(path, folder) for path in paths} & there - {*subject.ignored}
    return Expected((out / "fingerprint").read_text(), tuple(sorted(names)))


_watched: list[set[str]] = []


@contextlib.contextmanager
def _opened() -> Iterator[set[str]]:
    """The paths that are opened inside the block."""
    if not _watched:
        sys.addaudithook(_note)
    _watched.append(set())
    try:
        yield _watched[-1]
    finally:
        _watched.append(set())  # a hook cannot be removed


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        _watched[-1].add(os.fspath(arguments[0]))
