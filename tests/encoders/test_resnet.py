"""The ResNets against torchvision's and against their layers written out; split batch norm against its parts."""

from __future__ import annotations

import importlib
import importlib.util
import math
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from curl_rl.encoders.resnet import ResNet, ResNetConfig, SplitBatchNorm2d, group_norm

# torchvision's published numbers of parameters, minus the classifier's 512·1000 + 1000 or 2048·1000 + 1000.
PARAMETERS = {18: 11_689_512 - 513_000, 34: 21_797_672 - 513_000, 50: 25_557_032 - 2_049_000}


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def shaken(encoder: ResNet) -> ResNet:
    """Moves every weight and running statistic away from values that would hide a mistake."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
                value.add_(0.5 * noise if "var" in name or "bn" in name else 0.05 * (noise - 0.5))
    return encoder


def batch_norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    entries = {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return {**entries, f"{name}.num_batches_tracked": ()}


def torchvision_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **batch_norm_shapes("bn1", 64)}
    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}[depth]
    inputs = 64
    for stage, number in enumerate(blocks, start=1):
        width = {1: 64, 2: 128, 3: 256, 4: 512}[stage]
        outputs = 4 * width if depth == 50 else width
        for index in range(number):
            block = f"layer{stage}.{index}"
            if depth == 50:
                kernels = [(width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1)]
            else:
                kernels = [(width, inputs, 3, 3), (width, width, 3, 3)]
            for layer, kernel in enumerate(kernels, start=1):
                shapes[f"{block}.conv{layer}.weight"] = kernel
                shapes |= batch_norm_shapes(f"{block}.bn{layer}", kernel[0])
            if inputs != outputs:
                shapes[f"{block}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= batch_norm_shapes(f"{block}.downsample.1", outputs)
            inputs = outputs
    return shapes


def written_out(encoder: ResNet, x: torch.Tensor) -> torch.Tensor:
    """The last map in evaluation mode from the state dict alone, on normalized pixels."""
    weights = encoder.state_dict()

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{entry}"][:, None, None] for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    if encoder.config.stem == "imagenet":
        x = F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
        x = F.max_pool2d(norm(x, "bn1").clamp_min(0), 3, 2, 1)
    else:
        x = norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1").clamp_min(0)
    for stage in (1, 2, 3, 4):
        for index in range(sum(f"layer{stage}.{i}.conv1.weight" in weights for i in range(9))):
            block = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            layers = [i for i in (1, 2, 3) if f"{block}.conv{i}.weight" in weights]
            strided = 2 if len(layers) == 3 else 1  # the layer that has the stride
            y = x
            for layer in layers:
                kernel = weights[f"{block}.conv{layer}.weight"]
                y = F.conv2d(y, kernel, stride=stride if layer == strided else 1, padding=kernel.shape[-1] // 2)
                y = norm(y, f"{block}.bn{layer}")
                y = y.clamp_min(0) if layer != layers[-1] else y
            if f"{block}.downsample.0.weight" in weights:
                x = norm(F.conv2d(x, weights[f"{block}.downsample.0.weight"], stride=stride), f"{block}.downsample.1")
            x = (x + y).clamp_min(0)
    return x


_libraries: list[torch.library.Library] = []  # their declarations live as long as they do


@pytest.fixture(scope="module")
def torchvision() -> types.ModuleType:
    """Torchvision; with a PyTorch without CUDA, two compiled operators must be declared before its import."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        _libraries.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _libraries[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_names_shapes_and_number_of_parameters_are_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        encoder = ResNet((3, 224, 224), ResNetConfig(depth=depth))  # type: ignore[arg-type]
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == torchvision_shapes(depth)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PARAMETERS[depth]


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("training", [False, True])
def test_torchvisions_weights_give_torchvisions_features(
    depth: int, training: bool, torchvision: types.ModuleType
) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")().double().train(training)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    encoder = ResNet((3, 65, 40), ResNetConfig(depth=depth, mean=mean, std=std))  # type: ignore[arg-type]
    encoder.double().train(training)
    encoder.load_torchvision(theirs.state_dict())
    theirs.fc = torch.nn.Identity()
    pixels = images(2, 3, 65, 40)
    # The buffers hold the numbers as float32.
    mean_64, std_64 = (torch.tensor(numbers, dtype=torch.float32).double() for numbers in (mean, std))
    normalized = torch.stack([(pixels[:, c].double() / 255 - mean_64[c]) / std_64[c] for c in range(3)], dim=1)
    ours = encoder(pixels)
    assert ours.shape == (2, encoder.feature_spec.dim)
    assert torch.allclose(ours, theirs(normalized), rtol=1e-8, atol=1e-10)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(encoder.state_dict()[name], value, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((3, 32, 32), ResNetConfig(depth=18, width=1 / 16, stem="small")),
        ((3, 37, 50), ResNetConfig(depth=34, width=1 / 32)),
        ((1, 33, 20), ResNetConfig(depth=50, width=1 / 32)),
        ((9, 8, 8), ResNetConfig(depth=50, width=1 / 32, stem="small")),
        ((3, 1, 1), ResNetConfig(depth=18, width=1 / 64)),
    ],
)
def test_any_depth_width_stem_and_size_is_the_layers_written_out(
    shape: tuple[int, int, int], config: ResNetConfig
) -> None:
    encoder = shaken(ResNet(shape, config).double().eval())
    pixels = images(3, *shape)
    expected = written_out(encoder, pixels.double() / 255)
    features = encoder.encode(pixels)
    assert torch.allclose(features.map, expected, rtol=1e-9, atol=1e-9)
    assert torch.allclose(features.vector, expected.sum((2, 3)) / expected[0, 0].numel(), rtol=1e-9, atol=1e-9)
    assert torch.equal(encoder(pixels), features.vector)
    assert features.middle is not None
    shapes = features.vector.shape[1], tuple(features.map.shape[1:]), tuple(features.middle.shape[1:])
    assert encoder.feature_spec[:3] == shapes


def test_the_feature_spec_of_known_sizes() -> None:
    with torch.device("meta"):
        assert ResNet((3, 224, 224), ResNetConfig(depth=50)).feature_spec[:3] == (2048, (2048, 7, 7), (1024, 14, 14))
        assert ResNet((3, 32, 32), ResNetConfig(stem="small")).feature_spec[:3] == (512, (512, 4, 4), (256, 8, 8))
        assert ResNet((3, 96, 33), ResNetConfig(width=2)).feature_spec[:3] == (1024, (1024, 3, 2), (512, 6, 3))


def test_views_of_another_size_are_accepted() -> None:
    encoder = shaken(ResNet((3, 32, 32), ResNetConfig(width=1 / 32, stem="small")).double().eval())
    small = images(2, 3, 17, 24)
    assert torch.allclose(encoder.encode(small).map, written_out(encoder, small.double() / 255))


def test_bytes_and_floats_are_the_same_image_normalized_once() -> None:
    config = ResNetConfig(width=1 / 16, stem="small", mean=(0.5,), std=(0.25,))
    encoder = shaken(ResNet((3, 8, 8), config).double().eval())
    pixels = images(2, 3, 8, 8)
    scaled = pixels.double() / 255
    expected = written_out(encoder, (scaled - 0.5) / 0.25)
    for form in (pixels, scaled):
        assert torch.allclose(encoder.encode(form).map, expected, rtol=1e-9, atol=1e-9)
    dark = torch.full((1, 3, 8, 8), 0.003, dtype=torch.float64)
    assert torch.allclose(encoder.encode(dark).map, written_out(encoder, (dark - 0.5) / 0.25)), "scaled by type alone"


def test_the_normalization_is_not_a_weight() -> None:
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, mean=(0.1, 0.2, 0.3)))
    assert not {"mean", "std"} & encoder.state_dict().keys()
    assert encoder.double().mean.dtype == torch.float64


def test_he_initialization_by_fan_out() -> None:
    torch.manual_seed(0)
    encoder = ResNet((3, 32, 32), ResNetConfig(depth=18))
    for name, fan_out in (("conv1", 64 * 49), ("layer2.0.conv1", 128 * 9), ("layer4.0.downsample.0", 512)):
        weight = encoder.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03), name
        assert weight.abs().max() > 3 * math.sqrt(2 / fan_out), "a normal's tail; a uniform one would end at √3"
        assert abs(weight.mean().item()) < 4 * math.sqrt(2 / fan_out / weight.numel()), name
    assert all((p == 1).all() for name, p in encoder.named_parameters() if "bn" in name and name.endswith("weight"))


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_that_start_as_the_identity_leave_only_the_shortcuts(depth: int) -> None:
    config = ResNetConfig(depth=depth, width=1 / 32, stem="small", zero_init_residual=True)  # type: ignore[arg-type]
    encoder = ResNet((3, 16, 16), config).double().eval()
    pixels = images(2, 3, 16, 16)
    x = F.conv2d(pixels.double() / 255, encoder.conv1.weight, padding=1).clamp_min(0) / math.sqrt(1 + 1e-5)
    for stage in (1, 2, 3, 4):
        name = f"layer{stage}.0.downsample.0.weight"
        if name in encoder.state_dict():
            stride = 1 if stage == 1 else 2
            x = (F.conv2d(x, encoder.get_parameter(name), stride=stride) / math.sqrt(1 + 1e-5)).clamp_min(0)
    assert torch.allclose(encoder.encode(pixels).map, x)


def test_split_batch_norm_by_hand() -> None:
    norm = SplitBatchNorm2d(1, splits=2)
    x = torch.tensor([0.0, 2.0, 10.0, 14.0]).view(4, 1, 1, 1)
    # Means 1 and 12, variances 1 and 4 (2 and 8 without bias).
    assert torch.allclose(norm(x).flatten(), torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-4)
    assert norm.running_mean.item() == pytest.approx(0.1 * (1 + 12) / 2)  # type: ignore[union-attr, operator]
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * (2 + 8) / 2)  # type: ignore[union-attr, operator]
    assert norm.num_batches_tracked == 1


def test_split_batch_norm_is_plain_batch_norm_on_each_part() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, 2, generator=generator, dtype=torch.float64) + torch.arange(6.0).view(6, 1, 1, 1)
    weighting = torch.randn(6, 4, 3, 2, generator=generator, dtype=torch.float64)
    split, plain = SplitBatchNorm2d(4, splits=3).double(), torch.nn.BatchNorm2d(4).double()
    with torch.no_grad():
        split.weight.copy_(torch.randn(4, generator=generator))
        split.bias.copy_(torch.randn(4, generator=generator))
    plain.load_state_dict(split.state_dict())
    statistics = []
    for begin in (0, 2, 4):
        copy = torch.nn.BatchNorm2d(4).double()
        copy.load_state_dict(plain.state_dict())
        copy(x[begin : begin + 2])
        statistics.append((copy.running_mean, copy.running_var))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result = split(ours.contiguous(memory_format=torch.channels_last))
    reference = torch.cat([plain(theirs[begin : begin + 2]) for begin in (0, 2, 4)])
    assert torch.allclose(result, reference, rtol=1e-10)
    assert result.is_contiguous(memory_format=torch.channels_last)
    (result * weighting).sum().backward()
    (reference * weighting).sum().backward()
    for a, b in ((ours.grad, theirs.grad), (split.weight.grad, plain.weight.grad), (split.bias.grad, plain.bias.grad)):
        assert a is not None
        assert b is not None
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    for entry, value in ((split.running_mean, 0), (split.running_var, 1)):
        assert entry is not None
        assert torch.allclose(entry, sum(pair[value] for pair in statistics) / 3, rtol=1e-10)  # type: ignore[misc, arg-type]


def test_split_batch_norm_is_plain_in_evaluation_and_with_one_part() -> None:
    plain = torch.nn.BatchNorm2d(2)
    plain(torch.randn(8, 2, 2, 2) * 3 + 1)
    x = torch.randn(5, 2, 2, 2)
    evaluated = SplitBatchNorm2d(2, splits=4).eval()
    evaluated.load_state_dict(plain.state_dict())
    whole = SplitBatchNorm2d(2, splits=1)
    whole.load_state_dict(plain.state_dict())
    assert torch.equal(whole(x), plain(x))
    assert torch.equal(whole.running_var, plain.running_var)  # type: ignore[arg-type]
    evaluated.load_state_dict(plain.state_dict())
    assert torch.equal(evaluated(x), plain.eval()(x))


@pytest.mark.parametrize("depth", [18, 50])
def test_a_network_with_splits_is_the_network_on_each_part(depth: int) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(depth=depth, width=1 / 16, stem="small", batch_norm_splits=2)  # type: ignore[arg-type]
    split, plain = ResNet((3, 8, 8), config).double(), ResNet((3, 8, 8), replace(config, batch_norm_splits=1)).double()
    plain.load_state_dict(split.state_dict())
    pixels = images(6, 3, 8, 8)
    result = split(pixels)
    assert torch.allclose(result, torch.cat([plain(pixels[:3]), plain(pixels[3:])]), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(result, plain(pixels), rtol=1e-3)


def test_a_batch_not_divisible_by_the_splits_is_refused() -> None:
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", batch_norm_splits=4))
    with pytest.raises(ValueError, match=r"batch_norm_splits 4 must divide the batch, got a batch of 10: use 8 images"):
        encoder(images(10, 3, 8, 8))
    assert encoder.eval()(images(5, 3, 8, 8)).shape == (5, 32)


def test_bfloat16_is_near_float32_and_gives_float32_even_inside_an_autocast() -> None:
    torch.manual_seed(0)
    exact = ResNet((3, 16, 16), ResNetConfig(width=1 / 4, stem="small"))
    rounded = ResNet((3, 16, 16), ResNetConfig(width=1 / 4, stem="small"), precision="bfloat16")
    rounded.load_state_dict(exact.state_dict())
    pixels = images(8, 3, 16, 16)
    fine, coarse = exact.encode(pixels), rounded.encode(pixels)
    assert coarse.vector.dtype == coarse.map.dtype == torch.float32
    error = (coarse.map - fine.map).norm() / fine.map.norm()
    assert 1e-3 < error < 5e-2  # bfloat16 has eight bits: the lower bound shows that it is actually used
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact.encode(pixels).map, fine.map)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [ResNetConfig(width=1 / 8), ResNetConfig(depth=50, width=1 / 16, stem="small")])
def test_gradients_reach_every_parameter(config: ResNetConfig, precision: str) -> None:
    torch.manual_seed(0)
    encoder = ResNet((3, 40, 40), config, precision)  # type: ignore[arg-type]
    vector = encoder(images(4, 3, 40, 40))
    (vector * torch.randn_like(vector)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(64, 4), (128, 8), (512, 32), (2048, 128), (16, 1), (31, 1), (32, 2), (4, 1), (1, 1), (48, 3), (56, 2), (17, 1)],
)
def test_groups_are_equal_and_have_sixteen_channels_or_more(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("depth", [18, 50])
def test_group_norm_takes_the_place_of_every_batch_norm(depth: int) -> None:
    config = ResNetConfig(depth=depth, width=1 / 2, stem="small", norm="group")  # type: ignore[arg-type]
    encoder = ResNet((3, 8, 8), config).double()
    with torch.device("meta"):
        plain = ResNet((3, 8, 8), replace(config, norm="batch"))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in encoder.modules())
    # The same names and shapes, except for the running statistics, which do not exist.
    learned = {name: value.shape for name, value in plain.named_parameters()}
    assert {name: value.shape for name, value in encoder.state_dict().items()} == learned
    stem = F.conv2d(images(2, 3, 8, 8).double() / 255, encoder.conv1.weight, padding=1)
    grouped = stem.view(2, 2, 16, 8, 8)  # 32 channels form two groups
    mean = grouped.mean((2, 3, 4), keepdim=True)
    variance = (grouped - mean).square().mean((2, 3, 4), keepdim=True)
    expected = ((grouped - mean) / (variance + 1e-5).sqrt()).view_as(stem)
    assert torch.allclose(encoder.bn1(stem), expected, rtol=1e-9, atol=1e-9)


def test_with_group_norm_training_and_evaluation_are_the_same() -> None:
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", norm="group"))
    assert torch.equal(encoder.train()(images(4, 3, 8, 8)), encoder.eval()(images(4, 3, 8, 8)))


def test_blocks_with_group_norm_may_start_as_the_identity() -> None:
    config = ResNetConfig(width=1 / 16, stem="small", norm="group", zero_init_residual=True)
    encoder = ResNet((3, 8, 8), config)
    last = encoder.get_parameter("layer1.0.bn2.weight")
    assert (last == 0).all()
    assert (encoder.get_parameter("layer1.0.bn1.weight") == 1).all()


def test_torchvisions_weights_need_batch_norm() -> None:
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, norm="group"))
    with pytest.raises(ValueError, match="norm must be batch to load torchvision's weights, got group"):
        encoder.load_torchvision(encoder.state_dict())


def test_other_weights_are_refused_by_the_first_difference() -> None:
    encoder = ResNet((3, 32, 32), ResNetConfig(width=1 / 16, stem="small"))
    weights = dict(encoder.state_dict())
    encoder.load_torchvision({**weights, "fc.weight": torch.zeros(10, 32), "fc.bias": torch.zeros(10)})
    with pytest.raises(
        ValueError, match=r"1 tensors differ; conv1.weight is \(4, 3, 7, 7\) there and \(4, 3, 3, 3\) here"
    ):
        encoder.load_torchvision({**weights, "conv1.weight": torch.zeros(4, 3, 7, 7)})
    with pytest.raises(ValueError, match=r"2 tensors differ; head.bias is \(4,\) there and missing here"):
        encoder.load_torchvision({**weights, "head.bias": torch.zeros(4), "head.weight": torch.zeros(4)})
    del weights["bn1.bias"]
    with pytest.raises(ValueError, match=r"bn1.bias is missing there"):
        encoder.load_torchvision(weights)


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 101},
        {"width": 0.3},
        {"width": 0.0},
        {"width": -1.0},
        {"stem": "cifar"},
        {"batch_norm_splits": 0},
        {"norm": "layer"},
        {"batch_norm_splits": 2, "norm": "group"},
        {"std": (0.2, 0.0, 0.2)},
        {"mean": ()},
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        ResNetConfig(**fields)  # type: ignore[arg-type]


def test_a_mismatch_with_the_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="mean must have 1 number or 9, one per channel, got"):
        ResNet((9, 32, 32), ResNetConfig(mean=(0.5, 0.5, 0.5)))
    encoder = ResNet((3, 8, 8), ResNetConfig(width=1 / 64))
    for shape in ((2, 1, 8, 8), (3, 8, 8)):
        with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got"):
            encoder(images(*shape))
