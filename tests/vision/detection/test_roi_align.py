"""RoIAlign: exact on linear maps, equal to torchvision's where that imports."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.vision.detection.roi_align import roi_align

BOXES = torch.tensor([[[16.0, 24, 56, 48], [9, 13, 20.5, 61]]])


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_ramp_is_exact_at_the_centers_of_bins(samples: int) -> None:
    """Bilinear sampling is exact on a linear function, and so is the mean of samples around a center."""
    stride, size = 8, 5
    y, x = torch.meshgrid(torch.arange(10.0) + 0.5, torch.arange(12.0) + 0.5, indexing="ij")  # centers, in places
    ramp = 2 * x - 3 * y + 1
    found = roi_align(ramp[None, None], BOXES, stride, size, samples)
    assert found.shape == (1, 2, 1, size, size)
    at = (torch.arange(size) + 0.5) / size
    for row, box in enumerate(BOXES[0] / stride):
        left, top, right, bottom = box
        expected = 2 * (left + (right - left) * at)[None] - 3 * (top + (bottom - top) * at)[:, None] + 1
        assert torch.allclose(found[0, row, 0], expected, atol=1e-4)


def test_each_image_is_sampled_by_its_own_boxes() -> None:
    maps = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[0.0, 0, 40, 40]], [[16, 8, 72, 72]]])
    both = roi_align(maps, boxes, 8, 4)
    for image in range(2):
        assert torch.equal(both[image : image + 1], roi_align(maps[image : image + 1], boxes[image : image + 1], 8, 4))


def test_gradient_agrees_with_finite_differences() -> None:
    maps = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[3.0, 2, 30, 25]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: roi_align(values, boxes, 8, 3), (maps,))


def test_agrees_with_torchvision() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=(ImportError, RuntimeError))
    maps = torch.randn(1, 4, 10, 12, generator=torch.Generator().manual_seed(0))
    theirs = ops.roi_align(maps, [BOXES[0]], 5, spatial_scale=1 / 8, sampling_ratio=2, aligned=True)
    assert torch.allclose(roi_align(maps, BOXES, 8, 5)[0], theirs, atol=1e-5)


def test_no_coordinate_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has diverged has such boxes, and PyTorch's backward pass on a CPU would end the process."""
    grids: list[Tensor] = []
    sample = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda maps, grid, **k: [grids.append(grid), sample(maps, grid, **k)][1])
    roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[[0.0, 0, 8, 8], [torch.nan] * 4]]), 8, 2)
    assert grids[0].isfinite().all()
