"""Evaluating a detector: fitting its energies on scenes of their own, then measuring on test scenes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.runs.seeds import Purpose
from curl_rl.vision.detection.config import EnergyConfig
from curl_rl.vision.detection.cutouts import Cutouts
from curl_rl.vision.detection.detector import Detections, Detector
from curl_rl.vision.detection.energy import EnergyTest, energy, fit_test
from curl_rl.vision.detection.measures import Measures, measure
from curl_rl.vision.detection.sampling import Truth, match
from curl_rl.vision.detection.scenes import Scenes, ScenesConfig, draw_scenes
from curl_rl.vision.detection.unknowns import LabelingConfig, chosen_rows

_BATCH = 16
TEST_SEED = 0
"""Test scenes do not depend on the run's seed, so that runs compare."""


class Shown(NamedTuple):
    """A test scene with what is detected in it, on the CPU."""

    image: Tensor
    """``(3, S, S)`` uint8."""
    truth: Truth
    """``(1, M)``: all objects."""
    found: Detections


class Evaluation(NamedTuple):
    """The result of an evaluation."""

    with_energy: Measures | None
    """None if there was nothing to fit the energies on."""
    without_energy: Measures
    shown: list[Shown]
    """The first scenes, with the detections that the run's settings ask for."""


def scenes_in_batches(
    cutouts: Cutouts, config: ScenesConfig, count: int, *, seed: int, purpose: Purpose, taught: range = range(0)
) -> Iterator[Scenes]:
    """The first ``count`` scenes of a purpose, in batches, with a progress bar."""
    for first in tqdm(range(0, count, _BATCH), desc=purpose, unit="batch", leave=False, disable=None):
        numbers = range(first, min(first + _BATCH, count))
        yield draw_scenes(cutouts, config, numbers, seed=seed, purpose=purpose, taught=taught)


@torch.no_grad()
def fit_energies(
    detector: Detector,
    cutouts: Cutouts,
    scenes: ScenesConfig,
    config: EnergyConfig,
    labeling: LabelingConfig,
    *,
    known: int,
    seed: int,
) -> EnergyTest | None:
    """Fits the distributions of the energies of known and unknown objects. The detector does not learn from it.

    Known: proposals on objects of the known classes, all of which are annotated in these scenes. Unknown: see
    ``EnergyConfig.unknowns``.

    Args:
        detector: in evaluation mode.
        cutouts: those for validation.
        scenes: what scenes look like.
        config: temperature, and how many scenes.
        labeling: what is auto-labeled as unknown.
        known: number of known classes.
        seed: the run's.

    Returns:
        None if there are too few proposals of either kind.
    """
    device = next(detector.parameters()).device
    of_known, of_unknown = [], []
    everything = scenes_in_batches(
        cutouts, scenes, config.scenes, seed=seed, purpose="validation scenes", taught=range(known)
    )
    for batch in everything:
        images, truth = batch.to(device)
        annotated = Truth(truth.boxes, torch.where(truth.labels < known, truth.labels, -1))
        seen = detector.see(images, known)
        values = energy(seen.logits[..., :known], config.temperature)
        boxes, valid = seen.proposals.boxes, seen.proposals.valid
        least = detector.config.head.object_overlap
        of_known.append(values[valid & (match(boxes, annotated).overlap >= least)])
        if config.unknowns == "annotated":
            strange = Truth(truth.boxes, torch.where(truth.labels >= known, truth.labels, -1))
            of_unknown.append(values[valid & (match(boxes, strange).overlap >= least)])
        else:
            rows, there = chosen_rows(seen.proposals, annotated, labeling)
            of_unknown.append(values.gather(1, rows)[there])
    return fit_test(torch.cat(of_known), torch.cat(of_unknown), config.temperature)


@torch.no_grad()
def evaluate(
    detector: Detector,
    cutouts: Cutouts,
    scenes: ScenesConfig,
    test: EnergyTest | None,
    *,
    known: int,
    count: int,
    use_energy: bool,
    shown: int,
) -> Evaluation:
    """Measures on test scenes, with and without energy.

    Args:
        detector: in evaluation mode.
        cutouts: those for testing.
        scenes: what scenes look like.
        test: the fitted energies, if any.
        known: number of known classes.
        count: scenes.
        use_energy: whether the scenes that are shown have detections by energy.
        shown: scenes to return.
    """
    device = next(detector.parameters()).device
    found: dict[bool, list[Detections]] = {True: [], False: []}
    truths: list[Truth] = []
    pictures: list[Tensor] = []
    for batch in scenes_in_batches(cutouts, scenes, count, seed=TEST_SEED, purpose="test scenes"):
        seen = detector.see(batch.images.to(device), known)
        for by_energy, detections in found.items():
            decided = detector.decide(seen, test if by_energy else None)
            detections += [Detections(*(part.cpu() for part in one)) for one in decided]
        truths += [Truth(boxes[None], labels[None]) for boxes, labels in zip(*batch.truth, strict=True)]
        pictures += list(batch.images[: max(shown - len(pictures), 0)])
    unknown = detector.head.unknown
    measured = {by_energy: measure(ones, truths, known, unknown) for by_energy, ones in found.items()}
    chosen = found[use_energy and test is not None]
    return Evaluation(
        measured[True] if test is not None else None,
        measured[False],
        [Shown(*one) for one in zip(pictures, truths, chosen, strict=False)],
    )
