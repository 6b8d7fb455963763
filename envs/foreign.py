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

    Raises:
        ValueError: it does not exist, lacks a package, or cannot draw.
    """

    def __init__(self, gym_id: str, *, size: int) -> None:
        self._size = size
        super().__init__(_make(gym_id))

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


def _make(gym_id: str) -> gymnasium.Env[Any, Any]:
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
        env.reset()
        env.render()
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"{field} cannot be made: {' '.join(str(error).split())}") from error
    except TypeError as error:
        if "render_mode" not in str(error):
            raise
        raise ValueError(f"{field} does not draw: it takes no render_mode") from error
    return env
