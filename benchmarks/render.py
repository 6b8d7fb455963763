"""Milliseconds to draw a frame, `faithful` against `fast`, task by task, and how far apart the pictures are."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import envs
from benchmarks.timing import Row, compared
from envs.rendering import Quality

# The six of the CURL paper's table.
TASKS = ("cartpole-swingup", "cheetah-run", "reacher-easy", "ball_in_cup-catch", "walker-walk", "finger-spin")
STEPS_BETWEEN_FRAMES = 4


def measure(rounds: int) -> list[Row]:
    """One row a task. Each quality draws in a process of its own: two contexts in one give wrong timings."""
    rows = []
    for task in tqdm(TASKS, desc="render", leave=False):
        (plain, faithful), (ours, fast) = (_in_its_own_process(task, quality, 10 * rounds) for quality in _QUALITIES)
        apart = np.abs(faithful.astype(np.float64) - fast).mean()
        note = f"pictures {apart:.2f} of 255 apart on average; plain: faithful, ours: fast"
        rows.append(compared(f"render {task}, 100×100", plain, ours, note))
    return rows


_QUALITIES: tuple[Quality, Quality] = ("faithful", "fast")


def _in_its_own_process(task: str, quality: Quality, frames: int) -> tuple[list[float], npt.NDArray[np.uint8]]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(draw, task, quality, frames).result()


def draw(task: str, quality: Quality, frames: int) -> tuple[list[float], npt.NDArray[np.uint8]]:
    """Seconds of each frame, without the simulation, and the frames ``(frames, 100, 100, 3)`` of a seeded episode."""
    environment = envs.make(task, size=100, stack=1, action_repeat=STEPS_BETWEEN_FRAMES, quality=quality)
    inner = environment.unwrapped.env  # type: ignore[attr-defined]
    environment.reset(seed=0)
    generator = np.random.default_rng(0)
    seconds, pictures = [], []
    for _ in range(frames + 3):
        environment.step(generator.uniform(-1, 1, environment.action_space.shape).astype(np.float32))
        begin = time.perf_counter()
        pictures.append(inner.render())
        seconds.append(time.perf_counter() - begin)
    environment.close()
    return seconds[3:], np.stack(pictures[3:])
