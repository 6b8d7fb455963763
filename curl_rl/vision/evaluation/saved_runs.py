"""Reads a saved pretraining run, to evaluate it or to continue training from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.encoders import Encoder
from curl_rl.runs.compute import resolve_precision
from curl_rl.runs.directory import CONFIG, check_kind
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.logger import METRICS_FILE, read_metrics
from curl_rl.vision.config import SCHEMA, VisionConfig, load_preset, read_config
from curl_rl.vision.data.image_sets import SmallImages
from curl_rl.vision.evaluation.finetuning import Crops


@dataclass(frozen=True)
class Run:
    """A saved pretraining run."""

    directory: Path
    config: VisionConfig
    encoder: Encoder
    image_size: int
    epochs: float
    """Epochs that the saved encoder was trained for."""

    @property
    def sizing(self) -> tuple[int, SmallImages]:
        """Side of its images, and how smaller ones are brought to it."""
        return self.image_size, self.config.small_images

    def kind(self) -> str:
        """Describes the run by method, preset and every other setting that differs, except seed and data.

        Unfinished runs are marked as such.
        """
        preset = load_preset(self.config.preset, self.config.method)
        preset = dataclasses.replace(preset, seed=self.config.seed, data=self.config.data)
        changed = SCHEMA.distinguishing_fields(preset, self.config)
        parts = [f"{self.config.method} {self.config.preset}"]
        parts += [f"{name} {value}" for name, (_, value) in changed.items()]
        if self.epochs < self.config.epochs:
            parts.append(f"unfinished after {self.epochs:.3g} of {self.config.epochs} epochs")
        return ", ".join(parts)

    @property
    def crops(self) -> Crops:
        """Random crops like the run's training views."""
        views = self.config.augment
        if views.crop == "plain":  # windows that are neither scaled nor mirrored
            return Crops(min((views.size / self.image_size) ** 2, 1.0), 0.0)
        return Crops(views.scale[0], views.mirror)

    def probe_accuracy(self) -> float:
        """The last logged accuracy of the online probe on the test images.

        Raises:
            UserError: no accuracy was logged, or the log is damaged.
        """
        path = self.directory / METRICS_FILE
        try:
            rows = read_metrics(path, "images") if path.exists() else []
        except (OSError, ValueError) as error:
            raise UserError(one_line(error)) from None
        found = [row["probe/test_accuracy"] for row in rows if "probe/test_accuracy" in row]
        if not found:
            raise UserError(
                f"{self.directory} has no probe/test_accuracy in its log: no labeled test images, or knn.every 0"
            )
        return float(found[-1])


def read_run(directory: Path, device: torch.device | str) -> Run:
    """Reads the run in ``directory``, with its encoder on ``device``.

    The encoder computes in bfloat16 if the hardware supports it and the run's settings do not forbid it.

    Raises:
        ValueError: the directory holds no pretraining run, or a run without an encoder.
    """
    check_kind(directory, "pretraining")
    config, pretrained = read_config(directory / CONFIG), load_encoder(directory)
    epochs = float(pretrained.provenance.get("epochs", config.epochs))
    encoder, device = pretrained.encoder, torch.device(device)
    encoder.precision = resolve_precision("float32" if config.encoder.precision == "float32" else "auto", device)
    encoder = encoder.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    return Run(directory, config, encoder, pretrained.rendered_size, epochs)
