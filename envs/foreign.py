"""Any gymnasium environment that draws, its pictures brought to the size that was asked for."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import rendering


class Foreign(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment `gym_id`, with square pictures from `render()`.

    Args:
        gym_id: its name in gymnasium's registry, e.g. `CarRacing-v3`.
        size: height and width of the pictures, in pixels. Another aspect ratio is squeezed; shrinking averages over
            areas.

    Its physical state is what it gives as `info["state"]`, numbers called `state/0`, `state/1`, ...; it has none where
    it gives no such thing.

    Raises:
        ValueError: it does not exist, lacks a package, or cannot draw.
    """

    def __init__(self, gym_id: str, *, size: int) -> None:
        self._size = size
        env, info = _make(gym_id)
        super().__init__(env)
        self._state = _state_in(info)
        self.state_names = tuple(f"state/{number}" for number in range(len(self._state)))
        """What the numbers of `physical_state()` are."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment inside."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._state = _state_in(info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment inside."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._state = _state_in(info)
        return observation, reward, terminated, truncated, info

    def physical_state(self) -> NDArray[np.float64]:
        """The state now, (D,)."""
        return self._state

    def render(self) -> NDArray[np.uint8]:
        """The picture of the present state, (size, size, 3)."""
        self._draw_to_own_context()
        picture = Image.fromarray(np.asarray(self.env.render(), np.uint8)).convert("RGB")
        return np.asarray(picture.resize((self._size, self._size), Image.Resampling.BOX))

    def _draw_to_own_context(self) -> None:
        """gymnasium's MuJoCo environments make their OpenGL context current once, not before each picture: of two in
        one process the older would draw with the younger's."""
        viewer = getattr(getattr(self.env.unwrapped, "mujoco_renderer", None), "viewer", None)
        if viewer is not None:
            viewer.make_context_current()


def _make(gym_id: str) -> tuple[gymnasium.Env[Any, Any], dict[str, Any]]:
    """The environment, and what it says of its first state."""
    field = f"environment gym:{gym_id}"
    try:
        if "mujoco" in str(gymnasium.spec(gym_id).entry_point):
            rendering.choose_backend()
        env: gymnasium.Env[Any, Any] = gymnasium.make(gym_id, render_mode="rgb_array")
        modes = env.metadata.get("render_modes") or []
        if "rgb_array" not in modes:
            env.close()
            raise ValueError(f"{field} does not draw to arrays: its render modes are {list(modes)}, not rgb_array")
        # Drawn once here: many environments find only then that a package is missing.
        _, info = env.reset()
        env.render()
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"{field} cannot be made: {' '.join(str(error).split())}") from error
    except TypeError as error:
        if "render_mode" not in str(error):
            raise
        raise ValueError(f"{field} does not draw: it takes no render_mode") from error
    return env, info


def _state_in(info: dict[str, Any]) -> NDArray[np.float64]:
    """`info["state"]` as a new array (D,); D = 0 where there is none, or something that is no numbers."""
    try:
        return np.array(info.get("state", ()), np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.empty(0)
