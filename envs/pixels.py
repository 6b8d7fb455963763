"""Pixel observations of an environment: frame stacks, repeated actions, actions in [-1, 1].

`PixelEnv` is the interface that an agent sees, regardless of the wrapped environment.
"""

import atexit
import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .proprioception import as_vector, chosen_entries

PIXELS = "pixels"
"""Name of the frame stack in an observation with proprioception."""

Observation = Any
"""A frame stack, uint8 (3*stack, size, size); with proprioception, a dict that holds it."""
Action = NDArray[np.float32]


class PixelEnv(gymnasium.Env[Observation, Action]):
    """An environment whose observation is the stack of its latest frames.

    Observation: uint8 (3*stack, size, size), channels first, oldest frame first; after a reset, the first frame
    repeated `stack` times. Every observation is a new array that is never modified later.

    With `proprioception`, an observation is a dict: the frame stack under `PIXELS`, and each entry of the wrapped
    environment's own observation that it names, float32 (D,), as it is at the newest frame.

    Action: float32 (A,) in [-1, 1], mapped linearly to the bounds of the wrapped environment. Values outside [-1, 1]
    are clipped; NaN is refused.

    A step repeats the action `action_repeat` times, stops early if the episode ends, sums the rewards and renders one
    image. `info["environment_steps"]` is the number of steps of the wrapped environment in this call.

    An episode is truncated after `max_episode_steps` steps of the wrapped environment, even in the middle of an action,
    like one that reaches the wrapped environment's own time limit.

    `physical_state()` is the state shown by the newest frame if the wrapped environment has a method of that name and
    `state_names`; otherwise it is empty.

    Args:
        env: an environment with `render_mode="rgb_array"`, square images (size, size, 3) of uint8, and a bounded
            one-dimensional Box of actions. `PixelEnv` owns it and closes it in `close()`, when the `PixelEnv` is
            garbage-collected, or when the interpreter exits.
        name: its name in error messages.
        size: height and width of its images, in pixels.
        stack: frames in an observation.
        action_repeat: environment steps per agent step.
        proprioception: names of entries of the environment's `entry_lengths`, which `entry(name)` returns; "all" names
            every one.
        max_episode_steps: environment steps after which an episode is truncated, unless the wrapped environment ends it
            before; None adds no limit to its own.

    Raises:
        ValueError: the actions of `env` are not a bounded one-dimensional Box, or it has no such entries.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        name: str,
        size: int,
        stack: int,
        action_repeat: int,
        proprioception: str | Sequence[str] = (),
        max_episode_steps: int | None = None,
    ) -> None:
        actions = env.action_space
        if not isinstance(actions, gymnasium.spaces.Box) or len(actions.shape) != 1:
            raise ValueError(
                f"environment {name} has actions {actions}; only a one-dimensional Box of real numbers is supported"
            )
        if not actions.is_bounded():
            raise ValueError(
                f"environment {name} has unbounded actions {actions}; finite bounds are needed to scale them"
            )
        self.env = env
        low, high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        # Center and half width instead of low + fraction * width: bounds of [-1, 1] pass actions without rounding.
        self._center, self._half_width = (low + high) / 2, (high - low) / 2
        self._action_repeat = action_repeat
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=stack)
        self._over = True
        self._limit, self._steps = max_episode_steps or math.inf, 0
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, actions.shape, np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 255, (3 * stack, size, size), np.uint8)
        self._entries: dict[str, int] = {}
        if proprioception:
            self._entries = chosen_entries(getattr(env, "entry_lengths", {}), proprioception, name)
            beside = {entry: gymnasium.spaces.Box(-np.inf, np.inf, (n,)) for entry, n in self._entries.items()}
            self.observation_space = gymnasium.spaces.Dict({PIXELS: self.observation_space, **beside})
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": float(env.metadata.get("render_fps") or 30) / action_repeat,
        }
        # The environments of this package have episode_steps; for others the limit is in gymnasium's registry.
        steps = getattr(env, "episode_steps", None) or (env.spec and env.spec.max_episode_steps) or math.inf
        steps = min(steps, self._limit)
        self.max_episode_steps: int | None = math.ceil(steps / action_repeat) if steps < math.inf else None
        """Agent steps in an episode that runs to its time limit; None if there is no limit."""

        self.state_names: tuple[str, ...] = getattr(env, "state_names", ())
        """Names of the numbers in `physical_state()`; empty if the wrapped environment has none."""

        self._close = weakref.finalize(self, env.close)
        # finalize also runs at exit, but possibly after EGL has been shut down; this hook runs before.
        atexit.register(self._close)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode, determined by the seed or else by the state of the wrapped environment's generator.

        Raises:
            gymnasium.error.ClosedEnvironmentError: `close()` was called.
        """
        if not self._close.alive:
            raise gymnasium.error.ClosedEnvironmentError("the environment is closed: create another one")
        super().reset(seed=seed)
        self.env.reset(seed=seed, options=options)
        self._over, self._steps = False, 0
        frame = self._frame()
        self._frames.extend([frame] * (self._frames.maxlen or 0))
        return self._observation(), {"environment_steps": 0}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Makes one agent step.

        Raises:
            ValueError: the action has another shape or holds NaN.
            gymnasium.error.ResetNeeded: the episode is over, or none has started.
        """
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has started: call reset() before step()")
        inner_action = self._scaled(action)
        total, steps, terminated, truncated = 0.0, 0, False, False
        while steps < self._action_repeat and not (terminated or truncated):
            _, reward, terminated, truncated, _ = self.env.step(inner_action)
            total += float(reward)
            steps += 1
            truncated = truncated or self._steps + steps >= self._limit
        self._steps += steps
        self._over = bool(terminated or truncated)
        self._frames.append(self._frame())
        return self._observation(), total, bool(terminated), bool(truncated), {"environment_steps": steps}

    def render(self) -> NDArray[np.uint8]:
        """The newest frame as an image, (size, size, 3).

        Raises:
            gymnasium.error.ResetNeeded: no episode has started.
        """
        if not self._frames:
            raise gymnasium.error.ResetNeeded("no frame exists before the first reset(): call reset() before render()")
        return np.ascontiguousarray(self._frames[-1].transpose(1, 2, 0))

    def large_picture(self, size: int) -> NDArray[np.uint8]:
        """The newest frame in another size, (size, size, 3), for people: drawn anew if the wrapped environment has a
        method `large_picture(size)`, else scaled. Observations are not affected.

        Raises:
            gymnasium.error.ResetNeeded: no episode has started.
        """
        inner: Any = self.env
        draw = getattr(inner, "large_picture", None)
        drawn: NDArray[np.uint8] = self.render() if not self._frames or draw is None else draw(size)
        if drawn.shape[0] == size:
            return drawn
        nearest = np.arange(size) * len(drawn) // size
        return np.ascontiguousarray(drawn[nearest][:, nearest])

    def physical_state(self) -> NDArray[np.float64]:
        """The state behind the newest frame: a new array `(D,)`, named by `state_names`."""
        inner: Any = self.env
        return np.array(inner.physical_state() if self.state_names else (), np.float64)

    def close(self) -> None:
        """Closes the wrapped environment, including its OpenGL context; may be called repeatedly."""
        self._over = True
        self._close()
        atexit.unregister(self._close)

    def _observation(self) -> Observation:
        stacked = np.concatenate(self._frames)
        if not self._entries:
            return stacked
        inner: Any = self.env
        return {PIXELS: stacked, **{name: as_vector(inner.entry(name)) for name in self._entries}}

    def _frame(self) -> NDArray[np.uint8]:
        picture: Any = self.env.render()
        return np.ascontiguousarray(picture.transpose(2, 0, 1))

    def _scaled(self, action: Action) -> NDArray[Any]:
        given = np.asarray(action, np.float64)
        if given.shape != self._center.shape:
            raise ValueError(f"action must have shape {self._center.shape}, got {given.shape}")
        if np.isnan(given).any():
            raise ValueError(f"action must hold numbers in [-1, 1], got NaN in {given.tolist()}")
        inner = self._center + np.clip(given, -1.0, 1.0) * self._half_width
        kind = self.env.action_space.dtype
        # Otherwise whole numbers would be rounded towards 0, which only an action of exactly 1 leaves.
        return (np.rint(inner) if np.issubdtype(kind, np.integer) else inner).astype(kind)
