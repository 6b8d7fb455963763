"""Hub repositories of encoders of texts, with their tokenizer, and of images with captions; offline, as the others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.text import SentenceEncoder, Tokenizer, load_sentence_encoder
from curl_rl.text.pair_encoder import PairEncoder, load_pair_encoder
from helpers.small_pairs import LENGTH, WORDS, noise, save_pairs, small_sentences

pytest.importorskip("tokenizers")
pytest.importorskip("huggingface_hub")
import huggingface_hub
from huggingface_hub import ModelCard

from curl_rl.integrations import hub
from helpers.hub_server import Server, stand_in


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return stand_in(tmp_path / "server", monkeypatch)


@pytest.fixture
def sentences() -> SentenceEncoder:
    return small_sentences()


@pytest.fixture
def pair(tmp_path: Path) -> PairEncoder:
    (tmp_path / "run").mkdir()
    return save_pairs(tmp_path / "run")


def test_a_folder_of_a_sentence_encoder_has_its_tokenizer(sentences: SentenceEncoder, tmp_path: Path) -> None:
    folder = hub.save_for_hub(sentences, tmp_path / "folder", license="mit", repo_id="me/sentences")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["observation_shape"] == [
        sentences.tokenizer.vocabulary, 1, LENGTH,
    ]  # fmt: skip
    assert torch.equal(load_sentence_encoder(folder)(WORDS), sentences(WORDS))
    card = ModelCard.load(folder / "README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("sentence-similarity", "curl_rl")
    assert "| method | simcse |" in card.text
    assert "Transformer, 1 layer of 8" in card.text


def test_sentences_are_pushed_and_loaded_again(sentences: SentenceEncoder, server: Server) -> None:
    hub.push_encoder(sentences, "me/sentences", license="mit", token="hf_secret")
    loaded = hub.load_sentence_encoder_from_hub("me/sentences", revision="v1", freeze=False)
    assert server.calls[-1] == (
        "snapshot",
        {"revision": "v1", "token": None, "allow_patterns": ["model.safetensors", "tokenizer.json"]},
    )
    assert (loaded.frozen, loaded.provenance) == (False, sentences.provenance)
    assert loaded.tokenizer.content == sentences.tokenizer.content
    assert torch.equal(loaded.eval()(WORDS), sentences(WORDS))


def test_images_and_texts_are_pushed_together_with_their_heads(pair: PairEncoder, server: Server) -> None:
    hub.push_encoder(pair, "me/pair", license="mit")
    assert sorted(path.name for path in (server.root / "me/pair").iterdir()) == [
        "README.md", "config.json", "encoder.safetensors", "head.safetensors", "text_encoder.safetensors",
        "text_head.safetensors", "tokenizer.json",
    ]  # fmt: skip
    loaded = hub.load_pair_encoder_from_hub("me/pair")
    assert torch.equal(loaded.embed_images(noise(3)), pair.embed_images(noise(3)))
    assert torch.equal(loaded.embed_texts(WORDS), pair.embed_texts(WORDS))
    assert torch.equal(load_pair_encoder(server.root / "me/pair").embed_texts(WORDS), pair.embed_texts(WORDS))
    card = ModelCard.load(server.root / "me/pair" / "README.md")
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    assert json.loads((server.root / "me/pair/config.json").read_text()).keys() == {"image", "text"}


@pytest.mark.parametrize("which", ["sentences", "pair"])
def test_the_cards_example_runs(which: str, sentences: SentenceEncoder, pair: PairEncoder, server: Server) -> None:
    hub.push_encoder(sentences if which == "sentences" else pair, "me/model", license="mit")
    (example,) = re.findall(r"```python\n(.*?)```", (server.root / "me/model/README.md").read_text(), flags=re.DOTALL)
    namespace: dict[str, Any] = {"images": noise(3), "texts": WORDS}
    exec(example, namespace)
    if which == "sentences":
        assert torch.equal(namespace["vectors"], sentences(["a sentence", "another"]))
    else:
        assert torch.equal(namespace["cosines"], pair.embed_images(noise(3)) @ pair.embed_texts(WORDS).T)


def test_a_refusal_is_one_line(sentences: SentenceEncoder, server: Server) -> None:
    with pytest.raises(ValueError, match=r"^cannot load model.safetensors of 'me/absent' at v2: Cannot find [^\n]*$"):
        hub.load_sentence_encoder_from_hub("me/absent", revision="v2")
    hub.push_encoder(sentences, "me/sentences", license="mit")
    with pytest.raises(
        ValueError, match=r"^cannot load encoder.safetensors of 'me/sentences': the repository does not"
    ):
        hub.load_pair_encoder_from_hub("me/sentences")
    with pytest.raises(ValueError, match="is an encoder of texts, not of images: load it with"):
        hub.load_encoder_from_hub("me/sentences")
    Tokenizer.train(["other texts"], 280).save(server.root / "me/sentences")
    with pytest.raises(ValueError, match="is not the tokenizer that the encoder was trained with"):
        hub.load_sentence_encoder_from_hub("me/sentences")


def test_the_real_client_offline_fails_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for load in (hub.load_sentence_encoder_from_hub, hub.load_pair_encoder_from_hub):
        with pytest.raises(ValueError, match=r"^cannot load \w+.safetensors of 'me/absent': [^\n]*$"):
            load("me/absent")  # type: ignore[operator]
