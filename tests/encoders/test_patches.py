"""The encoder of patches against its trunk on patches cut by hand."""

from __future__ import annotations

import pytest
import torch

from curl_rl.encoders import FeatureSpec, PatchEncoder, ResNet, ResNetConfig, build_encoder
from helpers.random_tensors import draw

CONFIG = ResNetConfig(width=1 / 16, stem="small", norm="group")


def make(patch: int = 4, height: int = 10, width: int = 8) -> PatchEncoder:
    torch.manual_seed(0)
    return PatchEncoder(ResNet((3, height, width), CONFIG), patch).double()


def test_each_place_of_the_map_is_the_trunk_on_its_own_patch() -> None:
    encoder, images = make(), draw(2, 3, 10, 8)
    features = encoder.encode(images)
    # Patches of 4 every 2 pixels: 4 rows in 10 pixels, 3 columns in 8.
    assert encoder.feature_spec == FeatureSpec(32, (32, 4, 3), patches=True)
    assert features.map.shape == (2, 32, 4, 3)
    assert features.middle is None
    for row in range(4):
        for column in range(3):
            window = images[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            assert torch.allclose(features.map[:, :, row, column], encoder.trunk(window), rtol=1e-8, atol=1e-10)
    assert torch.allclose(features.vector, sum(features.map[:, :, i // 3, i % 3] for i in range(12)) / 12)
    assert torch.equal(encoder(images), features.vector)


def test_a_patch_sees_neither_other_patches_nor_other_images() -> None:
    encoder, images = make(), draw(2, 3, 10, 8)
    before = encoder.encode(images).map
    images[1] += 1
    images[0, :, 6:] -= 1
    after = encoder.encode(images).map
    unchanged = before[0, :, :2], after[0, :, :2]  # pixels 0 to 5
    assert torch.equal(*unchanged)
    assert not torch.allclose(before[0, :, 2:], after[0, :, 2:])


def test_bytes_are_scaled_and_odd_edges_left_out() -> None:
    encoder = make(height=11)
    images = torch.randint(256, (2, 3, 11, 8), dtype=torch.uint8)
    assert encoder.feature_spec.map_shape == (32, 4, 3)
    assert torch.allclose(encoder(images), encoder(images.double() / 255))
    edge = images.clone()
    edge[:, :, 10] = 0
    assert torch.equal(encoder(edge), encoder(images))


def test_what_is_saved_is_the_trunk() -> None:
    encoder = make()
    assert encoder.exported is encoder.trunk
    assert encoder.trunk.exported is encoder.trunk
    rebuilt = build_encoder(encoder.exported.describe())
    assert isinstance(rebuilt, ResNet)
    assert rebuilt.config == CONFIG
    assert rebuilt.input_shape == encoder.input_shape == (3, 10, 8)
    again = encoder.fresh(3)
    assert again.patch == 4
    images = draw(2, 3, 10, 8)
    assert torch.equal(again(images), encoder.fresh(3)(images))
    assert not torch.allclose(again(images), encoder(images))
    again.precision = "bfloat16"
    assert again.trunk.precision == "bfloat16"


@pytest.mark.parametrize(
    ("patch", "norm", "message"),
    [
        (4, "batch", r"encoder\.resnet\.norm must be group with encoder\.patch, got batch: .*"),
        (3, "group", r"encoder\.patch must be an even number of pixels, got 3"),
        (0, "group", r"encoder\.patch must be an even number of pixels, got 0"),
        (6, "group", r"encoder\.patch must be at most two thirds of 8×8 pixels, got 6"),
    ],
)
def test_impossible_patches_are_refused_in_one_line(patch: int, norm: str, message: str) -> None:
    config = ResNetConfig(width=1 / 16, stem="small", norm=norm)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        PatchEncoder(ResNet((3, 8, 8), config), patch)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^images must have shape \(3, 10, 8\), got \(3, 8, 8\)$"):
        make().encode(draw(2, 3, 8, 8))
