"""Renders a MuJoCo model through one of its cameras.

It calls MuJoCo's rendering functions as dm_control does, so the pixels are bit-identical. Unlike dm_control's renderer,
it makes its own OpenGL context current for every image, so that several renderers, including those of other libraries,
can share a process. It renders on the calling thread, so that it can be freed at interpreter exit (dm_control runs
OSMesa in a thread, which no longer exists then).
"""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from . import rendering

_MAX_GEOMS = 10_000  # mujoco.Renderer's default; a suite scene has a few hundred geoms


class Camera:
    """Renders `model` in the state `data`; owns an OpenGL context until `close()`.

    Args:
        model: the model; `fast` changes its quality settings, and a large `size` enlarges its frame buffer.
        data: its state, read for each image.
        camera_id: index of one of the model's fixed cameras.
        size: height and width of the images, in pixels.
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

    def picture(self, size: int | None = None) -> NDArray[np.uint8]:
        """The current scene as a new array (size, size, 3), top row first.

        Args:
            size: height and width in pixels, for a picture of another size than usual; at most what the frame buffer
                holds, which is MuJoCo's 640 by 480 unless the model says otherwise.
        """
        area, upside_down = self._area, self._upside_down
        if size is not None:
            visual = self._model.vis.global_
            size = min(size, visual.offwidth, visual.offheight)
            area, upside_down = mujoco.MjrRect(0, 0, size, size), np.empty((size, size, 3), np.uint8)
        mujoco.mjv_updateScene(
            self._model, self._data, self._options, None, self._viewpoint, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        with rendering.borrowed_thread():
            self._context.make_current()
            mujoco.mjr_render(area, self._scene, self._resources)
            mujoco.mjr_readPixels(upside_down, None, area, self._resources)
        return upside_down[::-1].copy()

    def upload_terrain(self) -> None:
        """Uploads height fields, which a task may change: the renderer keeps its own copy of them."""
        if self._model.nhfield:
            with rendering.borrowed_thread():
                self._context.make_current()
                for index in range(self._model.nhfield):
                    mujoco.mjr_uploadHField(self._model, self._resources, index)

    def close(self) -> None:
        """Frees the OpenGL context; call it only once."""
        with rendering.borrowed_thread():
            self._context.make_current()  # otherwise textures with the same ids in another context would be deleted
            self._resources.free()
            self._context.free()
