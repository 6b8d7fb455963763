"""SimCLR on small images in one file: augmentations, network, loss and training.

    python examples/simclr_on_images.py              # scikit-learn's digits, in under a minute on one CPU core

Chen et al. 2020 (arXiv 2002.05709), in the style of common codebases: each image is augmented separately with Pillow,
optionally in the worker processes of a loader; the network is an eager ResNet-18 in float32 and PyTorch's default
memory format. To use your own images, pass them to `Views` in place of the digits: uint8, (N, S, S, 3). Features are
evaluated by nearest neighbors; digits are so simple that raw pixels are hard to beat.

Views have the distribution of the preset `cpu`, and the loss of given views equals the package's
(tests/examples/test_simclr_on_images.py). benchmarks/ measures the package against this program, so nothing in it is
slow on purpose. It does not use curl_rl.
"""

from __future__ import annotations

import argparse
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


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image, drawn on every access: ``(3, S, S)`` float32 in [0, 1].

    Args:
        images: ``(N, S, S, 3)`` uint8, kept in memory.
        scale: smallest and largest share of the area that a view shows.
        mirror: probability of mirroring a view; 0 for digits and letters.
    """

    def __init__(self, images: npt.NDArray[np.uint8], scale: tuple[float, float], mirror: float = 0.5) -> None:
        self.images, self.scale, self.mirror = images, scale, mirror

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.images[index])
        return self._view(image), self._view(image)

    def _view(self, image: Image.Image) -> Tensor:
        view = _resized_crop(image, self.scale)
        if random.random() < self.mirror:
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
    views: Views, batch: int, *, workers: int, device: torch.device, repeats: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader of whole, shuffled batches with persistent workers.

    Args:
        views: the data set.
        batch: images in a batch, each as two views.
        workers: processes that draw views; 0 draws them in this process.
        device: destination of the batches; those for a GPU are pinned, so that it copies them while it computes.
        repeats: occurrences of each image in a pass.
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


class Block(nn.Module):
    """Two convolutions and a shortcut."""

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


class ResNet18(nn.Module):
    """ResNet-18 with the stem for small images, ``(B, 3, H, W)`` to ``(B, 8·width)``; torchvision's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(Block(sizes[i], sizes[i + 1], 1 if i == 0 else 2), Block(sizes[i + 1], sizes[i + 1], 1))
            for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))


class SimCLR:
    """Network, head, loss and optimizer.

    Args:
        width: channels of the stem.
        lr: AdamW's learning rate.
        temperature: of the similarities.
        device: of the networks.
    """

    def __init__(self, width: int, *, lr: float, temperature: float, device: torch.device) -> None:
        dim = 8 * width
        self.temperature, self.device = temperature, device
        self.encoder = ResNet18(width).to(device)
        self.head = nn.Sequential(
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, 128, bias=False),
            nn.BatchNorm1d(128),
        ).to(device)
        self.head[4].bias.requires_grad_(False)  # SimCLR's head ends in a scale without a shift
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
        """Trains on all batches of a loader."""
        views: Iterator[tuple[Tensor, Tensor]] = iter(loader)
        for first, second in views:
            self.update(first, second)


def digits(side: int) -> tuple[npt.NDArray[np.uint8], Tensor]:
    """scikit-learn's 1797 digits: ``(N, side, side, 3)`` uint8 and their labels ``(N,)``, shuffled."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    grays = (Image.fromarray(image) for image in (loaded.images[order] / 16 * 255).astype(np.uint8))
    images = [np.asarray(gray.resize((side, side), Image.Resampling.BILINEAR).convert("RGB")) for gray in grays]
    return np.stack(images), torch.from_numpy(loaded.target[order])


@torch.no_grad()
def features(encoder: nn.Module, images: npt.NDArray[np.uint8]) -> Tensor:
    """Features ``(N, D)`` of unit length."""
    encoder.eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    found = torch.cat([encoder(part) for part in pixels.split(256)])
    encoder.train()
    return F.normalize(found.flatten(1), dim=1)


def neighbors_accuracy(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 10) -> float:
    """Accuracy on the test set of an unweighted vote of the ``k`` nearest neighbors by cosine similarity."""
    votes = F.one_hot(labels[(test @ train.T).topk(k).indices]).sum(1)
    return (votes.argmax(1) == test_labels).float().mean().item()


def main() -> None:
    """Pretrain on digits without labels; print the accuracy of nearest neighbors in the features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="[%(default)s]")
    parser.add_argument("--batch_size", type=int, default=128, help="images, each as two views [%(default)s]")
    parser.add_argument("--width", type=int, default=8, help="channels of the network's stem [%(default)s]")
    parser.add_argument("--workers", type=int, default=0, help="augmentation processes; 0: this one [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="[%(default)s]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the network is so small that a second thread would only wait
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)
    device = torch.device("cpu")
    images, labels = digits(16)
    train, test = slice(1300), slice(1300, None)
    learner = SimCLR(arguments.width, lr=3e-3, temperature=0.2, device=device)
    views = Views(images[train], (0.4, 1.0), mirror=0.0)
    loader = batches(views, arguments.batch_size, workers=arguments.workers, device=device)

    def judge(name: str, encoder: nn.Module) -> None:
        found = features(encoder, images)
        accuracy = neighbors_accuracy(found[train], labels[train], found[test], labels[test])
        print(f"nearest neighbors, {name}: {accuracy:.1%} of {len(found[test])} held-out digits", flush=True)

    judge("raw pixels", nn.Identity())
    judge("untrained", learner.encoder)
    for epoch in range(1, arguments.epochs + 1):
        learner.pass_over(loader)
        if epoch % 5 == 0 or epoch == arguments.epochs:
            judge(f"{epoch} epochs", learner.encoder)


if __name__ == "__main__":
    main()
