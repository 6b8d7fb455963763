"""The choice of backend, each case in its own process because the choice holds for a process's lifetime."""

import ctypes.util
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
from envs import rendering
try:
    backend = rendering.choose_backend()
except rendering.RenderingUnavailable as error:
    print("UNAVAILABLE", error)
else:
    import os
    assert os.environ["MUJOCO_GL"] == backend.name and backend.device and backend.reason
    import envs
    env = envs.make("cartpole-balance", size=8, stack=1, quality="fast")
    assert env.reset(seed=0)[0].std() > 5
    env.close()
    print(backend.name)
"""
# Without a vendor's driver, the EGL library loads but finds no device.
NO_EGL = {"__EGL_VENDOR_LIBRARY_FILENAMES": os.devnull}
# As on a machine without the libraries.
NO_LIBRARIES = "import ctypes.util; ctypes.util.find_library = lambda name: None\n"


def outcome(before: str = "", **variables: str) -> str:
    """The output of `TRY` after the code `before`, with only these rendering-related environment variables."""
    ours = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "MUJOCO_EGL_DEVICE_ID")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-c", before + TRY], capture_output=True, text=True, env=kept | variables, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # one line, whatever happens
    return done.stdout.strip()


@pytest.fixture(scope="module")
def free_choice() -> str:
    found = outcome()
    if found.startswith("UNAVAILABLE") and not os.environ.get("CI"):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def osmesa() -> None:
    """Where the library is installed, it has to work."""
    if ctypes.util.find_library("OSMesa") is None:
        pytest.skip("no OSMesa on this machine")


def test_free_choice_renders(free_choice: str) -> None:
    assert free_choice in ("egl", "osmesa")


def test_osmesa_if_egl_finds_no_device(osmesa: None) -> None:
    assert outcome(**NO_EGL) == "osmesa"


def test_explicit_choice_is_respected(osmesa: None) -> None:
    assert outcome(MUJOCO_GL="OSMesa") == "osmesa"
    assert outcome(PYOPENGL_PLATFORM="osmesa") == "osmesa"


def test_explicit_choice_that_does_not_work() -> None:
    line = outcome(MUJOCO_GL="egl", **NO_EGL)
    assert line.startswith("UNAVAILABLE rendering: egl (MUJOCO_GL=egl) does not work here (")
    assert "; unset MUJOCO_GL or set it to another of egl, osmesa, glfw, and on Debian" in line
    assert "apt-get install libegl1 libopengl0 libgl1-mesa-dri`" in line
    line = outcome(MUJOCO_GL="glfw", WAYLAND_DISPLAY="")
    assert line.startswith("UNAVAILABLE rendering: glfw (MUJOCO_GL=glfw) does not work here (")


@pytest.mark.parametrize(("value", "words"), [("off", "disables rendering"), ("vulkan", "is not a backend")])
def test_explicit_choice_that_is_not_a_backend(value: str, words: str) -> None:
    assert outcome(MUJOCO_GL=value) == (
        f"UNAVAILABLE rendering: MUJOCO_GL={value} {words}; unset it or set it to egl, osmesa or glfw"
    )


@pytest.mark.parametrize("value", ["64", "cuda:1"])
def test_a_device_that_egl_does_not_have(free_choice: str, value: str) -> None:
    if free_choice != "egl":
        pytest.skip("EGL has no device here")
    line = outcome(MUJOCO_EGL_DEVICE_ID=value)
    assert line.startswith("UNAVAILABLE rendering: MUJOCO_EGL_DEVICE_ID must be ")
    assert f", got '{value}': " in line
    assert "MUJOCO_GL " not in line  # that is not the mistake


def test_a_device_is_chosen_by_its_number(free_choice: str) -> None:
    """Only EGL reads it."""
    assert outcome(MUJOCO_EGL_DEVICE_ID="0") == free_choice


def test_advice_names_only_what_was_set() -> None:
    """dm_control without MUJOCO_GL takes GLFW, which needs a display."""
    imported = "import warnings; warnings.simplefilter('ignore'); import dm_control.suite\n"
    line = outcome(before=imported, WAYLAND_DISPLAY="")
    if not line.startswith("UNAVAILABLE rendering: glfw (dm_control, imported earlier, uses it)"):
        pytest.skip("dm_control finds a display here")
    assert "unset" not in line
    assert "; set MUJOCO_GL to egl or osmesa before dm_control is imported, and on Debian" in line


def test_neither_library() -> None:
    line = outcome(before=NO_LIBRARIES)
    assert line.startswith("UNAVAILABLE rendering: neither EGL nor OSMesa works")
    assert "sudo apt-get install libegl1 libopengl0 libgl1-mesa-dri`" in line


@pytest.mark.parametrize("before", [None, "on"])
def test_a_failure_leaves_the_environment_variables_alone(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    from envs import rendering

    def fails(name: str) -> str:
        raise OSError("no\nconfig")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if before is not None:
        monkeypatch.setenv("MUJOCO_GL", before)
    monkeypatch.setattr(rendering, "_already_settled", lambda: ("egl", "a test"))
    monkeypatch.setattr(rendering, "_name_of_device", fails)
    with pytest.raises(rendering.RenderingUnavailable, match=r"^rendering: egl \(a test\) .*\(OSError: no config\)"):
        rendering.choose_backend.__wrapped__()
    assert os.environ.get("MUJOCO_GL") == before


def test_a_loaded_backend_is_kept(free_choice: str, osmesa: None) -> None:
    loaded = "import os; from dm_control import suite; del os.environ['MUJOCO_GL'], os.environ['PYOPENGL_PLATFORM']\n"
    assert outcome(before=loaded, MUJOCO_GL="osmesa") == "osmesa"
    assert outcome(before="import mujoco\n") == free_choice


def test_choosing_does_not_disturb_other_renderers(free_choice: str) -> None:
    """dm_control does not check which OpenGL context is current when it renders its second image."""
    drawn = """
from dm_control import suite
theirs = suite.load("walker", "walk", task_kwargs={"random": 0})
theirs.reset()
first = theirs.physics.render(32, 32, camera_id=0)
"""
    code = drawn + TRY + "assert (theirs.physics.render(32, 32, camera_id=0) == first).all()\ntheirs.physics.free()\n"
    environment = os.environ | {"MUJOCO_GL": free_choice, "PYOPENGL_PLATFORM": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_the_backend_is_chosen_once() -> None:
    rendering = pytest.importorskip("envs.rendering")
    try:
        assert rendering.choose_backend() is rendering.choose_backend()
    except rendering.RenderingUnavailable as error:
        pytest.skip(str(error))


def test_triton_is_loaded_before_opengl(tmp_path: Path) -> None:
    """Loaded after Mesa's LLVM, triton crashes."""
    package = tmp_path / "triton"
    (package / "_C").mkdir(parents=True)
    (package / "__init__.py").touch()
    stand_in = package / "_C" / "libtriton.so"
    shutil.copy(importlib.import_module("_ctypes").__file__, stand_in)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
loaded = []
sys.addaudithook(lambda event, arguments: loaded.append(str(arguments[0])) if event == "ctypes.dlopen" else None)
from envs import rendering
{TRY.strip()}
libraries = [name for name in loaded if name.startswith(("libEGL", "libOSMesa")) or "triton" in name]
assert libraries[0] == {str(stand_in)!r} and len(libraries) > 1, loaded
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"MUJOCO_GL": "", "PYOPENGL_PLATFORM": ""}
    )


def test_triton_can_be_imported_after_rendering(free_choice: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    code = "from envs.rendering import choose_backend; choose_backend(); import triton"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MUJOCO_GL": free_choice})
