"""The camera setting: pictures against MuJoCo's own renderer and dm_control's, and the refusals word for word."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs

ROOM = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="left" pos="-2 0 0.5" xyaxes="0 -1 0 0 0 1"/>
    <camera pos="0 0 3"/>
    <geom type="plane" size="3 3 .1" rgba=".5 .5 .5 1"/>
    <body name="ball">
      <joint name="slide" type="slide" axis="0 1 0" range="-1 1"/>
      <geom type="sphere" size=".2" pos=".3 0 .4" rgba="1 0 0 1"/>
    </body>
  </worldbody>
  <actuator><motor joint="slide" ctrlrange="-1 1"/></actuator>
</mujoco>
"""
"""A scene with two cameras, the second without a name."""


@pytest.fixture
def room(opengl: object, tmp_path: Path) -> str:
    """A MuJoCo environment of one's own, which takes no camera: its id."""
    from gymnasium.envs.mujoco import MujocoEnv

    (tmp_path / "room.xml").write_text(ROOM)

    class Room(MujocoEnv):
        metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 100}

        def __init__(self, render_mode: str | None = None) -> None:
            space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
            path = str(tmp_path / "room.xml")
            super().__init__(path, 5, space, render_mode=render_mode, width=48, height=48)

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.do_simulation(action, self.frame_skip)
            return self.data.qpos.copy(), 0.0, False, False, {}

        def reset_model(self) -> np.ndarray:
            self.set_state(np.array([0.25]), np.array([1.0]))
            return self.data.qpos.copy()

    gymnasium.registry.pop("Room-v0", None)
    gymnasium.register("Room-v0", entry_point=Room)
    return "gym:Room-v0"


@pytest.mark.parametrize(("camera", "number"), [("left", 0), (0, 0), (1, 1)])
def test_a_scene_with_two_cameras_looks_as_mujoco_renders_it(room: str, camera: int | str, number: int) -> None:
    import mujoco

    env: Any = envs.make(room, size=48, stack=1, camera=camera)
    observation, _ = env.reset(seed=0)
    inside = env.env.unwrapped
    with mujoco.Renderer(inside.model, 48, 48) as renderer:
        renderer.update_scene(inside.data, camera=number)
        picture = renderer.render()
    env.close()
    assert np.array_equal(observation.transpose(1, 2, 0), picture)
    assert picture.std() > 10


def test_without_the_setting_an_environment_draws_as_it_does_alone(room: str) -> None:
    ours, bare = envs.make(room, size=48, stack=1), gymnasium.make("Room-v0", render_mode="rgb_array")
    observation, _ = ours.reset(seed=0)
    bare.reset(seed=0)
    assert np.array_equal(observation.transpose(1, 2, 0), bare.render())
    ours.close()
    bare.close()


def test_gymnasiums_own_mujoco_tasks(opengl: object) -> None:
    bare = gymnasium.make("Hopper-v5", render_mode="rgb_array", camera_name="track")
    bare.reset(seed=3)
    picture = np.asarray(bare.render(), float).reshape(40, 12, 40, 12, 3).mean((1, 3))
    bare.close()
    env = envs.make("gym:Hopper-v5", size=40, stack=1, camera="track")
    observation, _ = env.reset(seed=3)
    env.close()
    assert np.abs(observation.transpose(1, 2, 0) - picture).max() <= 1  # 480 x 480 shrinks by whole blocks of 12


@pytest.mark.parametrize(("name", "camera", "number"), [("cheetah-run", "back", 1), ("fish-swim", 3, 3)])
def test_deepmind_control_draws_as_dm_control_does(opengl: object, name: str, camera: int | str, number: int) -> None:
    env: Any = envs.make(name, size=40, stack=1, camera=camera)
    observation, _ = env.reset(seed=1)
    physics = env.env._env.physics
    for other in range(physics.model.ncam):
        picture = physics.render(40, 40, camera_id=other)
        assert np.array_equal(observation.transpose(1, 2, 0), picture) == (other == number)
    env.close()


def test_the_registry_passes_the_camera_on() -> None:
    assert gymnasium.make("pixels/tiny-reach-v0", size=8, camera=None).reset(seed=0)[0].shape == (9, 8, 8)
    with pytest.raises(ValueError, match="^camera must be left out for tiny-reach, which has only one, got 'back'$"):
        gymnasium.make("pixels/tiny-reach-v0", camera="back")


@pytest.mark.parametrize(
    ("name", "camera", "line"),
    [
        ("cheetah-run", "top", "camera must be one of 0 (side), 1 (back), the cameras of cheetah-run, got 'top'"),
        ("cheetah-run", 2, "camera must be one of 0 (side), 1 (back), the cameras of cheetah-run, got 2"),
        ("cheetah-run", -1, "camera must be one of 0 (side), 1 (back), the cameras of cheetah-run, got -1"),
        ("cheetah-run", True, "camera must be one of 0 (side), 1 (back), the cameras of cheetah-run, got True"),
        ("gym:Hopper-v5", "back", "camera must be one of 0 (track), the cameras of gym:Hopper-v5, got 'back'"),
        ("gym:Reacher-v5", 0, "camera must be left out for gym:Reacher-v5, whose model has no cameras, got 0"),
        ("tiny-reach", 0, "camera must be left out for tiny-reach, which has only one, got 0"),
    ],
)
def test_a_wrong_camera_is_refused_with_those_there_are(opengl: object, name: str, camera: Any, line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
        envs.make(name, size=8, camera=camera)
    assert str(error.value) == line


@pytest.mark.parametrize("camera", ["", "right", 2])
def test_a_camera_without_a_name_is_listed_by_its_number(room: str, camera: int | str) -> None:
    line = rf"^camera must be one of 0 \(left\), 1, the cameras of gym:Room-v0, got {camera!r}$"
    with pytest.raises(ValueError, match=line):
        envs.make(room, size=8, camera=camera)


class Painted(gymnasium.Env):
    """Renders black pixels, and takes no camera."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    latest: "Painted"

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.camera = 0
        self.closed = False
        Painted.latest = self

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), 10 * self.camera, np.uint8)

    def close(self) -> None:
        self.closed = True


class Photographed(Painted):
    """Paints the number of its camera, which it takes as gymnasium's environments do."""

    def __init__(
        self, render_mode: str | None = None, camera_name: str | None = None, camera_id: int | None = None
    ) -> None:
        super().__init__(render_mode)
        self.camera = ["front", "rear"].index(camera_name) if camera_name else camera_id or 0


class Swallowing(Painted):
    """Takes any keyword, and ignores it."""

    def __init__(self, render_mode: str | None = None, **ignored: Any) -> None:
        super().__init__(render_mode)


@pytest.mark.parametrize(("camera", "pixel"), [(None, 0), ("rear", 10), (7, 70)])
@pytest.mark.parametrize("entry_point", [Photographed, f"{__name__}:Photographed"])
def test_an_environment_that_takes_a_camera_gets_it(entry_point: Any, camera: int | str | None, pixel: int) -> None:
    gymnasium.registry.pop("Photographed-v0", None)
    gymnasium.register("Photographed-v0", entry_point=entry_point)
    env = envs.make("gym:Photographed-v0", size=4, stack=1, camera=camera)
    assert (env.reset(seed=0)[0] == pixel).all()


@pytest.mark.parametrize("entry_point", [Painted, Swallowing])
@pytest.mark.parametrize("camera", ["rear", 1])
def test_an_environment_that_would_ignore_the_camera_is_refused_and_closed(entry_point: Any, camera: int | str) -> None:
    gymnasium.registry.pop("Ignoring-v0", None)
    gymnasium.register("Ignoring-v0", entry_point=entry_point)
    with pytest.raises(
        ValueError, match=f"^camera must be left out for gym:Ignoring-v0, got {camera!r}: only tasks of"
    ):
        envs.make("gym:Ignoring-v0", size=4, camera=camera)
    assert Painted.latest.closed


def test_a_closed_environment_leaves_the_images_of_the_next_alone(room: str) -> None:
    """gymnasium frees OpenGL resources when an environment is garbage-collected, in whatever context is current."""
    env = envs.make(room, size=48, stack=1)
    first, _ = env.reset(seed=0)
    env.close()
    env = envs.make(room, size=48, stack=1)  # drops the last reference to the first only once this one exists
    assert np.array_equal(env.reset(seed=0)[0], first)
    env.close()
