"""Choosing how MuJoCo draws without a screen, before anything that needs the choice is imported.

MuJoCo and dm_control read the environment variable `MUJOCO_GL` once, when they are imported, and PyOpenGL keeps the
first platform that it meets; a wrong guess then shows as a cryptic error much later. So `choose_backend()` is called
first: it tries the candidates for real and says in one line what is missing.

A forked child of a process that has drawn hangs: vector environments must start their workers by "spawn" or
"forkserver" (`gymnasium.vector.AsyncVectorEnv(..., context="spawn")`).
"""

import contextlib
import ctypes
import ctypes.util
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Quality = Literal["faithful", "fast"]
"""How DeepMind Control frames are drawn: `faithful`, dm_control's own pixels; `fast`, without shadows, multisampling
and reflections, about ten times faster where no GPU draws. The pictures are close in cheetah and cartpole (1.2 and 1.6
of 255 apart on average) and darker in walker (8) and reacher (24): without shadows MuJoCo works a lamp out at a floor's
corners only, which its cone does not reach. Train and evaluate in one."""

_SYNONYMS = {
    "egl": "egl",
    "osmesa": "osmesa",
    **dict.fromkeys(("glfw", "glx", "on", "enable", "enabled", "true", "1"), "glfw"),
}
_OFF = ("off", "disable", "disabled", "false", "0")
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_MISSING = (
    "rendering: neither EGL nor OSMesa works on this machine; on Debian or Ubuntu install them by "
    "`sudo apt-get install libegl1 libopengl0 libgl1-mesa-dri libosmesa6`"
)


class RenderingUnavailable(RuntimeError):
    """Nothing on this machine can draw, or what the user asked for cannot; one line says what to do."""


@dataclass(frozen=True)
class Backend:
    """A way of drawing that was tried and works."""

    name: Literal["egl", "osmesa", "glfw"]
    """Its name, as `MUJOCO_GL` spells it."""

    device: str
    """Who draws, in OpenGL's words: a GPU's name, or `llvmpipe ...` for software on the CPU."""

    reason: str
    """Why this one, in a few words."""


@functools.cache
def choose_backend() -> Backend:
    """Find a backend that draws, and set `MUJOCO_GL` to it for all that is imported later.

    What dm_control has loaded already is kept; an explicit `MUJOCO_GL` (or `PYOPENGL_PLATFORM`) is respected and
    must work; else EGL comes before OSMesa: on a machine without a GPU the two draw the same pixels at the same speed,
    on one with a GPU only EGL uses it. The answer holds for the life of the process.

    Raises:
        RenderingUnavailable: nothing works, or not what `MUJOCO_GL` asks for.
    """
    name, reason = _already_settled() or _first_that_starts()
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = name
    try:
        return Backend(name, _name_of_device(name), reason)
    except Exception as error:  # PyOpenGL and the drivers fail in many types: AttributeError, ImportError, GLError, ...
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise RenderingUnavailable(
            f"rendering: {name} ({reason}) does not work here ({cause}); unset MUJOCO_GL or set it to another of egl, "
            "osmesa, glfw, and on Debian or Ubuntu `sudo apt-get install libegl1 libopengl0 libgl1-mesa-dri libosmesa6`"
        ) from error


def open_context(size: int) -> Any:
    """A new OpenGL context of the chosen backend, for pictures up to `size` x `size`.

    It is mujoco's own class, taken by name (`mujoco.gl_context` may have been imported before the choice was made):
    `make_current()` before drawing, `free()` at the end, all inside `borrowed_thread()`.
    """
    return _context_class(choose_backend().name)(size, size)


def borrowed_thread() -> contextlib.AbstractContextManager[None]:
    """Around every use of a context: leaves current whichever context was current before.

    dm_control and gymnasium's MuJoCo environments remember which context they made current last and do not look again:
    whoever leaves another one behind, or none, makes them draw wrong pictures. Only EGL needs it: dm_control gives
    OSMesa a thread of its own.
    """
    return _leaving_current() if choose_backend().name == "egl" else contextlib.nullcontext()


@contextlib.contextmanager
def _leaving_current() -> Iterator[None]:
    from OpenGL import EGL

    previous, display = EGL.eglGetCurrentContext(), EGL.eglGetCurrentDisplay()
    try:
        yield
    finally:
        display = display or EGL.eglGetCurrentDisplay()  # a display is needed to make nothing current, too
        if display:
            EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, previous)


def _already_settled() -> tuple[Any, str] | None:
    """The backend that is loaded or asked for, and by whom; None where the choice is free."""
    loaded = getattr(sys.modules.get("dm_control._render"), "BACKEND", None)
    if loaded in ("egl", "osmesa", "glfw"):
        return loaded, "dm_control, imported earlier, uses it"
    for variable in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        value = os.environ.get(variable, "").strip().lower()
        if value in _SYNONYMS:
            return _SYNONYMS[value], f"{variable}={value}"
        if variable == "MUJOCO_GL" and value:
            right = "unset it or set it to egl, osmesa or glfw"
            if value in _OFF:
                raise RenderingUnavailable(f"rendering: MUJOCO_GL={value} switches drawing off; {right}")
            raise RenderingUnavailable(f"rendering: MUJOCO_GL={value} names no backend; {right}")
    if sys.platform != "linux":
        return "glfw", f"what MuJoCo offers on {sys.platform}"
    return None


def _first_that_starts() -> tuple[Any, str]:
    if _egl_starts():
        return "egl", "an EGL device starts"
    if _osmesa_starts():
        return "osmesa", "no EGL device starts, OSMesa does"
    raise RenderingUnavailable(_MISSING)


# EGL and OSMesa are asked through ctypes, not through PyOpenGL, whose first platform cannot be changed any more.


def _egl_starts() -> bool:
    """Whether EGL initialises a display on some device, as MuJoCo will do.

    The display stays initialised: another user of it in this process would lose it by eglTerminate.
    """
    library = _load("EGL")
    if library is None:
        return False
    library.eglGetProcAddress.restype = ctypes.c_void_p
    library.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query_address = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = library.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return False
    int_pointer = ctypes.POINTER(ctypes.c_int)
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), int_pointer)(
        query_address
    )
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, int_pointer)(display_address)
    library.eglInitialize.argtypes = [ctypes.c_void_p, int_pointer, int_pointer]

    devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
    if not query_devices(len(devices), devices, ctypes.byref(count)):
        return False
    for device in devices[: count.value]:
        display = get_display(_EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and library.eglInitialize(display, None, None):
            return True
    return False


def _osmesa_starts() -> bool:
    """Whether OSMesa makes a context."""
    library = _load("OSMesa")
    if library is None:
        return False
    library.OSMesaCreateContext.restype = ctypes.c_void_p
    library.OSMesaDestroyContext.argtypes = [ctypes.c_void_p]
    rgba = 0x1908
    context = library.OSMesaCreateContext(rgba, None)
    if context:
        library.OSMesaDestroyContext(context)
    return bool(context)


def _load(name: str) -> ctypes.CDLL | None:
    path = ctypes.util.find_library(name)
    try:
        return None if path is None else ctypes.CDLL(path)
    except OSError:
        return None


def _context_class(name: str) -> Any:
    return importlib.import_module(f"mujoco.{name}").GLContext


def _name_of_device(name: str) -> str:
    """Open a context by MuJoCo's own means, ask who draws, close it."""
    context_class = _context_class(name)
    # PyOpenGL has its platform from here on.
    from OpenGL import GL

    with warnings.catch_warnings(), _leaving_current() if name == "egl" else contextlib.nullcontext():
        warnings.simplefilter("ignore")  # glfw warns of what it then fails on
        if name == "glfw" and not importlib.import_module("glfw").init():
            raise OSError("there is no display")
        context = context_class(8, 8)
        context.make_current()
        device = GL.glGetString(GL.GL_RENDERER)
        context.free()
    if not device:
        raise OSError("OpenGL names no device")
    return str(device.decode())
