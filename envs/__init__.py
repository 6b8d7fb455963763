"""Gymnasium environments seen through pixels.

    env = envs.make("cheetah-run", size=100, stack=3, action_repeat=4)

Names are `<domain>-<task>` for every task of the DeepMind Control Suite (`ball_in_cup-catch`), `tiny-reach` for a
small environment without a physics engine, and `gym:<id>` for any other gymnasium environment that draws
(`gym:CarRacing-v3`). The first two are in gymnasium's registry too, once this package is imported:
`gymnasium.make("pixels/cheetah-run-v0", size=84)`, or `gymnasium.make("envs:pixels/cheetah-run-v0")` without.

What is behind a frame is asked by `env.physical_state()`, numbers that `env.state_names` names: joint positions and
velocities in DeepMind Control (`envs.physical_state`), point and target in tiny-reach, what a gymnasium environment
gives as `info["state"]`. An agent never sees it; it is there to find out what an encoder has understood.

This package knows nothing of any agent. Importing it is cheap and needs no OpenGL: dm_control and MuJoCo are imported
with the first environment of theirs. Vector environments must start their workers by "spawn" or "forkserver"; see
`envs.rendering`.
"""

import difflib
from typing import Any, get_args

import gymnasium

from envs.dmcontrol import TASKS, DMControl
from envs.foreign import Foreign
from envs.pixels import Action, Observation, PixelEnv
from envs.rendering import Quality
from envs.tiny import TinyReach

__all__ = ["NAMES", "make"]

NAMES: tuple[str, ...] = ("tiny-reach", *(f"{domain}-{task}" for domain, tasks in TASKS.items() for task in tasks))
"""Every name that `make` knows; beside them it takes `gym:<id>`. lqr's two tasks are refused: their actions have no
bounds that -1 and 1 could stand for."""


def make(
    name: str, *, size: int = 100, stack: int = 3, action_repeat: int = 1, quality: Quality = "faithful"
) -> PixelEnv:
    """An environment whose observations are frame stacks, see `envs.pixels.PixelEnv`.

    Args:
        name: one of `NAMES`, or `gym:<id>`.
        size: height and width of a frame, in pixels.
        stack: frames in an observation.
        action_repeat: environment steps to one agent step.
        quality: how DeepMind Control is drawn, see `envs.rendering.Quality`; the other environments have one way only.

    Returns:
        An environment with observations uint8 (3*stack, size, size) and actions float32 (A,) in [-1, 1].

    Raises:
        ValueError: an argument is out of range, or the environment cannot serve; the line says which and why.
        envs.rendering.RenderingUnavailable: the environment draws with OpenGL and this machine cannot.
    """
    for field, value in (("size", size), ("stack", stack), ("action_repeat", action_repeat)):
        if value < 1:
            raise ValueError(f"{field}: {value} is too small; 1 or more is right")
    if quality not in get_args(Quality):
        raise ValueError(f"quality: {quality!r} is unknown; {' or '.join(get_args(Quality))} is right")
    inner = _inner(name, size, quality)
    try:
        return PixelEnv(inner, name=name, size=size, stack=stack, action_repeat=action_repeat)
    except ValueError:
        inner.close()
        raise


def make_registered(
    name: str,
    size: int = 100,
    stack: int = 3,
    action_repeat: int = 1,
    quality: Quality = "faithful",
    render_mode: str = "rgb_array",
) -> gymnasium.Env[Observation, Action]:
    """What gymnasium's registry calls: `make`, and the `render_mode` that gymnasium's users are used to giving.

    Raises:
        ValueError: as `make`; or another render mode than `rgb_array`, the only one.
    """
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode: {render_mode!r} is not offered; rgb_array is right")
    return make(name, size=size, stack=stack, action_repeat=action_repeat, quality=quality)


def _inner(name: str, size: int, quality: Quality) -> gymnasium.Env[Any, Any]:
    """The environment that draws single pictures of `size`."""
    if name.startswith("gym:"):
        return Foreign(name.removeprefix("gym:"), size=size)
    if name == "tiny-reach":
        return TinyReach(size=size)
    domain, _, task = name.partition("-")
    if task in TASKS.get(domain, ()):
        return DMControl(domain, task, size=size, quality=quality)
    nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
    raise ValueError(f"environment {name!r} is unknown; the nearest is {nearest!r} (others: 'gym:<gymnasium id>')")


for _name in NAMES:
    if f"pixels/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"pixels/{_name}-v0", entry_point="envs:make_registered", kwargs={"name": _name})
