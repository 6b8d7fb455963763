"""Any gymnasium environment that renders, with its images resized."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import rendering
from envs.proprioception import entry_lengths
from envs.viewpoint import camera_keywords, choose_camera


class Foreign(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment `gym_id`, with square images from `render()`.

    Args:
        gym_id: its id in gymnasium's registry, e.g. `CarRacing-v3`.
        size: height and width of the images, in pixels. Other aspect ratios are squeezed; shrinking averages over
            areas.
        camera: number or name of the camera of a MuJoCo environment, or of one that takes gymnasium's `camera_id` and
            `camera_name`; None leaves the choice to the environment.

    Its physical state is `info["state"]`, with names `state/0`, `state/1`, ...; it is empty if the environment provides
    none.

    Raises:
        ValueError: the environment does not exist, needs a missing package, cannot render, or has no such camera.
    """

    def __init__(self, gym_id: str, *, size: int, camera: int | str | None = None) -> None:
        self._size = size
        env, info = _make(gym_id, camera)
        super().__init__(env)
        self._state = _state_in(info)
        self.state_names = tuple(f"state/{number}" for number in range(len(self._state)))
        """Names of the numbers in `physical_state()`."""
        self.entry_lengths = entry_lengths(env.observation_space)
        """Length of each vector of the environment's own observation; the only one is called `state`."""
        self._newest: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the wrapped environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._state, self._newest = _state_in(info), observation
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the wrapped environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._state, self._newest = _state_in(info), observation
        return observation, reward, terminated, truncated, info

    def entry(self, name: str) -> Any:
        """The current value of a vector of the environment's own observation."""
        return self._newest[name] if isinstance(self._newest, dict) else self._newest

    def physical_state(self) -> NDArray[np.float64]:
        """The current state, (D,)."""
        return self._state

    def render(self) -> NDArray[np.uint8]:
        """The image of the current state, (size, size, 3)."""
        self._draw_to_own_context()
        picture = Image.fromarray(np.asarray(self.env.render(), np.uint8)).convert("RGB")
        return np.asarray(picture.resize((self._size, self._size), Image.Resampling.BOX))

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


def _make(gym_id: str, camera: int | str | None) -> tuple[gymnasium.Env[Any, Any], dict[str, Any]]:
    """Creates the environment; returns it with the `info` of its first reset."""
    field = f"environment gym:{gym_id}"
    try:
        spec = gymnasium.spec(gym_id)
        if "mujoco" in str(spec.entry_point):
            rendering.choose_backend()
        chosen: dict[str, Any] = {} if camera is None else camera_keywords(spec, camera)
        env: gymnasium.Env[Any, Any] = gymnasium.make(gym_id, render_mode="rgb_array", **chosen)
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
        # Render once here: many environments discover a missing package only then.
        _, info = env.reset()
        env.render()
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"{field} cannot be created: {' '.join(str(error).split())}") from error
    except TypeError as error:
        if "render_mode" not in str(error):
            raise
        raise ValueError(f"{field} does not render: it takes no render_mode") from error
    return env, info


def _state_in(info: dict[str, Any]) -> NDArray[np.float64]:
    """`info["state"]` as a new array (D,); D = 0 if it is missing or not numeric."""
    try:
        return np.array(info.get("state", ()), np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.empty(0)
