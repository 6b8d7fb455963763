"""Any gymnasium environment that renders, with its images resized."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import catalog, rendering, returned
from .proprioception import entry_lengths
from .viewpoint import camera_keywords, choose_camera

_BEGINNING = ("observation", "info")
_OUTCOME = ("observation", "reward", "terminated", "truncated", "info")
_SEED = 0  # of the trial; a run's episodes have their own


class Foreign(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment `gym_id`, with square images from `render()`.

    It is tried out once, with a seed: what it lacks is said here rather than in the middle of a run.

    Args:
        gym_id: its id in gymnasium's registry, e.g. `CarRacing-v3`, or `my_module:MyEnv-v0` with the module that
            registers it; see `envs.catalog.find`.
        size: height and width of the images, in pixels. Other aspect ratios are squeezed; shrinking averages over
            areas.
        camera: number or name of the camera of a MuJoCo environment, or of one that takes gymnasium's `camera_id` and
            `camera_name`; None leaves the choice to the environment.

    Its physical state is `info["state"]`, with names `state/0`, `state/1`, ...; it is empty if the environment provides
    none.

    Raises:
        ValueError: the environment does not exist, needs a missing package, cannot render, renders something other
            than a picture (`envs.returned.rgb`), fails in its first step, or has no such camera.
    """

    def __init__(self, gym_id: str, *, size: int, camera: int | str | None = None) -> None:
        self._size = size
        super().__init__(_make(gym_id, camera))
        self._state = np.empty(0)
        self.state_names: tuple[str, ...] = ()
        """Names of the numbers in `physical_state()`."""
        self.entry_lengths = entry_lengths(self.env.observation_space)
        """Length of each vector of the environment's own observation; the only one is called `state`."""
        self._newest: Any = None
        try:
            self._try_out(f"environment gym:{gym_id}")
        except ValueError:
            with contextlib.suppress(Exception):
                self.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the wrapped environment.

        Raises:
            envs.returned.Unusable: it returned something else than an observation and an info.
        """
        observation, info = returned.outcome("reset", _BEGINNING, self.env.reset(seed=seed, options=options))
        self._state, self._newest = _state_in(info), observation
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the wrapped environment.

        Raises:
            envs.returned.Unusable: it returned something else than five values, or its reward is not a number.
        """
        observation, reward, *ends, info = returned.outcome("step", _OUTCOME, self.env.step(action))
        self._state, self._newest = _state_in(info), observation
        terminated, truncated = map(bool, ends)
        return observation, returned.reward(reward), terminated, truncated, info

    def entry(self, name: str) -> Any:
        """The current value of a vector of the environment's own observation."""
        return self._newest[name] if isinstance(self._newest, dict) else self._newest

    def physical_state(self) -> NDArray[np.float64]:
        """The current state, (D,)."""
        return self._state

    def render(self) -> NDArray[np.uint8]:
        """The image of the current state, (size, size, 3).

        Raises:
            envs.returned.Unusable: the environment returned something else than a picture.
        """
        self._draw_to_own_context()
        self._drawn = Image.fromarray(np.ascontiguousarray(returned.rgb(self.env.render())))
        return np.asarray(self._drawn.resize((self._size, self._size), Image.Resampling.BOX))

    def large_picture(self, size: int) -> NDArray[np.uint8]:
        """The newest result of `render()` in another size, (size, size, 3). Rendering again might have effects."""
        return np.asarray(self._drawn.resize((size, size), Image.Resampling.LANCZOS))

    def _try_out(self, field: str) -> None:
        """Makes a reset, a picture and a step: many environments discover a missing package only when they render.

        Raises:
            ValueError: something failed, or returned what cannot be used.
        """
        with _in_one_line(field):
            self.reset(seed=_SEED)
            self.state_names = tuple(f"state/{number}" for number in range(len(self._state)))
            self.render()
            if isinstance(self.env.action_space, gymnasium.spaces.Box):  # `PixelEnv` refuses others in words of its own
                self.env.action_space.seed(_SEED)
                self.step(self.env.action_space.sample())

    def close(self) -> None:
        """Closes the wrapped environment.

        Frees the OpenGL resources of gymnasium's MuJoCo environments in their own context. gymnasium leaves that to the
        garbage collector, which may do it in the context of a newer environment: that one's images would turn black.
        """
        viewer = self._viewer()
        if viewer is not None:
            with rendering.borrowed_thread():
                viewer.make_context_current()
                viewer.con.free()
        super().close()

    def _draw_to_own_context(self) -> None:
        """Makes a MuJoCo environment's OpenGL context current, which gymnasium does only once: otherwise the older of
        two environments in one process would draw with the context of the newer."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.make_context_current()

    def _viewer(self) -> Any:
        """What draws a MuJoCo environment of gymnasium; None for others, and before its first image."""
        return getattr(getattr(self.env.unwrapped, "mujoco_renderer", None), "viewer", None)


def _make(gym_id: str, camera: int | str | None) -> gymnasium.Env[Any, Any]:
    """Creates the environment.

    Raises:
        ValueError: it does not exist, does not render, or has no such camera.
    """
    field, spec = f"environment gym:{gym_id}", catalog.find(gym_id)
    if "mujoco" in str(spec.entry_point):
        rendering.choose_backend()
    with _in_one_line(field):
        chosen: dict[str, Any] = {} if camera is None else camera_keywords(spec, camera)
        env: gymnasium.Env[Any, Any] = gymnasium.make(spec.id, render_mode="rgb_array", **chosen)
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        env.close()
        raise ValueError(f"{field} must support the render mode rgb_array, got {list(modes)}")
    if camera is not None:
        try:
            choose_camera(env, camera, f"gym:{gym_id}", passed=bool(chosen))
        except ValueError:
            env.close()
            raise
    return env


@contextlib.contextmanager
def _in_one_line(field: str) -> Iterator[None]:
    """Turns any exception of an environment's code into a ValueError of one line, which names its place."""
    try:
        yield
    except returned.Unusable as error:
        raise ValueError(f"{field}: {error}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"{field} cannot be created: {' '.join(str(error).split())}") from error
    except Exception as error:
        if isinstance(error, TypeError) and "unexpected keyword argument 'render_mode'" in str(error):
            raise ValueError(f"{field} does not render: it takes no render_mode") from error
        if "mujoco" in sys.modules:
            rendering.choose_backend()  # if there is none, this says so and what to install
        raise ValueError(f"{field} cannot be created: it raised {catalog.told(error)}") from error


def _state_in(info: Any) -> NDArray[np.float64]:
    """`info["state"]` as a new array (D,); D = 0 if there is no such entry, or no numbers in it."""
    try:
        return np.array(info.get("state", ()), np.float64).reshape(-1)
    except (AttributeError, TypeError, ValueError):
        return np.empty(0)
