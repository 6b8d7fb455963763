"""ResNets as encoders: 18, 34 and 50 layers, any width, a stem for small images (He et al. 2015, arXiv 1512.03385).

Parameters have the names and shapes of torchvision's, so its weights load; as there, the 50-layer network has its
stride in the 3×3 convolution. It has no classifier: the features are the spatial mean of the last map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.base import Encoder, Features, FeatureSpec, Precision, weights_from
from curl_rl.ranges import at_least, check_ranges, finite, number, one_or_more, positive

# Residual blocks in each of the four stages (arXiv 1512.03385, table 1).
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}

_GROUP = 16  # least number of channels that group norm normalizes together
# Width 64 means 4,096 channels in the stem, more than any network has.
_WIDTH = number("be a positive multiple of 1/64 and at most 64", lambda width: 0 < width <= 64 and 64 * width % 1 == 0)

Norm = nn.BatchNorm2d | nn.GroupNorm


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a :class:`ResNet`. Torchvision's weights need width 1, the imagenet stem, ImageNet's mean and std."""

    depth: Literal[18, 34, 50] = 18
    """Number of layers: 18 and 34 use basic blocks, 50 bottlenecks."""
    width: Annotated[float, _WIDTH] = 1.0
    """Factor on the channels of every layer, stem included; 64 times the width must be an integer."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """First layers. imagenet: a 7×7 convolution and a max-pool, each halving the image. small: one 3×3 convolution that
    keeps the size, for images of about 32×32 (SimCLR, arXiv 2002.05709, appendix B.9)."""
    zero_init_residual: bool = False
    """Start every block as the identity: the last batch norm of its residual branch starts at zero
    (Goyal et al. 2017, arXiv 1706.02677, section 5.1)."""
    batch_norm_splits: Annotated[int, at_least(1)] = 1
    """Number of equal parts of the batch, each normalized by its own statistics in training: MoCo needs several where
    one GPU does the work of many. 1: the whole batch together."""
    mean: Annotated[tuple[float, ...], one_or_more(finite, "be one or more finite numbers")] = (0.0,)
    """Subtracted from pixels in [0, 1]: one number, or one per channel. ImageNet: [0.485, 0.456, 0.406]."""
    std: Annotated[tuple[float, ...], one_or_more(positive, "be one or more positive numbers")] = (1.0,)
    """Divides the pixels after that: one number, or one per channel. ImageNet: [0.229, 0.224, 0.225]."""
    norm: Literal["batch", "group"] = "batch"
    """Normalization of activations. batch: by statistics over the batch. group: over groups of channels within each
    image (Wu & He 2018, arXiv 1803.08494), for methods that could cheat through batch norm: in CPC each patch would see
    the other patches of its image (Hénaff et al. 2019, arXiv 1905.09272)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.norm == "group" and self.batch_norm_splits > 1:
            raise ValueError(
                f"batch_norm_splits must be 1 with norm group, which ignores the batch, got {self.batch_norm_splits}"
            )


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that in training normalizes ``splits`` equal, consecutive parts of the batch separately.

    One device then has the batch statistics of ``splits`` devices without synchronized batch norm, which keep MoCo from
    recognizing the positive pair by its shared statistics (arXiv 1911.05722, section 3.3). The running statistics are
    the mean over the parts. In evaluation, and with one part, it equals :class:`torch.nn.BatchNorm2d`; its state dict
    always does.

    Raises:
        ValueError: the batch size is not divisible by ``splits``.
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
                f"use {len(x) // self.splits * self.splits or self.splits} images"
            )
        mean, var, steps = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert steps is not None
        assert self.momentum is not None
        means, variances = mean.repeat(self.splits, 1), var.repeat(self.splits, 1)
        normalized = [
            F.batch_norm(part, means[i], variances[i], self.weight, self.bias, True, self.momentum, self.eps)
            for i, part in enumerate(x.chunk(self.splits))
        ]
        mean.copy_(means.mean(0))
        var.copy_(variances.mean(0))
        steps.add_(1)
        return torch.cat(normalized)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with as many equal groups of at least 16 channels as possible; one group for fewer than 32 channels.

    On ImageNet, groups of 16 channels do about as well as 32 groups, the paper's default (arXiv 1803.08494, table 3).
    Unlike those, they leave enough to normalize in narrow networks, where the last maps have few positions.
    """
    most = max(channels // _GROUP, 1)
    return nn.GroupNorm(max(groups for groups in range(1, most + 1) if channels % groups == 0), channels)


def _norms(config: ResNetConfig) -> Callable[[int], Norm]:
    """A function from a layer's number of channels to its norm."""
    if config.norm == "group":
        return group_norm
    return lambda channels: SplitBatchNorm2d(channels, config.batch_norm_splits)


def _relu(x: Tensor) -> Tensor:
    """ReLU, in place except on CPUs: that saves memory, but in bfloat16 on a CPU it takes twice as long."""
    return x.relu() if x.device.type == "cpu" else x.relu_()


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut: the identity, or a 1×1 convolution where shapes differ."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, norm: Callable[[int], Norm]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(channels, width, stride, norm)

    @property
    def last_norm(self) -> Norm:
        """The norm that ends the residual branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        residual = _relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return _relu(residual + self.downsample(x))


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the last to four times the channels, with the same kind of shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, norm: Callable[[int], Norm]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = norm(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride, norm)

    @property
    def last_norm(self) -> Norm:
        """The norm that ends the residual branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        residual = _relu(self.bn1(self.conv1(x)))
        residual = _relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return _relu(residual + self.downsample(x))


def _shortcut(channels: int, outputs: int, stride: int, norm: Callable[[int], Norm]) -> nn.Module:
    if stride == 1 and channels == outputs:
        return nn.Identity()
    projection = nn.Conv2d(channels, outputs, 1, stride, bias=False)
    return nn.Sequential(projection, norm(outputs))


class ResNet(Encoder):
    """A ResNet without its classifier.

    Args:
        image_shape: ``(C, H, W)`` of the images that :attr:`feature_spec` describes; other sizes are accepted too
            (multi-crop) and give maps of other sizes.
        config: depth, width, stem, norm and input normalization.
        precision: type that the network computes in; weights, batch statistics, vector and map keep the parameters'.

    ``encoder(images)`` takes ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1], and returns
    ``(B, dim)``, where dim is 512 times the width, or 2048 times with 50 layers.

    Raises:
        ValueError: images with the wrong number of channels, or a mean or std that does not match it.
    """

    kind: ClassVar[str] = "resnet"
    any_size: ClassVar[bool] = True

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
                raise ValueError(f"{name} must have 1 number or {channels}, one per channel, got {list(values)}")
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.image_shape, self.config, self.precision = image_shape, config, precision

        width, norm = round(64 * config.width), _norms(config)
        if config.stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = norm(width)
        block = _Bottleneck if config.depth == 50 else _BasicBlock
        stages, inputs = [], width
        for stage, blocks in enumerate(_BLOCKS[config.depth]):
            layers: list[nn.Module] = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(inputs, width * 2**stage, stride, norm))
                inputs = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dim = inputs
        self._initialize()

    def _initialize(self) -> None:
        """Kaiming normal by fan-out (arXiv 1502.01852, section 2.2, backward case); norms start at scale 1, shift 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif self.config.zero_init_residual and isinstance(module, (_BasicBlock, _Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Alias of ``image_shape``."""
        return self.image_shape

    @property
    def feature_spec(self) -> FeatureSpec:
        """Sizes of the features of images of ``image_shape``."""
        # The last two stages each halve the map, rounding up, and double its channels.
        halvings = 5 if self.config.stem == "imagenet" else 3
        middle, last = (
            tuple(-(-side // 2**times) for side in self.image_shape[1:]) for times in (halvings - 1, halvings)
        )
        return FeatureSpec(self.dim, (self.dim, *last), (self.dim // 2, *middle))

    @property
    def batch_norm_splits(self) -> int:
        """As configured; 1 with group norm."""
        return self.config.batch_norm_splits

    @property
    def title(self) -> str:
        """Depth, plus width and norm if they are not the defaults."""
        config = self.config
        width = f", width {config.width:g}" if config.width != 1 else ""
        return f"ResNet-{config.depth}{width}" + (", group norm" if config.norm == "group" else "")

    def encode(self, images: Tensor) -> Features:
        """``(B, C, H, W)`` to the last map ``(B, dim, h, w)``, its spatial mean and the third stage's map.

        The third stage's map, ``middle``, is its activation, ``(B, dim / 2, h', w')``, in the type that the network
        computes in: 8×8 for a 32×32 image with the small stem, 14×14 for a 224×224 image with ImageNet's.
        """
        if images.ndim != 4 or images.shape[1] != self.image_shape[0]:
            raise ValueError(f"images must be (B, {self.image_shape[0]}, H, W), got {tuple(images.shape)}")
        dtype = self.conv1.weight.dtype
        white = 255 if images.dtype == torch.uint8 else 1
        pixels = (images - white * self.mean) / (white * self.std)
        # Set explicitly in both cases, because the caller's autocast would override the precision.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = pixels.to(dtype).contiguous(memory_format=torch.channels_last)
            x = self.maxpool(_relu(self.bn1(self.conv1(x))))
            middle = self.layer3(self.layer2(self.layer1(x)))
            feature_map = self.layer4(middle).to(dtype)
        return Features(feature_map.mean((2, 3)), feature_map, middle)

    def fresh(self, seed: int) -> ResNet:
        with weights_from(seed):
            new = ResNet(self.image_shape, self.config, self.precision)
        return new.to(self.conv1.weight)

    def describe(self) -> dict[str, Any]:
        # Split batch norm is for pretraining only; later training uses other batch sizes.
        config = dataclasses.asdict(dataclasses.replace(self.config, batch_norm_splits=1))
        if config["norm"] == "batch":
            del config["norm"]  # the format of files from before group norm existed
        return {
            "kind": self.kind,
            "observation_shape": list(self.image_shape),
            "preprocessing": "uint8 divided by 255, floating point as it is; then less config.mean, over config.std",
            "config": config,
        }

    @classmethod
    def from_description(cls, input_shape: tuple[int, int, int], config: Mapping[str, Any]) -> ResNet:
        # JSON has lists where the configuration has tuples.
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
        }
        return cls(input_shape, ResNetConfig(**fields))

    def load_torchvision(self, state_dict: Mapping[str, Tensor]) -> None:
        """Loads the weights of torchvision's ResNet of the same depth, without its classifier (``fc``).

        Raises:
            ValueError: this network has group norm, or a name or a shape differs.
        """
        if self.config.norm != "batch":
            raise ValueError(f"norm must be batch to load torchvision's weights, got {self.config.norm}")
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
