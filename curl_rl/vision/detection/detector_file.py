"""Detector files: weights, classes and fitted energies, in the format of :mod:`~curl_rl.artifacts.network_file`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from curl_rl.artifacts.network_file import load_network, network_files, save_network
from curl_rl.vision.detection.box_head import HeadConfig
from curl_rl.vision.detection.detector import SIDE, Detector, DetectorConfig
from curl_rl.vision.detection.energy import EnergyTest
from curl_rl.vision.detection.proposals import ProposalConfig

DETECTOR = "detector"


class TrainedDetector(NamedTuple):
    """A detector with what is needed to use it."""

    detector: Detector
    """In evaluation mode, on the CPU."""
    classes: tuple[str, ...]
    """The known classes, by label."""
    test: EnergyTest | None
    """Its energies; None if it has none."""
    size: int
    """Side of the scenes that it was trained on, in pixels."""


def save_detector(
    detector: Detector, directory: Path, classes: tuple[str, ...], test: EnergyTest | None, size: int, provenance: Any
) -> None:
    """Writes ``detector.safetensors`` and ``detector.json`` into a directory.

    Args:
        detector: the detector.
        directory: an existing directory.
        classes: the known classes, by label.
        test: its energies, if it uses them.
        size: side of its scenes in pixels.
        provenance: facts for readers; JSON-serializable.
    """
    description = {
        "classes": list(classes),
        "all_classes": detector.head.classes,
        "config": dataclasses.asdict(detector.config),
        "energy": None if test is None else test.state(),
        "size": size,
        "provenance": provenance,
    }
    save_network(detector, directory, DETECTOR, description)


def load_detector(path: Path | str) -> TrainedDetector:
    """Loads the detector of a run's directory, or of its ``detector.safetensors``.

    Raises:
        UserError: a file is missing, damaged, or of a newer format; the message is one line.
    """
    detector, description = load_network(network_files(path, DETECTOR), DETECTOR, _built)
    return TrainedDetector(detector.eval(), *_facts(description))


def _built(description: dict[str, Any]) -> Detector:
    _facts(description)  # what is wrong with them is found here, and reported as damage
    fields: Mapping[str, Any] = description["config"]
    parts = {"proposals": ProposalConfig(**_tuples(fields["proposals"])), "head": HeadConfig(**fields["head"])}
    return Detector(int(description["all_classes"]), DetectorConfig(**{**fields, **parts}))


def _facts(description: dict[str, Any]) -> tuple[tuple[str, ...], EnergyTest | None, int]:
    classes, size = tuple(map(str, description["classes"])), int(description["size"])
    if not 1 <= len(classes) <= int(description["all_classes"]):
        raise ValueError(f"{len(classes)} classes of {description['all_classes']}")
    SIDE.check("size", size)
    state = description["energy"]
    return classes, None if state is None else EnergyTest.from_state(state), size


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the configuration has tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
