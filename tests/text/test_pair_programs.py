"""Exports of encoders of images and of texts: the programs give what the run's own encoders give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from curl_rl import load_encoder
from curl_rl.artifacts.programs import ProgramInput
from curl_rl.commands.export_encoder import main
from curl_rl.text import load_sentence_encoder
from curl_rl.text.pair_encoder import PairEncoder, load_pair_encoder
from curl_rl.text.pair_programs import image_program, text_program
from helpers.small_pairs import IMAGE_SIZE, LENGTH, WORDS, noise, save_pairs, save_sentences, small_sentences

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pairs")
    save_pairs(directory)
    return directory


@pytest.fixture
def pair(run: Path) -> PairEncoder:
    return load_pair_encoder(run)


def tokens(pair: PairEncoder) -> Tensor:
    return pair.texts.tokenizer.encode(WORDS, LENGTH)


@pytest.mark.parametrize("side", [None, IMAGE_SIZE + 3])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_the_programs_are_the_embeddings(pair: PairEncoder, side: int | None, layout: Any) -> None:
    images = noise(4, side or IMAGE_SIZE)
    given = images if layout == "CHW" else images.permute(0, 2, 3, 1)
    for dtype in ("uint8", "float32"):
        program = image_program(pair, ProgramInput(side, dtype, layout))  # type: ignore[arg-type]
        found = program.module(given if dtype == "uint8" else given / 255)
        torch.testing.assert_close(found, pair.embed_images(images))
    assert program.example()[0].shape == (2, *given.shape[1:])
    torch.testing.assert_close(text_program(pair).module(tokens(pair)), pair.embed_texts(WORDS))


def test_images_smaller_than_the_crop_are_refused(pair: PairEncoder) -> None:
    with pytest.raises(ValueError, match="side must be at least 10, the size of the encoder's crop, got 9"):
        image_program(pair, ProgramInput(9))


def exported(run: Path, output: Path, *words: str) -> Any:
    kind = {".pt2": "exported", ".onnx": "onnx", ".safetensors": "safetensors"}[output.suffix]
    assert main([str(run), "--format", kind, "--output", str(output), *words]) == 0
    if kind == "exported":
        return torch.export.load(output).module()
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(output)
        (given,) = session.get_inputs()
        return lambda value: torch.from_numpy(session.run(None, {given.name: value.numpy()})[0])
    return output


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_the_command_exports_both_encoders_of_a_pair(run: Path, pair: PairEncoder, tmp_path: Path, suffix: str) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    for number, (words, given, right) in enumerate(
        [
            ([], noise(3), pair.images(noise(3))),
            (["--encoder", "text"], tokens(pair), pair.texts(WORDS)),
            (["--common_space"], noise(3), pair.embed_images(noise(3))),
            (["--encoder", "text", "--common_space"], tokens(pair), pair.embed_texts(WORDS)),
        ]
    ):
        found = exported(run, tmp_path / f"{number}.{suffix}", *words)(given)
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_the_command_exports_an_encoder_of_sentences(tmp_path: Path, suffix: str) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    sentences = small_sentences()
    save_sentences(sentences, tmp_path)
    program = exported(tmp_path, tmp_path / f"sentences.{suffix}")
    found = program(sentences.tokenizer.encode(WORDS, LENGTH))
    torch.testing.assert_close(found, sentences(WORDS), rtol=1e-4, atol=1e-4)


def test_weights_of_both_encoders_travel_as_safetensors(run: Path, pair: PairEncoder, tmp_path: Path) -> None:
    images = exported(run, tmp_path / "images.safetensors", "--encoder", "image")
    assert torch.equal(load_encoder(images)(noise(3)), pair.images(noise(3)))
    texts = exported(run, tmp_path / "texts.safetensors", "--encoder", "text")
    with pytest.raises(ValueError, match=r"no tokenizer .*: copy it from the run that trained the encoder"):
        load_sentence_encoder(texts)
    (tmp_path / "tokenizer.json").write_bytes((run / "tokenizer.json").read_bytes())
    assert torch.equal(load_sentence_encoder(texts)(WORDS), pair.texts(WORDS))
    with safetensors.safe_open(texts, "pt") as file:
        assert json.loads(file.metadata()["curl_rl"])["kind"] == "text"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--common_space", "--format", "safetensors"], "--common_space does not apply to --format safetensors, which"),
        (["--encoder", "text", "--size", "9"], "--size 9 does not apply to an encoder of texts, which takes tokens"),
        (
            ["--encoder", "text", "--common_space", "--layout", "HWC"],
            "--layout HWC does not apply to an encoder of te",
        ),
        (["--common_space", "--size", "9"], "side must be at least 10, the size of the encoder's crop, got 9"),
        (["TEXT", "--common_space"], "has no encoders of images and of texts with a common space: name a run of"),
        (["TEXT", "--encoder", "image"], "is an encoder of texts, not of images: load it with"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, tmp_path: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "TEXT":
        save_sentences(small_sentences(), tmp_path)
        run, words = tmp_path, words[1:]
    suffix = ".safetensors" if "safetensors" in words else ".pt2"
    usual = [] if "safetensors" in words else ["--format", "exported"]
    with pytest.raises(SystemExit) as ended:
        main([str(run), *usual, "--output", str(tmp_path / f"a{suffix}"), *words])
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert not (tmp_path / f"a{suffix}").exists()
