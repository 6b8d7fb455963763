"""Runs on texts and on images with captions that a signal stops: saved at once, and resumed bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.objectives import ObjectiveConfigs, SimCSEConfig
from curl_rl.runs.signals import Stopped
from curl_rl.text.pair_pretraining import pretrain_pairs
from curl_rl.text.pretraining import pretrain
from curl_rl.text.tokenizer import TOKENIZER
from helpers.noise_runs import assert_same_run, at_step
from helpers.text_runs import pair_folder, pair_run, sentence_file, sentence_run

pytest.importorskip("tokenizers")

Train = Callable[[Path], Path]


def on_sentences(data: Path, **changes: Any) -> Train:
    file = sentence_file(data)
    return lambda run: pretrain(sentence_run(file, run, **changes))


def on_pairs(data: Path) -> Train:
    folder = pair_folder(data / "things")
    return lambda run: pretrain_pairs(pair_run(folder, run))


RUNS: dict[str, tuple[str, Callable[[Path], Train]]] = {
    "simcse": (
        "sentences",
        lambda data: on_sentences(data, objectives=ObjectiveConfigs(simcse=SimCSEConfig(masked_weight=0.1))),
    ),
    "quick_thoughts": ("sentences", lambda data: on_sentences(data, method="quick_thoughts")),
    "is_bert": ("sentences", lambda data: on_sentences(data, method="is_bert")),
    "clip": ("pairs", on_pairs),
}
"""For each method, the axis of its run, and the training on data that it makes in a folder."""


@pytest.mark.parametrize(
    ("method", "number", "code"),
    [
        ("simcse", signal.SIGTERM, 143),
        ("quick_thoughts", signal.SIGINT, 130),
        ("is_bert", signal.SIGTERM, 143),
        ("clip", signal.SIGINT, 130),
    ],
)
def test_a_signal_saves_at_once_and_the_run_resumes_to_the_last_bit(
    method: str,
    number: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    axis, prepared = RUNS[method]
    train = prepared(tmp_path)
    alone, run = train(tmp_path / "alone"), tmp_path / "stopped"
    with monkeypatch.context() as patch:
        # Between two checkpoints, in the middle of an epoch.
        at_step(patch, 5, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped) as stopped:
            train(run)
    assert stopped.value.exit_code == code
    assert "saved at epoch 1.67; the same command resumes" in capsys.readouterr().err
    torch.manual_seed(99)  # random numbers drawn in between must not matter
    train(run)
    assert_same_run(run, alone, axis)
    assert (run / TOKENIZER).read_bytes() == (alone / TOKENIZER).read_bytes()
