"""Runs on sentences: resumed bit for bit, with their tokenizer, loaded, exported, and refused in one line."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.network_file import load_network
from curl_rl.artifacts.programs import largest_difference, write_program
from curl_rl.commands.export_encoder import main as export
from curl_rl.commands.pretrain_text import main
from curl_rl.encoders import build_encoder
from curl_rl.objectives import ObjectiveConfigs, SimCSEConfig
from curl_rl.report.run_report import _progress
from curl_rl.report.runs import read_run
from curl_rl.runs.errors import UserError
from curl_rl.text import Tokenizer, load_sentence_encoder
from curl_rl.text.config import TokensConfig, load_preset, read_config
from curl_rl.text.pretraining import pretrain
from curl_rl.text.sentence_encoder import sentence_program
from curl_rl.text.sentences import made_sentences
from curl_rl.text.tokenizer import TOKENIZER
from helpers.noise_runs import assert_same_run, at_step, die, networks
from helpers.pages import blocks, run
from helpers.text_runs import sentence_file, sentence_run

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(sentence_run(data, tmp_path_factory.mktemp("alone") / "run"))


@pytest.mark.parametrize("step", [1, 5])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    alone: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = sentence_run(data, tmp_path / "run")
    child = os.fork()
    if child == 0:
        try:
            at_step(monkeypatch, step, die)
            pretrain(config)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    pretrain(config)
    assert_same_run(tmp_path / "run", alone, "sentences")
    assert (tmp_path / "run" / TOKENIZER).read_bytes() == (alone / TOKENIZER).read_bytes()


def test_hidden_tokens_are_predicted(data: Path, tmp_path: Path) -> None:
    masked = ObjectiveConfigs(simcse=SimCSEConfig(masked_weight=0.1))
    run = pretrain(sentence_run(data, tmp_path / "run", epochs=1, objectives=masked))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["objective/token_loss"] for row in rows if "objective/token_loss" in row]
    vocabulary = Tokenizer.load(run).vocabulary
    assert losses
    # Nothing learned yet: near the log of the vocabulary's size; 0 in a step without hidden tokens.
    assert all(loss == 0 or abs(loss - math.log(vocabulary)) < 1.5 for loss in losses)
    assert any(losses)
    assert networks(run)["objective.token_head.3.bias"].shape == (vocabulary,)


def test_a_run_keeps_its_tokenizer_and_says_which(alone: Path) -> None:
    tokenizer, provenance = Tokenizer.load(alone), json.loads((alone / "encoder.json").read_text())["provenance"]
    assert provenance["tokenizer"] == tokenizer.sha256
    assert provenance["sentences"] == 12
    assert read_config(alone / "config.yaml").data.endswith("sentences.txt")


def test_the_saved_encoder_takes_sentences(alone: Path) -> None:
    loaded = load_sentence_encoder(alone)
    trained = networks(alone)
    for name, value in loaded.encoder.state_dict().items():
        assert torch.equal(value, trained[f"encoder.{name}"]), name
    texts = ["the red circle", "", "the blue square number 2 and more words than ten tokens hold"]
    vectors = loaded(texts)
    assert vectors.shape == (3, 8)
    assert torch.equal(loaded.train()(texts), vectors), "a frozen encoder has no dropout"
    assert loaded([]).shape == (0, 8)
    tokens = loaded.tokenizer.encode(texts[:1], 10)
    torch.testing.assert_close(loaded.encoder(tokens), vectors[:1])
    with pytest.raises(ValueError, match=r"sentences must be a list of texts, got one text"):
        loaded("the red circle")


def test_another_tokenizer_is_refused(alone: Path, tmp_path: Path) -> None:
    for name in ("encoder.safetensors", "encoder.json"):
        (tmp_path / name).write_bytes((alone / name).read_bytes())
    with pytest.raises(UserError, match=r"no tokenizer .*tokenizer\.json: copy it from the run"):
        load_sentence_encoder(tmp_path)
    Tokenizer.train(["other texts"], 280).save(tmp_path)
    with pytest.raises(UserError, match=r"is not the tokenizer that the encoder was trained with .*: copy it"):
        load_sentence_encoder(tmp_path)


def test_an_encoder_of_texts_is_not_taken_for_one_of_images(alone: Path) -> None:
    with pytest.raises(UserError, match=r"is an encoder of texts, not of images: load it with curl_rl\.text\.load_s"):
        load_encoder(alone)


@pytest.mark.slow
def test_the_program_is_the_encoder(alone: Path, tmp_path: Path) -> None:
    loaded = load_sentence_encoder(alone)
    program = sentence_program(loaded)
    assert write_program(program, tmp_path / "encoder.pt2") < 1e-4
    exported = torch.export.load(tmp_path / "encoder.pt2").module()
    texts = ["the red circle", "the blue square number 2"]
    torch.testing.assert_close(exported(loaded.tokenizer.encode(texts, 10)), loaded(texts))


@pytest.mark.slow
def test_the_onnx_program_is_the_encoder(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from curl_rl.integrations.onnx import write_onnx

    assert write_onnx(sentence_program(load_sentence_encoder(alone)), tmp_path / "encoder.onnx") < 1e-4


def test_the_export_command_takes_runs_on_texts(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sentences.safetensors"
    assert export([str(alone), "--format", "safetensors", "--output", str(file)]) == 0
    assert "8 features; its tokenizer is the run's tokenizer.json" in capsys.readouterr().out
    loaded, description = load_network((file, file.with_suffix(".json")), "encoder", build_encoder)
    for name, value in load_sentence_encoder(alone).encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert description["kind"] == "text"
    with pytest.raises(SystemExit) as left:
        export([str(alone), "--format", "exported", "--output", str(tmp_path / "e.pt2"), "--size", "32"])
    assert left.value.code == 2
    assert "--size 32 does not apply to an encoder of texts, which takes tokens" in capsys.readouterr().err


def test_reports_count_its_sentences(alone: Path) -> None:
    read = read_run(alone)
    assert (read.axis, read.seed) == ("sentences", 3)
    assert read.label.startswith("simcse, cpu, epochs 2, batch_size 4")
    assert _progress(read) == "24 sentences, in 2 epochs when complete"


def test_a_tokenizer_of_ones_own_is_recorded_and_compared(data: Path, tmp_path: Path) -> None:
    own = Tokenizer.train(["red circle blue square"] * 9, 290)
    (tmp_path / "own").mkdir()
    own.save(tmp_path / "own")
    config = sentence_run(data, tmp_path / "run", epochs=1, tokens=TokensConfig(length=10, tokenizer=tmp_path / "own"))
    pretrain(config)
    assert read_config(tmp_path / "run" / "config.yaml").tokens.tokenizer_sha256 == own.sha256
    assert Tokenizer.load(tmp_path / "run").sha256 == own.sha256
    Tokenizer.train(["other texts"], 280).save(tmp_path / "own")
    with pytest.raises(UserError, match=r"tokens\.tokenizer_sha256"):
        pretrain(config)


def test_other_sentences_are_another_run(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "sentences.txt"
    file.write_text(data.read_text().replace("circle", "square"))
    config = sentence_run(file, tmp_path / "run", epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    file.write_text(data.read_text())
    with pytest.raises(UserError, match=r"has as many sentences as when this run was saved, but not the same ones"):
        pretrain(config)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--method", "simclr"],
            "method simclr compares images, and the data are texts: use scripts/pretrain_vision",
        ),
        (
            ["--data", "nowhere.txt"],
            "data must be a file of sentences, .* got .*nowhere.txt, which does not exist",
        ),
        (["--batch_size", "5000"], "batch_size 5000 is larger than the built-in grammar, which has 1,224 sentences"),
        (["--tokens.length", "2"], "tokens.length must be at least 3, got 2"),
        (["--encoder.text.heads", "3"], r"encoder.text.heads must divide width 32, got 3"),
        (
            ["--method", "smclr"],
            "method must be simcse or quick_thoughts or is_bert or clip, got smclr; did you mean",
        ),
        (["--preset", "digits"], "unknown preset digits; presets are cpu, tiny"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code = main(["--preset", "tiny", "--device", "cpu", "--run", str(run), *arguments])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert "\n" not in error
    assert re.search(line, error), error
    assert not run.exists()


@pytest.mark.parametrize("preset", ["cpu", "tiny"])
def test_presets_are_complete(preset: str) -> None:
    config = load_preset(preset)
    assert (config.preset, config.method, config.optimizer.name) == (preset, "simcse", "adamw")
    assert config.directory == Path(f"runs/text-grammar/simcse-{preset}/seed1")


@pytest.mark.slow
def test_the_pages_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--preset", "tiny", "--epochs", "1", "--device", "cpu"]) == 0
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks("text.md"):
        run(block, "text.md", namespace)
    assert -1 <= float(namespace["similarity"]) <= 1
    assert Path("sentences.pt2").is_file()


@pytest.mark.slow
def test_sentences_of_the_same_meaning_come_closer_than_their_contradictions(tmp_path: Path) -> None:
    """The built-in sentences, in seconds: the untrained encoder cannot tell them apart."""
    pairs = ObjectiveConfigs(simcse=SimCSEConfig(head=False, hard_negatives=True))
    config = replace(load_preset("tiny"), run=tmp_path / "run", device="cpu", epochs=8, objectives=pairs)
    loaded = load_sentence_encoder(pretrain(config))
    columns = made_sentences().columns

    def closer() -> float:
        with torch.no_grad():
            one, same, other = (torch.nn.functional.normalize(loaded(column)) for column in columns)
        return float(((one * same).sum(1) > (one * other).sum(1)).float().mean())

    trained = closer()
    loaded.encoder = loaded.encoder.fresh(0).eval()
    assert closer() < 0.25 < 0.45 < trained


def test_largest_difference_sees_another_network(alone: Path) -> None:
    program = sentence_program(load_sentence_encoder(alone))
    with pytest.raises(RuntimeError, match="differs from the encoder's"):
        largest_difference(load_sentence_encoder(alone).encoder.fresh(1).eval(), program)


@pytest.mark.parametrize(("module", "warmup"), [("config", 0.5), ("pair_config", 2 / 100)])
def test_a_warm_up_longer_than_a_short_run_shrinks_to_its_share(module: str, warmup: float) -> None:
    loaded = importlib.import_module(f"curl_rl.text.{module}")
    method = loaded.load_preset("cpu").method
    flags = ["--preset", "cpu", "--method", method, "--epochs", "1"]
    config, _ = loaded.parse_command_line(flags, program="", description="")
    assert config.optimizer.warmup_epochs == pytest.approx(warmup)
