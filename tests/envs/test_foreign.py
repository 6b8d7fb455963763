"""gym:<id> with environments registered here, whose images are known."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

import envs
from envs.foreign import Foreign


class Painted(gymnasium.Env):
    """Renders 6 x 4 pixels whose left and right halves count steps differently."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 12}
    latest: "Painted"

    def __init__(self, render_mode: str | None = None, actions: gymnasium.Space | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = actions or gymnasium.spaces.Box(-3, 3, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.steps = 0
        self.closed = False
        Painted.latest = self

    def close(self) -> None:
        self.closed = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return np.zeros(1, np.float32), float(action[0]), False, False, {}

    def render(self) -> np.ndarray:
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[:, :3, 0], picture[:, 3:, 1], picture[::2, :, 2] = self.steps, 100 + self.steps, 200
        return picture


class Blind(Painted):
    metadata = {"render_modes": ["human"]}


class WithoutMode(Painted):
    def __init__(self) -> None:
        super().__init__()


class NeedsPackage(Painted):
    def render(self) -> np.ndarray:
        raise gymnasium.error.DependencyNotInstalled("paint is not installed,\n run `pip install paint`")


class Stateful(Painted):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed)[0], {"state": [[0, 1], [2, 0]]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return *super().step(action)[:4], {"state": np.array([[self.steps, 1], [2, 0]])}


class Wordy(Painted):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed)[0], {"state": "standing"}


def _register(name: str, entry_point: type, max_episode_steps: int | None = None, **kwargs: Any) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=entry_point, max_episode_steps=max_episode_steps, kwargs=kwargs)


_register("Painted-v0", Painted, max_episode_steps=5)
_register("PaintedDiscrete-v0", Painted, actions=gymnasium.spaces.Discrete(2))
_register("Blind-v0", Blind)
_register("WithoutMode-v0", WithoutMode)
_register("NeedsPackage-v0", NeedsPackage)


def test_image_is_the_environments_own_averaged_over_areas() -> None:
    env = envs.make("gym:Painted-v0", size=2, stack=1)
    assert env.reset(seed=0)[0].shape == (3, 2, 2)
    # Each pixel averages 3 x 2 pixels: one half of the image, and one of two blue rows.
    assert env.step(np.float32([0]))[0].tolist() == [[[1, 0], [1, 0]], [[0, 101], [0, 101]], [[100, 100], [100, 100]]]
    assert env.metadata["render_fps"] == 12


def test_enlarged_image_matches_pillow() -> None:
    env = envs.make("gym:Painted-v0", size=9, stack=1)
    observation, _ = env.reset(seed=0)
    wanted = Image.fromarray(Painted().render()).resize((9, 9), Image.Resampling.BOX)
    assert np.array_equal(observation.transpose(1, 2, 0), np.asarray(wanted))


def test_actions_and_time_limit_of_the_environment() -> None:
    env = envs.make("gym:Painted-v0", size=2, action_repeat=2)
    env.reset(seed=0)
    steps = [env.step(np.float32([0.5])) for _ in range(3)]
    assert [step[1] for step in steps] == [3.0, 3.0, 1.5]  # half of the bound 3, twice, twice, once
    assert [step[3] for step in steps] == [False, False, True]
    assert steps[-1][4] == {"environment_steps": 1}


@pytest.mark.parametrize(
    ("gym_id", "words"),
    [
        ("PaintedDiscrete-v0", r"gym:PaintedDiscrete-v0 has actions Discrete\(2\); only a one-dimensional Box"),
        ("Blind-v0", r"gym:Blind-v0 must support the render mode rgb_array, got \['human'\]"),
        ("WithoutMode-v0", "gym:WithoutMode-v0 does not render: it takes no render_mode"),
        ("NeedsPackage-v0", "gym:NeedsPackage-v0 cannot be created: paint is not installed, run `pip install paint`"),
        ("Pendulum-v99", "gym:Pendulum-v99 cannot be created: .*v99"),
        ("Nowhere-v0", "gym:Nowhere-v0 cannot be created: .*Nowhere"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array' that is not in the possible render_modes")
def test_refusals_are_one_line(gym_id: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^environment {words}") as caught:
        envs.make(f"gym:{gym_id}", size=8)
    assert "\n" not in str(caught.value)


class Returns(Painted):
    """Returns what it is given, in place of what it should return; registered without gymnasium's own checks."""

    def __init__(self, render_mode: str | None = None, **instead: Any) -> None:
        super().__init__(render_mode)
        self.instead = instead

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.instead.get("reset", super().reset(seed=seed))

    def step(self, action: np.ndarray) -> Any:
        observation, *_, info = super().step(action)
        five = (observation, self.instead.get("reward", 1.0), False, False, self.instead.get("info", info))
        return self.instead.get("step", five)

    def render(self) -> Any:
        return self.instead.get("render", super().render())


class Fails(Painted):
    def __init__(self, render_mode: str | None = None, method: str = "reset") -> None:
        super().__init__(render_mode)

        def fail(*_: Any, **__: Any) -> None:
            raise KeyError(f"no {method} today\nnor tomorrow")

        setattr(self, method, fail)


class Misnamed(Painted):
    def reset(self) -> Any:
        return super().reset()


def _make(entry_point: type, **kwargs: Any) -> envs.PixelEnv:
    gymnasium.register("Once-v0", entry_point=entry_point, kwargs=kwargs, disable_env_checker=True, order_enforce=False)
    try:
        return envs.make("gym:Once-v0", size=4, stack=1)
    finally:
        del gymnasium.registry["Once-v0"]


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        ({"reset": np.zeros(2)}, r"reset\(\) must return \(observation, info\), got an array of float64, shape \(2,\)"),
        ({"step": (0, 0.0, False, {})}, r"step\(\) must return \(observation, .*, info\), got 4 values"),
        ({"reward": None}, "the reward must be a number, got None"),
        ({"render": None}, r"render\(\) must return a uint8 array .*, got None"),
        ({"render": [np.zeros((4, 4, 3), np.uint8)]}, r"render\(\) must return .*, got a list of 1"),
        ({"render": np.full((4, 4, 3), 255.0)}, r"render\(\) must return .*, got float64 \(4, 4, 3\) from 255 to 255"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_door(instead: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^environment gym:Once-v0: {words}"):
        _make(Returns, **instead)
    assert Painted.latest.closed


@pytest.mark.parametrize("method", ["reset", "step", "render"])
def test_a_failing_method_is_one_line_with_its_place(method: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be created: it raised KeyError: .* \(.*test_foreign.py, line \d+\)$"):
        _make(Fails, method=method)
    assert Painted.latest.closed


def test_a_reset_without_a_seed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^environment gym:Once-v0 cannot be created: it raised TypeError: .*'seed'"):
        _make(Misnamed)


@pytest.mark.parametrize(
    ("render", "level"),
    [
        (np.full((4, 4, 3), 0.2), 51),
        (np.full((4, 4, 4), 51, np.uint8), 51),
        (np.full((4, 4), 51, np.int64), 51),
        (np.ones((4, 4, 1), bool), 255),
    ],
)
def test_other_pictures_are_drawn_as_they_look(render: np.ndarray, level: int) -> None:
    env = _make(Returns, render=render)
    assert env.reset(seed=0)[0].shape == (3, 4, 4)
    assert (env.step(np.zeros(1, np.float32))[0] == level).all()


def test_a_later_picture_that_cannot_be_used_is_refused_too() -> None:
    """A dark first picture of floats up to 255 may pass for one in [0, 1]."""
    env = _make(Returns, render=np.zeros((4, 4, 3)))
    env.reset(seed=0)
    Painted.latest.instead["render"] = np.full((4, 4, 3), 200.0)
    with pytest.raises(ValueError, match=r"^render\(\) must return .* from 200 to 200"):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("value", [np.float32(1.5), np.array([1.5]), 1.5])
@pytest.mark.filterwarnings("error")
def test_rewards_of_other_types(value: Any) -> None:
    env = _make(Returns, reward=value)
    env.reset(seed=0)
    assert env.step(np.zeros(1, np.float32))[1] == 1.5


def test_an_info_of_none_is_an_empty_one() -> None:
    env = _make(Returns, reset=(0, None), info=None)
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    assert env.physical_state().shape == (0,)


def test_the_trial_is_seeded_and_leaves_no_trace() -> None:
    """Every environment begins alike, even one that is used without a seed."""

    class Noisy(Painted):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            result = super().reset(seed=seed)
            self.noise = int(self.np_random.integers(256))
            return result

        def render(self) -> np.ndarray:
            return np.full((4, 4), self.noise, np.uint8)

    one, other = _make(Noisy), _make(Noisy)
    assert [one.reset()[0][0, 0, 0] for _ in range(5)] == [other.reset()[0][0, 0, 0] for _ in range(5)]
    assert [one.reset(seed=8)[0][0, 0, 0]] == [np.random.Generator(np.random.PCG64(8)).integers(256)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        _make(Noisy).step(np.zeros(1, np.float32))


def test_a_refused_environment_is_closed() -> None:
    with pytest.raises(ValueError, match="Discrete"):
        envs.make("gym:PaintedDiscrete-v0", size=8)
    assert Painted.latest.closed


def test_pendulum() -> None:
    pytest.importorskip("pygame")
    env, bare = envs.make("gym:Pendulum-v1", size=50, stack=1), gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    observation, _ = env.reset(seed=4)
    bare.reset(seed=4)
    for action in (-1.0, 0.25, 1.0):
        observation, reward, *_ = env.step(np.float32([action]))
        wanted = bare.step(np.float32([2 * action]))[1]  # its torque is bounded by 2
        assert reward == wanted
    picture = np.asarray(bare.render(), float).reshape(50, 10, 50, 10, 3).mean((1, 3))
    assert np.abs(observation.transpose(1, 2, 0) - picture).max() <= 1  # 500 x 500 shrinks by whole blocks of 10
    env.close()
    bare.close()


def test_two_mujoco_environments_render_their_own_images(opengl: object) -> None:
    older = envs.make("gym:HalfCheetah-v5", size=32, stack=1)
    alone, _ = older.reset(seed=0)
    younger = envs.make("gym:Hopper-v5", size=32, stack=1)
    younger.reset(seed=0)
    assert np.array_equal(older.reset(seed=0)[0], alone)
    older.close()
    younger.close()


def test_foreign_is_a_wrapper_that_exposes_the_environment() -> None:
    env = Foreign("Painted-v0", size=3)
    assert isinstance(env.unwrapped, Painted)


def test_the_physical_state_is_info_state() -> None:
    _register("Stateful-v0", Stateful)
    env = envs.make("gym:Stateful-v0", size=4, action_repeat=3)
    assert env.state_names == ("state/0", "state/1", "state/2", "state/3")
    env.reset()
    assert env.physical_state().tolist() == [0, 1, 2, 0]
    env.step(np.zeros(1, np.float32))
    assert env.physical_state().tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("entry_point", [Painted, Wordy])
def test_an_environment_may_have_no_state(entry_point: type) -> None:
    _register("Silent-v0", entry_point)
    env = envs.make("gym:Silent-v0", size=4)
    env.reset()
    assert env.state_names == ()
    assert env.physical_state().shape == (0,)
