"""What the methods of a gymnasium environment return, checked and converted to what this package works with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PICTURE = "render() must return a uint8 array (height, width, 3), or gray, RGBA, or floats in [0, 1]"


class Unusable(ValueError):
    """An environment's method returned something else than it should; the one-line message says what."""


def outcome(method: str, wanted: tuple[str, ...], got: Any) -> tuple[Any, ...]:
    """What `reset` or `step` returned.

    Args:
        method: its name.
        wanted: names of the values that it should return.
        got: what it returned.

    Raises:
        Unusable: it is not a tuple of that many values.
    """
    if isinstance(got, tuple) and len(got) == len(wanted):
        return got
    kind = f"{len(got)} values" if isinstance(got, tuple) else _kind(got)
    raise Unusable(f"{method}() must return ({', '.join(wanted)}), got {kind}")


def reward(got: Any) -> float:
    """A reward: any real number, or an array of one.

    Raises:
        Unusable: it is not a number.
    """
    try:
        if np.ndim(got) == 0:
            return float(got)
        return float(np.asarray(got, np.float64).reshape(()))
    except (TypeError, ValueError):
        raise Unusable(f"the reward must be a number, got {_kind(got)}") from None


def rgb(picture: Any) -> NDArray[np.uint8]:
    """The RGB image of what `render()` returned.

    Only what has a single meaning is converted. `np.asarray(picture, np.uint8)` would instead turn floats in [0, 1]
    into a black image, on which a run trains to its end without learning anything.

    Args:
        picture: an array, or anything that NumPy converts to one: RGB (H, W, 3), RGBA (H, W, 4), whose alpha is
            dropped, or gray (H, W) or (H, W, 1), of uint8, other integers in [0, 255], floats in [0, 1], or bools.
            Or a Pillow image.

    Returns:
        (H, W, 3); it may share memory with `picture`.

    Raises:
        Unusable: it is anything else: None, a list of frames, channels first, NaN, or floats up to 255, whose dark
            frames would pass for bright ones.
    """
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")
    if picture is None:
        raise Unusable(f'{_PICTURE}, got None: return a picture if render_mode is "rgb_array"')
    if isinstance(picture, (list, tuple)):
        raise Unusable(f"{_PICTURE}, got {_kind(picture)} of {len(picture)}: return one array, the newest picture")
    try:
        array = np.asarray(picture)
    except Exception as error:  # a tensor on a GPU, for example; each library has its own types
        raise Unusable(f"{_PICTURE}, got {_kind(picture)}: {' '.join(str(error).split())}") from error
    kind = f"{array.dtype} {array.shape}"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape or array.shape[2] not in (1, 3, 4):
        remedy = ""
        if array.ndim == 3 and 0 not in array.shape and array.shape[0] in (1, 3, 4):
            remedy = ", channels first: return np.moveaxis(picture, 0, -1)"
        raise Unusable(f"{_PICTURE}, got {kind}{remedy}")
    full = _bytes(array, kind)
    return np.repeat(full, 3, axis=2) if full.shape[2] == 1 else full[..., :3]


def _bytes(array: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    """The same brightness in [0, 255]; floats are rounded to the nearest."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise Unusable(f"{_PICTURE}, got {kind}")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # true for NaN, too
            remedy = ": return picture.astype(np.uint8)" if low >= 0 and 1 < high <= 255 else ""
            raise Unusable(f"{_PICTURE}, got {kind} from {low:g} to {high:g}{remedy}")
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise Unusable(f"{_PICTURE}, got {kind} from {low} to {high}")
    return array.astype(np.uint8)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"
