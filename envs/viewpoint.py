"""The camera that a setting chooses, by its number or its name: in a MuJoCo model, or in a gymnasium environment."""

import inspect
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator


def camera_number(model: Any, camera: int | str, owner: str) -> int:
    """The index of a camera in a MuJoCo model.

    Args:
        model: a `mujoco.MjModel`.
        camera: the camera's number or name.
        owner: whose model it is, for the message.

    Raises:
        ValueError: the model has no such camera; the message lists those that it has.
    """
    names = [model.camera(number).name for number in range(model.ncam)]
    if not names:
        raise ValueError(f"camera must be left out for {owner}, whose model has no cameras, got {camera!r}")
    if isinstance(camera, str) and camera and camera in names:
        return names.index(camera)
    if isinstance(camera, (str, bool)) or not 0 <= camera < len(names):
        listed = ", ".join(f"{number} ({name})" if name else str(number) for number, name in enumerate(names))
        raise ValueError(f"camera must be one of {listed}, the cameras of {owner}, got {camera!r}")
    return camera


def camera_keywords(spec: EnvSpec, camera: int | str) -> dict[str, int | str]:
    """gymnasium's `camera_id` or `camera_name`, if the environment's constructor has a parameter of that name.

    gymnasium's own MuJoCo environments pass them on among other keywords; `choose_camera` serves these.
    """
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    keyword = "camera_name" if isinstance(camera, str) else "camera_id"
    return {keyword: camera} if creator and keyword in inspect.signature(creator).parameters else {}


def choose_camera(env: gymnasium.Env[Any, Any], camera: int | str, owner: str, *, passed: bool) -> None:
    """Makes an environment draw through this camera, or makes sure that it does.

    Sets the camera of gymnasium's MuJoCo renderer directly: the renderer itself would draw an unknown name through the
    free camera.

    Args:
        env: the environment.
        camera: the camera's number or name.
        owner: the environment's name, for messages.
        passed: the camera was passed to the constructor, which answers for it if `env` has no such renderer.

    Raises:
        ValueError: there is no such camera, or no way to choose one.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is not None:
        renderer.camera_id = camera_number(renderer.model, camera, owner)
    elif not passed:
        raise ValueError(
            f"camera must be left out for {owner}, got {camera!r}: only tasks of DeepMind Control, gymnasium's MuJoCo "
            "environments and those that take camera_id and camera_name let one choose"
        )
