"""A pixel environment for tests: a point, a target, no physics engine, a few dozen microseconds per frame.

`tiny-reach` is easy with vision and hard without. The action moves the point; the reward grows as it approaches the
target. Start and target are random in each episode, so an agent that ignores its observations stays below
`BASELINE_RETURN`, whatever its policy; one that uses them exceeds `SOLVED_RETURN` after a minute of training on one
core. Only the point's position relative to the target matters, and a margin keeps both inside any random crop.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

EPISODE_STEPS = 25
"""Environment steps in an episode, after which it is truncated."""

SOLVED_RETURN = 15.0
"""A working agent's mean return exceeds this. Moving straight to the target yields 22; always missing it by 1.5 pixels
of 32 yields 17."""

BASELINE_RETURN = 8.0
"""The mean return of any agent that ignores its observations is below this: constant, random, or fed another episode's
frames (all about 5)."""

STEP = 0.2
"""Distance that an action of 1 moves the point in the arena [-1, 1] x [-1, 1]: 10 steps from wall to wall."""

_FIRST_DISTANCE = 0.5  # an episode that starts at the target would teach and measure little

# In fractions of the image. A crop of 28 pixels from 32 cuts off up to 1/8 on each side: the arena is surrounded by
# that margin plus the larger disc's radius.
_MARGIN = 1 / 8
_TARGET_RADIUS = 0.10
_POINT_RADIUS = 0.06
_HALF_WIDTH = 0.5 - _MARGIN - _TARGET_RADIUS

_BACKGROUND, _TARGET, _POINT = np.array([[30, 30, 60], [230, 60, 40], [80, 250, 200]], np.float32)

State = NDArray[np.float64]


class TinyReach(gymnasium.Env[State, NDArray[np.float32]]):
    """The environment; its observation is the true state, point (2,) followed by target (2,).

    Args:
        size: height and width of the image, in pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    state_names = ("point/x", "point/y", "target/x", "target/y")
    """Names of the numbers of its state."""
    entry_lengths = {"point": 2, "target": 2}
    """Length of each part of its observation."""

    def __init__(self, *, size: int) -> None:
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float64)
        self.episode_steps = EPISODE_STEPS
        self.point: State = np.zeros(2)
        self.target: State = np.zeros(2)
        self._steps = 0
        self._size = size
        self._centers = _centers(size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        """Places point and target at random; `options` are ignored."""
        super().reset(seed=seed)
        self._steps = 0
        while True:
            self.point, self.target = self.np_random.uniform(-1.0, 1.0, (2, 2))
            if np.linalg.norm(self.point - self.target) >= _FIRST_DISTANCE:
                return self.physical_state(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """Moves the point by `STEP * action`; walls stop it."""
        self.point = np.clip(self.point + STEP * np.clip(action, -1.0, 1.0).astype(np.float64), -1.0, 1.0)
        self._steps += 1
        return self.physical_state(), self._reward(), False, self._steps >= EPISODE_STEPS, {}

    def render(self) -> NDArray[np.uint8]:
        """The image of the current state, (size, size, 3), antialiased; x points right, y down."""
        return self._drawn(self._size, self._centers)

    def large_picture(self, size: int) -> NDArray[np.uint8]:
        """The image of the current state in another size, (size, size, 3)."""
        return self._drawn(size, _centers(size))

    def _drawn(self, size: int, centers: NDArray[np.float32]) -> NDArray[np.uint8]:
        picture = np.broadcast_to(_BACKGROUND, (size, size, 3))
        for place, radius, color in ((self.target, _TARGET_RADIUS, _TARGET), (self.point, _POINT_RADIUS, _POINT)):
            x, y = (0.5 + _HALF_WIDTH * place).astype(np.float32)
            distance = np.sqrt((centers - x) ** 2 + (centers[:, None] - y) ** 2)
            coverage = np.clip(0.5 + (radius - distance) * size, 0.0, 1.0)[..., None]
            picture = picture + coverage * (color - picture)
        return np.rint(picture).astype(np.uint8)

    def entry(self, name: str) -> State:
        """A part of the current observation, (2,)."""
        return {"point": self.point, "target": self.target}[name]

    def physical_state(self) -> State:
        """The current state, (4,)."""
        return np.concatenate([self.point, self.target])

    def _reward(self) -> float:
        """In [0, 1]: a slope that guides from everywhere, plus a peak that rewards precision."""
        distance = float(np.linalg.norm(self.point - self.target))
        return float(0.3 * (1.0 - distance / np.sqrt(8.0)) + 0.7 * np.exp(-((distance / 0.3) ** 2)))


def _centers(size: int) -> NDArray[np.float32]:
    """The centers of the pixels, (size,), in fractions of the image."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)
