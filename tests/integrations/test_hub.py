"""Hub repositories, offline: huggingface_hub reads the written files, and a folder stands in for the server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig

pytest.importorskip("huggingface_hub")
import huggingface_hub
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError

from curl_rl.integrations import hub
from helpers.hub_server import Server, stand_in


@pytest.fixture
def encoder() -> PretrainedEncoder:
    torch.manual_seed(0)
    made = PixelEncoder((6, 12, 12), EncoderConfig(4, (2, 1), 5))
    return PretrainedEncoder(made, 15, {"env": "cheetah-run", "frames": 700, "revision": "abc"}, freeze=True)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return stand_in(tmp_path / "server", monkeypatch)


def test_a_folder_has_the_files_hub_users_expect(encoder: PretrainedEncoder, tmp_path: Path) -> None:
    folder = hub.save_for_hub(encoder, tmp_path / "new" / "folder", license="mit", repo_id="me/cheetah")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["observation_shape"] == [6, 12, 12]
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert weights.keys() == encoder.encoder.state_dict().keys()
    seen = noise(3, 6, 15, 15)
    assert torch.equal(load_encoder(folder)(seen), encoder(seen))


def test_the_card_is_read_by_the_hubs_own_library(encoder: PretrainedEncoder, tmp_path: Path) -> None:
    card = ModelCard.load(hub.save_for_hub(encoder, tmp_path, license="cc-by-4.0", repo_id="me/cheetah") / "README.md")
    assert card.data.to_dict() == {
        "license": "cc-by-4.0",
        "library_name": "curl_rl",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["curl_rl", "contrastive-learning", "reinforcement-learning"],
    }
    assert "| env | cheetah-run |" in card.text
    assert "| revision | abc |" in card.text
    assert "12×12 in the middle" in " ".join(card.text.split())


def test_the_card_of_an_encoder_of_images(tmp_path: Path) -> None:
    network = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small"))
    made = PretrainedEncoder(network, 8, {"data": "digits", "method": "a|b\n# c"}, freeze=True)
    card = ModelCard.load(hub.save_for_hub(made, tmp_path, license="mit") / "README.md")
    assert "self-supervised-learning" in card.data.tags
    assert "# Encoder trained on digits" in card.text
    assert "| method | a\\|b # c |" in card.text.splitlines()
    assert "ResNet-18 of width 0.0625" in card.text


def test_the_cards_example_runs(encoder: PretrainedEncoder, tmp_path: Path, server: Server) -> None:
    hub.push_encoder(encoder, "me/cheetah", license="mit")
    text = (server.root / "me/cheetah/README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    namespace: dict[str, Any] = {"observations": noise(2, 6, 15, 15)}
    exec(example, namespace)
    assert torch.equal(namespace["features"], encoder(namespace["observations"]))


def test_pushed_and_loaded_again(encoder: PretrainedEncoder, server: Server) -> None:
    url = hub.push_encoder(encoder, "me/cheetah", license="mit", private=True, token="hf_secret")
    assert url == "https://huggingface.co/me/cheetah/commit/1"
    loaded = hub.load_encoder_from_hub("me/cheetah", revision="v1", freeze=False, scale=1 / 255, layout="CHW")
    assert server.calls == [
        ("api", {"token": "hf_secret"}),
        ("create_repo", {"private": True, "exist_ok": True}),
        ("download", {"revision": "v1", "token": None}),
    ]
    assert (loaded.frozen, loaded.scale, loaded.layout) == (False, 1 / 255, "CHW")
    assert loaded.provenance.items() >= encoder.provenance.items()
    assert torch.equal(loaded(noise(2, 6, 12, 12)), encoder(noise(2, 6, 12, 12)))


@pytest.mark.usefixtures("server")
def test_a_refusal_by_the_hub_is_one_line(encoder: PretrainedEncoder) -> None:
    with pytest.raises(ValueError, match=r"^cannot push to 'no/such/name': [^\n]*$"):
        hub.push_encoder(encoder, "no/such/name", license="mit")
    with pytest.raises(ValueError, match=r"^cannot load model.safetensors of '--': [^\n]*$"):
        hub.load_encoder_from_hub("--")
    with pytest.raises(ValueError, match=r"^cannot load model.safetensors of 'me/absent' at v2: Cannot find [^\n]*$"):
        hub.load_encoder_from_hub("me/absent", revision="v2")


def test_a_pushed_file_that_was_changed_is_refused(encoder: PretrainedEncoder, server: Server) -> None:
    hub.push_encoder(encoder, "me/cheetah", license="mit")
    path = server.root / "me/cheetah/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\x40")
    with pytest.raises(ValueError, match="has been changed"):
        hub.load_encoder_from_hub("me/cheetah")


def test_the_real_client_offline_fails_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^cannot load model.safetensors of 'me/absent': [^\n]*$"):
        hub.load_encoder_from_hub("me/absent")
    with pytest.raises(ValueError, match=r"^cannot load model.safetensors of 'a b': [^\n]*$") as caught:
        hub.load_encoder_from_hub("a b")
    assert not isinstance(caught.value, HFValidationError)
