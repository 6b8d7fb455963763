"""Pictures of a MuJoCo model through one of its cameras.

MuJoCo's own drawing functions are called, as dm_control does: the pixels are the same, bit for bit. Unlike
dm_control's renderer this one makes its own OpenGL context current for every picture, so that many may live in one
process, beside other libraries' too; and it draws on the calling thread, so that it can be freed at the interpreter's
exit (dm_control gives OSMesa a thread, which is gone by then).
"""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs import rendering

_MAX_GEOMS = 10_000  # mujoco.Renderer's default; a suite scene has a few hundred shapes to draw


class Camera:
    """Draws `model` in the state `data`; owns an OpenGL context until `close()`.

    Args:
        model: the model; its quality settings are changed for `fast`, its frame buffer is enlarged where `size` asks.
        data: its state, read anew for each picture.
        camera_id: which of the model's fixed cameras.
        size: height and width of the pictures, in pixels.
        quality: see `envs.rendering.Quality`.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, *, camera_id: int, size: int, quality: rendering.Quality
    ) -> None:
        self._model, self._data = model, data
        visual = model.vis
        visual.global_.offwidth = max(visual.global_.offwidth, size)
        visual.global_.offheight = max(visual.global_.offheight, size)
        if quality == "fast":
            visual.quality.offsamples = 0
        self._viewpoint = mujoco.MjvCamera()
        self._viewpoint.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewpoint.fixedcamid = camera_id
        self._options = mujoco.MjvOption()
        self._options.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False  # dm_control does not draw sensors' rays
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        if quality == "fast":
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._area = mujoco.MjrRect(0, 0, size, size)
        self._upside_down: NDArray[np.uint8] = np.empty((size, size, 3), np.uint8)

        with rendering.borrowed_thread():
            self._context: Any = rendering.open_context(size)
            self._context.make_current()
            self._resources = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._resources)

    def picture(self) -> NDArray[np.uint8]:
        """The scene as it is now: a new array (size, size, 3), top row first."""
        mujoco.mjv_updateScene(
            self._model, self._data, self._options, None, self._viewpoint, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        with rendering.borrowed_thread():
            self._context.make_current()
            mujoco.mjr_render(self._area, self._scene, self._resources)
            mujoco.mjr_readPixels(self._upside_down, None, self._area, self._resources)
        return self._upside_down[::-1].copy()

    def upload_terrain(self) -> None:
        """Take over height fields that a task has changed: they are the one part of a model that the GPU keeps."""
        if self._model.nhfield:
            with rendering.borrowed_thread():
                self._context.make_current()
                for index in range(self._model.nhfield):
                    mujoco.mjr_uploadHField(self._model, self._resources, index)

    def close(self) -> None:
        """Free the OpenGL context; once only."""
        with rendering.borrowed_thread():
            self._context.make_current()  # else another context's textures of the same numbers would be deleted
            self._resources.free()
            self._context.free()
