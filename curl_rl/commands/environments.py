"""What makes the environments of a command: handed in by whoever starts it, so that they can be anybody's."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from curl_rl.rl.config import EnvironmentConfig

Made = TypeVar("Made", covariant=True)


class MakeEnvironment(Protocol[Made]):
    """Makes an environment from pixels by its name: ``envs.make``, or one of your own.

    Observations are uint8 ``(stack·C, size, size)``, actions float32 ``(A,)`` in [−1, 1]. For a name or a setting that
    it cannot serve it raises ValueError, whose text the commands show to the user as one line. Other exceptions that
    mean the same, such as that OpenGL is missing, are handed to a command's ``main`` as ``unavailable``.
    """

    def __call__(
        self, name: str, *, size: int, stack: int, action_repeat: int, quality: Literal["faithful", "fast"]
    ) -> Made:
        """``size``: side of a frame; ``stack``: frames in an observation; ``action_repeat``: environment steps to an
        agent step."""


def make_configured(make: MakeEnvironment[Made], name: str, config: EnvironmentConfig) -> Made:
    """The environment called ``name``, with a run's settings. Raises what ``make`` raises."""
    return make(name, size=config.size, stack=config.stack, action_repeat=config.action_repeat, quality=config.quality)
