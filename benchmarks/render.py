"""Milliseconds to render a frame, `faithful` against `fast`, per task, and the distance between the images."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import envs
from benchmarks.timing import Row, compared
from envs.rendering import Quality, choose_backend

# The six tasks in the CURL paper's table.
TASKS = ("cartpole-swingup", "cheetah-run", "reacher-easy", "ball_in_cup-catch", "walker-walk", "finger-spin")
STEPS_BETWEEN_FRAMES = 4


def measure(rounds: int) -> list[Row]:
    """One row per task. Each quality renders in its own process, because two contexts in one process give wrong
    timings; the two take turns, frame by frame."""
    rows, drawn_by = [], choose_backend().device
    for task in tqdm(TASKS, desc="render", leave=False):
        with contextlib.ExitStack() as stack:
            spawn = multiprocessing.get_context("spawn")
            pools = [
                stack.enter_context(
                    ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(task, quality))
                )
                for quality in _QUALITIES
            ]
            turns = [[pool.submit(_draw).result() for pool in pools] for _ in range(_WARM_UP + 10 * rounds)]
        (plain, faithful), (ours, fast) = (zip(*drawn, strict=True) for drawn in zip(*turns[_WARM_UP:], strict=True))
        apart = np.abs(np.stack(faithful).astype(np.float64) - np.stack(fast)).mean()
        note = f"pictures {apart:.2f} of 255 apart on average; plain: faithful, ours: fast; drawn by {drawn_by}"
        rows.append(compared(f"render {task}, 100×100", list(plain), list(ours), note))
    return rows


_QUALITIES: tuple[Quality, Quality] = ("faithful", "fast")
_WARM_UP = 3  # frames

_episode: Iterator[tuple[float, npt.NDArray[np.uint8]]]  # in a rendering process


def _begin(task: str, quality: Quality) -> None:
    global _episode
    _episode = frames(task, quality)


def _draw() -> tuple[float, npt.NDArray[np.uint8]]:
    return next(_episode)


def frames(task: str, quality: Quality) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Frames ``(100, 100, 3)`` of a seeded episode, each with the seconds it took to render, without simulation."""
    environment = envs.make(task, size=100, stack=1, action_repeat=STEPS_BETWEEN_FRAMES, quality=quality)
    inner = environment.unwrapped.env  # type: ignore[attr-defined]
    environment.reset(seed=0)
    generator = np.random.default_rng(0)
    while True:
        environment.step(np.asarray(generator.uniform(-1, 1, environment.action_space.shape), np.float32))
        begin = time.perf_counter()
        picture = inner.render()
        yield time.perf_counter() - begin, picture
