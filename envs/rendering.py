"""Chooses MuJoCo's headless rendering backend before the libraries that depend on it are imported.

MuJoCo and dm_control read the environment variable `MUJOCO_GL` once, on import, and PyOpenGL keeps the first platform
that it loads; a wrong choice causes a cryptic error much later. `choose_backend()` is therefore called first: it
actually starts each candidate and reports in one line what is missing.

A process forked from one that has rendered hangs: vector environments must start their workers by "spawn" or
"forkserver" (`gymnasium.vector.AsyncVectorEnv(..., context="spawn")`).
"""

import contextlib
import ctypes
import ctypes.util
import functools
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Quality = Literal["faithful", "fast"]
"""Rendering quality of DeepMind Control: `faithful`, dm_control's own pixels; `fast`, without shadows, multisampling
and reflections, about ten times faster without a GPU. The images are close in cheetah and cartpole (mean difference 1.2
and 1.6 of 255) and darker in walker (8) and reacher (24): without shadows, MuJoCo computes a lamp's light only at the
floor's corners, which its cone does not reach. Train and evaluate with the same quality."""

_SYNONYMS = {
    "egl": "egl",
    "osmesa": "osmesa",
    **dict.fromkeys(("glfw", "glx", "on", "enable", "enabled", "true", "1"), "glfw"),
}
_OFF = ("off", "disable", "disabled", "false", "0")
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_DEVICE = "MUJOCO_EGL_DEVICE_ID"  # MuJoCo and dm_control render on this EGL device; without it on the first that starts
_LOADED = "dm_control, imported earlier, uses it"
_MISSING = (
    "rendering: neither EGL nor OSMesa works on this machine; on Debian or Ubuntu install them with "
    "`sudo apt-get install libegl1 libopengl0 libgl1-mesa-dri`"
)


class RenderingUnavailable(RuntimeError):
    """No backend works on this machine, or the requested one does not; the one-line message gives a remedy."""


@dataclass(frozen=True)
class Backend:
    """A rendering backend that was tested and works."""

    name: Literal["egl", "osmesa", "glfw"]
    """Its name, as spelled in `MUJOCO_GL`."""

    device: str
    """The renderer as reported by OpenGL: a GPU's name, or `llvmpipe ...` for software on the CPU."""

    reason: str
    """A short reason for the choice."""


@functools.cache
def choose_backend() -> Backend:
    """Finds a working backend and sets `MUJOCO_GL` to it for all later imports.

    A backend already loaded by dm_control is kept; an explicit `MUJOCO_GL` (or `PYOPENGL_PLATFORM`) is respected and
    must work; otherwise EGL is preferred to OSMesa: without a GPU both render the same pixels at the same speed, and
    only EGL uses a GPU. The choice holds for the lifetime of the process.

    Raises:
        RenderingUnavailable: no backend works, or the one named by `MUJOCO_GL` does not, or `MUJOCO_EGL_DEVICE_ID` is
            not the number of an EGL device.
    """
    _load_triton()
    name, reason = _already_settled() or _first_that_starts()
    if name == "egl":
        _check_device()
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
            f"rendering: {name} ({reason}) does not work here ({cause}); {_remedy(reason)}, and on Debian or Ubuntu "
            "`sudo apt-get install libegl1 libopengl0 libgl1-mesa-dri`"
        ) from error


def open_context(size: int) -> Any:
    """A new OpenGL context of the chosen backend, for images up to `size` x `size`.

    It is mujoco's own class, imported by name because `mujoco.gl_context` may have been imported before the choice.
    Call `make_current()` before drawing and `free()` at the end, always inside `borrowed_thread()`.
    """
    return _context_class(choose_backend().name)(size, size)


def borrowed_thread() -> contextlib.AbstractContextManager[None]:
    """Restores the previously current OpenGL context on exit; wrap every use of a context in it.

    dm_control and gymnasium's MuJoCo environments remember the context they last made current and do not check again:
    leaving another context current, or none, makes them render wrong images. Only EGL needs this, because dm_control
    runs OSMesa in its own thread.
    """
    return _leaving_current() if choose_backend().name == "egl" else contextlib.nullcontext()


@contextlib.contextmanager
def _leaving_current() -> Iterator[None]:
    from OpenGL import EGL

    previous, display = EGL.eglGetCurrentContext(), EGL.eglGetCurrentDisplay()
    try:
        yield
    finally:
        display = display or EGL.eglGetCurrentDisplay()  # releasing the context also needs a display
        if display:
            EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, previous)


def _load_triton() -> None:
    """Loads the library of triton, if it is installed: torch's builds for CUDA bring it along and import it later.

    It contains LLVM, as Mesa's software renderer does. Older Mesas (Debian 12's) load theirs with global symbols, and
    triton, loaded afterwards, would be bound to those and crash the process. Loaded first, it keeps its own.
    """
    if "OpenGL" in sys.modules:  # too late
        return
    with contextlib.suppress(OSError):
        for folder in getattr(importlib.util.find_spec("triton"), "submodule_search_locations", None) or ():
            for library in Path(folder).glob("_C/libtriton*.so"):
                ctypes.CDLL(str(library))


def _already_settled() -> tuple[Any, str] | None:
    """The backend already loaded or requested, and the reason; None if the choice is free."""
    loaded = getattr(sys.modules.get("dm_control._render"), "BACKEND", None)
    if loaded in ("egl", "osmesa", "glfw"):
        return loaded, _LOADED
    for variable in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        value = os.environ.get(variable, "").strip().lower()
        if value in _SYNONYMS:
            return _SYNONYMS[value], f"{variable}={value}"
        if variable == "MUJOCO_GL" and value:
            right = "unset it or set it to egl, osmesa or glfw"
            if value in _OFF:
                raise RenderingUnavailable(f"rendering: MUJOCO_GL={value} disables rendering; {right}")
            raise RenderingUnavailable(f"rendering: MUJOCO_GL={value} is not a backend; {right}")
    if sys.platform != "linux":
        return "glfw", f"MuJoCo's backend on {sys.platform}"
    return None


def _remedy(reason: str) -> str:
    """Only what was set can be unset. Without MUJOCO_GL dm_control takes the first backend whose import succeeds."""
    variable, is_set, _ = reason.partition("=")
    other = "it" if variable == "MUJOCO_GL" else "MUJOCO_GL"
    if is_set:
        return f"unset {variable} or set {other} to another of egl, osmesa, glfw"
    if reason == _LOADED and not os.environ.get("MUJOCO_GL"):
        return "set MUJOCO_GL to egl or osmesa before dm_control is imported"
    return "set MUJOCO_GL to another of egl, osmesa, glfw"


def _check_device() -> None:
    """Refuses a `MUJOCO_EGL_DEVICE_ID` that names no device.

    Raises:
        RenderingUnavailable: it is not a number of one of EGL's devices.
    """
    value, count = os.environ.get(_DEVICE), len(_egl_devices())
    if value is None or not count:
        return
    if not re.fullmatch(r"\s*\+?\d+\s*", value) or int(value) >= count:
        right = "0, the only EGL device here" if count == 1 else f"from 0 to {count - 1}, the EGL devices here"
        raise RenderingUnavailable(
            f"rendering: {_DEVICE} must be {right}, got {value!r}: set it to EGL's own number of a device, or unset it "
            "to render on the first that starts"
        )


def _first_that_starts() -> tuple[Any, str]:
    devices = _egl_devices()
    if devices and _DEVICE in os.environ:
        return "egl", f"{_DEVICE}={os.environ[_DEVICE]}"
    if any(starts() for starts in devices):
        return "egl", "an EGL device starts"
    if _osmesa_starts():
        return "osmesa", "no EGL device starts, OSMesa does"
    raise RenderingUnavailable(_MISSING)


# EGL and OSMesa are probed through ctypes, because PyOpenGL cannot change its platform once loaded.


def _egl_devices() -> list[Callable[[], bool]]:
    """EGL's devices in its order; each function tests whether a display can be initialized on one, as MuJoCo will.

    The display stays initialized: eglTerminate would take it from other users in this process.
    """
    library = _load("EGL")
    if library is None:
        return []
    library.eglGetProcAddress.restype = ctypes.c_void_p
    library.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query_address = library.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = library.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return []
    int_pointer = ctypes.POINTER(ctypes.c_int)
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), int_pointer)(
        query_address
    )
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, int_pointer)(display_address)
    library.eglInitialize.argtypes = [ctypes.c_void_p, int_pointer, int_pointer]

    devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
    if not query_devices(len(devices), devices, ctypes.byref(count)):
        return []

    def starts(device: int | None) -> bool:
        display = get_display(_EGL_PLATFORM_DEVICE_EXT, device, None)
        return bool(display and library.eglInitialize(display, None, None))

    return [functools.partial(starts, device) for device in devices[: count.value]]


def _osmesa_starts() -> bool:
    """Whether OSMesa can create a context."""
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
    """Opens a context through MuJoCo, queries the renderer's name, and closes it."""
    context_class = _context_class(name)
    # From here on, PyOpenGL's platform is fixed.
    from OpenGL import GL

    with warnings.catch_warnings(), _leaving_current() if name == "egl" else contextlib.nullcontext():
        warnings.simplefilter("ignore")  # glfw warns before it fails
        if name == "glfw" and not importlib.import_module("glfw").init():
            raise OSError("no display found")
        context = context_class(8, 8)
        context.make_current()
        device = GL.glGetString(GL.GL_RENDERER)
        context.free()
    if not device:
        raise OSError("OpenGL reports no renderer")
    return str(device.decode())
