"""The plain pipeline that pretraining is measured against: SimCLR on small images as common codebases write it.

Each image is augmented on its own with Pillow, in the worker processes of a loader; the network is an eager ResNet-18
in float32 and in PyTorch's own memory order. Views are drawn from the distributions of the preset `cpu`, and the loss
of given views is the package's (tests/benchmarks/test_plain_vision.py); nothing in here is slow on purpose. The package
does not use it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset


class PlainViews(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image, drawn anew whenever it is asked for: ``(3, S, S)`` float32 in [0, 1].

    Args:
        images: ``(N, S, S, 3)`` uint8, held in memory as they are.
        scale: smallest and largest share of the area that a view shows.
    """

    def __init__(self, images: npt.NDArray[np.uint8], scale: tuple[float, float]) -> None:
        self.images, self.scale = images, scale

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.images[index])
        return self._view(image), self._view(image)

    def _view(self, image: Image.Image) -> Tensor:
        view = _resized_crop(image, self.scale)
        if random.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < 0.8:
            view = _jittered(view)
        if random.random() < 0.2:
            view = view.convert("L").convert("RGB")
        return torch.from_numpy(np.array(view)).permute(2, 0, 1).contiguous().float().div_(255)


def _resized_crop(image: Image.Image, scale: tuple[float, float]) -> Image.Image:
    side = image.width
    for _ in range(10):
        area = side * side * random.uniform(*scale)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            left, top = random.randint(0, side - width), random.randint(0, side - height)
            return image.crop((left, top, left + width, top + height)).resize((side, side), Image.Resampling.BILINEAR)
    return image


def _jittered(view: Image.Image) -> Image.Image:
    for change in random.sample(range(4), 4):
        if change < 3:
            kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[change]
            view = kind(view).enhance(random.uniform(0.6, 1.4))
        else:
            hue, saturation, value = view.convert("HSV").split()
            turn = round(random.uniform(-0.1, 0.1) * 255)
            hue = Image.fromarray(np.asarray(hue) + np.array(turn).astype(np.uint8))
            view = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return view


def batches(
    views: PlainViews, batch: int, *, workers: int, device: torch.device, repeats: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader of whole, shuffled batches, whose workers stay from one pass to the next.

    Args:
        views: what is drawn from.
        batch: images in a batch, each as two views.
        workers: processes that draw; 0 draws in this one.
        device: where the batches will go; those for a GPU lie in pinned memory, from which it copies while it computes.
        repeats: times that each image comes in a pass.
    """
    return DataLoader(
        ConcatDataset([views] * repeats),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class PlainResNet(nn.Module):
    """ResNet-18 with the stem for small images, ``(B, 3, H, W)`` to ``(B, 8·width)``; torchvision's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_Block(sizes[i], sizes[i + 1], 1 if i == 0 else 2), _Block(sizes[i + 1], sizes[i + 1], 1))
            for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))


class PlainSimCLR:
    """Network, head, loss and optimizer.

    Args:
        width: channels of the network's stem.
        lr: of AdamW.
        temperature: of the similarities.
        device: where it learns.
    """

    def __init__(self, width: int, *, lr: float, temperature: float, device: torch.device) -> None:
        dim = 8 * width
        self.temperature, self.device = temperature, device
        self.encoder = PlainResNet(width).to(device)
        self.head = nn.Sequential(
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, 128, bias=False),
            nn.BatchNorm1d(128),
        ).to(device)
        self.head[4].bias.requires_grad_(False)  # SimCLR's head ends with a scale and no shift
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-4},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr,
        )

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """NT-Xent of two views ``(B, 3, S, S)`` of the same images."""
        embeddings = F.normalize(self.head(self.encoder(torch.cat([first, second]))), dim=1)
        scores = embeddings @ embeddings.T / self.temperature
        scores.fill_diagonal_(float("-inf"))
        count = len(first)
        partners = torch.arange(2 * count, device=self.device).roll(count)
        return F.cross_entropy(scores, partners)

    def update(self, first: Tensor, second: Tensor) -> None:
        """One step of the optimizer."""
        loss = self.loss(*(views.to(self.device, non_blocking=True) for views in (first, second)))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def pass_over(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> None:
        """All batches of a loader."""
        views: Iterator[tuple[Tensor, Tensor]] = iter(loader)
        for first, second in views:
            self.update(first, second)
