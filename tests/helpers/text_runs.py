"""Tiny runs on sentences and on images with captions, and the data that they learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from curl_rl.encoders import EncoderConfig, TextEncoderConfig
from curl_rl.objectives import CLIPConfig, ObjectiveConfigs
from curl_rl.pretraining.config import BackboneConfig, CheckpointConfig, LogConfig, OptimizerConfig, TextBackboneConfig
from curl_rl.text.config import TextComputeConfig, TextConfig, TokensConfig
from curl_rl.text.data.tables import captions_text
from curl_rl.text.pair_config import PairConfig
from curl_rl.vision.config import ComputeConfig
from curl_rl.vision.views import AugmentConfig
from helpers.image_folders import pixels, save

_THINGS = [("red", "circle"), ("blue", "square"), ("green", "star"), ("white", "triangle")]
_NAMES = ("red apple", "green pear", "black dog", "white cat")


def sentence_file(folder: Path) -> Path:
    """A file of twelve sentences."""
    file = folder / "sentences.txt"
    file.write_text("".join(f"the {color} {shape} number {n}\n" for n in range(3) for color, shape in _THINGS))
    return file


def sentence_run(data: Path | str, run: Path, **changes: Any) -> TextConfig:
    """Six steps of SimCSE, checkpoints after every other."""
    config = TextConfig(
        data=str(data),
        epochs=2,
        batch_size=4,
        seed=3,
        device="cpu",
        run=run,
        tokens=TokensConfig(length=10, vocabulary=300),
        encoder=TextBackboneConfig(TextEncoderConfig(8, 1, 2, dropout=0.1, cutoff="token"), "float32"),
        checkpoint=CheckpointConfig(every=2),
        log=LogConfig(every=1),
        compute=TextComputeConfig(threads=1),
    )
    return replace(config, **changes)


def pair_folder(folder: Path) -> Path:
    """Twelve images for training and four for testing, with two captions each."""
    rows = []
    for number in range(16):
        name, part = _NAMES[number % 4], "train" if number < 12 else "test"
        file = f"{part}/{'food' if number % 4 < 2 else 'animals'}/{number}.png"
        save(folder / file, pixels(number, 12))
        rows += [(file, f"a {name}"), (file, f"number {number}")]
    (folder / "captions.tsv").write_text(captions_text(rows))
    return folder


def pair_run(data: Path, run: Path, **changes: Any) -> PairConfig:
    """Six steps of CLIP, checkpoints after every other."""
    config = PairConfig(
        data=str(data),
        epochs=2,
        batch_size=4,
        seed=3,
        device="cpu",
        run=run,
        tokens=TokensConfig(length=10, vocabulary=300),
        encoder=BackboneConfig("pixel", pixel=EncoderConfig(2, (2,), 4), precision="float32"),
        text_encoder=TextBackboneConfig(TextEncoderConfig(8, 1, 2, pool="end", causal=True, dropout=0.1), "float32"),
        augment=AugmentConfig(views=1, size=8),
        objectives=ObjectiveConfigs(clip=CLIPConfig(dim=5)),
        optimizer=OptimizerConfig("adamw", lr=1e-2, lr_scaling="none"),
        checkpoint=CheckpointConfig(every=2),
        log=LogConfig(every=1),
        compute=ComputeConfig(threads=1),
    )
    return replace(config, **changes)
