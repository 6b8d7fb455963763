"""Environments that a module registers, and what is said about those that are not found."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import envs
from envs.catalog import find, nearest

GAME = """
import gymnasium
import numpy as np


class Game(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 9}
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self):
        return np.full((4, 4, 3), 77, np.uint8)


"""

Write = Callable[..., None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into the current folder, which is not on Python's path; afterwards nothing of them is left."""
    path, modules, registry = list(sys.path), set(sys.modules), dict(gymnasium.registry)
    monkeypatch.setattr(sys, "path", [entry for entry in path if entry not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)


def test_a_module_of_the_current_folder_is_imported(here: Write) -> None:
    here(games_here=GAME + "gymnasium.register('here/Game-v2', Game, max_episode_steps=6)\n")
    env = envs.make("gym:games_here:here/Game-v2", size=4, stack=1)
    assert (env.reset(seed=0)[0] == 77).all()
    assert env.max_episode_steps == 6


def test_a_package_of_the_current_folder_may_name_its_environment_by_a_path(here: Write, tmp_path: Path) -> None:
    (tmp_path / "shelf" / "inner").mkdir(parents=True)
    (tmp_path / "shelf" / "__init__.py").write_text("")
    (tmp_path / "shelf" / "inner" / "game.py").write_text(GAME)
    registers = "import gymnasium\ngymnasium.register('Shelf-v0', 'shelf.inner.game:Game')\n"
    (tmp_path / "shelf" / "names.py").write_text(registers)
    assert envs.make("gym:shelf.names:Shelf-v0", size=4).reset(seed=0)[0].shape == (9, 4, 4)


def test_no_file_of_the_current_folder_replaces_a_module_of_python(here: Write) -> None:
    here(wave="raise AssertionError('the wrong module')", only_here=GAME + "gymnasium.register('Only-v0', Game)")
    with pytest.raises(ValueError, match=r"module wave \(.*wave.py\) registers nothing") as refused:
        find("wave:Sound-v0")
    assert str(Path.cwd()) not in str(refused.value)
    find("only_here:Only-v0")
    import wave

    assert Path(wave.__file__ or "").parent != Path.cwd()


@pytest.mark.parametrize("folder_on_path", [True, False])
def test_a_folder_of_the_same_name_elsewhere_is_not_the_module(
    here: Write, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, folder_on_path: bool
) -> None:
    """Any folder on the path is importable as a namespace package, such as one of recorded frames."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "homonym").mkdir()
    if folder_on_path:
        monkeypatch.syspath_prepend(elsewhere)
    here(homonym=GAME + "gymnasium.register('Homonym-v0', Game)\n")
    assert find("homonym:Homonym-v0").id == "Homonym-v0"


@pytest.mark.parametrize(
    ("gym_id", "words"),
    [
        ("game_her:X-v0", r"no module game_her is installed or in the current folder, .*: did you mean game_here\?"),
        ("nowhere_at_all:X-v0", r"no module nowhere_at_all is .*: start from its folder, or install it"),
        ("game_here.inner:X-v0", r"no module game_here.inner is installed"),
        ("breaks:X-v0", r"importing breaks raised ZeroDivisionError: division by zero \(.*breaks.py, line 2\)"),
        ("leaves:X-v0", r"importing leaves raised SystemExit: 3 \(.*leaves.py, line 1\)"),
        ("slips:X-v0", r"importing slips raised SyntaxError: .* \(.*slips.py, line 1\)"),
        ("needs:X-v0", r"importing needs raised ModuleNotFoundError: No module named 'not_installed' \(.*needs.py"),
        ("keeps:X-v0", r".*the module keeps \(.*keeps.py\) registers nothing with gymnasium.register"),
        ("game_here:Here-v7", r".*v7.*the module game_here registers Here-v1"),
        ("game_here:Hear-v1", r".*the module game_here registers Here-v1"),
        ("game_here:", "Malformed environment ID"),
        ("../game_here:Here-v1", r"'../game_here' is not the name of a module: write gym:game_here:<id>"),
        ("a/game_here.py:Here-v1", r"'a/game_here.py' is not the name of a module: write gym:a.game_here:<id>"),
        ("Pendulum", r".*did you mean gym:Pendulum-v1\?"),
        ("halfcheetah-v5", r".*did you mean gym:HalfCheetah-v5\?"),
        ("Here-v1", r".*name the module: gym:<module>:Here-v1"),
        ("", "Malformed environment ID"),
    ],
)
def test_refusals_say_what_is_wrong_in_one_line(here: Write, gym_id: str, words: str) -> None:
    here(
        game_here=GAME + "gymnasium.register('Here-v1', Game)\n" if gym_id != "Here-v1" else "",
        breaks="x = 0\n1 / x",
        leaves="raise SystemExit(3)",
        slips="def (",
        needs="import not_installed",
        keeps="",
    )
    with pytest.raises(ValueError, match=rf"^environment gym:{gym_id} cannot be created: {words}") as refused:
        envs.make(f"gym:{gym_id}", size=4)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("HalfCheetah-v5", "gym:HalfCheetah-v5"),
        ("HalfCheetah-v4", "gym:HalfCheetah-v4"),
        ("HalfCheetah", "gym:HalfCheetah-v5"),
        ("halfcheetah", "gym:HalfCheetah-v5"),
        ("Gym:Pendulum-v1", "gym:Pendulum-v1"),
        ("my_module:MyEnv-v0", "gym:my_module:MyEnv-v0"),
        ("dm_control/walker-run-v0", "walker-run"),
        ("pixels/walker-run-v0", "walker-run"),
        ("gym:cheetah-run", "cheetah-run"),
        ("cartpole", "cartpole-balance"),
        ("cheetah_run", "cheetah-run"),
        ("ball-in-cup-catch", "ball_in_cup-catch"),
    ],
)
def test_the_nearest_name(name: str, other: str) -> None:
    assert nearest(name) == other
    with pytest.raises(ValueError, match=f"^environment '{name}' is unknown; the nearest is '{other}'"):
        envs.make(name)


def test_any_name_has_a_nearest_one() -> None:
    for name in ("", "-", "123", "gym:", "ü"):
        assert nearest(name).removeprefix("gym:") in {*envs.NAMES, *gymnasium.registry}


@pytest.mark.slow
def test_shimmy_names_its_environments_by_the_module(opengl: object) -> None:
    """The same task, seed and actions as ours: the rewards agree, although Shimmy draws with a camera of its own."""
    pytest.importorskip("shimmy", reason="Shimmy is not installed")
    theirs, ours = envs.make("gym:shimmy:dm_control/reacher-easy-v0", size=16), envs.make("reacher-easy", size=16)
    for env in (theirs, ours):
        env.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32):
        assert theirs.step(action)[1] == ours.step(action)[1]
    assert theirs.render().std() > 5
    theirs.close()
    ours.close()
