"""Files saved by an earlier version load and resume as they did in that version.

``tests/data/saved`` holds the files as the earlier version left them; ``expected.json`` holds the results of that
version on a copy. ``tests/data/saved/README.md`` lists the commands and how to rewrite these numbers. This test uses
only the command lines and names documented in README.md and docs/, so that modules of the package can move without
changing it.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from curl_rl import AuxiliaryLoss, EncoderConfig, PixelEncoder, load_encoder
from curl_rl.vision.evaluation.classifier_file import load_classifier

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved"
EXPECTED = SAVED / "expected.json"
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

# The flags that the runs were started with; the same command resumes them.
AGENT = (
    "--env tiny-reach --preset cpu --device cpu --seed 4 --environment.size 12 --agent.crop 10 --agent.batch_size 8 "
    "--agent.hidden 16 --agent.encoder.filters 4 --agent.encoder.strides [2] --agent.encoder.latent 8 "
    "--agent.precision float32 --training.random_steps 20 --replay.capacity 100 --evaluation.every 50 "
    "--evaluation.episodes 2 --checkpoint.every 50 --log.every 10 --log.images_every 0 --frames 140"
)
RESNET = (
    "--run pretrained-resnet --device cpu --epochs 2 --encoder.resnet.width 0.03125 --encoder.precision float32 "
    "--objectives.simclr.head_layers 3 --optimizer.warmup_epochs 0.5 --knn.every 1 --checkpoint.every 5 --log.every 1 "
    "--log.images_every 0 --log.projector 0"
)
PIXEL = (
    "--run pretrained-pixel --data frames --preset frames --method moco --device cpu --epochs 2 --batch_size 16 "
    "--augment.size 10 --encoder.pixel '{filters: 4, strides: [2], latent: 8}' --encoder.precision float32 "
    "--objectives.moco.queue 64 --optimizer.name sgd --optimizer.lr 0.02 --checkpoint.every 5 --log.every 1 "
    "--log.images_every 0 --log.projector 0 --compute.threads 1"
)


@contextlib.contextmanager
def copied(place: Path) -> Iterator[None]:
    """Works in a copy of the saved files, so that the originals are not modified."""
    shutil.copytree(SAVED, place)
    config = place / "pretrained-pixel" / "config.yaml"  # holds the absolute path of the frames
    config.write_text(config.read_text().replace("data: FRAMES\n", f"data: {place / 'frames'}\n"))
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def run(line: str) -> None:
    """Runs a shell command line in this process, which saves the import time."""
    script, *arguments = shlex.split(line)
    before, sys.argv = sys.argv, [f"{script}.py", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    finally:
        sys.argv = before
    assert ended.value.code == 0, f"{script}.py failed; see its output"


def images(channels: int, side: int) -> Tensor:
    """Two deterministic images."""
    return (torch.arange(2 * channels * side * side) * 7 % 256).to(torch.uint8).view(2, channels, side, side)


def features(place: str, channels: int = 9, side: int = 12) -> list[list[float]]:
    found: list[list[float]] = load_encoder(place)(images(channels, side)).tolist()
    return found


def logits(place: str) -> list[list[float]]:
    classifier = load_classifier(place)
    found: list[list[float]] = classifier(images(3, classifier.image_size)).tolist()
    return found


def rows(directory: str, after: int) -> list[dict[str, Any]]:
    """The metric rows logged after resuming, without times and speeds."""
    every = [json.loads(line) for line in Path(directory, "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("speed/")}
        for row in every
        if row.get("frames", row.get("images")) > after
    ]


def actions(directory: str) -> dict[str, Any]:
    """The policy's mean actions in its first frames."""
    run(f"record_frames --policy {directory} --actions mean --agent_steps 10 --out played")
    played = safetensors.torch.load_file("played/frames-00000.safetensors")
    return {"actions": played["actions"].tolist(), "states": played["states"].tolist()}


# ---- results on the copy. A number may differ by ``tolerance`` times the largest number in its list.

OUTCOMES: dict[str, Callable[[], dict[str, Any]]] = {}
TOLERANCE: dict[str, float] = {}


def outcome(tolerance: float) -> Callable[[Callable[[], dict[str, Any]]], Callable[[], dict[str, Any]]]:
    def register(function: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        OUTCOMES[function.__name__] = function
        TOLERANCE[function.__name__] = tolerance
        return function

    return register


@outcome(1e-4)
def encoders_are_loaded() -> dict[str, Any]:
    """Features from runs, a single file, and a folder for the Hugging Face Hub."""
    pixels = "agent-curl", "agent-byol-joint", "agent-frozen", "pretrained-pixel"
    copies = "agent-curl-encoder.safetensors", "for-the-hub"
    found: dict[str, Any] = {place: features(place) for place in (*pixels, *copies)}
    found["pretrained-resnet"] = features("pretrained-resnet", channels=3, side=16)
    for place in (*pixels, "pretrained-resnet", *copies):
        encoder = load_encoder(place)
        found[f"{place}, described"] = [encoder.rendered_size, encoder.features, encoder.provenance]
    return found


@outcome(1e-3)
def an_agent_is_played() -> dict[str, Any]:
    run("evaluate_agent agent-curl --episodes 2 --seed 4 --device cpu --json score.json")
    return {"score": json.loads(Path("score.json").read_text()), **actions("agent-curl")}


@outcome(1e-3)
def an_agent_goes_on_by_the_same_command() -> dict[str, Any]:
    run(f"train_agent {AGENT} --run agent-curl")
    return {"rows": rows("agent-curl", after=110), "features": features("agent-curl"), **actions("agent-curl")}


@outcome(1e-3)
def an_agent_goes_on_by_its_configuration() -> dict[str, Any]:
    """Of a joint update, BYOL and two environments, whose processes find the script where it is the main program."""
    command = [sys.executable, str(SCRIPTS / "train_agent.py"), "--config", "agent-byol-joint/config.yaml"]
    subprocess.run(command, check=True, timeout=120)
    place = "agent-byol-joint"
    return {"rows": rows(place, after=110), "features": features(place), **actions(place)}


@outcome(1e-3)
def an_agent_that_began_from_an_encoder_goes_on_without_it() -> dict[str, Any]:
    shutil.rmtree("pretrained-pixel")
    run("train_agent --config agent-frozen/config.yaml --frames 90")
    return {"rows": rows("agent-frozen", after=60), "features": features("agent-frozen"), **actions("agent-frozen")}


@outcome(1e-3)
def an_agent_begins_from_a_saved_encoder() -> dict[str, Any]:
    run(f"train_agent {AGENT} --run new --frames 30 --encoder pretrained-pixel")
    return {"rows": rows("new", after=-1), "features": features("new")}


@outcome(1e-3)
def pretraining_on_images_goes_on() -> dict[str, Any]:
    run(f"pretrain_vision {RESNET}")
    head = safetensors.torch.load_file("pretrained-resnet/head.safetensors")
    return {
        "rows": rows("pretrained-resnet", after=1792),
        "features": features("pretrained-resnet", channels=3, side=16),
        "head": {name: [float(value.sum()), float(value.norm())] for name, value in head.items()},
    }


@outcome(1e-3)
def pretraining_on_frames_goes_on() -> dict[str, Any]:
    run(f"pretrain_vision {PIXEL}")
    return {"rows": rows("pretrained-pixel", after=160), "features": features("pretrained-pixel")}


@outcome(1e-3)
def pretraining_is_judged() -> dict[str, Any]:
    run("evaluate_vision pretrained-resnet --protocols knn probe --device cpu --json row.json")
    return {"report": json.loads(Path("row.json").read_text())}


@outcome(1e-3)
def pretraining_is_fine_tuned() -> dict[str, Any]:
    """Fine-tunes the encoder and the first layer of the head."""
    run("finetune_vision pretrained-resnet --labels 0.01 --from_layer 1 --epochs 3 --out new --device cpu")
    return {"logits": logits("new")}


@outcome(1e-4)
def a_classifier_is_loaded() -> dict[str, Any]:
    classifier = load_classifier("classifier")
    return {
        "logits": logits("classifier"),
        "names": classifier.names(images(3, classifier.image_size)),
        "classes": list(classifier.classes),
        "provenance": classifier.provenance,
    }


@outcome(5e-2)  # the temperature of 0.1 makes the gradient steep: processors differ by 6e-3
def a_classifier_teaches() -> dict[str, Any]:
    run("distill_vision classifier --student pretrained-resnet --epochs 1 --out student --device cpu")
    return {"logits": logits("student"), "classes": list(load_classifier("student").classes)}


@outcome(1e-6)
def a_recording_is_made_longer() -> dict[str, Any]:
    run("record_frames --env tiny-reach --size 12 --agent_steps 160 --out frames")
    shards = [safetensors.torch.load_file(path) for path in sorted(Path("frames").glob("*.safetensors"))]
    whole = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    sums = {name: value.double().flatten(1).sum(1).tolist() for name, value in whole.items() if value.ndim > 1}
    return {**sums, "rewards": whole["rewards"].tolist(), "episodes": whole["episodes"].tolist()}


@outcome(1e-3)
def encoders_are_probed_on_a_recording() -> dict[str, Any]:
    run("probe_encoder frames agent-curl pretrained-pixel --device cpu --json probe.json")
    return {"report": json.loads(Path("probe.json").read_text())}


@outcome(1e-3)
def an_auxiliary_loss_goes_on() -> dict[str, Any]:
    saved = torch.load("auxiliary.pt", weights_only=True)
    encoder = PixelEncoder((9, 10, 10), EncoderConfig(filters=4, strides=(2,), latent=8))
    aux = AuxiliaryLoss(encoder, "byol")
    optimizer = torch.optim.Adam([*encoder.parameters(), *aux.new_parameters()], lr=1e-3)
    encoder.load_state_dict(saved["encoder"])
    aux.load_state_dict(saved["aux"])
    optimizer.load_state_dict(saved["optimizer"])
    losses = []
    for _ in range(4):
        loss = aux(images(9, 12))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses}


@outcome(1e-3)
def models_of_stable_baselines3_are_loaded() -> dict[str, Any]:
    """Their files refer to classes of this package by module path."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO, SAC

    import envs
    from curl_rl.integrations.stable_baselines3 import ContrastiveCallback

    env = envs.make("tiny-reach", size=12)
    ppo, sac = PPO.load("sb3-ppo", env=env), SAC.load("sb3-sac", env=env)
    found = {
        name: model.predict(images(9, 12).numpy(), deterministic=True)[0].tolist()
        for name, model in (("ppo", ppo), ("sac", sac))
    }
    ppo.learn(16, reset_num_timesteps=False)
    callback = ContrastiveCallback("curl", batch_size=8, every=2)
    callback.load_training_state(sac, torch.load("sb3-callback.pt"))
    before = callback.steps
    sac.learn(40, callback=callback, reset_num_timesteps=False)
    return {**found, "steps": [before, callback.steps]}


# ---- the comparison


_MISSING = object()


def differences(found: Any, expected: Any, tolerance: float, place: str = "") -> list[str]:
    """Lists where and how the outcome differs from the recorded one."""
    pairs: list[tuple[Any, Any, Any]]
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(name, found.get(name, _MISSING), expected.get(name, _MISSING)) for name in {**expected, **found}]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        if expected and all(isinstance(value, float) for value in (*expected, *found)):
            return _numbers(found, expected, tolerance, place)
        pairs = [(number, *pair) for number, pair in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float):
        return _numbers([found], [expected], tolerance, place)
    else:
        return [] if found == expected and type(found) is type(expected) else [f"{place}: {found!r}, was {expected!r}"]
    return [line for name, one, other in pairs for line in differences(one, other, tolerance, f"{place}/{name}")]


def _numbers(found: list[float], expected: list[float], tolerance: float, place: str) -> list[str]:
    allowed = tolerance * max(1e-2, *map(abs, expected), 0)
    off = [abs(one - other) for one, other in zip(found, expected, strict=True)]
    if all(distance <= allowed for distance in off):
        return []
    return [f"{place}: {found}, was {expected} (off by {max(off):.1e}, allowed {allowed:.1e})"]


@pytest.mark.parametrize("name", OUTCOMES)
def test_saved_files_are_used_as_before(name: str, tmp_path: Path) -> None:
    with copied(tmp_path / "saved"):
        found = json.loads(json.dumps(OUTCOMES[name]()))
    assert differences(found, json.loads(EXPECTED.read_text())[name], TOLERANCE[name]) == []


def test_weights_are_exported_bit_for_bit(tmp_path: Path) -> None:
    places = "agent-curl", "agent-byol-joint", "agent-frozen", "pretrained-pixel", "pretrained-resnet"
    with copied(tmp_path / "saved"):
        for place in places:
            run(f"export_encoder {place} --format safetensors --output {place}.safetensors")
            found = safetensors.torch.load_file(f"{place}.safetensors")
            saved = safetensors.torch.load_file(SAVED / place / "encoder.safetensors")
            assert list(found) == list(saved)
            assert [name for name, value in saved.items() if not torch.equal(found[name], value)] == []


def record() -> None:
    """Writes ``expected.json`` with the current code."""
    found = {}
    for name, function in OUTCOMES.items():
        with tempfile.TemporaryDirectory() as folder, copied(Path(folder).resolve() / "saved"):
            found[name] = function()
    EXPECTED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record()
