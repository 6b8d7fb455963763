"""The warning for floats that still lie in [0, 255], and where it must not read values."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.float_range import FloatRange
from curl_rl.testing import NoHostSync

LARGE = torch.full((2, 3, 4, 4), 200.0)


def pretrained(**named: float) -> PretrainedEncoder:
    return PretrainedEncoder(PixelEncoder((3, 4, 4), EncoderConfig(2, (1,), 3)), 4, {}, **named)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_the_first_batch_decides() -> None:
    with pytest.warns(UserWarning, match=r"\Afloating-point images must lie in \[0, 1\], got 200: do this\Z"):
        (seen := FloatRange()).check(LARGE, "do this")
    seen.check(LARGE, "do this")
    good = FloatRange()
    good.check(LARGE / 200, "do this")
    with NoHostSync():
        good.check(LARGE, "do this")


@pytest.mark.parametrize("images", [LARGE.to(torch.uint8), LARGE[:0], LARGE / 200, LARGE.to("meta"), -LARGE])
def test_nothing_to_warn_of(images: torch.Tensor) -> None:
    FloatRange().check(images, "do this")


def test_a_copy_does_not_warn_again() -> None:
    first = FloatRange()
    second = copy.deepcopy(first)
    with pytest.warns(UserWarning, match="do this"):
        first.check(LARGE, "do this")
    second.check(LARGE, "do this")


def test_a_loaded_encoder_warns_once_unless_it_has_a_scale() -> None:
    pretrained(scale=1 / 255)(LARGE)
    pretrained()(LARGE.to(torch.uint8))
    encoder = pretrained()
    with pytest.warns(UserWarning, match="got 200: set scale=1/255 for floats in"):
        encoder(LARGE)
    encoder(LARGE)


def test_an_encoder_pickled_by_an_earlier_version_still_works() -> None:
    encoder = pretrained()
    state = {name: value for name, value in vars(encoder).items() if name != "_float_range"}
    older = PretrainedEncoder.__new__(PretrainedEncoder)
    older.__setstate__(state)
    assert torch.equal(older(LARGE / 255), encoder(LARGE / 255))


def test_exporting_reads_no_values() -> None:
    encoder = pretrained()
    program = torch.export.export(encoder, (LARGE,))  # would warn
    assert torch.allclose(program.module()(LARGE / 255), encoder(LARGE / 255))
