"""Memory of a replay, and milliseconds to draw a batch of crops from it."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, compared, side_by_side
from benchmarks.update import ACTIONS, SHAPE, STACK, fill
from curl_rl.rl.agent import Agent, AgentConfig
from curl_rl.rl.replay import Replay, ReplayConfig
from examples import curl_in_one_file as plain_curl

CAPACITY = 100_000
STORED = 4000


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """Rows for memory at the paper's capacity, for its growth over many steps, and for sampling with cropping."""
    ours = Replay(ReplayConfig(CAPACITY), SHAPE, ACTIONS, stack=STACK, device=device)
    plain = plain_curl.Replay(CAPACITY, SHAPE, ACTIONS, device)
    arrays = (plain.observation, plain.next_observation, plain.action, plain.reward, plain.not_done)
    plain_gb, ours_gb = sum(array.nbytes for array in arrays) / 1e9, ours.nbytes / 1e9
    rows = [
        Row(
            f"memory of {CAPACITY:,} observations",
            ratio=plain_gb / ours_gb,
            note=f"plain {plain_gb:.2f} GB, ours {ours_gb:.2f} GB",
        )
    ]

    fill(ours, STORED)
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    for number in range(STORED):
        action = np.zeros(ACTIONS, np.float32)
        plain.add(pixels, action, 0.5, pixels[::-1], terminated=number % 250 == 249)
    agent = Agent(SHAPE, ACTIONS, AgentConfig(batch_size=batch)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    replay_generator = torch.Generator(ours.storage_device).manual_seed(0)
    numbers = np.random.default_rng(0)

    def draw() -> list[torch.Tensor]:
        drawn = agent.draw(ours.sample(batch, replay_generator, discount=0.99), generator)
        # In training our encoder converts them, to another type; here they become float32 like the plain ones.
        return [view.float() for view in (drawn.observation, drawn.next_observation, *drawn.views.values())]

    seconds = side_by_side(
        {"plain": lambda: plain.sample(batch, 84, 0.99, numbers), "ours": draw},
        rounds=5 * rounds,
        warm_up=3,
        device=device,
        description="sample and crop",
    )
    rows.append(compared(f"sample, crop and convert three views, batch {batch}", seconds["plain"], seconds["ours"]))
    rows.append(_growth(device))
    return rows


def _growth(device: torch.device, *, steps: int = 30_000) -> Row:
    """Growth of memory after a small replay is full and wraps around many times."""
    shape = (3 * STACK, 24, 24)
    replay = Replay(ReplayConfig(1000), shape, ACTIONS, stack=STACK, device=device)
    generator = torch.Generator(replay.storage_device).manual_seed(0)
    observation = np.zeros(shape, np.uint8)
    sizes = []
    for number in range(steps):
        if number % 250 == 0:
            replay.start_episode(observation)
        replay.add(np.zeros(ACTIONS), 0.0, observation, terminated=False, truncated=number % 250 == 249)
        if number % 10 == 0:
            replay.sample(32, generator, discount=0.99)
        if number in (steps // 3, steps - 1):
            sizes.append(_taken_mb(device))
    note = f"the process grew by {sizes[1] - sizes[0]:.1f} MB over {steps - steps // 3:,} steps of a full ring"
    return Row("memory over a long run", note=note)


def _taken_mb(device: torch.device) -> float:
    """Memory held by the process, in MB, on the host and on the GPU."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    reserved = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
    return (pages * resource.getpagesize() + reserved) / 2**20
