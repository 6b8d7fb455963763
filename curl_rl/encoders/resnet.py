"""ResNets as encoders: 18, 34 and 50 layers, any width, a stem for small images (He et al. 2015, arXiv 1512.03385).

Names and shapes of the parameters are torchvision's, so its weights load; the 50-layer network has its stride in the
3×3 convolution, as there. There is no classifier: the features are the mean over the places of the last map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.base import Features, FeatureSpec, Precision

# Residual blocks in each of the four stages (arXiv 1512.03385, table 1).
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


_WIDEST = 64  # 4,096 channels in the stem: beyond any network


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a :class:`ResNet`. Torchvision's weights want width 1, the imagenet stem, ImageNet's mean and std."""

    depth: Literal[18, 34, 50] = 18
    """Layers: 18 and 34 are made of basic blocks, 50 of bottlenecks."""
    width: float = 1.0
    """Factor on the channels of every layer, the stem included; 64 times it must be a whole number."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """First layers. imagenet: a 7×7 convolution and a max-pool, each halving the image. small: one 3×3 convolution that
    keeps the size, for images of 32×32 or so (SimCLR, arXiv 2002.05709, appendix B.9)."""
    zero_init_residual: bool = False
    """Start every block as the identity: the last batch norm of its residual branch starts at zero
    (Goyal et al. 2017, arXiv 1706.02677, section 5.1)."""
    batch_norm_splits: int = 1
    """Equal parts of the batch that are normalised each by its own statistics in training: what MoCo needs where one
    GPU does the work of several. 1: the whole batch together."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from pixels in [0, 1]: one number, or one per channel. ImageNet: [0.485, 0.456, 0.406]."""
    std: tuple[float, ...] = (1.0,)
    """Pixels are divided by it after that: one number, or one per channel. ImageNet: [0.229, 0.224, 0.225]."""

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS:
            raise ValueError(f"depth must be one of {sorted(_BLOCKS)}, got {self.depth}")
        if self.stem not in ("imagenet", "small"):
            raise ValueError(f"stem must be imagenet or small, got {self.stem!r}")
        if not 0 < self.width <= _WIDEST or 64 * self.width % 1:
            raise ValueError(f"width must be a positive multiple of 1/64 and at most {_WIDEST}, got {self.width}")
        if self.batch_norm_splits < 1:
            raise ValueError(f"batch_norm_splits must be at least 1, got {self.batch_norm_splits}")
        if not self.mean or not self.std or min(self.std) <= 0:
            raise ValueError(f"mean needs numbers and std positive ones, got {list(self.mean)} and {list(self.std)}")


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of ``splits`` equal, consecutive parts of the batch.

    It gives one device the batch statistics of ``splits`` devices without synchronised batch norm, which keep MoCo from
    telling the positive pair by its shared statistics (arXiv 1911.05722, section 3.3). The running statistics are the
    mean of the parts'. In evaluation, and with one part, it is :class:`torch.nn.BatchNorm2d`, as is its state dict.

    Raises:
        ValueError: the batch does not divide into the parts.
    """

    def __init__(self, num_features: int, splits: int) -> None:
        super().__init__(num_features)
        self.splits = splits

    def forward(self, x: Tensor) -> Tensor:
        if self.splits == 1 or not self.training:
            return super().forward(x)
        if len(x) % self.splits:
            raise ValueError(
                f"batch_norm_splits {self.splits} must divide the batch, got a batch of {len(x)}: "
                f"take {len(x) // self.splits * self.splits or self.splits} images"
            )
        mean, var, steps = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert steps is not None
        assert self.momentum is not None
        means, variances = mean.repeat(self.splits, 1), var.repeat(self.splits, 1)
        normalised = [
            F.batch_norm(part, means[i], variances[i], self.weight, self.bias, True, self.momentum, self.eps)
            for i, part in enumerate(x.chunk(self.splits))
        ]
        mean.copy_(means.mean(0))
        var.copy_(variances.mean(0))
        steps.add_(1)
        return torch.cat(normalised)


def _relu(x: Tensor) -> Tensor:
    """In place it saves memory, but in bfloat16 on a CPU it takes twice as long."""
    return x.relu() if x.device.type == "cpu" else x.relu_()


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input goes unchanged, or through a 1×1 convolution where shapes differ."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, splits: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = SplitBatchNorm2d(width, splits)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = SplitBatchNorm2d(width, splits)
        self.downsample = _shortcut(channels, width, stride, splits)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the residual branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        residual = _relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return _relu(residual + self.downsample(x))


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last to four times the channels, with the same way around them."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, splits: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = SplitBatchNorm2d(width, splits)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = SplitBatchNorm2d(width, splits)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = SplitBatchNorm2d(4 * width, splits)
        self.downsample = _shortcut(channels, 4 * width, stride, splits)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the residual branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        residual = _relu(self.bn1(self.conv1(x)))
        residual = _relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return _relu(residual + self.downsample(x))


def _shortcut(channels: int, outputs: int, stride: int, splits: int) -> nn.Module:
    if stride == 1 and channels == outputs:
        return nn.Identity()
    projection = nn.Conv2d(channels, outputs, 1, stride, bias=False)
    return nn.Sequential(projection, SplitBatchNorm2d(outputs, splits))


class ResNet(nn.Module):
    """A ResNet without its classifier.

    Args:
        image_shape: ``(C, H, W)`` of the images that :attr:`feature_spec` speaks of; other sizes are taken as well
            (multi-crop), and give maps of other sizes.
        config: depth, width, stem, batch norm, normalisation of the input.
        precision: what the network computes in; weights, batch statistics and features keep the parameters' type.

    ``encoder(images)`` takes ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], and returns
    ``(B, dim)``, dim being 512 times the width, or 2048 times with 50 layers.

    Raises:
        ValueError: images of another number of channels, or a mean or std for another number of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        config: ResNetConfig = ResNetConfig(),
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        channels = image_shape[0]
        if min(image_shape) < 1:
            raise ValueError(f"image_shape must be three positive integers (C, H, W), got {image_shape}")
        for name, values in (("mean", config.mean), ("std", config.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} needs 1 number or {channels}, one per channel, got {list(values)}")
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.image_shape, self.config, self.precision = image_shape, config, precision

        width, splits = round(64 * config.width), config.batch_norm_splits
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = SplitBatchNorm2d(width, splits)
        block = _Bottleneck if config.depth == 50 else _BasicBlock
        stages, inputs = [], width
        for stage, blocks in enumerate(_BLOCKS[config.depth]):
            layers: list[nn.Module] = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(inputs, width * 2**stage, stride, splits))
                inputs = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dim = inputs
        self._initialise()

    def _initialise(self) -> None:
        """Normal by fan-out (arXiv 1502.01852, section 2.2, the backward case); batch norm starts with 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif self.config.zero_init_residual and isinstance(module, (_BasicBlock, _Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of what :meth:`encode` gives for images of ``image_shape``."""
        halvings = 5 if self.config.stem == "imagenet" else 3
        height, width = (-(-side // 2**halvings) for side in self.image_shape[1:])
        return FeatureSpec(self.dim, (self.dim, height, width))

    def encode(self, images: Tensor) -> Features:
        """``(B, C, H, W)`` to the last map ``(B, dim, h, w)`` and its mean over places."""
        if images.ndim != 4 or images.shape[1] != self.image_shape[0]:
            raise ValueError(f"expected images (B, {self.image_shape[0]}, H, W), got {tuple(images.shape)}")
        dtype = self.conv1.weight.dtype
        white = 255 if images.dtype == torch.uint8 else 1
        pixels = (images - white * self.mean) / (white * self.std)
        # Switched off as well as on, because a caller's autocast would override the precision.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = pixels.to(dtype).contiguous(memory_format=torch.channels_last)
            x = self.maxpool(_relu(self.bn1(self.conv1(x))))
            feature_map = self.layer4(self.layer3(self.layer2(self.layer1(x)))).to(dtype)
        return Features(feature_map.mean((2, 3)), feature_map)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(images).vector

    def load_torchvision(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes the weights of torchvision's ResNet of the same depth; its classifier (``fc``) is left out.

        Raises:
            ValueError: a name or a shape is another one.
        """
        wanted = {name: value for name, value in state_dict.items() if name not in ("fc.weight", "fc.bias")}
        own = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in wanted.items()}
        different = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        if different:
            name = different[0]
            raise ValueError(
                f"not the weights of this ResNet-{self.config.depth} (width {self.config.width:g}, {self.config.stem} "
                f"stem): {len(different)} tensors differ; {name} is {given.get(name, 'missing')} there and "
                f"{own.get(name, 'missing')} here"
            )
        self.load_state_dict(wanted)
