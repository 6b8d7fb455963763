"""Fine-tuning on images of easily separable classes, and tests of its parts."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curl_rl.augment import random_resized_crop
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.heads import MLP
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.vision.evaluation.finetuning import (
    Classifier,
    SupervisedConfig,
    fine_tune,
    network_outputs,
    new_classifier,
    top1_accuracy,
    train_classifier,
    with_running_statistics,
)

SHORT = SupervisedConfig(epochs=4, batch_size=16, crop_scale=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tinted(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with one of three colors added: ``(count, 3, 12, 12)`` uint8 and the color's number."""
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 100, (count, 3, 12, 12), generator=seeded(seed))
    return (noise + 120 * F.one_hot(labels, 3)[:, :, None, None]).to(torch.uint8), labels


def encoder(seed: int = 0) -> PixelEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PixelEncoder((3, 12, 12), EncoderConfig(filters=16, strides=(2, 1), latent=16))


def head(seed: int = 0) -> MLP:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLP((16, 7, 5), batch_norm=True, last="standardized")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------- fine_tune


@pytest.mark.parametrize("head_prefix", [None, head().layers[:1]], ids=["without a head", "with its first layer"])
def test_colors_are_learned_and_the_arguments_stay_unchanged(head_prefix: nn.Module | None) -> None:
    images, labels = tinted(60)
    test_images, test_labels = tinted(30, seed=1)
    test_labels[:6] = (test_labels[:6] + 1) % 3  # wrong, so that even the best is right on 24 of 30
    start = encoder().requires_grad_(False)
    before = state(start)
    head_before = None if head_prefix is None else state(head_prefix)
    config = SupervisedConfig(epochs=15, batch_size=20, crop_scale=0.5)
    network, accuracy = fine_tune(
        start, images, labels, test_images, test_labels,
        classes=3, generator=seeded(), config=config, head_prefix=head_prefix,
    )  # fmt: skip
    assert 0.7 <= accuracy <= 0.8
    assert accuracy == (network.eval()(test_images).argmax(1) == test_labels).float().mean()
    assert same(state(start), before)
    assert head_prefix is None or same(state(head_prefix), head_before)
    trained = state(network.encoder)
    assert all(not torch.equal(trained[name], before[name]) for name in before), "the whole encoder learns"
    if head_prefix is not None:
        assert not torch.equal(network.head_prefix[0][0].weight, head_prefix[0][0].weight)


def test_a_network_sees_crops_of_one_size_in_training_and_in_testing() -> None:
    """Test images of 12 pixels with a center of one class and a border of another; the network sees 6 pixels."""

    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sides.add(images.shape[-1])
            return self.scale * images.float().mean((2, 3)) / 255

    sides: set[int] = set()
    images, labels = tinted(60)
    test_images, test_labels = tinted(30, seed=1)
    framed = test_images.roll(1, dims=1)  # another color
    framed[:, :, 3:9, 3:9] = test_images[:, :, 3:9, 3:9]
    config = SupervisedConfig(epochs=60, batch_size=20, crop_scale=0.5, learning_rate=1.0)
    result = fine_tune(
        Middle(), images, labels, framed, test_labels, classes=3, generator=seeded(), config=config, size=6
    )
    assert sides == {6}
    assert result.accuracy > 0.9


def test_with_learning_rate_zero_nothing_moves() -> None:
    images, labels = tinted(12)
    start = encoder()
    config = SupervisedConfig(epochs=2, batch_size=5, learning_rate=0.0, weight_decay=0.1)
    network, accuracy = fine_tune(start, images, labels, images, labels, classes=3, generator=seeded(), config=config)
    assert same(state(network.encoder), state(start))
    assert not network.linear.weight.any()
    assert accuracy == pytest.approx(1 / 3)  # all logits are zero, so all predictions are class 0


def test_the_generator_decides_everything() -> None:
    images, labels = tinted(12)
    state_before = torch.get_rng_state()
    runs = [
        fine_tune(encoder(), images, labels, images, labels, classes=3, generator=seeded(seed), config=SHORT)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state_before)
    states = [state(run.network) for run in runs]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_unusable_data_are_refused() -> None:
    images, labels = tinted(6)

    def tune(images: torch.Tensor, labels: torch.Tensor, test_labels: torch.Tensor) -> None:
        fine_tune(encoder(), images, labels, images, test_labels, classes=3, generator=seeded(), config=SHORT)

    with pytest.raises(ValueError, match="only one class, 0"):
        tune(images, labels * 0, labels)
    with pytest.raises(ValueError, match="training set's labels must be from 0 to 2, got 0 to 4"):
        tune(images, labels * 2, labels)
    with pytest.raises(ValueError, match="test set's labels must be from 0 to 2, got -1 to 1"):
        tune(images, labels, labels - 1)
    with pytest.raises(ValueError, match="training set is empty"):
        tune(images[:0], labels[:0], labels[:0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": -0.1}, "learning_rate must be from 0 to 1,000,000, got -0.1"),
        ({"learning_rate": math.nan}, "learning_rate must be from 0 to 1,000,000, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be from 0 to 1,000,000, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be from 0 to 1,000,000, got -0.1"),
        ({"weight_decay": math.nan}, "weight_decay must be from 0 to 1,000,000, got nan"),
        ({"weight_decay": math.inf}, "weight_decay must be from 0 to 1,000,000, got inf"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs must be from 0 to below epochs, got 5 of 5"),
        ({"crop_scale": 0.0}, "crop_scale"),
        ({"crop_scale": math.nan}, "crop_scale"),
        ({"mirror": math.nan}, "mirror"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupervisedConfig(**fields)


# ------------------------------------------------------------ train_classifier


class Recorder(nn.Module):
    """Two weights whose gradient is one for any batch, which isolates the loop and the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.views: list[torch.Tensor] = []
        self.chosen: list[torch.Tensor] = []
        self.values: list[float] = []

    def loss(self, views: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        assert self.training
        self.views.append(views)
        self.chosen.append(chosen)
        self.values.append(self.matrix.item())
        return (self.matrix + self.bias).sum()


def test_every_epoch_sees_every_image_once_in_nearly_equal_batches() -> None:
    images, recorder = tinted(23)[0], Recorder().eval()
    train_classifier(recorder, images, 12, recorder.loss, SupervisedConfig(epochs=2, batch_size=11), seeded(), "test")
    assert [len(chosen) for chosen in recorder.chosen] == [8, 8, 7] * 2
    epochs = torch.cat(recorder.chosen).view(2, 23)
    assert torch.equal(epochs.sort(1).values, torch.arange(23).expand(2, 23))
    assert not torch.equal(epochs[0], epochs[1])


def test_views_are_random_crops_of_the_chosen_images() -> None:
    images, recorder = tinted(6)[0], Recorder()
    config = SupervisedConfig(epochs=1, batch_size=6, crop_scale=0.3, mirror=1.0)
    train_classifier(recorder, images, 9, recorder.loss, config, seeded(3), "test")
    replay = seeded(3)
    order = torch.randperm(6, generator=replay)
    expected = random_resized_crop(images[order], 9, replay, scale=(0.3, 1.0), mirror=1.0)
    assert torch.equal(recorder.chosen[0], order)
    assert torch.equal(recorder.views[0], expected)


def test_steps_are_nesterov_sgd_on_a_warmed_up_cosine() -> None:
    """The recurrence written out for gradient 1, in PyTorch's documented form of Sutskever et al."""
    images, recorder = tinted(4)[0], Recorder()
    config = SupervisedConfig(epochs=5, batch_size=2, learning_rate=0.3, weight_decay=0.1, warmup_epochs=2)
    train_classifier(recorder, images, 12, recorder.loss, config, seeded(), "test")
    shares = [step / 4 for step in range(4)] + [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    positions = {"matrix": [0.0], "bias": [0.0]}
    for name, decay in (("matrix", 0.1), ("bias", 0.0)):
        position = velocity = 0.0
        for share in shares:
            gradient = 1 + decay * position
            velocity = 0.9 * velocity + gradient
            position -= 0.3 * share * (gradient + 0.9 * velocity)
            positions[name].append(position)
    assert recorder.values == pytest.approx(positions["matrix"][:-1], rel=1e-9)
    assert recorder.matrix.item() == pytest.approx(positions["matrix"][-1], rel=1e-9)
    assert recorder.bias.item() == pytest.approx(positions["bias"][-1], rel=1e-9)


def test_frozen_parameters_stay_unchanged() -> None:
    images, recorder = tinted(4)[0], Recorder()
    recorder.bias.requires_grad_(False)
    train_classifier(recorder, images, 12, recorder.loss, SHORT, seeded(), "test")
    assert recorder.matrix.item() < 0
    assert recorder.bias.item() == 0


def test_a_non_finite_loss_ends_the_training_with_advice() -> None:
    images, recorder = tinted(4)[0], Recorder()

    def loss(views: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return recorder.loss(views, chosen) + (math.inf if len(recorder.views) == 3 else 0)

    config = SupervisedConfig(epochs=5, batch_size=2)
    with pytest.raises(FloatingPointError, match="^test diverged in epoch 2: .* try a learning_rate below 0.05$"):
        train_classifier(recorder, images, 12, loss, config, seeded(), "test")
    assert len(recorder.views) == 4


def test_non_finite_weights_after_the_last_step_are_reported() -> None:
    """The root's slope at zero is infinite: the only loss is 0, but the step after it is not finite."""
    images, recorder = tinted(4)[0], Recorder()
    config = SupervisedConfig(epochs=1, batch_size=4)
    with pytest.raises(FloatingPointError, match="^test diverged in its last step: matrix holds .* below 0.05$"):
        train_classifier(
            recorder, images, 12, lambda views, chosen: recorder.matrix.sqrt().sum(), config, seeded(), "test"
        )


def test_non_finite_running_statistics_are_reported() -> None:
    """They are saved, but affect neither gradients nor losses in training mode."""
    images, network = tinted(4)[0], nn.BatchNorm2d(3, affine=True)
    network.running_var[1] = math.inf
    config = SupervisedConfig(epochs=1, batch_size=4)
    with pytest.raises(FloatingPointError, match="^test diverged in its last step: running_var holds"):
        train_classifier(network, images, 12, lambda views, chosen: network(views).mean(), config, seeded(), "test")


def test_a_single_image_is_refused() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="test needs at least 2 images, got 1"):
        train_classifier(recorder, tinted(1)[0], 12, recorder.loss, SHORT, seeded(), "test")


# ------------------------------------------------------------------ Classifier


def test_in_a_new_classifier_all_classes_are_equally_likely_and_all_weights_train() -> None:
    images = tinted(8)[0]
    network = new_classifier(encoder().requires_grad_(False), images, classes=4, head_prefix=head().layers[:1])
    assert isinstance(network, Classifier)
    assert torch.equal(network.eval()(images), torch.zeros(8, 4))
    assert network.linear.in_features == 7
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_logits_are_linear_in_the_heads_output() -> None:
    images = tinted(8)[0]
    network = new_classifier(encoder(), images, classes=2, head_prefix=nn.Linear(16, 3, bias=False))
    nn.init.ones_(network.linear.weight)
    nn.init.constant_(network.linear.bias, 0.5)
    expected = (encoder()(images) @ network.head_prefix.weight.T).sum(1) + 0.5
    assert torch.allclose(network(images), expected[:, None].expand(8, 2), atol=1e-5)


# ----------------------------------------------------- with_running_statistics


def test_running_statistics_start_from_the_features() -> None:
    """Computed from the features: their mean and unbiased variance (N − 1), before scale and shift."""
    source, features = head().double(), draw(9, 16)
    linear, norm = source.layers[0][:2]
    nn.init.normal_(norm.weight, generator=seeded(1))
    nn.init.normal_(norm.bias, generator=seeded(2))
    first = with_running_statistics(source.layers[:1], features)
    hidden = features @ linear.weight.T
    standard = (hidden - hidden.mean(0)) / (hidden.var(0, correction=1) + norm.eps).sqrt()
    assert torch.allclose(first(features[:2]), (standard * norm.weight + norm.bias).relu()[:2], atol=1e-9)


def test_the_converted_head_processes_single_images_and_the_original_is_unchanged() -> None:
    source, features = head(), torch.randn(9, 16, generator=seeded())
    before = state(source)
    converted = with_running_statistics(source, features).eval()
    together = converted(features)
    assert together.shape == (9, 5)
    assert torch.allclose(converted(features[:1]), together[:1], atol=1e-6)
    assert same(state(source), before)
    with pytest.raises(ValueError, match="at least 2 samples"):
        source(features[:1])


def test_in_training_the_converted_head_equals_the_original_and_keeps_an_average() -> None:
    source, features = head(), torch.randn(9, 16, generator=seeded())
    converted = with_running_statistics(source, features).train()
    other = torch.randn(4, 16, generator=seeded(1)) + 2
    mean = converted.layers[0][1].running_mean.clone()
    assert torch.allclose(converted(other), source(other), atol=1e-6)
    new_mean = source.layers[0][0](other).mean(0)
    assert torch.allclose(converted.layers[0][1].running_mean, 0.9 * mean + 0.1 * new_mean, atol=1e-5)


def test_existing_statistics_are_kept() -> None:
    features = torch.randn(9, 4, generator=seeded()) + 3
    tracked = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False))
    converted = with_running_statistics(tracked, features)
    assert torch.equal(converted[0].running_mean, torch.zeros(4))
    assert torch.allclose(converted[1].running_mean, features.mean(0), atol=1e-4)
    assert isinstance(with_running_statistics(nn.Linear(4, 2), features[:1]), nn.Linear)
    alone = with_running_statistics(nn.BatchNorm1d(4, track_running_stats=False), features)
    assert torch.allclose(alone.running_mean, features.mean(0))


def test_one_feature_has_no_variance() -> None:
    with pytest.raises(ValueError, match="at least 2 images to start from, got 1"):
        with_running_statistics(head(), torch.zeros(1, 16))


def test_split_batch_norm_becomes_plain() -> None:
    """Batches of any size are accepted, and the given encoder stays split."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        split = ResNet((3, 12, 12), ResNetConfig(depth=18, width=1 / 16, stem="small", batch_norm_splits=2))
    images, labels = tinted(6)
    config = SupervisedConfig(epochs=1, batch_size=3)
    network, _ = fine_tune(split, images, labels, images, labels, classes=3, generator=seeded(), config=config)
    network.train()(images[:5])
    with pytest.raises(ValueError, match="batch_norm_splits 2"):
        split.train()(images[:5])


# ------------------------------------------------------------- network_outputs


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_computed_in_evaluation_mode_batch_by_batch(training: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train(training)
    network[1].running_mean.fill_(0.3)
    images, before = torch.randn(7, 3, generator=seeded()), state(network)
    outputs = network_outputs(network, images, batch_size=3)
    assert not outputs.requires_grad
    assert network.training == training
    assert network[1].training == training
    assert same(state(network), before)
    assert torch.allclose(outputs, copy.deepcopy(network).eval()(images), atol=1e-6)


def test_top1_by_hand() -> None:
    images = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 5.0]])
    network = nn.Linear(3, 3, bias=False)
    nn.init.eye_(network.weight)
    assert top1_accuracy(network, images, torch.tensor([0, 1, 2, 2])) == 0.75
