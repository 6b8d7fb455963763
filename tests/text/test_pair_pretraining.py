"""Runs on images with captions: resumed bit for bit, loaded, measured, searched, and refused in one line."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from curl_rl.commands import evaluate_text, search_images
from curl_rl.commands.pretrain_text import main
from curl_rl.report.runs import read_run
from curl_rl.runs.errors import UserError
from curl_rl.text import Tokenizer, load_sentence_encoder
from curl_rl.text.data.tables import ScoredPair, scored_text
from curl_rl.text.evaluation.measures import agreement_of_words
from curl_rl.text.pair_config import load_preset, read_config
from curl_rl.text.pair_encoder import load_pair_encoder
from curl_rl.text.pair_pretraining import pretrain_pairs
from helpers.image_folders import pixels
from helpers.noise_runs import assert_same_run, at_step, die, networks
from helpers.text_runs import pair_folder, pair_run

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair_folder(tmp_path_factory.mktemp("data") / "things")


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_pairs(pair_run(data, tmp_path_factory.mktemp("alone") / "run"))


@pytest.mark.parametrize("step", [1, 4])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    alone: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = pair_run(data, tmp_path / "run")
    child = os.fork()
    if child == 0:
        try:
            at_step(monkeypatch, step, die)
            pretrain_pairs(config)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    pretrain_pairs(config)
    assert_same_run(tmp_path / "run", alone, "pairs")


def test_a_run_keeps_both_encoders_their_heads_and_the_tokenizer(alone: Path) -> None:
    trained, loaded = networks(alone), load_pair_encoder(alone)
    parts = {
        "encoder": loaded.images.encoder, "text_encoder": loaded.texts.encoder,
        "objective.image_head.layers": loaded.image_head, "objective.text_head.layers": loaded.text_head,
    }  # fmt: skip
    for prefix, part in parts.items():
        for name, value in part.state_dict().items():
            assert torch.equal(value, trained[f"{prefix}.{name}"]), f"{prefix}.{name}"
    for name in ("encoder", "text_encoder"):
        provenance = json.loads((alone / f"{name}.json").read_text())["provenance"]
        assert provenance["tokenizer"] == Tokenizer.load(alone).sha256
        assert provenance["captions"] == 24
    assert loaded.image_size == 12


def test_embeddings_are_the_normalized_outputs_of_the_heads(alone: Path) -> None:
    loaded = load_pair_encoder(alone)
    images = torch.from_numpy(pixels(3, 12).transpose(2, 0, 1).copy())[None]
    center = images[:, :, 2:10, 2:10]
    expected = F.normalize(loaded.image_head(loaded.images.encoder(center)), dim=1)
    torch.testing.assert_close(loaded.embed_images(images), expected)
    texts = ["a red apple", "number 3"]
    expected = F.normalize(loaded.text_head(load_sentence_encoder(alone)(texts)), dim=1)
    torch.testing.assert_close(loaded.embed_texts(texts), expected)
    other = loaded.untrained(1)
    assert not torch.allclose(other.embed_images(images), loaded.embed_images(images))
    assert torch.equal(loaded.untrained(1).embed_texts(texts), other.embed_texts(texts))


def test_the_captions_are_part_of_what_the_run_is(alone: Path, data: Path, tmp_path: Path) -> None:
    config = pair_run(data, tmp_path / "run", epochs=1)
    pretrain_pairs(config)
    table = data / "captions.tsv"
    before = table.read_text()
    try:
        table.write_text(before.replace("number 7", "number 8"))
        with pytest.raises(UserError, match="has as many pairs as when this run was saved, but not the same ones"):
            pretrain_pairs(config)
    finally:
        table.write_text(before)
    assert read_config(alone / "config.yaml").captions == "captions.tsv"
    run = read_run(alone)
    assert (run.rows[-1]["pairs"], run.label.split(",")[0]) == (24, "clip")


def test_measures_stand_beside_their_baselines(alone: Path, data: Path, tmp_path: Path) -> None:
    judged = tmp_path / "judged"
    judged.mkdir()
    (judged / "scored.tsv").write_text(scored_text([(1, "a dog", "a cat"), (2, "a dog", "a red dog"), (3, "x", "x")]))  # type: ignore[list-item]
    written = tmp_path / "measures.json"
    arguments = [str(alone), "--data", str(data), str(judged), "--json", str(written), "--device", "cpu"]
    assert evaluate_text.main(arguments) == 0
    found = json.loads(written.read_text())["data"]
    retrieval, agreement = found[str(data)], found[str(judged)]
    assert retrieval.keys() == {"run", "untrained", "pixels", "chance"}
    # Four test images with four different names: one right name each.
    assert retrieval["chance"]["names/image_to_text/recall@1"] == pytest.approx(1 / 4)
    assert retrieval["run"]["names/text_to_image/recall@5"] == 1
    assert retrieval["chance"]["zero_shot_accuracy"] == 0.5
    assert agreement.keys() == {"run", "with head", "mean of tokens", "untrained", "TF-IDF"}
    # TF-IDF of words in common: none but "a", two, all.
    assert agreement["TF-IDF"] == {"spearman/scored": pytest.approx(1)}


MISTAKES = [
    (["--method", "clip", "--data", "{}/none"], "no folder {}/none"),
    (["--method", "clip", "--data", "{}/empty"], "{}/empty has no captions.tsv, which names the caption of each image"),
    (["--method", "clip", "--batch_size", "9999"], "batch_size 9999 is larger than "),
    (["--method", "clip", "--augment.views", "2"], "must add up to 1, the number of views that clip compares"),
    (["--method", "clip", "--augment.size", "64"], "augment.size 64 is larger than the images of "),
    (["--method", "clip", "--captions", "../captions.tsv"], "captions must be the name of a file in the folder"),
    (["--method", "clip", "--preset", "digits"], "digits"),
    (["--method", "clip", "--text_encoder.text.heads", "5"], " text_encoder.text.heads must divide width 32, got 5"),
    (["--method", "clip", "--encoder.text.heads", "4"], "unrecognized arguments: --encoder.text.heads 4"),
    (["--method", "simclr"], "pretrain_vision.py"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[words[-1].strip("{}/") for words, _ in MISTAKES])
def test_mistakes_are_told_in_one_line(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain_text.py"])
    (tmp_path / "empty").mkdir()
    small = ["--preset", "tiny", "--batch_size", "4", "--augment.size", "8", "--data", str(data)]
    usual = [] if "simclr" in arguments else small
    words = [*usual, *(argument.format(tmp_path) for argument in arguments)]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line
    assert not (tmp_path / "run").exists()


def test_a_configuration_names_the_method_that_the_command_line_does_not(tmp_path: Path, alone: Path) -> None:
    resolved = tmp_path / "own.yaml"
    resolved.write_text((alone / "config.yaml").read_text())
    assert main(["--config", str(resolved), "--run", str(tmp_path / "run"), "--epochs", "1"]) == 0
    assert read_config(tmp_path / "run" / "config.yaml").method == "clip"


@pytest.mark.parametrize("command", [search_images.main, evaluate_text.main], ids=["search", "evaluate"])
def test_a_run_without_a_common_space_is_refused(
    command: Callable[[list[str]], int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(data), "text"] if command is search_images.main else ["--data", str(data)]
    with pytest.raises(SystemExit) as ended:
        command([str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert "has no encoders of images and of texts with a common space" in capsys.readouterr().err


def test_mistakes_in_an_evaluation_are_found_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_text, "_columns", lambda *_: pytest.fail("measured"))
    tables = {"one": b"1\ta\tb\n", "same": b"2\ta\tb\n2\tc\td\n", "bytes": b"1\tcaf\xe9\tb\n"}
    for name, rows in tables.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "scored.tsv").write_bytes(b"score\tfirst\tsecond\n" + rows)
    (tmp_path / "empty").mkdir()
    for words, message in {
        ("none",): "no folder",
        ("empty",): "must have captions.tsv or scored*.tsv, and has neither",
        ("one",): "must have pairs with different scores, got 1 alone",
        ("same",): "must have pairs with different scores, got 2 alone",
        ("bytes",): "must be text in UTF-8: convert it",
        ("shapes", "--prompts", "a picture"): "a prompt must have one pair of braces",
    }.items():
        place = [words[0] if words[0] == "shapes" else str(tmp_path / words[0]), *words[1:]]
        with pytest.raises(SystemExit) as ended:
            evaluate_text.main([str(tmp_path), "--data", "shapes", *place])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_sentences_for_the_words_baseline_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "sentences.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"sentences\.txt must be text in UTF-8: convert it"):
        agreement_of_words({"scored": [ScoredPair(1, "a", "b"), ScoredPair(2, "a", "c")]}, tmp_path)


@pytest.mark.parametrize("name", ["cpu", "tiny"])
def test_presets_hold(name: str) -> None:
    config = load_preset(name)
    assert (config.method, config.preset, config.augment.views) == ("clip", name, 1)
    assert config.augment.mirror == 0, "left and right are in captions"


@pytest.mark.slow
def test_the_built_in_shapes_are_learned(tmp_path: Path) -> None:
    run = pretrain_pairs(replace(load_preset("tiny"), run=tmp_path / "run", device="cpu"))
    written = tmp_path / "measures.json"
    assert evaluate_text.main([str(run), "--data", "shapes", "--json", str(written), "--device", "cpu"]) == 0
    found = json.loads(written.read_text())["data"]["shapes"]
    for name in ("captions/image_to_text/recall@5", "captions/text_to_image/recall@5"):
        assert found["run"][name] > 0.6 > found["pixels"][name] > found["chance"][name]
