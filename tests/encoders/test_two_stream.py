"""Two streams against two separate networks on the channels, and what each can see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from curl_rl.artifacts.encoder_file import load_encoder, save_encoder
from curl_rl.encoders import ResNetConfig, TwoStreamEncoder
from curl_rl.encoders.color_spaces import rgb_to_lab

SHAPE, CONFIG = (3, 12, 12), ResNetConfig(width=1 / 16, stem="small")


def made(space: str = "lab") -> TwoStreamEncoder:
    torch.manual_seed(0)
    return TwoStreamEncoder(SHAPE, CONFIG, space).eval()  # type: ignore[arg-type]


def images(batch: int = 3) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_features_are_those_of_two_networks_on_the_channels() -> None:
    encoder, lab = made(), rgb_to_lab(images())
    center, scale = torch.tensor([50, 6.025, -6.6895]), torch.tensor([50, 92.208, 101.1675])
    channels = (lab - center.view(3, 1, 1)) / scale.view(3, 1, 1)
    first, second = encoder.lightness.encode(channels[:, :1]), encoder.color.encode(channels[:, 1:])
    for found, one, other in zip(encoder.encode(images()), first, second, strict=True):
        assert found is not None
        assert one is not None
        assert other is not None
        torch.testing.assert_close(found, torch.cat([one, other], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_a_gray_copy_keeps_the_lightness_and_loses_the_color(space: str) -> None:
    """Luma or lightness of a color is that of some gray; all grays have one color."""
    encoder = made(space)
    grays = images()[:, :1].expand(-1, 3, -1, -1)
    darker = (grays / 2).contiguous()
    one, other = encoder.encode(grays).vector.chunk(2, 1), encoder.encode(darker).vector.chunk(2, 1)
    torch.testing.assert_close(one[1], other[1], rtol=1e-2, atol=1e-3)
    assert not torch.allclose(one[0], other[0], rtol=0.05)


def test_it_is_saved_and_loaded_with_both_streams(tmp_path: Path) -> None:
    encoder = made("ycbcr")
    save_encoder(encoder, tmp_path, rendered_size=12, provenance={})
    loaded = load_encoder(tmp_path).encoder
    assert torch.equal(loaded(images()), encoder(images()))


def test_stacks_and_a_normalization_of_its_own_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be RGB, \(3, H, W\), got \(9, 12, 12\): no stacks"):
        TwoStreamEncoder((9, 12, 12), CONFIG)
    with pytest.raises(ValueError, match="mean and std must be left out"):
        TwoStreamEncoder(SHAPE, ResNetConfig(mean=(0.5,)))
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got \(1, 2, 12, 12\)"):
        made()(torch.zeros(1, 2, 12, 12))
    description = made().describe()
    with pytest.raises(ValueError, match="space must be lab or ycbcr, got 'hsv'"):
        TwoStreamEncoder.from_description(SHAPE, description["config"] | {"space": "hsv"})
