"""The `official` preset's update against updates recorded from the released CURL implementation, in float64.

The recordings came from github.com/MishaLaskin/curl (commit 8416d6e), fed with fixed batches and fixed noise.
``CURL_RL_PARITY=FILE[:FILE…]`` tests recordings other than the one in tests/data.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.encoders import EncoderConfig
from curl_rl.objectives import CurlConfig, ObjectiveConfigs, ViewSpec
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from curl_rl.rl.config import load_preset

HERE = Path(__file__).parents[1]
RECORDINGS = os.environ.get("CURL_RL_PARITY", str(HERE / "data" / "curl_update.npz")).split(":")

LOSSES = {
    "train_critic/loss": "critic/loss",
    "train_actor/loss": "actor/loss",
    "train_actor/entropy": None,  # of the unsquashed Gaussian, which the update does not use
    "train_actor/target_entropy": None,  # a constant, compared below
    "train_alpha/loss": "temperature/loss",
    "train_alpha/value": "temperature/value",
    "train/curl_loss": "objective/loss",
    "train/batch_reward": "batch/reward",
}


class Recording:
    def __init__(self, path: str) -> None:
        self.arrays = np.load(path)
        self.meta: dict[str, Any] = json.loads(self.arrays["meta"].tobytes())

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def names(self, prefix: str) -> list[str]:
        return [key for key in self.arrays.files if key.startswith(prefix + "/")]


def recorded_config(meta: dict[str, Any]) -> AgentConfig:
    """The `official` preset with the recording's hyperparameters in place of Table 3's."""
    official = load_preset("official", "cheetah-run").agent
    values = {
        "batch_size": meta["batch"],
        "crop": meta["image_size"],
        "discount": meta["discount"],
        "encoder": EncoderConfig(
            filters=meta["num_filters"],
            strides=(2,) + (1,) * (meta["num_layers"] - 1),
            latent=meta["encoder_feature_dim"],
        ),
        "hidden": meta["hidden_dim"],
        "log_std_min": meta["actor_log_std_min"],
        "log_std_max": meta["actor_log_std_max"],
        "actor_lr": meta["actor_lr"],
        "critic_lr": meta["critic_lr"],
        "encoder_lr": meta["encoder_lr"],
        "temperature_lr": meta["alpha_lr"],
        "actor_beta": meta["actor_beta"],
        "critic_beta": meta["critic_beta"],
        "temperature_beta": meta["alpha_beta"],
        "initial_temperature": meta["init_temperature"],
        "critic_tau": meta["critic_tau"],
        "encoder_tau": meta["encoder_tau"],
        "actor_every": meta["actor_update_freq"],
        "target_every": meta["critic_target_update_freq"],
        "objective_every": meta["cpc_update_freq"],
        "detach_encoder": meta["detach_encoder"],
    }
    return AgentConfig(**{**vars(official), **values})


def encoder_state(recording: Recording, prefix: str) -> dict[str, torch.Tensor]:
    state = {}
    for key in recording.names(prefix):
        name = key.removeprefix(prefix + "/")
        if name.startswith("encoder.convs."):
            state[name.replace("encoder.convs.", "convolutions.layers.")] = recording.tensor(key)
        elif name.startswith("encoder.fc."):
            value = recording.tensor(key)
            if value.ndim == 2:  # the released code flattens the map channel by channel, ours with channels innermost
                filters = len(recording.tensor(f"{prefix}/encoder.convs.0.bias"))
                side = math.isqrt(value.shape[1] // filters)
                value = value.unflatten(1, (filters, side, side)).permute(0, 2, 3, 1).flatten(1)
            state[name.replace("encoder.fc.", "projection.linear.")] = value
        elif name.startswith("encoder.ln."):
            state[name.replace("encoder.ln.", "projection.norm.")] = recording.tensor(key)
    return state


def critic_state(recording: Recording, prefix: str) -> dict[str, torch.Tensor]:
    state = {}
    for depth, layer in enumerate((0, 2, 4)):
        pair = [f"{prefix}/Q{q}.trunk.{layer}" for q in (1, 2)]
        state[f"weights.{depth}"] = torch.stack([recording.tensor(f"{q}.weight").T for q in pair])
        state[f"biases.{depth}"] = torch.stack([recording.tensor(f"{q}.bias") for q in pair])[:, None]
    return state


def agent_state(recording: Recording, moment: str) -> dict[str, torch.Tensor]:
    """Every tensor of the recorded state, under our names."""
    actor_encoder = encoder_state(recording, f"{moment}/actor")
    critic_encoder = encoder_state(recording, f"{moment}/critic")
    for name, value in actor_encoder.items():
        if name.startswith("convolutions"):
            assert torch.equal(value, critic_encoder[name]), "the recording shares its convolutions"
    parts = {
        "encoder": critic_encoder,
        "critic": critic_state(recording, f"{moment}/critic"),
        "target_encoder": encoder_state(recording, f"{moment}/critic_target"),
        "target_critic": critic_state(recording, f"{moment}/critic_target"),
        "actor_projection": {
            name.removeprefix("projection."): value
            for name, value in actor_encoder.items()
            if name.startswith("projection")
        },
        "actor": {
            key.removeprefix(f"{moment}/actor/"): recording.tensor(key)
            for key in recording.names(f"{moment}/actor")
            if "/trunk." in key
        },
        "objective": {"W": recording.tensor(f"{moment}/W")},
    }
    state = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return state | {"log_alpha": recording.tensor(f"{moment}/log_alpha").reshape(())}


def recorded_agent(recording: Recording) -> Agent:
    meta = recording.meta
    objectives = ObjectiveConfigs(curl=CurlConfig(similarity_init="uniform"))
    shape = (recording.arrays["batch0/obs"].shape[1], meta["image_size"], meta["image_size"])
    agent = Agent(shape, meta["action_dim"], recorded_config(meta), objectives).double()
    agent.load_state_dict(agent_state(recording, "initial"))
    agent.updates = meta["first_step"]
    return agent


def recorded_inputs(recording: Recording, index: int) -> UpdateInputs:
    def get(name: str) -> torch.Tensor:
        value = recording.tensor(f"batch{index}/{name}")
        return value if value.dtype == torch.uint8 else value.double()

    unused = torch.zeros_like(get("noise_critic"))
    return UpdateInputs(
        observation=get("obs"),
        action=get("action"),
        reward=get("reward"),
        discount=recording.meta["discount"] * get("not_done"),
        next_observation=get("next_obs"),
        views={ViewSpec(1): get("pos")},
        next_noise=get("noise_critic"),
        noise=get("noise_actor") if f"batch{index}/noise_actor" in recording.arrays.files else unused,
    )


def assert_close(ours: torch.Tensor, recorded: torch.Tensor, name: str) -> None:
    tolerance = 1e-6 * recorded.abs().max() + 1e-9
    worst = (ours - recorded).abs().max()
    assert ours.shape == recorded.shape, name
    assert worst <= tolerance, f"{name}: differs by {worst:.3g}, allowed {tolerance:.3g}"


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: Path(path).stem)
def test_official_update_equals_the_recorded_one(path: str) -> None:
    recording = Recording(path)
    agent = recorded_agent(recording)
    assert recording.meta["steps"] > 0
    for index in range(recording.meta["steps"]):
        metrics = agent.update(recorded_inputs(recording, index))
        for key in recording.names(f"step{index}"):
            ours = LOSSES[key.removeprefix(f"step{index}/")]
            if ours is not None:
                assert_close(metrics[ours], recording.tensor(key).reshape(()), f"update {index}, {key}")
            elif key.endswith("target_entropy"):
                assert agent.target_entropy == recording.arrays[key].item()
        recorded = agent_state(recording, f"after{index}")
        state = agent.state_dict()
        assert state.keys() == recorded.keys()
        for name, value in recorded.items():
            assert_close(state[name], value, f"after update {index}, {name}")
