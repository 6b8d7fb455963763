"""An agent small enough to be updated in milliseconds, in float64, and batches for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from curl_rl.rl.replay import Batch

SHAPE, ACTIONS, BATCH = (6, 24, 24), 2, 5
SMALL = AgentConfig(
    batch_size=BATCH, crop=20, hidden=12, encoder=EncoderConfig(filters=3, strides=(2, 1), latent=4), actor_every=2
)


def make_agent(*, seed: int = 0, **changes: Any) -> Agent:
    torch.manual_seed(seed)
    return Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, **changes)).double()


def make_batch(seed: int = 0, future: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def pixels() -> torch.Tensor:
        return torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8, generator=generator)

    action = torch.rand(BATCH, ACTIONS, generator=generator, dtype=torch.float64) * 2 - 1
    reward = torch.randn(BATCH, 1, generator=generator, dtype=torch.float64)
    discount = torch.full((BATCH, 1), 0.9, dtype=torch.float64)
    return Batch(pixels(), action, reward, discount, pixels(), tuple(pixels() for _ in range(future)))


def make_inputs(agent: Agent, seed: int = 0) -> UpdateInputs:
    return agent.draw(make_batch(seed, len(agent.future_offsets)), torch.Generator().manual_seed(seed))


def changed(before: dict[str, torch.Tensor], agent: Agent) -> set[str]:
    """The parts of the agent that have changed."""
    return {name.split(".")[0] for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.state_dict().items()}


def trained_encoder(seed: int = 7) -> PixelEncoder:
    torch.manual_seed(seed)
    encoder = PixelEncoder((6, 20, 20), SMALL.encoder).double()
    with torch.no_grad():  # biases and norms unlike those of any fresh encoder
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def to_gpu(inputs: UpdateInputs) -> UpdateInputs:
    moved = {name: value.cuda() for name, value in inputs._asdict().items() if isinstance(value, torch.Tensor)}
    return inputs._replace(views={spec: view.cuda() for spec, view in inputs.views.items()}, **moved)
