"""The factory that makes a command's environments; the caller passes it in, so any environment can be used."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from curl_rl.rl.config import EnvironmentConfig

Made = TypeVar("Made", covariant=True)


class MakeEnvironment(Protocol[Made]):
    """Makes a pixel environment by name: ``envs.make``, or your own factory.

    Observations are uint8 ``(stack·C, size, size)``, actions float32 ``(A,)`` in [−1, 1]. Raises ValueError for an
    unsupported name or setting; the commands print its message as one line. Other exceptions to report in the same way,
    such as missing OpenGL, are passed to a command's ``main`` as ``unavailable``.
    """

    def __call__(
        self, name: str, *, size: int, stack: int, action_repeat: int, quality: Literal["faithful", "fast"]
    ) -> Made:
        """``size``: side of a frame; ``stack``: frames in an observation; ``action_repeat``: environment steps per
        agent step."""


def make_configured(make: MakeEnvironment[Made], name: str, config: EnvironmentConfig) -> Made:
    """Makes the environment ``name`` with a run's settings. Raises the exceptions of ``make``."""
    return make(name, size=config.size, stack=config.stack, action_repeat=config.action_repeat, quality=config.quality)
