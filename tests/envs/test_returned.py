"""What environments return: pictures of every kind, counts of values, rewards."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from envs.returned import Unusable, outcome, reward, rgb

RED = np.zeros((3, 5, 3), np.uint8)
RED[:, :2, 0], RED[0, :, 1] = 255, 51
GRAY = np.uint8([[0, 51, 255], [102, 204, 1]])
"""Of both the exact fractions of 255 are known: 51 = 0.2, 102 = 0.4, 204 = 0.8."""


@pytest.mark.parametrize(
    "picture",
    [
        RED,
        RED.astype(np.int64),
        RED.astype(np.int16),
        RED / 255,
        (RED / 255).astype(np.float32),
        (RED / 255).astype(np.float16),
        np.dstack([RED, np.full((3, 5), 9, np.uint8)]),
        np.dstack([RED / 255, np.full((3, 5), 0.5)]),
        RED[::-1][::-1],
        np.asfortranarray(RED),
        Image.fromarray(RED),
        Image.fromarray(RED).convert("RGBA"),
        Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE),
    ],
    ids=lambda picture: f"{getattr(picture, 'dtype', type(picture).__name__)} {np.shape(picture)}",
)
def test_pictures_with_a_single_meaning_are_taken(picture: Any) -> None:
    taken = rgb(picture)
    assert taken.dtype == np.uint8
    assert np.array_equal(taken, RED)


@pytest.mark.parametrize("picture", [GRAY, GRAY[..., None], GRAY / 255, Image.fromarray(GRAY)])
def test_gray_is_the_same_in_all_three_channels(picture: Any) -> None:
    assert np.array_equal(rgb(picture), np.dstack([GRAY, GRAY, GRAY]))


def test_a_mask_is_black_and_white() -> None:
    assert rgb(np.eye(2, dtype=bool))[..., 1].tolist() == [[255, 0], [0, 255]]


def test_floats_are_rounded_to_the_nearest() -> None:
    assert rgb(np.full((1, 1), 0.5))[0, 0].tolist() == [128, 128, 128]  # 127.5 to the even number
    assert rgb(np.full((1, 1), 0.4999))[0, 0, 0] == 127


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    assert np.array_equal(rgb(torch.from_numpy(RED)), RED)


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (None, 'None: return a picture if render_mode is "rgb_array"'),
        ([RED, RED], "a list of 2: return one array, the newest picture"),
        ((RED,), "a tuple of 1: "),
        (np.zeros(4), r"float64 \(4,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"uint8 \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        (np.zeros((5, 6, 2), np.uint8), r"uint8 \(5, 6, 2\)$"),
        (np.zeros((3, 5, 6), np.uint8), r"uint8 \(3, 5, 6\), channels first: return np.moveaxis\(picture, 0, -1\)"),
        (np.empty((2, 2), object), r"object \(2, 2\)"),
        (np.zeros((2, 2), complex), r"complex128 \(2, 2\)"),
        ("picture.png", r"<U11 \(\)"),
        (RED.astype(float), r"float64 \(3, 5, 3\) from 0 to 255: return picture.astype\(np.uint8\)"),
        (RED - 0.5, r"float64 \(3, 5, 3\) from -0.5 to 254.5$"),
        (np.full((2, 2), np.nan), r"float64 \(2, 2\) from nan to nan"),
        (np.full((2, 2), np.inf), r"float64 \(2, 2\) from inf to inf"),
        (RED.astype(np.int32) - 1, r"int32 \(3, 5, 3\) from -1 to 254"),
        (RED.astype(np.uint16) * 257, r"uint16 \(3, 5, 3\) from 0 to 65535"),
    ],
)
def test_other_pictures_are_refused_by_what_they_are(picture: Any, got: str) -> None:
    with pytest.raises(Unusable, match=rf"^render\(\) must return a uint8 array .*, got {got}"):
        rgb(picture)


def test_what_numpy_cannot_convert_is_refused() -> None:
    class OnAnotherDevice:
        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            raise TypeError("cannot convert cuda:0\ntensor")

    with pytest.raises(Unusable, match=r"got a OnAnotherDevice: cannot convert cuda:0 tensor$"):
        rgb(OnAnotherDevice())


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), np.array([2.0]), np.array([[2]])])
@pytest.mark.filterwarnings("error")
def test_rewards(value: Any) -> None:
    got = reward(value)
    assert got == 2.0
    assert type(got) is float


@pytest.mark.parametrize(
    ("value", "got"),
    [(None, "None"), ("much", "a str"), ([1, 2], "a list"), (np.zeros(2), r"an array of float64, shape \(2,\)")],
)
def test_what_is_no_reward(value: Any, got: str) -> None:
    with pytest.raises(Unusable, match=f"^the reward must be a number, got {got}$"):
        reward(value)


@pytest.mark.parametrize(
    ("value", "got"),
    [((1, 2, 3), "3 values"), (np.zeros(2), r"an array of float64, shape \(2,\)"), (None, "None"), ([1, 2], "a list")],
)
def test_the_count_of_values(value: Any, got: str) -> None:
    assert outcome("reset", ("observation", "info"), (4, 5)) == (4, 5)
    with pytest.raises(Unusable, match=rf"^reset\(\) must return \(observation, info\), got {got}$"):
        outcome("reset", ("observation", "info"), value)
