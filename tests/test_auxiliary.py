"""AuxiliaryLoss against the definition written out, step by step, and in every state that it can be left in."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curl_rl import AuxiliaryLoss, EncoderConfig, ModuleEncoder, PixelEncoder
from curl_rl.encoders import Features, FeatureSpec, TextEncoder, TextEncoderConfig
from curl_rl.objectives import (
    BYOL,
    CPC,
    DIM,
    METHODS,
    BatchInfo,
    BYOLConfig,
    Composite,
    CPCConfig,
    Curl,
    DataSpec,
    DIMConfig,
    MoCo,
    MoCoConfig,
    Objective,
    ObjectiveName,
    Result,
    ViewSpec,
)
from helpers.dummy_objectives import Clustered, Dynamics, Labeled

_CONFIG = EncoderConfig(filters=3, strides=(2, 1), latent=5)
_TAU = 0.25


def _encoder(side: int = 10) -> PixelEncoder:
    torch.manual_seed(0)
    return PixelEncoder((2, side, side), _CONFIG).double()


def _images(seed: int = 1, batch: int = 4, side: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, 2, side, side), generator=generator, dtype=torch.uint8)


def _generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _copies(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _train(aux: AuxiliaryLoss, images: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = aux(images)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _sgd(aux: AuxiliaryLoss) -> torch.optim.Optimizer:
    return torch.optim.SGD([*aux.encoder.parameters(), *aux.new_parameters()], 0.1)


# ------------------------------------------------------------------ the loss


def _drawn_crops(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Windows whose first rows are drawn for all images, then their first columns."""
    span = images.shape[-1] - side + 1
    top = torch.randint(span, (len(images),), generator=generator)
    left = torch.randint(span, (len(images),), generator=generator)
    return torch.stack(
        [image[:, y : y + side, x : x + side] for image, y, x in zip(images, top.tolist(), left.tolist(), strict=True)]
    )


def test_curl_has_the_value_and_gradient_of_its_definition() -> None:
    encoder, images = _encoder(), _images()
    aux = AuxiliaryLoss(encoder, "curl", tau=_TAU, generator=_generator())
    with torch.no_grad():  # a slow copy that differs from the encoder
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    loss = aux(images)
    loss.backward()
    (weight,) = aux.new_parameters()
    gradients = [parameter.grad.clone() for parameter in (*encoder.parameters(), weight) if parameter.grad is not None]

    generator = _generator()
    query = encoder(_drawn_crops(images, 10, generator).double() / 255)
    with torch.no_grad():
        key = aux.target(_drawn_crops(images, 10, generator).double() / 255)  # type: ignore[misc]
    rows = []
    for i in range(4):
        scores = torch.stack([query[i] @ weight @ key[j] for j in range(4)])
        rows.append(scores.exp().sum().log() - scores[i])
    expected = torch.stack(rows).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, [*encoder.parameters(), weight])
    torch.testing.assert_close(gradients, list(wanted), rtol=1e-9, atol=1e-12)


def test_views_with_one_index_are_one_crop_and_others_are_not() -> None:
    class Spy(Objective):
        online_views = (ViewSpec(0), ViewSpec(1))
        target_views = (ViewSpec(1), ViewSpec(0))

        def forward(self, online: list[Any], target: list[Any], batch: BatchInfo) -> Result:
            self.seen = [features.vector for features in (*online, *target)]
            return Result(self.seen[0].sum())

    spy = Spy()
    AuxiliaryLoss(_encoder(), spy, generator=_generator())(_images())
    online0, online1, target1, target0 = spy.seen
    torch.testing.assert_close(online0, target0)
    torch.testing.assert_close(online1, target1)
    assert not torch.allclose(online0, online1)
    assert online0.requires_grad
    assert not target0.requires_grad


def test_floats_in_the_unit_interval_give_what_their_bytes_give() -> None:
    images, losses = _images(), []
    for observations in (images, images.double() / 255):
        losses.append(AuxiliaryLoss(_encoder(), "curl", generator=_generator())(observations))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def test_padding_repeats_the_edge() -> None:
    class Spy(nn.Module):
        feature_spec = FeatureSpec(2, (2, 1, 1))

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def encode(self, images: Tensor) -> Features:
            self.seen = images
            vector = self.weight * images.flatten(1)[:, :2]
            return Features(vector, vector[:, :, None, None])

    picture = torch.arange(12.0).view(1, 1, 3, 4)
    spy = Spy()
    AuxiliaryLoss(spy, "simclr", crop=7, pad=2)(picture.expand(20, 1, 3, 4) / 255)
    # Three rows and four columns become seven and eight: a crop of seven has all rows and either the first or the last
    # columns.
    whole = torch.nn.functional.pad(picture, (2, 2, 2, 2), mode="replicate")[0] / 255
    found = {left for image in spy.seen for left in (0, 1) if torch.equal(image, whole[:, :, left : left + 7])}
    assert found == {0, 1}
    assert all(any(torch.equal(image, whole[:, :, left : left + 7]) for left in (0, 1)) for image in spy.seen)


# ------------------------------------------------------------------ after a step


def test_slow_copy_moves_at_the_next_call_and_not_before() -> None:
    encoder = _encoder()
    aux = AuxiliaryLoss(encoder, "curl", tau=_TAU, generator=_generator())
    optimizer, start = _sgd(aux), _copies(encoder)
    assert aux.target is not None
    _train(aux, _images(), optimizer)
    stepped = _copies(encoder)
    assert not _equal(stepped, start)
    assert _equal(_copies(aux.target), start)
    aux(_images(2))
    expected = [(1 - _TAU) * old + _TAU * new for old, new in zip(start, stepped, strict=True)]
    torch.testing.assert_close(_copies(aux.target), expected)


@pytest.mark.parametrize("name", ["byol", "moco"])
def test_moving_at_the_next_call_is_moving_right_after_the_step(name: str) -> None:
    spec = FeatureSpec(5, (3, 2, 2))

    def objective() -> Objective:
        torch.manual_seed(3)
        if name == "byol":
            return BYOL(spec, BYOLConfig(hidden=6, dim=4, momentum=0.7)).double()
        return MoCo(spec, MoCoConfig(version="v2", dim=4, queue=8, momentum=0.7)).double()

    encoder = _encoder()
    aux = AuxiliaryLoss(encoder, objective(), generator=_generator())
    optimizer = _sgd(aux)
    losses = [_train(aux, _images(seed), optimizer) for seed in range(4)]

    # The same written out: encode, step, then immediately move the slow copy and call after_step.
    own, method, generator = _encoder(), objective(), _generator()
    slow = copy.deepcopy(own)
    optimizer = torch.optim.SGD([*own.parameters(), *method.parameters()], 0.1)
    momentum = torch.tensor(0.7)
    for seed in range(4):
        views = [_drawn_crops(_images(seed), 10, generator) for _ in range(2)]
        online = [own.encode(views[spec.index]) for spec in method.online_views]
        with torch.no_grad():
            target = [slow.encode(views[spec.index]) for spec in method.target_views]
        result = method(online, target, BatchInfo())
        torch.testing.assert_close(losses[seed], result.loss.detach(), rtol=1e-5, atol=1e-5)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), own.parameters(), strict=True):
                old.copy_(0.7 * old + 0.3 * new)
        method.after_step(result.carry, momentum)
    torch.testing.assert_close(_copies(encoder), _copies(own), rtol=1e-5, atol=1e-5)


def test_momentum_is_the_objectives_or_the_given_tau() -> None:
    seen: list[float] = []

    class Listener(Objective):
        online_views = (ViewSpec(0),)

        def forward(self, online: list[Any], target: list[Any], batch: BatchInfo) -> Result:
            return Result(online[0].vector.sum())

        def after_step(self, carry: Any, momentum: Tensor) -> None:
            seen.append(float(momentum))

        def momentum(self, progress: Tensor) -> Tensor:
            return 0.5 + progress / 2

    for options in ({}, {"total_steps": 2}, {"tau": 0.1}):
        aux = AuxiliaryLoss(_encoder(), Listener(), **options)
        for _ in range(5):
            aux(_images())
    assert seen == pytest.approx([0.5] * 4 + [0.5, 0.75, 1.0, 1.0] + [0.9] * 4)
    seen.clear()
    aux = AuxiliaryLoss(_encoder(), Listener(), total_steps=3)
    aux.objective.momentum_ahead = True  # each step's slow copy moves with the next step's momentum
    for _ in range(5):
        aux(_images())
    assert seen == pytest.approx([0.5 + 1 / 6, 0.5 + 2 / 6, 1.0, 1.0])


def test_objective_without_target_views_has_no_slow_copy() -> None:
    aux = AuxiliaryLoss(_encoder(), "simclr")
    assert aux.target is None
    _train(aux, _images(), _sgd(aux))
    assert aux(_images()).isfinite()


# ------------------------------------------------------------------ side effects


@pytest.mark.parametrize("name", ["curl", "moco", "byol", "simclr", "swav"])
def test_evaluation_leaves_no_trace(name: ObjectiveName) -> None:
    encoder = nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(), nn.LazyLinear(5))
    encoder(torch.rand(2, 2, 10, 10))
    encoder[2].eval()
    modes = [part.training for part in encoder.modules()]
    aux = AuxiliaryLoss(ModuleEncoder(encoder, (2, 10, 10)), name, generator=_generator())
    optimizer = _sgd(aux)
    _train(aux, _images(), optimizer)
    before, network = _bytes(aux), copy.deepcopy(encoder.state_dict())
    aux.eval()
    first, second = aux(_images(2)), aux(_images(2))
    assert torch.equal(first, second), "evaluation takes the same crops, and no dropout"
    aux.train()
    assert _bytes(aux) == before
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, network[key]), key
    assert [part.training for part in encoder.modules()] == modes


def _bytes(aux: AuxiliaryLoss) -> bytes:
    file = io.BytesIO()
    torch.save(aux.state_dict(), file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["curl", "byol", "moco", "swav"])
def test_training_continues_from_a_saved_state(name: ObjectiveName) -> None:
    encoder = _encoder()
    aux = AuxiliaryLoss(encoder, name, generator=_generator(7))
    optimizer = _sgd(aux)
    for seed in range(3):
        _train(aux, _images(seed), optimizer)
    state, weights = _bytes(aux), copy.deepcopy(encoder.state_dict())
    expected = [_train(aux, _images(seed), optimizer) for seed in range(3, 6)]

    torch.manual_seed(99)
    encoder = PixelEncoder((2, 10, 10), _CONFIG).double()
    again = AuxiliaryLoss(encoder, name, generator=_generator(8))
    encoder.load_state_dict(weights)
    again.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    optimizer = _sgd(again)
    assert [_train(again, _images(seed), optimizer) for seed in range(3, 6)] == expected
    again.eval()
    aux.eval()
    assert torch.equal(again(_images()), aux(_images()))


def test_encoder_is_the_loops_own() -> None:
    encoder = _encoder()
    aux = AuxiliaryLoss(encoder, "curl")
    learned = {id(parameter) for parameter in aux.parameters() if parameter.requires_grad}
    assert learned == {id(parameter) for parameter in aux.new_parameters()}
    assert not learned & {id(parameter) for parameter in encoder.parameters()}
    aux.eval()
    assert encoder.training
    assert not any(name.startswith("encoder") for name in aux.state_dict())


def test_crops_follow_the_global_seed() -> None:
    losses = []
    for seed in (5, 5, 6):
        encoder = _encoder()
        torch.manual_seed(seed)
        losses.append(AuxiliaryLoss(encoder, "curl")(_images()))
    assert losses[0] == losses[1] != losses[2]


# ------------------------------------------------------------------ foreign modules


def test_any_module_can_be_trained() -> None:
    trunk = nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6))
    aux = AuxiliaryLoss(ModuleEncoder(trunk, (2, 10, 10)), "curl", pad=2)
    start = _copies(trunk)
    _train(aux, _images(side=10), _sgd(aux))
    assert not _equal(_copies(trunk), start)
    assert set(aux.metrics) == {"accuracy", "confidence", "logits_std"}


def test_a_carry_of_several_tensors_moves_to_the_device_of_the_one_that_loads_it() -> None:
    encoder = _encoder()
    saved = AuxiliaryLoss(encoder, TwoTensors(encoder.feature_spec).double())
    saved(_images())
    state = saved.state_dict()
    elsewhere = AuxiliaryLoss(encoder, TwoTensors(encoder.feature_spec).double())
    elsewhere.steps = elsewhere.steps.to("meta")  # for a device that every machine has
    elsewhere.set_extra_state(state["_extra_state"])
    assert [tensor.device.type for tensor in elsewhere._carry[1]] == ["meta", "meta"]
    assert elsewhere._carry[0] == "queue"


class TwoTensors(Objective):
    """Hands a name and two tensors to the step."""

    online_views = (ViewSpec(0), ViewSpec(1))

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.head = nn.Linear(features.dim, 2)

    def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
        vectors = [view.vector for view in online]
        return Result(self.head(vectors[0]).mean(), {}, ("queue", [vector.detach() for vector in vectors]))


# ------------------------------------------------------- futures, labels, actions


def test_later_observations_and_actions_reach_the_objective() -> None:
    encoder, now = _encoder(), _images()
    later, actions = [255 - now, now // 2], torch.rand(4, 3, 2)
    aux = AuxiliaryLoss(encoder, Dynamics(encoder.feature_spec, action_dim=2).double(), generator=_generator())
    assert aux.offsets == (1, 3)
    loss = aux(now, later=later, batch=BatchInfo(actions=actions))

    generator = _generator()
    shown = [_drawn_crops(moment, 10, generator).double() / 255 for moment in (now, *later)]
    vectors = [encoder(view) for view in shown]
    assert isinstance(aux.objective, Dynamics)
    errors = []
    for predictor, vector, steps in zip(aux.objective.predictors, vectors[1:], (1, 3), strict=True):
        guess = predictor(torch.cat([vectors[0], actions[:, :steps].reshape(4, -1).double()], 1))
        errors.append((guess - vector).square().mean())
    torch.testing.assert_close(loss, (errors[0] + errors[1]) / 2, rtol=1e-12, atol=1e-12)


def test_st_dim_takes_the_next_observation_and_is_refused_without() -> None:
    encoder, now = _encoder(), _images()
    config = DIMConfig("info_nce", future=1, heads="linear")
    aux = AuxiliaryLoss(encoder, DIM(encoder.feature_spec, config).double(), generator=_generator())
    losses = [aux(now, later=[moment]).item() for moment in (255 - now, now)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    with pytest.raises(ValueError, match=r"later must be one tensor for each of 1 agent steps .*, got 0: see"):
        aux(now)


def test_labels_reach_the_objective() -> None:
    encoder, images, labels = _encoder(), _images(), torch.tensor([2, 0, 1, 1])
    aux = AuxiliaryLoss(encoder, Labeled(encoder.feature_spec, classes=3).double(), generator=_generator())
    loss = aux(images, batch=BatchInfo(labels=labels))
    assert isinstance(aux.objective, Labeled)
    logits = aux.objective.classifier(encoder(_drawn_crops(images, 10, _generator()).double() / 255))
    expected = -logits.log_softmax(1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_missing_needs_of_an_objective_are_named() -> None:
    encoder, images = _encoder(), _images()
    dynamics = AuxiliaryLoss(encoder, Dynamics(encoder.feature_spec, action_dim=2).double())
    with pytest.raises(ValueError, match=r"^later must be one tensor for each of 1, 3 agent steps .* got 0: "):
        dynamics(images)
    with pytest.raises(
        ValueError, match=r"^later must be torch.uint8 \(4, 2, 13, 13\) like the .* got torch.uint8 \(3, "
    ):
        dynamics(images, later=[images, images[1:]])
    with pytest.raises(ValueError, match=r"^batch must hold actions, which Dynamics needs, got none: batch="):
        dynamics(images, later=[images, images])
    with pytest.raises(ValueError, match=r"^later must be one tensor for each of none agent steps .* got 1"):
        AuxiliaryLoss(encoder, "curl")(images, later=[images])


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "none"}, "objective must be one of curl, simclr, .*, got 'none'"),
        ({"objective": "CURLL"}, "unknown objective 'CURLL': the methods are curl, simclr, .*; did you mean curl"),
        ({"objective": None}, "unknown objective None: the methods are curl, simclr, "),
        ({"objective": "culr"}, "unknown objective 'culr'"),
        ({"objective": Clustered(FeatureSpec(5, (4, 2, 2)), count=9)}, "objective Clustered needs epochs, which a"),
        ({"pad": -1}, "pad must be at least 0, got -1"),
        ({"crop": 0}, "crop must be at least 1, got 0"),
        ({"tau": 1.5}, r"tau must lie in \[0, 1\], got 1.5"),
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"total_steps": 9, "tau": 0.1}, "total_steps must be None with a fixed tau of 0.1, got 9"),
        ({"encoder": nn.Linear(2, 2)}, r"encoder Linear has no encode\(\) and feature_spec: wrap it as ModuleEncoder"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"encoder": _encoder(), "objective": "curl"} | options
    with pytest.raises(ValueError, match=message) as caught:
        AuxiliaryLoss(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (_images()[0], r"must be \(B, C, H, W\), got \(2, 13, 13\)"),
        (_images().long(), "uint8 or floating point in \\[0, 1\\], got torch.int64"),
        (_images(side=9), "9×9 .* smaller than the crop of 10"),
        (_images(side=10), "all views would be the same: set pad=4"),
        (_images().to("meta"), "observations must be on cpu like the crop generator, got meta"),
    ],
)
def test_impossible_observations_are_refused_in_one_line(observations: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AuxiliaryLoss(_encoder(), "curl")(observations)


# Those that can train this encoder: it has one stream.
_OWN = {name: method.objective for name, method in METHODS.items() if name != "clip"}  # clip needs two encoders
_TRAINABLE = [name for name, own in _OWN.items() if "epochs" not in own.needs and own.streams == 1]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("method", _TRAINABLE)
def test_a_single_sample_is_refused_by_methods_that_need_others(method: str, train: bool) -> None:
    texts = "text" in METHODS[method].objective.needs
    encoder = TextEncoder((9, 1, 4), TextEncoderConfig(8, 1, 2)) if texts else _encoder()
    sample = torch.ones(1, 4, dtype=torch.int64) if texts else _images()[:1]
    aux = AuxiliaryLoss(encoder, method, data=DataSpec(count=8, classes=2)).train(train)
    zero = torch.zeros(1, dtype=torch.int64)
    batch = BatchInfo(**{need: zero for need in ("indices", "labels") if need in aux.objective.needs})
    later = [sample for _ in aux.offsets]
    if not aux.objective.batch_dependent:  # its negatives, if it has any, are in a bank
        aux(sample, later=later, batch=batch)
        return
    with pytest.raises(ValueError, match=r"needs? at least 2 samples in a batch \(batch_size\), got 1"):
        aux(sample, later=later, batch=batch)


def test_several_objectives_at_once_are_their_weighted_sum() -> None:
    encoder = _encoder()
    spec, size = encoder.feature_spec, len(_images())
    parts = {"curl": Curl(spec), "cpc": CPC(spec, CPCConfig(steps=2, actions=True), action_dim=3)}
    aux = AuxiliaryLoss(encoder, Composite(parts, (1.0, 0.1)).double())
    assert aux.offsets == (1, 2)
    loss = aux(_images(), later=[_images(1), _images(2)], batch=BatchInfo(actions=torch.ones(size, 2, 3)))
    torch.testing.assert_close(loss, aux.metrics["curl/loss"] + 0.1 * aux.metrics["cpc/loss"])
    with pytest.raises(ValueError, match=r"^batch must hold actions, which Composite needs, got none"):
        aux(_images(), later=[_images(1), _images(2)])


def test_the_first_floats_beyond_1_are_a_warning() -> None:
    aux = AuxiliaryLoss(_encoder(), "curl")
    floats = _images().fill_(255).float()
    with pytest.warns(UserWarning, match=r"must lie in \[0, 1\], got 255: divide them by 255, or pass uint8"):
        aux(floats)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aux(floats)
