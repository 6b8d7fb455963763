"""The factory that makes a command's environments; the caller passes it in, so any environment can be used."""

from __future__ import annotations

import inspect
from typing import Any, Literal, Protocol, TypeVar

from curl_rl.rl.config import EnvironmentConfig

Made = TypeVar("Made", covariant=True)


class MakeEnvironment(Protocol[Made]):
    """Makes a pixel environment by name: ``envs.make``, or your own factory.

    Observations are uint8 ``(stack·C, size, size)``, actions float32 ``(A,)`` in [−1, 1]. Raises ValueError for an
    unsupported name or setting; the commands print its message as one line. Other exceptions to report in the same way,
    such as missing OpenGL, are passed to a command's ``main`` as ``unavailable``.

    Settings that a factory may lack are passed only if they are set: ``camera``, a camera's number or name;
    ``max_episode_steps``, environment steps after which an episode is truncated; ``proprioception``, names of entries
    of the task's own observation. With the last, an observation is a dict of the image and one or more vectors; see
    :mod:`curl_rl.rl.observations`.
    """

    def __call__(
        self, name: str, *, size: int, stack: int, action_repeat: int, quality: Literal["faithful", "fast"]
    ) -> Made:
        """``size``: side of a frame; ``stack``: frames in an observation; ``action_repeat``: environment steps per
        agent step."""


def make_configured(make: MakeEnvironment[Made], name: str, config: EnvironmentConfig) -> Made:
    """Makes the environment ``name`` with a run's settings.

    Raises:
        ValueError: a setting is set that ``make`` does not take; or as ``make``, like any other exception of it.
    """
    chosen: dict[str, Any] = {}
    if config.camera is not None:
        chosen["camera"] = config.camera
    if config.proprioception:
        chosen["proprioception"] = config.proprioception
    if config.max_episode_steps is not None:
        chosen["max_episode_steps"] = config.max_episode_steps
    for setting, value in chosen.items():
        if not _takes(make, setting):
            got = list(value) if isinstance(value, tuple) else repr(value)
            raise ValueError(
                f"environment.{setting} must be left out, got {got}: this program's environments do not take it"
            )
    return make(
        name,
        size=config.size,
        stack=config.stack,
        action_repeat=config.action_repeat,
        quality=config.quality,
        **chosen,
    )


def camera_flag(text: str) -> int | str:
    """A camera on a command line: a number, or else a name."""
    try:
        return int(text)
    except ValueError:
        return text


def _takes(make: MakeEnvironment[Made], setting: str) -> bool:
    """Tests whether a factory has this keyword, or takes any."""
    parameters = inspect.signature(make).parameters
    named = setting in parameters and parameters[setting].kind is not inspect.Parameter.POSITIONAL_ONLY
    return named or any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
