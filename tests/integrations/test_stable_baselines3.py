"""The features extractor and the callback inside real Stable-Baselines3 models on its fake image environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curl_rl.artifacts.encoder_file import load_encoder, save_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.objectives import BarlowTwins

pytest.importorskip("stable_baselines3")
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import configure

from curl_rl.integrations.stable_baselines3 import ContrastiveCallback, CurlFeaturesExtractor

_CONFIG = EncoderConfig(filters=8, strides=(2, 2), latent=4)
_SIDE = 36  # Stable-Baselines3 warns of smaller images


def _environment(discrete: bool = False) -> FakeImageEnv:
    return FakeImageEnv(screen_height=_SIDE, screen_width=_SIDE, n_channels=3, discrete=discrete)


def _pretrained(directory: Path, freeze: bool = True) -> PretrainedEncoder:
    torch.manual_seed(11)
    save_encoder(PixelEncoder((3, 32, 32), _CONFIG), directory, rendered_size=_SIDE, provenance={})
    return load_encoder(directory, freeze=freeze)


def _policy(**extractor: Any) -> dict[str, Any]:
    return {
        "features_extractor_class": CurlFeaturesExtractor,
        "features_extractor_kwargs": extractor,
        "net_arch": [8],
    }


def _new(**more: Any) -> dict[str, Any]:
    return _policy(crop=32, config=_CONFIG) | more


def _sac(policy: dict[str, Any]) -> SAC:
    options: dict[str, Any] = {"buffer_size": 64, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}
    return SAC("CnnPolicy", _environment(), policy_kwargs=policy, **options)


def _ppo(policy: dict[str, Any]) -> PPO:
    options: dict[str, Any] = {"n_steps": 12, "batch_size": 6, "n_epochs": 1, "seed": 0, "device": "cpu"}
    return PPO("CnnPolicy", _environment(), policy_kwargs=policy, **options)


def _dqn(policy: dict[str, Any]) -> DQN:
    options: dict[str, Any] = {"buffer_size": 64, "learning_starts": 10, "batch_size": 4, "seed": 0, "device": "cpu"}
    return DQN("CnnPolicy", _environment(discrete=True), policy_kwargs=policy, **options)


_MODELS = {"sac": _sac, "ppo": _ppo, "dqn": _dqn}


def _weights(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in (*module.parameters(), *module.buffers())]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _extractors(model: Any) -> list[CurlFeaturesExtractor]:
    return [module for module in model.policy.modules() if isinstance(module, CurlFeaturesExtractor)]


# ------------------------------------------------------------------ the extractor


@pytest.mark.parametrize("name", _MODELS)
def test_policy_sees_the_encoders_features_of_the_raw_bytes(name: str, tmp_path: Path) -> None:
    pretrained = _pretrained(tmp_path)
    model = _MODELS[name](_policy(pretrained=pretrained))
    observation = np.stack([model.observation_space.sample() for _ in range(2)])
    assert observation.dtype == np.uint8
    assert observation.shape == (2, 3, _SIDE, _SIDE)
    tensor, _ = model.policy.obs_to_tensor(observation)
    for extractor in _extractors(model):
        features = model.policy.extract_features(tensor, extractor)
        # Scaling twice, reinitialized weights or another crop would each change the features.
        torch.testing.assert_close(features, pretrained(torch.as_tensor(observation)), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(features[0], features[1]), "the features depend on the images"


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_encoders_do_not_change_and_others_learn(name: str, freeze: bool, tmp_path: Path) -> None:
    pretrained = _pretrained(tmp_path, freeze=freeze)
    model = _MODELS[name](_policy(pretrained=pretrained))
    start = _weights(pretrained.encoder)
    model.learn(24)
    # In SAC the actor and the critics each have an encoder.
    learner = getattr(model, "critic", None) or getattr(model, "q_net", None) or model.policy
    (extractor,) = {module for module in learner.modules() if isinstance(module, CurlFeaturesExtractor)}
    assert _equal(_weights(extractor.encoder), start) == freeze
    assert _equal(_weights(pretrained.encoder), start), "the pretrained encoder is copied"


def test_pixels_are_never_scaled_twice(tmp_path: Path) -> None:
    """The policy on bytes, including its division, against the encoder on the same bytes."""
    pretrained = _pretrained(tmp_path)
    model = _MODELS["ppo"](_policy(pretrained=pretrained))
    seen = torch.randint(256, (2, *model.observation_space.shape), dtype=torch.uint8)
    found = model.policy.extract_features(seen, model.policy.pi_features_extractor)
    torch.testing.assert_close(found, pretrained(seen), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"^the pretrained encoder's scale is 0.00392157, but .* load it with scale=1$"
    ):
        _MODELS["ppo"](_policy(pretrained=load_encoder(tmp_path, scale=1 / 255)))


def test_batch_norm_of_a_frozen_encoder_ignores_new_images(tmp_path: Path) -> None:
    config = ResNetConfig(depth=18, width=1 / 16, stem="small")
    save_encoder(ResNet((3, 32, 32), config), tmp_path, rendered_size=32, provenance={})
    frozen = load_encoder(tmp_path)
    space = gymnasium.spaces.Box(0, 255, (3, 12, 12), np.uint8)
    extractor = CurlFeaturesExtractor(space, frozen)
    start = _weights(extractor)
    extractor.train()
    extractor(torch.rand(4, 3, 12, 12))
    assert _equal(_weights(extractor), start)
    assert extractor.features_dim == frozen.features


@pytest.mark.parametrize("name", _MODELS)
def test_model_is_saved_and_loaded_without_the_encoders_file(name: str, tmp_path: Path) -> None:
    model = _MODELS[name](_policy(pretrained=_pretrained(tmp_path, freeze=False)))
    model.learn(24, callback=ContrastiveCallback(batch_size=4))
    model.save(tmp_path / "model")
    for file in tmp_path.glob("encoder.*"):
        file.unlink()
    loaded = type(model).load(tmp_path / "model")
    observation = np.stack([model.observation_space.sample() for _ in range(3)])
    expected, _ = model.predict(observation, deterministic=True)
    actual, _ = loaded.predict(observation, deterministic=True)
    np.testing.assert_array_equal(actual, expected)
    for own, other in zip(_extractors(model), _extractors(loaded), strict=True):
        assert _equal(_weights(own), _weights(other))


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (gymnasium.spaces.Discrete(3), {}, "must be a Box of images"),
        (gymnasium.spaces.Box(-1, 1, (3, 36, 36), np.float32), {}, "uint8 in \\[0, 255\\] or floats in \\[0, 1\\]"),
        (gymnasium.spaces.Box(0, 255, (3, 36, 36), np.float32), {}, "uint8 in \\[0, 255\\] or floats in \\[0, 1\\]"),
        (
            gymnasium.spaces.Box(0, 255, (3, 36, 36), np.uint8),
            {"crop": 40},
            r"\(3, 36, 36\) do not fit .* \(3, 40, 40\)",
        ),
        (gymnasium.spaces.Box(0, 255, (9, 36, 36), np.uint8), {"pretrained": True}, r"\(9, 36, 36\) do not fit"),
        (gymnasium.spaces.Box(0, 255, (3, 36, 36), np.uint8), {"pretrained": True, "crop": 8}, "leave crop out"),
    ],
)
def test_observations_that_do_not_fit_are_refused(
    space: gymnasium.Space[Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if options.get("pretrained"):
        options = options | {"pretrained": _pretrained(tmp_path)}
    with pytest.raises(ValueError, match=message):
        CurlFeaturesExtractor(space, **options)


# ------------------------------------------------------------------ the callback


@pytest.mark.parametrize("name", _MODELS)
def test_loss_trains_every_encoder_except_the_targets(name: str) -> None:
    def trained(callback: ContrastiveCallback | None) -> Any:
        model = _MODELS[name](_new())
        # The algorithm's own learning rate is 0, so only the callback changes an encoder.
        model.learning_rate = 0.0
        model._setup_lr_schedule()
        return model.learn(24, callback=callback)

    callback = ContrastiveCallback(batch_size=4)
    with_loss, without = trained(callback), trained(None)
    networks = dict(with_loss.policy.named_modules())
    for key, module in without.policy.named_modules():
        if isinstance(module, CurlFeaturesExtractor) and "_target" not in key:
            assert not _equal(_weights(module), _weights(networks[key])), key
    heads = [part for part in ("latent_pi", "q_net.q_net", "action_net", "mu") if part in networks]
    for part in heads:
        assert _equal(_weights(networks[part]), _weights(dict(without.policy.named_modules())[part])), part
    assert len(callback.losses) == (2 if name == "sac" else 1)


def test_loss_steps_follow_environment_steps() -> None:
    for make, every, steps in ((_ppo, 1, 24), (_ppo, 5, 4), (_sac, 1, 14), (_sac, 4, 4)):
        callback = ContrastiveCallback(batch_size=4, every=every)
        make(_new()).learn(24, callback=callback)
        # PPO: 2 rollouts of 12. SAC: steps 11 to 24, those after the first ten.
        assert callback.steps == steps, (make, every)


def test_shared_encoder_is_trained_once() -> None:
    callback = ContrastiveCallback(batch_size=4)
    _sac(_new(share_features_extractor=True)).learn(14, callback=callback)
    assert len(callback.losses) == 1


def test_whole_observations_require_padding() -> None:
    policy = _policy(config=_CONFIG)
    with pytest.raises(ValueError, match="set pad=4"):
        _sac(policy).learn(14, callback=ContrastiveCallback(batch_size=4))
    callback = ContrastiveCallback(batch_size=4, pad=4)
    _sac(policy).learn(14, callback=callback)
    assert callback.steps == 4


def test_learning_continues_with_the_same_callback_and_from_its_saved_state(tmp_path: Path) -> None:
    model, callback = _sac(_new()), ContrastiveCallback("byol", batch_size=4)
    model.learn(14, callback=callback)
    losses = callback.losses
    model.learn(6, callback=callback, reset_num_timesteps=False)
    assert callback.losses is losses
    assert callback.steps == 10

    model.save(tmp_path / "model")
    torch.save(callback.training_state(), tmp_path / "callback.pt")
    loaded, again = SAC.load(tmp_path / "model"), ContrastiveCallback("byol", batch_size=4)
    again.load_training_state(loaded, torch.load(tmp_path / "callback.pt", weights_only=True))
    images = torch.randint(256, (4, 3, _SIDE, _SIDE), dtype=torch.uint8)
    for one in (callback, again):
        one._train(images)
    for own, other in zip(callback.losses, again.losses, strict=True):
        assert _equal(_weights(own), _weights(other))
        assert _equal(_weights(own.encoder), _weights(other.encoder))


def test_gradients_of_algorithm_and_loss_do_not_mix() -> None:
    images = torch.randint(256, (4, 3, _SIDE, _SIDE), dtype=torch.uint8)
    outcomes = []
    for left_behind in (None, 1e6):
        torch.manual_seed(5)
        model, callback = _ppo(_new()), ContrastiveCallback(batch_size=4)
        model._setup_learn(12, callback)
        (extractor,) = _extractors(model)
        extractor.eval()
        if left_behind is not None:
            for parameter in extractor.parameters():
                parameter.grad = torch.full_like(parameter, left_behind)
        callback._train(images)
        assert all(parameter.grad is None for parameter in extractor.parameters())
        assert not extractor.encoder.training, "its mode is restored"
        outcomes.append(_weights(extractor))
    assert _equal(*outcomes)


def test_the_loss_is_logged(tmp_path: Path) -> None:
    model = _ppo(_new())
    model.set_logger(configure(str(tmp_path), ["json"]))
    model.learn(12, callback=ContrastiveCallback(batch_size=4))
    row = json.loads((tmp_path / "progress.json").read_text().splitlines()[0])
    assert 0 < row["contrastive/loss"] < 10
    assert 0 <= row["contrastive/accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"objective": BarlowTwins(PixelEncoder((3, 8, 8), _CONFIG).feature_spec)}, "must be a name, such as 'curl'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveCallback(**options)


def test_a_method_that_needs_later_observations_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"^objective cpc compares observations with later ones, .*: take curl$"):
        _ppo(_new()).learn(12, callback=ContrastiveCallback("cpc"))


def test_models_without_anything_to_train_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its encoders are frozen"):
        _ppo(_policy(pretrained=_pretrained(tmp_path))).learn(12, callback=ContrastiveCallback())
    plain = PPO("CnnPolicy", _environment(), n_steps=12, batch_size=6, device="cpu")
    with pytest.raises(ValueError, match="has no CurlFeaturesExtractor"):
        plain.learn(12, callback=ContrastiveCallback())
    callback = ContrastiveCallback(batch_size=4)
    _ppo(_new()).learn(12, callback=callback)
    with pytest.raises(ValueError, match="belongs to another model"):
        _ppo(_new()).learn(12, callback=callback)
