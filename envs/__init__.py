"""Gymnasium environments seen through pixels.

    env = envs.make("cheetah-run", size=100, stack=3, action_repeat=4)

Names are `<domain>-<task>` for every task of the DeepMind Control Suite (`ball_in_cup-catch`), `tiny-reach` for a
small environment without a physics engine, and `gym:<id>` for any other gymnasium environment that renders
(`gym:CarRacing-v3`, or `gym:my_module:MyEnv-v0` with the module that registers it). The first two are also in
gymnasium's registry once this package is imported:
`gymnasium.make("pixels/cheetah-run-v0", size=84)`, or, without the import,
`gymnasium.make("envs:pixels/cheetah-run-v0")`.

`env.physical_state()` returns the state behind the newest frame, numbers named by `env.state_names`: joint positions
and velocities in DeepMind Control (`envs.physical_state`), point and target in tiny-reach, `info["state"]` in other
gymnasium environments. Agents never see it; it serves to measure what an encoder has learned.

This package is independent of any agent. Importing it is cheap and needs no OpenGL: dm_control and MuJoCo are imported
when the first environment that uses them is created. Vector environments must start their workers by "spawn" or
"forkserver"; see `envs.rendering`.
"""

from collections.abc import Sequence
from typing import Any, get_args

import gymnasium

from .catalog import nearest
from .dmcontrol import TASKS, DMControl
from .foreign import Foreign
from .pixels import Action, Observation, PixelEnv
from .rendering import Quality
from .tiny import TinyReach

__all__ = ["NAMES", "make"]

NAMES: tuple[str, ...] = ("tiny-reach", *(f"{domain}-{task}" for domain, tasks in TASKS.items() for task in tasks))
"""Every name that `make` knows, besides `gym:<id>`. lqr's two tasks are refused: their actions have no bounds to which
-1 and 1 could be mapped."""


def make(
    name: str,
    *,
    size: int = 100,
    stack: int = 3,
    action_repeat: int = 1,
    quality: Quality = "faithful",
    camera: int | str | None = None,
    proprioception: str | Sequence[str] = (),
    max_episode_steps: int | None = None,
) -> PixelEnv:
    """Creates an environment whose observations are frame stacks; see `envs.pixels.PixelEnv`.

    Args:
        name: one of `NAMES`, `gym:<id>`, or `gym:<module>:<id>`; see `envs.catalog.find`.
        size: height and width of a frame, in pixels.
        stack: frames in an observation.
        action_repeat: environment steps per agent step.
        quality: rendering quality of DeepMind Control, see `envs.rendering.Quality`; other environments ignore it.
        camera: number or name of the camera that draws the frames, in DeepMind Control and in MuJoCo environments of
            gymnasium; None takes the usual one (`envs.dmcontrol.CAMERAS`; gymnasium's own).
        proprioception: names of entries of the task's own observation that an observation holds beside the pixels, such
            as `("position", "velocity")`; "all" for every entry, the state of objects included.
        max_episode_steps: environment steps after which an episode is truncated at the latest; None leaves the end of
            an episode to the environment, which may have a time limit of its own.

    Returns:
        An environment with observations uint8 (3*stack, size, size), or a dict of these and the proprioception, and
        actions float32 (A,) in [-1, 1].

    Raises:
        ValueError: an argument is out of range, or the environment is unsuitable; the message names the reason.
        envs.rendering.RenderingUnavailable: the environment renders with OpenGL, which does not work on this machine.
    """
    for field, value in (
        ("size", size),
        ("stack", stack),
        ("action_repeat", action_repeat),
        ("max_episode_steps", max_episode_steps),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{field} must be at least 1, got {value}")
    if quality not in get_args(Quality):
        raise ValueError(f"quality must be {' or '.join(get_args(Quality))}, got {quality!r}")
    inner = _inner(name, size, quality, camera)
    try:
        return PixelEnv(
            inner,
            name=name,
            size=size,
            stack=stack,
            action_repeat=action_repeat,
            max_episode_steps=max_episode_steps,
            proprioception=proprioception,
        )
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
    camera: int | str | None = None,
    proprioception: str | Sequence[str] = (),
) -> gymnasium.Env[Observation, Action]:
    """Entry point for gymnasium's registry: `make` with gymnasium's `render_mode`.

    Raises:
        ValueError: as `make`; or the render mode is not `rgb_array`, the only one supported.
    """
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode must be rgb_array, got {render_mode!r}")
    return make(
        name,
        size=size,
        stack=stack,
        action_repeat=action_repeat,
        quality=quality,
        camera=camera,
        proprioception=proprioception,
    )


def _inner(name: str, size: int, quality: Quality, camera: int | str | None) -> gymnasium.Env[Any, Any]:
    """The environment that renders single images of `size`."""
    if name.startswith("gym:") and name.removeprefix("gym:") not in NAMES:
        return Foreign(name.removeprefix("gym:"), size=size, camera=camera)
    if name == "tiny-reach":
        if camera is not None:
            raise ValueError(f"camera must be left out for {name}, which has only one, got {camera!r}")
        return TinyReach(size=size)
    domain, _, task = name.partition("-")
    if task in TASKS.get(domain, ()):
        return DMControl(domain, task, size=size, quality=quality, camera=camera)
    raise ValueError(
        f"environment {name!r} is unknown; the nearest is {nearest(name)!r} (others: 'gym:<gymnasium id>', or "
        "'gym:<module>:<id>' with the module that registers it)"
    )


for _name in NAMES:
    if f"pixels/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"pixels/{_name}-v0", entry_point=f"{__name__}:make_registered", kwargs={"name": _name})
