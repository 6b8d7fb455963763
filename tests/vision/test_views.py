"""Views: each step of the recipe enabled by itself and compared with its expected effect on an image."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from curl_rl.augment import auto_augment, operations
from curl_rl.objectives import ViewSpec
from curl_rl.vision.views import AugmentConfig, make_views

PLAIN = AugmentConfig(
    size=12, scale=(1.0, 1.0), ratio=(1.0, 1.0), mirror=0, jitter=0, greyscale=0, local_size=6, local_scale=(0.25, 0.25)
)
EVERYTHING = AugmentConfig(
    size=12, local_views=2, local_size=6, randaugment=2, blur=(1.0, 0.1, 0.5), solarise=(0.0, 0.2)
)


def made(*arguments: Any, **named: Any) -> list[torch.Tensor]:
    """The views in their order."""
    return list(make_views(*arguments, **named).values())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator(7))


def test_with_every_step_off_the_views_are_the_images() -> None:
    images = noise(3)
    views = made(images, replace(PLAIN, views=3), generator())
    assert len(views) == 3
    for view in views:
        assert torch.allclose(view, images / 255, atol=1e-7)


def test_views_that_are_mirrored_together_show_an_image_the_same_way_round() -> None:
    """As do later observations; half of the images are flipped, each view by itself without the setting."""
    images, later = noise(400), {1: noise(400).flip(2)}
    specs = [ViewSpec(0), ViewSpec(1), ViewSpec(1, future=1)]
    for together in (True, False):
        recipe = replace(PLAIN, mirror=0.5, mirror_together=together)
        first, second, third = made(images, recipe, generator(), specs, later=later)
        flipped = [
            (view - source.flip(3) / 255).abs().amax((1, 2, 3)) < 1e-6
            for view, source in ((first, images), (second, images), (third, later[1]))
        ]
        kept = (first - images / 255).abs().amax((1, 2, 3)) < 1e-6
        assert torch.equal(kept, ~flipped[0])
        assert scipy.stats.binomtest(int(flipped[0].sum()), 400).pvalue > 1e-3
        assert torch.equal(flipped[0], flipped[1]) is together
        assert torch.equal(flipped[0], flipped[2]) is together


def test_local_views_come_last_and_show_less() -> None:
    rows = torch.arange(240, dtype=torch.uint8)[None, None, :, None].expand(20, 3, 240, 240)
    *_, first, second = made(rows, replace(PLAIN, local_views=2), generator())
    assert first.shape == second.shape == (20, 3, 6, 6)
    for view in (first, second):
        # A quarter of the area is half the height, in which the view's rows are a sixth apart. (The outermost rows are
        # pulled inwards: there is nothing to average beyond the window.)
        height = (view[:, 0, 4, 0] - view[:, 0, 1, 0]) * 255 * 6 / 3
        assert torch.allclose(height, torch.full((20,), 120.0), atol=0.5)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("step", ["blur", "solarise"])
def test_one_probability_per_view_and_the_last_for_all_further_ones(step: str) -> None:
    images = noise(4)
    recipe: dict[str, Any] = {step: (0.0, 1.0), "blur_sigma": (1.0, 1.0), "blur_kernel": 0.4}
    first, second, third, local = made(images, replace(PLAIN, views=3, local_views=1, **recipe), generator(1))
    *_, plain_local = made(images, replace(PLAIN, views=3, local_views=1), generator(1))
    assert torch.allclose(first, images / 255, atol=1e-7)
    if step == "solarise":
        expected = torch.where(images >= 128, 255 - images, images) / 255
    else:
        # 0.4 of 12 pixels, made odd: two to either side
        blurred = scipy.ndimage.gaussian_filter(images / 255.0, 1.0, mode="mirror", radius=2, axes=(2, 3))
        expected = torch.from_numpy(np.asarray(blurred))
    for view in (second, third):
        assert torch.allclose(view, expected, atol=1e-6)
    assert local.shape == plain_local.shape
    assert not torch.allclose(local, plain_local, atol=0.01)


@pytest.mark.parametrize(("share", "radius"), [(0.1, 1), (0.5, 3), (0.6, 3), (1.0, 6)])
def test_the_blurs_kernel_is_a_share_of_the_view_made_odd(share: float, radius: int) -> None:
    spot = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    spot[..., 5, 5] = 255
    recipe = replace(PLAIN, views=1, blur=(1.0,), blur_sigma=(50.0, 50.0), blur_kernel=share)
    (view,) = made(spot, recipe, generator())
    touched = (view[0, 0] > 1e-4).any(0).nonzero().squeeze(1)
    assert touched.max() == min(5 + radius, 11)


def test_steps_with_a_probability_of_their_own() -> None:
    images = noise(2)
    grayscale, _ = made(images, replace(PLAIN, greyscale=1.0), generator())
    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    gray = (images / 255 * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.allclose(grayscale, gray, atol=1e-6)
    mirrored, _ = made(images, replace(PLAIN, mirror=1.0), generator())
    assert torch.allclose(mirrored, images.flip(3) / 255, atol=1e-6)
    threshold, _ = made(images, replace(PLAIN, solarise=(1.0,), solarise_threshold=0.0), generator())
    assert torch.allclose(threshold, 1 - images / 255, atol=1e-6)


def test_jitter_passes_each_strength_to_its_own_step() -> None:
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    flat = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(1000, 3, 2, 2).contiguous()
    dark = torch.tensor([120, 60, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1000, 3, 2, 2).contiguous()
    flat[..., 1] = dark[..., 1]
    recipe = replace(PLAIN, views=1, size=2, jitter=1.0, **strengths)
    (still,) = made(flat, recipe, generator())
    assert torch.allclose(still, flat / 255, atol=1e-6)

    (bright,) = made(flat, replace(recipe, brightness=0.2), generator())
    factor = (bright / (flat / 255)).flatten(1)
    assert torch.allclose(factor, factor[:, :1].expand_as(factor), atol=1e-5), "one factor for all of an image"
    assert scipy.stats.kstest(factor[:, 0].numpy(), scipy.stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3

    (turned,) = made(flat, replace(recipe, hue=0.1), generator())
    assert torch.allclose(turned.amax(1), flat.amax(1) / 255, atol=1e-5), "HSV's value stays"
    assert not torch.allclose(turned, flat / 255, atol=0.01)

    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    for name in ("contrast", "saturation"):
        (changed,) = made(flat, replace(recipe, **{name: 0.2}), generator())
        pixel_gray, mean_gray = ((images * weights).sum(1) for images in (changed, flat / 255))
        kept = mean_gray if name == "saturation" else mean_gray.mean((1, 2), keepdim=True)
        seen = pixel_gray if name == "saturation" else pixel_gray.mean((1, 2), keepdim=True)
        assert torch.allclose(seen, kept, atol=1e-4), name
        assert not torch.allclose(changed, flat / 255, atol=0.01), name


def test_randaugment_has_the_requested_magnitude() -> None:
    images = noise(60)
    recipe = replace(PLAIN, views=1, randaugment=1, randaugment_magnitude=0)
    (weak,) = made(images, recipe, generator())
    (strong,) = made(images, replace(recipe, randaugment_magnitude=30), generator())
    # At magnitude 0 only solarizing (white), stretching the contrast and equalizing change anything.
    changed_weak, changed_strong = (
        ((view - images / 255).abs().amax((1, 2, 3)) > 0.01).float().mean() for view in (weak, strong)
    )
    assert changed_weak < 0.4
    assert changed_strong > 0.7


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 12, 12), (3, 17, 9), (2, 40, 33)])
def test_views_are_float32_channels_last_and_in_range(batch: int, height: int, width: int) -> None:
    views = made(noise(batch, height, width), EVERYTHING, generator())
    assert [tuple(view.shape) for view in views] == [(batch, 3, 12, 12)] * 2 + [(batch, 3, 6, 6)] * 2
    for view in views:
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert view.min() >= 0
        assert view.max() <= 1
        assert view.isfinite().all()


def test_views_follow_the_generator_and_no_other_image() -> None:
    images, others = noise(5), noise(5).flip(0).flip(3)
    others[2] = images[2]
    before = torch.get_rng_state()
    first, again, other = (made(batch, EVERYTHING, generator(3)) for batch in (images, images, others))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[2], c[2])
        assert not torch.equal(a[1], c[1])
    assert not torch.allclose(first[0], first[1], atol=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def stacks(batch: int, frames: int) -> torch.Tensor:
    return torch.cat([noise(batch).roll(number, 0) for number in range(frames)], 1)


def test_a_plain_crop_is_a_window_of_whole_pixels() -> None:
    # Each pixel encodes its position: row in the first channel, column in the second.
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    images = image.expand(400, -1, -1, -1)
    recipe = replace(PLAIN, crop="plain", size=8, mirror=1.0, scale=(0.1, 0.2))
    views = made(images, recipe, generator())
    for view in views:
        pixels = (view * 255).round().long()
        top, left = pixels[:, 0, 0, 0], pixels[:, 1, 0, 0]
        assert torch.equal(pixels[:, 0], (top[:, None] + torch.arange(8))[:, :, None].expand(-1, 8, 8))
        assert torch.equal(pixels[:, 1], (left[:, None] + torch.arange(8))[:, None].expand(-1, 8, 8))
        # All five offsets of either axis are drawn.
        assert set(top.tolist()) == set(left.tolist()) == set(range(5))
    assert not torch.equal(*views)


COLORS = replace(PLAIN, views=1, crop="plain", size=12, jitter=0.7, greyscale=0.3, solarise=(0.4,))


@pytest.mark.parametrize("crop", ["plain", "resized"])
def test_equal_frames_of_a_stack_stay_equal(crop: Any) -> None:
    recipe = replace(COLORS, crop=crop, size=8, scale=(0.3, 1.0), mirror=0.5, blur=(0.5,))
    (view,) = made(noise(40).repeat(1, 3, 1, 1), recipe, generator())
    frames = view.unflatten(1, (3, 3))
    assert view.shape == (40, 9, 8, 8)
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(frames[:, 1], frames[:, 0], atol=1e-6)
    assert torch.allclose(frames[:, 2], frames[:, 0], atol=1e-6)


def test_every_frame_of_a_stack_is_changed_as_it_would_be_alone() -> None:
    # Contrast scales around the mean gray of the whole stack: without contrast, the other frames do not matter.
    recipe = replace(COLORS, contrast=0.0)
    images = stacks(30, 3)
    (view,) = made(images, recipe, generator(5))
    for number in range(3):
        alone = images[:, 3 * number : 3 * number + 3]
        (expected,) = made(alone, recipe, generator(5))
        assert torch.allclose(view[:, 3 * number : 3 * number + 3], expected, atol=1e-5)
    assert (view - images / 255).abs().amax() > 0.1


def test_contrast_scales_all_frames_of_a_stack_around_their_common_gray() -> None:
    dark, bright = (torch.full((1, 3, 4, 4), value, dtype=torch.uint8) for value in (51, 153))
    recipe = replace(PLAIN, views=1, size=4, crop="plain", jitter=1.0, brightness=0, saturation=0, hue=0, contrast=0.4)
    (view,) = made(torch.cat([dark, bright], 1), recipe, generator(1))
    low, high = view[0, :3].mean(), view[0, 3:].mean()
    # Their mean gray, 102/255 = 0.4, is half way; one factor has scaled both distances of 0.2 from it.
    assert (low + high) / 2 == pytest.approx(0.4, abs=1e-3)
    assert abs((high - low) / 0.4 - 1) <= 0.4
    assert high - low != pytest.approx(0.4, abs=1e-3)
    assert torch.allclose(view[0, :3], low, atol=1e-6)


WHOLE = replace(PLAIN, local_views=1, local_size=12, local_scale=(1.0, 1.0))


def test_all_views_but_the_first_may_show_a_later_moment() -> None:
    now, later = noise(3), noise(3).flip(0)
    specs = [ViewSpec(0), ViewSpec(1), ViewSpec(2)]
    first, second, local = made(now, WHOLE, generator(), specs, later={2: later}, positive_offset=2)
    assert torch.allclose(first, now / 255, atol=1e-6)
    assert torch.allclose(second, later / 255, atol=1e-6)
    assert torch.allclose(local, later / 255, atol=1e-6)


def test_a_view_shows_the_moment_named_by_its_spec() -> None:
    now, soon, late = noise(3), noise(3).flip(0), 255 - noise(3)
    specs = [ViewSpec(0), ViewSpec(0, future=1), ViewSpec(1, future=3)]
    views = make_views(now, WHOLE, generator(), specs, later={1: soon, 3: late})
    assert list(views) == specs
    for spec, frames in zip(specs, (now, soon, late), strict=True):
        assert torch.allclose(views[spec], frames / 255, atol=1e-6)
    # The offset of all views but the first is added.
    shifted = make_views(now, WHOLE, generator(), specs, later={1: soon, 5: late}, positive_offset=2)
    assert all(torch.equal(views[spec], shifted[spec]) for spec in specs)


def test_views_by_name_are_those_of_their_index_to_the_bit() -> None:
    images, specs = noise(4), [ViewSpec(index) for index in range(4)]
    given = zip(made(images, EVERYTHING, generator(2)), made(images, EVERYTHING, generator(2), specs), strict=True)
    assert all(torch.equal(one, other) for one, other in given)


def test_a_number_of_operations_alone_still_asks_for_randaugment() -> None:
    images = noise(20)
    by_number, named, defaults = (
        made(images, replace(PLAIN, **settings), generator())
        for settings in ({"randaugment": 2}, {"randaugment": 2, "policy": "randaugment"}, {"policy": "randaugment"})
    )
    for view in range(2):
        assert torch.equal(by_number[view], named[view])
        assert torch.equal(named[view], defaults[view])
        assert not torch.allclose(named[view], images / 255, atol=1e-2)


@pytest.mark.parametrize("learned_on", ["cifar10", "imagenet", "svhn"])
def test_autoaugment_is_the_policy_of_its_images(learned_on: Any) -> None:
    images = noise(20)
    (view,) = made(images, replace(PLAIN, views=1, policy="autoaugment", autoaugment=learned_on), generator())
    reference = generator()
    (plain,) = made(images, replace(PLAIN, views=1), reference)  # draws the crops
    assert torch.allclose(view, auto_augment(plain, reference, policy=learned_on), atol=1e-6)


def test_two_policies_at_once_are_refused() -> None:
    message = "augment.randaugment must be 0 with augment.policy autoaugment, got 2: choose one"
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, policy="autoaugment", randaugment=2)


def test_stacks_have_no_policy() -> None:
    with pytest.raises(
        ValueError, match="augment.policy autoaugment takes single images, not stacks of frames: set it to none"
    ):
        made(stacks(2, 3), replace(PLAIN, policy="autoaugment"), generator())


def test_stacks_have_no_randaugment() -> None:
    with pytest.raises(
        ValueError, match="augment.randaugment 2 takes single images, not stacks of frames: set it to 0"
    ):
        made(stacks(2, 3), replace(PLAIN, randaugment=2), generator())


def test_autocast_does_not_reach_the_pixels() -> None:
    images = noise(4)
    plain = made(images, EVERYTHING, generator())
    with torch.autocast("cpu", torch.bfloat16):
        cast = made(images, EVERYTHING, generator())
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_nothing_depends_on_a_tensors_data(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU, where it costs nothing, a policy asks which images drew an operation.
    monkeypatch.setattr(operations, "_in_subsets", operations._in_full)
    # A fake tensor has no data: whatever asks for any raises.
    images = noise(3)
    with FakeTensorMode() as mode:
        made(mode.from_tensor(images), EVERYTHING, generator())


@pytest.mark.parametrize("images", [noise(2).float(), noise(2)[0], noise(2)[:, :1], noise(2)[:, :0]])
def test_other_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\) uint8"):
        made(images, PLAIN, generator())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("views", 0, "augment.views must be at least 1, got 0"),
        ("size", 1, "augment.size must be at least 2, got 1"),
        ("local_views", -1, "augment.local_views must be at least 0, got -1"),
        ("local_size", 1, "augment.local_size must be at least 2, got 1"),
        ("randaugment", -1, "augment.randaugment must be at least 0, got -1"),
        ("randaugment_magnitude", 31, "augment.randaugment_magnitude must lie in [0, 30], got 31"),
        ("mirror", 1.5, "augment.mirror must lie in [0, 1], got 1.5"),
        ("jitter", -0.1, "augment.jitter must lie in [0, 1], got -0.1"),
        ("greyscale", float("nan"), "augment.greyscale must lie in [0, 1], got nan"),
        ("solarise_threshold", 128, "augment.solarise_threshold must lie in [0, 1], got 128"),
        ("brightness", -1, "augment.brightness must be from 0"),
        ("contrast", float("nan"), "augment.contrast must be from 0"),
        ("saturation", 1e40, "augment.saturation must be from 0"),
        ("hue", 0.6, "augment.hue must be between 0 and 0.5"),
        ("scale", (0.5, 0.2), "augment.scale must be two rising positive numbers, at most 1, got"),
        ("scale", (0.5, 1.2), "at most 1, got"),
        ("local_scale", (0.0, 0.2), "augment.local_scale must be two rising positive numbers, at most 1, got"),
        ("ratio", (2.0, 1.0), "augment.ratio must be two rising positive numbers, at most 100, got"),
        ("blur_sigma", (0.0, 1.0), "augment.blur_sigma must be two rising positive numbers, at most 100, got"),
        ("blur_kernel", 0.0, "augment.blur_kernel must lie in (0, 1], got 0.0"),
        ("blur", (), "augment.blur must be one probability, or one for each of up to 2 views, got"),
        ("blur", (0.1, 0.2, 0.3), "augment.blur must be one probability, or one for each of up to 2 views, got"),
        ("solarise", (1.2,), "augment.solarise must lie in [0, 1], got"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        AugmentConfig(**{field: value})
    assert "\n" not in str(error.value)
