"""The tasks of the DeepMind Control Suite (Tassa et al., 2018) as gymnasium environments.

Their observation is the flattened physical state; images come from `render()`, so repeated actions cost only one image.
dm_control is imported when the first environment is created, not with this module.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from . import rendering
from .viewpoint import camera_number

TASKS: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
"""Every domain of the suite with its tasks, as listed in `dm_control.suite.TASKS_BY_DOMAIN`."""

CAMERAS = {"quadruped": 2}
"""Cameras other than 0, by domain. As in PlaNet, Dreamer and DrQ, the camera follows the body; quadruped's camera 0 is
static and loses it from view."""

_MODEL_SEED = 0  # lqr samples its stiffness when it is built; every instance must be the same task

State = NDArray[np.float64]


class DMControl(gymnasium.Env[State, NDArray[np.float64]]):
    """One task of the suite.

    `terminated` means a terminal state (dm_control's discount 0, which only lqr has), `truncated` the time limit. After
    `reset(seed=...)` an episode depends only on the seed and the actions. The generator is numpy's RandomState, as in
    dm_control, so the episode equals that of `suite.load(..., task_kwargs={"random": seed})`.

    Args:
        domain, task: names, as in `TASKS`.
        size: height and width of the image, in pixels.
        quality: see `envs.rendering.Quality`.
        camera: number or name of the camera; None takes that of `CAMERAS`.

    Raises:
        ValueError: the model has no such camera.
        envs.rendering.RenderingUnavailable: OpenGL does not work on this machine.
        ImportError: dm_control is not installed, as after a plain `pip install` on Python 3.13 and newer.
    """

    render_mode = "rgb_array"

    def __init__(
        self, domain: str, task: str, *, size: int, quality: rendering.Quality, camera: int | str | None = None
    ) -> None:
        rendering.choose_backend()
        # Imported here because dm_control picks its backend on import; importing envs alone needs neither.
        import mujoco

        try:
            from dm_control import suite
        except ModuleNotFoundError as error:
            if error.name != "dm_control":
                raise
            raise ImportError(
                "the tasks of DeepMind Control need dm_control, which is not installed: run python "
                "scripts/install_dm_control.py"
            ) from None

        from .camera import Camera
        from .physical_state import JointState

        with _without_warnings():
            self._env = suite.load(domain, task, task_kwargs={"random": _MODEL_SEED})
        spec = self._env.action_spec()
        bounds = np.broadcast_to([[spec.minimum], [spec.maximum]], (2, 1, *spec.shape))[:, 0]
        # MuJoCo represents a missing limit by 1e10.
        low, high = np.where(np.abs(bounds) < mujoco.mjMAXVAL, bounds, [[-np.inf], [np.inf]])
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        entries = self._env.observation_spec()
        self.entry_lengths = {name: int(np.prod(entry.shape)) for name, entry in entries.items()}
        """Length of each entry of the task's own observation, such as `position`."""
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (sum(self.entry_lengths.values()),), np.float64)
        self._observation: dict[str, Any] = {}
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 1 / self._env.control_timestep()}
        physics = self._env.physics
        number = CAMERAS.get(domain, 0)
        if camera is not None:
            number = camera_number(physics.model.ptr, camera, f"{domain}-{task}")
        self._camera = Camera(physics.model.ptr, physics.data.ptr, camera_id=number, size=size, quality=quality)
        self._joints = JointState(physics.model.ptr)
        self.state_names = self._joints.names
        """Names of the numbers in `physical_state()`; see `envs.physical_state`."""
        limit = self._env._step_limit  # dm_control has no public attribute; infinite if there is no limit
        self.episode_steps = int(limit) if np.isfinite(limit) else None
        """Control steps in an episode that runs to its time limit; None if there is no limit."""
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        """Starts an episode. Without a seed the generator continues from its current state; `options` are ignored.

        Raises:
            ValueError: the seed is out of range for numpy's RandomState.
        """
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1 for DeepMind Control, got {seed}")
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._env.task.random.seed(self.np_random.integers(2**32) if seed is None else seed)
            self._seeded = True
        step = self._env.reset()
        self._observation = step.observation
        self._camera.upload_terrain()
        return _flat(step.observation), {}

    def step(self, action: NDArray[np.float64]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """Advances by one control step of the task."""
        step = self._env.step(action)
        self._observation = step.observation
        terminated = step.last() and step.discount == 0.0
        return _flat(step.observation), float(step.reward), terminated, step.last() and not terminated, {}

    def render(self) -> NDArray[np.uint8]:
        """The image of the current state, (size, size, 3)."""
        return self._camera.picture()

    def large_picture(self, size: int) -> NDArray[np.uint8]:
        """The image of the current state in another size, (size, size, 3)."""
        return self._camera.picture(size)

    def entry(self, name: str) -> Any:
        """The current value of an entry of the task's own observation."""
        return self._observation[name]

    def physical_state(self) -> State:
        """Current joint positions and velocities, (D,)."""
        return self._joints.read(self._env.physics.data.ptr)

    def close(self) -> None:
        """Frees the OpenGL context and the simulation; call it only once."""
        self._camera.close()
        self._env.physics.free()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences warnings about elements of dm_control's models that newer MuJoCo versions deprecate."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _flat(observation: dict[str, Any]) -> State:
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float64)
