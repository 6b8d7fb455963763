"""Encoder files: loaded encoders against the saved network, and deliberately damaged files."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

import curl_rl
from curl_rl.artifacts.encoder_file import as_safetensors, last_names, load_encoder, save_encoder
from curl_rl.encoders import EncoderConfig, ModuleEncoder, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig

PROVENANCE = {"env": "cheetah-run", "preset": "curl", "seed": 3, "frames": 700}


@pytest.fixture
def encoder() -> PixelEncoder:
    torch.manual_seed(0)
    made = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    with torch.no_grad():
        for parameter in made.parameters():  # biases start at zero, so their loss would go unnoticed
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.fixture
def run(encoder: PixelEncoder, tmp_path: Path) -> Path:
    save_encoder(encoder, tmp_path, rendered_size=16, provenance=PROVENANCE)
    return tmp_path


def observations(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_loaded_encoder_matches_the_original_on_the_center_crop(encoder: PixelEncoder, run: Path) -> None:
    loaded, seen = load_encoder(run), observations(7, 6, 17, 16)
    assert torch.equal(loaded(seen), encoder(seen[:, :, 2:14, 2:14]))
    assert loaded.features == 5
    assert loaded.provenance.items() >= PROVENANCE.items()


def test_a_loaded_encoder_is_frozen_or_trainable(run: Path) -> None:
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
    assert torch.equal(load_encoder(run / "encoder.json")(seen), load_encoder(run)(seen))


def test_the_files_contain_no_pickle(run: Path, encoder: PixelEncoder) -> None:
    weights = safetensors.torch.load_file(run / "encoder.safetensors")
    types = {name: value.dtype for name, value in weights.items()}
    assert types == dict.fromkeys(encoder.state_dict(), torch.float32)
    assert not list(run.glob("*.partial"))


def rewritten(run: Path, change: Any, *, metadata: bool = True) -> None:
    """Rewrites the files after ``change(description, weights)``; metadata=False: encoder.json only, as in format 1."""
    path, beside = run / "encoder.safetensors", run / "encoder.json"
    content, weights = json.loads(beside.read_text()), safetensors.torch.load_file(path)
    change(content, weights)
    beside.write_text(json.dumps(content))
    safetensors.torch.save_file(weights, path, {"curl_rl": json.dumps(content)} if metadata else None)


def described(run: Path, **changes: Any) -> None:
    rewritten(run, lambda content, _: content.update(changes))


def without_weights(run: Path) -> None:
    (run / "encoder.safetensors").unlink()


def truncated(run: Path) -> None:
    path = run / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def a_pickle(run: Path) -> None:
    torch.save({}, run / "encoder.safetensors")


def not_text(run: Path) -> None:
    (run / "encoder.json").write_bytes(b"\xff\xfe\x00\xd8")


def not_json(run: Path) -> None:
    (run / "encoder.json").write_text("{")


def nested(run: Path) -> None:
    (run / "encoder.json").write_text("[" * 100_000)


def a_list(run: Path) -> None:
    (run / "encoder.json").write_text("[1]")


def endless(run: Path) -> None:
    (run / "encoder.json").write_text(" " * 2_000_000)


def lacking_a_field(run: Path) -> None:
    rewritten(run, lambda content, _: content.pop("provenance"))


def of_another_shape(run: Path) -> None:
    described(run, observation_shape=[9, 12, 12])


def of_no_shape(run: Path) -> None:
    described(run, observation_shape=[6, 12, True])


def impossible(run: Path) -> None:
    described(run, config={"filters": 0, "strides": [2], "latent": 5})


def absurd(run: Path) -> None:
    """Sixteen terabytes if they were allocated."""
    described(run, config={"filters": 1_000_000, "strides": [2, 1], "latent": 5})


def beyond_numbers(run: Path) -> None:
    described(run, config={"filters": 10**30, "strides": [2, 1], "latent": 5})


def lacking_a_weight(run: Path) -> None:
    rewritten(run, lambda _, weights: weights.pop("projection.norm.bias"))


def with_one_more(run: Path) -> None:
    rewritten(run, lambda _, weights: weights.update(stowaway=torch.zeros(3)))


def of_another_type(run: Path) -> None:
    rewritten(run, lambda _, weights: weights.update({"projection.norm.bias": torch.zeros(5, dtype=torch.int64)}))


def not_finite(run: Path) -> None:
    """Format 1, because the hash of format 2 would detect it first."""

    def change(content: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        content["format"] = 1
        del content["id"]
        weights["projection.linear.bias"][2] = torch.nan

    rewritten(run, change, metadata=False)


def retouched(run: Path) -> None:
    rewritten(run, lambda _, weights: weights["projection.linear.bias"].mul_(1.01))


def newer(run: Path) -> None:
    described(run, format=3, config="unknown content")


def newer_alone(run: Path) -> None:
    newer(run)
    (run / "encoder.json").unlink()


def without_format(run: Path) -> None:
    described(run, format="2")


def nothing_to_see(run: Path) -> None:
    described(run, rendered_size=-4)


def smaller_than_the_crop(run: Path) -> None:
    described(run, rendered_size=11)


def larger_than_a_picture(run: Path) -> None:
    described(run, rendered_size=2**14 + 1)


def not_square(run: Path) -> None:
    """The weights fit: with one column less, the map has the same size."""
    described(run, observation_shape=[6, 12, 11])


def not_a_number(run: Path) -> None:
    (run / "encoder.json").write_text('{"format": NaN}')


def old_without_description(run: Path) -> None:
    rewritten(run, lambda *_: None, metadata=False)
    (run / "encoder.json").unlink()


DAMAGED = "the encoder in {run} is damaged "
DAMAGED_JSON = "{run}/encoder.json is damaged "


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (without_weights, "no encoder in {run}: encoder.safetensors is missing"),
        (old_without_description, "no encoder in {run}: encoder.json is missing"),
        (truncated, DAMAGED + "(SafetensorError: "),
        (a_pickle, DAMAGED + "(SafetensorError: "),
        (not_text, DAMAGED_JSON + "(UnicodeDecodeError: "),
        (not_json, DAMAGED_JSON + "(JSONDecodeError: "),
        (nested, DAMAGED_JSON + "(RecursionError: "),
        (a_list, DAMAGED_JSON + "(TypeError: a description must be a mapping, got a list)"),
        (endless, DAMAGED_JSON + "(ValueError: encoder.json has 2000000 bytes"),
        (lacking_a_field, DAMAGED + "(KeyError: 'provenance')"),
        (
            of_another_shape,
            DAMAGED + "(ValueError: convolutions.layers.0.weight must be [4, 9, 3, 3], got [4, 6, 3, 3])",
        ),
        (of_no_shape, DAMAGED + "(ValueError: observation_shape must be three positive integers"),
        (impossible, DAMAGED + "(ValueError: filters must be at least 1, got 0)"),
        (absurd, DAMAGED + "(ValueError: convolutions.layers.0.bias must be [1000000], got [4])"),
        (beyond_numbers, DAMAGED + "("),
        (lacking_a_weight, DAMAGED + "(ValueError: projection.norm.bias must be [5], got nothing)"),
        (with_one_more, DAMAGED + "(ValueError: stowaway must be absent, got [3])"),
        (of_another_type, DAMAGED + "(ValueError: projection.norm.bias must be of type F32, got I64)"),
        (not_finite, DAMAGED + "(ValueError: projection.linear.bias holds numbers that are not finite)"),
        (nothing_to_see, DAMAGED + "(ValueError: rendered_size must be a side from 12 to 16384, got -4)"),
        (smaller_than_the_crop, DAMAGED + "(ValueError: rendered_size must be a side from 12 to 16384, got 11)"),
        (larger_than_a_picture, DAMAGED + "(ValueError: rendered_size must be a side from 12 to 16384, got 16385)"),
        (not_square, DAMAGED + "(ValueError: observation_shape [6, 12, 11] must be square: (C, side, side))"),
        (not_a_number, DAMAGED_JSON + "(ValueError: a description must hold finite numbers, got NaN)"),
        (without_format, DAMAGED_JSON + "(ValueError: format must be a whole number, 1 to 2, got '2')"),
        (retouched, "{run}/encoder.safetensors has been changed: the hash of its weights does not match"),
        (newer, "{run}/encoder.json has format 3, newer than 2: update curl_rl to read it"),
        (newer_alone, "{run}/encoder.safetensors has format 3, newer than 2: update curl_rl to read it"),
    ],
)
def test_damage_is_one_line_that_names_the_place(run: Path, damage: Any, line: str) -> None:
    damage(run)
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below
        load_encoder(run)
    assert str(error.value).startswith(line.format(run=run))
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_missing_path_is_not_mistaken_for_its_neighbor(run: Path) -> None:
    with pytest.raises(ValueError, match=f"no encoder in {run}/misspelt: encoder.safetensors is missing"):
        load_encoder(run / "misspelt")
    with pytest.raises(ValueError, match=f"no encoder in {run}: misspelt.safetensors is missing"):
        load_encoder(run / "misspelt.safetensors")
    (run / "config.yaml").touch()
    with pytest.raises(
        ValueError, match="/config.yaml is not a safetensors file: name a run's directory or its encoder.safe"
    ):
        load_encoder(run / "config.yaml")
    (run / "encoder.json").unlink()
    with pytest.raises(ValueError, match="no encoder in .*/encoder.json: encoder.safetensors is missing"):
        load_encoder(run / "encoder.json")


@pytest.mark.parametrize(
    ("shape", "rendered_size", "line"),
    [
        ((6, 12, 14), 20, r"observation_shape \[6, 12, 14\] must be square"),
        ((6, 12, 12), 11, "rendered_size must be a side from 12 to 16384, got 11"),
    ],
)
def test_an_encoder_that_would_not_load_is_not_written(
    shape: tuple[int, int, int], rendered_size: int, line: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=line):
        save_encoder(
            PixelEncoder(shape, EncoderConfig(4, (2, 1), 5)), tmp_path, rendered_size=rendered_size, provenance={}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [None, "1"])
def test_a_scale_of_another_type_is_one_line(run: Path, scale: Any) -> None:
    with pytest.raises(ValueError, match=r"^scale must be positive: 1 for floats in \[0, 1\], .*, got (None|1)$"):
        load_encoder(run, scale=scale)


# ---- descriptions


def test_the_safetensors_suffice_under_any_name(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cheetah.safetensors"
    elsewhere.write_bytes((run / "encoder.safetensors").read_bytes())
    loaded, seen = load_encoder(elsewhere), observations(2, 6, 17, 16)
    assert torch.equal(loaded(seen), load_encoder(run)(seen))
    assert loaded.provenance == json.loads((run / "encoder.json").read_text())["provenance"]
    (elsewhere.parent / "copy").mkdir()
    (elsewhere.parent / "copy" / "model.safetensors").write_bytes(elsewhere.read_bytes())
    assert torch.equal(load_encoder(elsewhere.parent / "copy")(seen), loaded(seen))


def test_the_json_equals_the_safetensors_description(run: Path) -> None:
    with safetensors.safe_open(run / "encoder.safetensors", "np") as file:
        inside = json.loads(file.metadata()["curl_rl"])
        names = sorted(file.keys())
        values = {name: file.get_tensor(name) for name in names}
    assert inside == json.loads((run / "encoder.json").read_text())
    digest = hashlib.sha256()
    for name in names:  # computed as documented
        digest.update(f"{name}{list(values[name].shape)}".encode() + values[name].tobytes())
    assert inside["id"] == digest.hexdigest()


def test_mixed_up_files_are_detected(run: Path, encoder: PixelEncoder, tmp_path: Path) -> None:
    with torch.no_grad():
        encoder.projection.norm.bias.add_(1)
    (tmp_path / "other").mkdir()
    save_encoder(encoder, tmp_path / "other", rendered_size=16, provenance={**PROVENANCE, "frames": 800})
    (run / "encoder.json").write_bytes((tmp_path / "other" / "encoder.json").read_bytes())
    line = "not of the same encoder: they differ in id, provenance; delete encoder.json to load the weights"
    with pytest.raises(ValueError, match=line):
        load_encoder(run)
    (run / "encoder.json").unlink()
    assert load_encoder(run).provenance["frames"] == 700


def test_a_file_of_format_1_is_read(run: Path, encoder: PixelEncoder) -> None:
    """As written by the first version: no kind, no id, no metadata in the safetensors."""
    old = {
        "format": 1,
        "observation_shape": [6, 12, 12],
        "flattening": "the last convolution's map row by row, channels innermost",
        "preprocessing": "crop to the middle; uint8 divided by 255, floating point as it is",
        "rendered_size": 16,
        "config": {"filters": 4, "strides": [2, 1], "latent": 5},
        "provenance": PROVENANCE,
    }
    safetensors.torch.save_file(encoder.state_dict(), run / "encoder.safetensors")
    (run / "encoder.json").write_text(json.dumps(old))
    loaded, seen = load_encoder(run), observations(2, 6, 12, 12)
    assert torch.equal(loaded(seen), encoder(seen))
    assert loaded.provenance == PROVENANCE
    # Written again, it describes itself and keeps its original provenance.
    (run / "new.safetensors").write_bytes(as_safetensors(loaded))
    again = load_encoder(run / "new.safetensors")
    assert torch.equal(again(seen), encoder(seen))
    assert again.provenance.items() >= PROVENANCE.items()


def test_provenance_has_run_versions_and_the_revision_of_this_clone(run: Path) -> None:
    found = load_encoder(run).provenance
    assert found["run"] == str(Path(*run.parts[-3:]))
    assert last_names("/a/b/c/d") == "b/c/d"
    assert [last_names(path) for path in ("digits", "/data")] == ["digits", "data"]
    assert (found["curl_rl"], found["torch"]) == (curl_rl.__version__, torch.__version__)
    root = Path(curl_rl.__file__).parents[1]
    if not (root / ".git").exists():
        assert "revision" not in found
        return
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    assert found["revision"].removesuffix("-dirty") == head.stdout.strip()


def test_rewritten_weights_keep_their_provenance(run: Path, encoder: PixelEncoder) -> None:
    save_encoder(encoder, run, rendered_size=16, provenance={"revision": "abc", "curl_rl": "0.0.1"})
    found = json.loads((run / "encoder.json").read_text())["provenance"]
    assert (found["revision"], found["curl_rl"]) == ("abc", "0.0.1")


def test_loading_leaves_the_global_generator_alone(run: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_encoder(run)
    assert torch.equal(torch.rand(3), expected)


# ---- the other kind of encoder


@pytest.fixture
def resnet() -> ResNet:
    torch.manual_seed(0)
    made = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", mean=(0.4, 0.5, 0.6), std=(0.2,)))
    made(torch.rand(16, 3, 8, 8))  # sets running statistics, whose loss would also go unnoticed
    return made.eval()


def test_a_resnet_is_loaded_with_its_statistics_and_takes_any_size(resnet: ResNet, tmp_path: Path) -> None:
    save_encoder(resnet, tmp_path, rendered_size=10, provenance={"data": "digits"})
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded.encoder, ResNet)
    assert loaded.encoder.config == resnet.config
    assert (loaded.features, loaded.rendered_size) == (resnet.dim, 10)
    for seen in (observations(2, 3, 3, 8, 8), observations(2, 3, 3, 11, 6)):
        assert torch.equal(loaded(seen), resnet(seen.flatten(0, 1)).view(2, 3, -1))
    with pytest.raises(ValueError, match=r"expected observations \(..., 3, H, W\)"):
        loaded(observations(2, 4, 8, 8))


def test_a_split_or_low_precision_network_is_saved_in_loadable_form(resnet: ResNet, tmp_path: Path) -> None:
    split = replace(resnet.config, batch_norm_splits=2)
    trained = ResNet((3, 8, 8), split, precision="bfloat16").to(memory_format=torch.channels_last)
    trained.load_state_dict(resnet.state_dict())
    save_encoder(trained, tmp_path, rendered_size=8, provenance={})
    seen = observations(5, 3, 8, 8)
    assert torch.equal(load_encoder(tmp_path)(seen), resnet(seen))
    # An odd batch, which does not split into two equal parts.
    load_encoder(tmp_path, freeze=False)(observations(3, 3, 8, 8))


def test_a_resnet_with_group_norm_survives_a_round_trip(tmp_path: Path) -> None:
    made = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small", norm="group"))
    save_encoder(made, tmp_path, rendered_size=8, provenance={})
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded.encoder, ResNet)
    assert loaded.encoder.config == made.config
    assert torch.equal(loaded(observations(5, 3, 8, 8)), made(observations(5, 3, 8, 8)))


def test_an_encoder_of_an_unregistered_class_is_not_written(tmp_path: Path) -> None:
    trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    with pytest.raises(
        ValueError,
        match="the encoder must be a PixelEncoder or .* or a TwoTowerTextEncoder, got a ModuleEncoder",
    ):
        save_encoder(ModuleEncoder(trunk, (3, 2, 2)), tmp_path, rendered_size=2, provenance={})
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_one_line(resnet: ResNet, tmp_path: Path) -> None:
    save_encoder(resnet, tmp_path, rendered_size=8, provenance={})
    described(tmp_path, kind="transformer")
    with pytest.raises(
        ValueError,
        match=r"is damaged \(ValueError: kind must be pixel or resnet or .* or two_tower_text, got 'transformer'\)",
    ):
        load_encoder(tmp_path)
