"""A pixel environment for tests: a point, a target, no physics engine, a few dozen microseconds a frame.

`tiny-reach` is hard without eyes and easy with them. The point moves by the action; the reward grows as it comes nearer
to the target. Start and target are drawn anew each episode, so an agent that does not look, however well chosen its
habits, stays below `BASELINE_RETURN`; one that looks exceeds `SOLVED_RETURN` after a minute of training on one core.
Only the place of the point relative to the target matters, and a margin keeps both in sight of a random crop.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

EPISODE_STEPS = 25
"""Environment steps to an episode; then it is truncated."""

SOLVED_RETURN = 15.0
"""A working agent's mean return lies above it. Going straight to the target gives 22, always missing it by 1.5 pixels
of 32 gives 17."""

BASELINE_RETURN = 8.0
"""The mean return of every agent that does not look lies below it: constant, random, or fed another episode's frames
(all about 5)."""

STEP = 0.2
"""How far an action of 1 moves the point, where the arena is [-1, 1] x [-1, 1]: 10 steps from wall to wall."""

_FIRST_DISTANCE = 0.5  # an episode that begins at the target would teach and measure little

# In fractions of the picture. A crop of 28 pixels from 32 cuts off up to 1/8 at any side: the margin, and then the
# larger disc's radius, stay free around the arena.
_MARGIN = 1 / 8
_TARGET_RADIUS = 0.10
_POINT_RADIUS = 0.06
_HALF_WIDTH = 0.5 - _MARGIN - _TARGET_RADIUS

_BACKGROUND, _TARGET, _POINT = np.array([[30, 30, 60], [230, 60, 40], [80, 250, 200]], np.float32)

State = NDArray[np.float64]


class TinyReach(gymnasium.Env[State, NDArray[np.float32]]):
    """The environment, its observation the true state: point (2,) and target (2,), one after the other.

    Args:
        size: height and width of the picture, in pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    state_names = ("point/x", "point/y", "target/x", "target/y")
    """What the numbers of its state are."""

    def __init__(self, *, size: int) -> None:
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float64)
        self.episode_steps = EPISODE_STEPS
        self.point: State = np.zeros(2)
        self.target: State = np.zeros(2)
        self._steps = 0
        self._size = size
        self._centers = ((np.arange(size) + 0.5) / size).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        """Place point and target anew; `options` are not used."""
        super().reset(seed=seed)
        self._steps = 0
        while True:
            self.point, self.target = self.np_random.uniform(-1.0, 1.0, (2, 2))
            if np.linalg.norm(self.point - self.target) >= _FIRST_DISTANCE:
                return self.physical_state(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """Move the point by `STEP * action`; walls stop it."""
        self.point = np.clip(self.point + STEP * np.clip(action, -1.0, 1.0).astype(np.float64), -1.0, 1.0)
        self._steps += 1
        return self.physical_state(), self._reward(), False, self._steps >= EPISODE_STEPS, {}

    def render(self) -> NDArray[np.uint8]:
        """The picture of the present state, (size, size, 3); x to the right, y downwards; edges antialiased."""
        picture = np.broadcast_to(_BACKGROUND, (self._size, self._size, 3))
        for place, radius, color in ((self.target, _TARGET_RADIUS, _TARGET), (self.point, _POINT_RADIUS, _POINT)):
            x, y = (0.5 + _HALF_WIDTH * place).astype(np.float32)
            distance = np.sqrt((self._centers - x) ** 2 + (self._centers[:, None] - y) ** 2)
            coverage = np.clip(0.5 + (radius - distance) * self._size, 0.0, 1.0)[..., None]
            picture = picture + coverage * (color - picture)
        return np.rint(picture).astype(np.uint8)

    def physical_state(self) -> State:
        """The state now, (4,)."""
        return np.concatenate([self.point, self.target])

    def _reward(self) -> float:
        """In [0, 1]: a slope that shows the way from everywhere, and a peak that asks for precision."""
        distance = float(np.linalg.norm(self.point - self.target))
        return float(0.3 * (1.0 - distance / np.sqrt(8.0)) + 0.7 * np.exp(-((distance / 0.3) ** 2)))
