"""An exported encoder against the very network that it was saved from, and files that were damaged by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.export import load_encoder, save_encoder
from curl_rl.resnet import ResNet, ResNetConfig

PROVENANCE = {"env": "cheetah-run", "preset": "curl", "seed": 3, "frames": 700}


@pytest.fixture
def encoder() -> PixelEncoder:
    torch.manual_seed(0)
    made = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    with torch.no_grad():
        for parameter in made.parameters():  # biases start at zero, and would not be missed
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.fixture
def run(encoder: PixelEncoder, tmp_path: Path) -> Path:
    save_encoder(encoder, tmp_path, rendered_size=16, provenance=PROVENANCE)
    return tmp_path


def observations(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_it_gives_what_the_encoder_gives_on_the_middle(encoder: PixelEncoder, run: Path) -> None:
    loaded, seen = load_encoder(run), observations(7, 6, 17, 16)
    assert torch.equal(loaded(seen), encoder(seen[:, :, 2:14, 2:14]))
    assert loaded.features == 5
    assert loaded.provenance == PROVENANCE


def test_floating_point_is_taken_as_scaled_already(run: Path) -> None:
    loaded, seen = load_encoder(run), observations(7, 6, 12, 12)
    assert torch.allclose(loaded(seen.float() / 255), loaded(seen), atol=1e-6)
    # By type, never by value: a picture of ones is white as a float and all but black as uint8.
    white = torch.full((1, 6, 12, 12), 255, dtype=torch.uint8)
    assert torch.allclose(loaded(torch.ones(1, 6, 12, 12)), loaded(white), atol=1e-6)
    assert not torch.allclose(loaded(torch.ones_like(white)), loaded(white), atol=1e-2)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (2, 1, 2)])
def test_any_batch_shape(run: Path, batch: tuple[int, ...]) -> None:
    loaded, seen = load_encoder(run), observations(*batch, 6, 12, 12)
    features = loaded(seen)
    assert features.shape == (*batch, 5)
    each = torch.stack([loaded(one) for one in seen.reshape(-1, 6, 12, 12)]).view(*batch, 5)
    assert torch.allclose(features, each, atol=1e-6)


def test_frozen_or_ready_to_be_trained_further(run: Path) -> None:
    frozen, free = load_encoder(run), load_encoder(run, freeze=False)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert free.training
    assert all(parameter.requires_grad for parameter in free.parameters())
    free(observations(2, 6, 12, 12)).sum().backward()
    assert all(parameter.grad is not None for parameter in free.parameters())


def test_the_file_itself_may_be_named(run: Path) -> None:
    seen = observations(2, 6, 12, 12)
    assert torch.equal(load_encoder(str(run / "encoder.safetensors"))(seen), load_encoder(run)(seen))


@pytest.mark.parametrize(
    ("shape", "dtype", "line"),
    [
        ((2, 5, 12, 12), torch.uint8, r"expected observations \(..., 6, H, W\) with H and W at least 12, got \(2, 5,"),
        ((2, 6, 11, 12), torch.uint8, "H and W at least 12"),
        ((12, 12), torch.uint8, "expected observations"),
        ((2, 6, 12, 12), torch.int64, "expected uint8 or floating-point observations, got torch.int64"),
    ],
)
def test_what_it_cannot_see_is_refused(run: Path, shape: tuple[int, ...], dtype: torch.dtype, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        load_encoder(run)(torch.zeros(shape, dtype=dtype))


def test_a_pickle_is_no_part_of_it(run: Path, encoder: PixelEncoder) -> None:
    weights = safetensors.torch.load_file(run / "encoder.safetensors")
    types = {name: value.dtype for name, value in weights.items()}
    assert types == dict.fromkeys(encoder.state_dict(), torch.float32)
    assert not list(run.glob("*.partial"))


def described(run: Path, **changes: Any) -> None:
    path = run / "encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without_description(run: Path) -> None:
    (run / "encoder.json").unlink()


def without_weights(run: Path) -> None:
    (run / "encoder.safetensors").unlink()


def truncated(run: Path) -> None:
    path = run / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def not_text(run: Path) -> None:
    (run / "encoder.json").write_bytes(b"\xff\xfe\x00\xd8")


def not_json(run: Path) -> None:
    (run / "encoder.json").write_text("{")


def a_list(run: Path) -> None:
    (run / "encoder.json").write_text("[1]")


def lacking_a_field(run: Path) -> None:
    content = json.loads((run / "encoder.json").read_text())
    del content["provenance"]
    (run / "encoder.json").write_text(json.dumps(content))


def of_another_shape(run: Path) -> None:
    described(run, observation_shape=[9, 12, 12])


def impossible(run: Path) -> None:
    described(run, config={"filters": 0, "strides": [2], "latent": 5})


def newer(run: Path) -> None:
    described(run, format=2, config="what nobody knows yet")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (without_description, "no encoder in {run}: encoder.json is missing"),
        (without_weights, "no encoder in {run}: encoder.safetensors is missing"),
        (truncated, "the encoder in {run} is damaged (SafetensorError: "),
        (not_text, "the encoder in {run} is damaged (UnicodeDecodeError: "),
        (not_json, "the encoder in {run} is damaged (JSONDecodeError: "),
        (a_list, "the encoder in {run} is damaged (TypeError: "),
        (lacking_a_field, "the encoder in {run} is damaged (KeyError: 'provenance')"),
        (of_another_shape, "the encoder in {run} is damaged (RuntimeError: "),
        (impossible, "the encoder in {run} is damaged (ValueError: "),
        (newer, "{run}/encoder.json has format 2: update curl_rl to read it"),
    ],
)
def test_damage_is_one_line_that_names_the_place(run: Path, damage: Any, line: str) -> None:
    damage(run)
    with pytest.raises(ValueError) as error:  # noqa: PT011  # what it says is compared below
        load_encoder(run)
    assert str(error.value).startswith(line.format(run=run))
    assert "\n" not in str(error.value)


def test_a_path_that_is_not_there_is_not_taken_for_its_neighbour(run: Path) -> None:
    with pytest.raises(ValueError, match=f"no encoder in {run}/misspelt: encoder.json is missing"):
        load_encoder(run / "misspelt")
    (run / "config.yaml").touch()
    with pytest.raises(ValueError, match="no encoder in .*/config.yaml: encoder.json is missing"):
        load_encoder(run / "config.yaml")


# ---- the other kind of encoder


@pytest.fixture
def resnet() -> ResNet:
    torch.manual_seed(0)
    made = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,)))
    made(torch.rand(16, 3, 8, 8))  # running statistics of its own, which would not be missed either
    return made.eval()


def test_a_resnet_comes_back_with_its_statistics_and_takes_any_size(resnet: ResNet, tmp_path: Path) -> None:
    save_encoder(resnet, tmp_path, rendered_size=10, provenance={"data": "digits"})
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded.encoder, ResNet)
    assert loaded.encoder.config == resnet.config
    assert (loaded.features, loaded.rendered_size) == (resnet.dim, 10)
    for seen in (observations(2, 3, 3, 8, 8), observations(2, 3, 3, 11, 6)):
        assert torch.equal(loaded(seen), resnet(seen.flatten(0, 1)).view(2, 3, -1))
    with pytest.raises(ValueError, match=r"expected observations \(..., 3, H, W\)"):
        loaded(observations(2, 4, 8, 8))


def test_a_split_or_low_precision_network_is_saved_as_what_anybody_can_load(resnet: ResNet, tmp_path: Path) -> None:
    split = replace(resnet.config, batch_norm_splits=2)
    trained = ResNet((3, 8, 8), split, precision="bfloat16").to(memory_format=torch.channels_last)
    trained.load_state_dict(resnet.state_dict())
    save_encoder(trained, tmp_path, rendered_size=8, provenance={})
    seen = observations(5, 3, 8, 8)
    assert torch.equal(load_encoder(tmp_path)(seen), resnet(seen))
    load_encoder(tmp_path, freeze=False)(observations(3, 3, 8, 8))  # an odd batch, which two parts do not divide


def test_an_unknown_kind_is_one_line(resnet: ResNet, tmp_path: Path) -> None:
    save_encoder(resnet, tmp_path, rendered_size=8, provenance={})
    described(tmp_path, kind="transformer")
    with pytest.raises(ValueError, match=r"is damaged \(ValueError: there is no encoder of the kind 'transformer'\)"):
        load_encoder(tmp_path)
