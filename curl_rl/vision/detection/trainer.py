"""The training loop of a detector: phase by phase, each ended by an evaluation.

A step's random numbers depend on the run's seed and the step's number alone, so a run resumes exactly without saved
random states. An evaluation changes nothing that training depends on.
"""

from __future__ import annotations

import functools
import io
import json
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from curl_rl.encoders import FeatureSpec
from curl_rl.objectives.open_world import OpenWorldClusters
from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.schedules import set_learning_rates, warmup_cosine
from curl_rl.runs.files import own_folder, write_durably
from curl_rl.runs.seeds import derived_seed
from curl_rl.runs.session import Contents, Position, Remedies, Session
from curl_rl.runs.settings import Layer
from curl_rl.vision.detection.config import DetectionConfig
from curl_rl.vision.detection.cutouts import Cutouts
from curl_rl.vision.detection.detector import Detections, Detector
from curl_rl.vision.detection.detector_file import save_detector
from curl_rl.vision.detection.energy import EnergyTest
from curl_rl.vision.detection.evaluation import Evaluation, Shown, evaluate, fit_energies
from curl_rl.vision.detection.exemplars import choose
from curl_rl.vision.detection.measures import Measures
from curl_rl.vision.detection.pictures import gallery
from curl_rl.vision.detection.sampling import Truth, check_truth
from curl_rl.vision.detection.scenes import Scenes, draw_scenes
from curl_rl.vision.detection.tasks import Phase, Tasks, phases

GALLERY = "gallery"
"""Folder in a run's directory with a picture of each evaluation."""
RESULTS = "evaluation.json"
"""File in a run's directory with the measures of each evaluation."""

_SEARCHED_PER_EXEMPLAR = 20  # scenes looked through for each object that is to be kept


class Data(NamedTuple):
    """What a run learns from and is measured on."""

    tasks: Tasks
    train: Cutouts
    validation: Cutouts
    test: Cutouts

    @property
    def identity(self) -> str:
        """Fingerprint of the tasks and of all cut-outs."""
        parts = (self.train, self.validation, self.test)
        return " ".join([self.tasks.digest, *(part.identity for part in parts)])


class Progress:
    """The position of a run; apart from the trainer, so that the session holds no reference to it."""

    def __init__(self, batch_size: int) -> None:
        self.steps = 0
        self.phase = 0
        """Index of the phase in progress: the number of those that have been evaluated."""
        self.batch_size = batch_size


class DetectionTrainer:
    """One run in progress.

    Args:
        config: settings, already checked against the data.
        device: where the detector learns.
        data: cut-outs and tasks.
        remedies: advice printed after a fault.
        settings: what the session keeps in each checkpoint.

    Raises:
        UserError: the checkpoints or the log are damaged, or the run was started with other data.
    """

    def __init__(
        self,
        config: DetectionConfig,
        device: torch.device,
        data: Data,
        *,
        remedies: Remedies,
        settings: Layer | None = None,
    ) -> None:
        self.config, self.device, self.data = config, device, data
        replayed = config.exemplars.steps if config.exemplars.per_class else 0
        self.phases = phases(data.tasks, config.steps, replayed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "networks"))
            self.detector = Detector(len(data.tasks.taught), config.detector)
        self.detector = self.detector.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.clusters: OpenWorldClusters | None = None
        if config.clustering.weight:
            size = config.detector.head.hidden
            labels = self.detector.head.unknown + 1
            spec = FeatureSpec(size, (size, 1, 1))
            self.clusters = OpenWorldClusters(spec, labels, config.objectives.open_world).to(device)
        self.progress = Progress(config.batch_size)
        self.optimizer = self._new_optimizer()
        self.generator = torch.Generator(device)
        self.exemplars: list[list[int]] = []
        """For each task that has been learned, the numbers of the scenes that are kept."""
        self.energies: EnergyTest | None = None
        """As fitted at the end of the last phase; None while the next one is in progress."""
        self.results: list[dict[str, float]] = []
        """Measures of each phase."""
        self._saved_at = (-1, -1)
        self.session = Session(
            config.directory,
            device,
            functools.partial(_position, self.progress, self.phases, data.tasks),
            remedies,
            keep=config.checkpoint.keep,
            axis="images",
            settings=settings,
            trackers=config.log.trackers,
        )
        state = self.session.restore(self._take)
        self.session.begin(resumed=state is not None)

    def close(self) -> None:
        """Closes the log."""
        self.session.close()

    @property
    def complete(self) -> bool:
        """True once the last phase has been evaluated."""
        return self.progress.phase == len(self.phases)

    # ------------------------------------------------------------------------ loop

    def run(self) -> None:
        """Trains to the end of the last phase, evaluates, and saves.

        Raises:
            TrainingFault: a value is not finite, or the disk failed; the last checkpoint is intact.
            Stopped: SIGINT or SIGTERM was received; the run is saved.
        """
        c, session, progress = self.config, self.session, self.progress
        self._introduce()
        if self.complete:
            session.say("this run is complete; --fresh starts over")
            return
        total = self.phases[-1].end * c.batch_size
        with session.training(total, unit="image", description="detector", unit_scale=True):
            while not session.stopping and not self.complete:
                phase = self.phases[progress.phase]
                if progress.steps == phase.first:
                    self.optimizer = self._new_optimizer()
                    self.energies = None  # they are of the classes known so far
                if progress.steps < phase.end:
                    self.step(phase)
                    self._after_step(phase)
                else:
                    with session.paused():
                        self._finish(phase)
                    self.save()
            if self._saved_at != (progress.steps, progress.phase):
                self.save()
        if not self.complete:
            session.leave()
        session.say(f"done; detect in pictures of your own with: python scripts/detect.py {session.directory} PICTURE")

    def step(self, phase: Phase) -> None:
        """Takes one optimizer step."""
        c, number = self.config, self.progress.steps
        scenes, labels = self._scenes_of(phase, number)
        known = self.data.tasks.known(phase.task)
        self.generator.manual_seed(derived_seed(c.seed, "learned regions", number))
        share = warmup_cosine(number + 1 - phase.first, round(c.optimizer.warmup * phase.steps), phase.steps + 1)
        set_learning_rates(self.optimizer, share)
        found = self.detector.losses(
            scenes.images,
            Truth(scenes.truth.boxes, labels),
            known,
            self.generator,
            c.labeling,
            self.clusters,
            c.clustering.weight,
        )
        self.optimizer.zero_grad()
        found.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.detector.parameters(), c.optimizer.clip, foreach=True)
        self.optimizer.step()
        if self.clusters is not None:
            self.clusters.after_step(found.carry, torch.ones((), device=self.device))
        self.progress.steps += 1
        self.session.means.add(found.metrics | {"gradient_norm": norm})

    def _scenes_of(self, phase: Phase, number: int) -> tuple[Scenes, torch.Tensor]:
        """The scenes of a step, and the labels of what is annotated in them, −1 for what is not."""
        c, tasks = self.config, self.data.tasks
        if phase.kind == "learn":
            numbers = range(number * c.batch_size, (number + 1) * c.batch_size)
            scenes = self._draw(numbers, phase.task)
            current = tasks.current(phase.task)
            annotated = (scenes.truth.labels >= current.start) & (scenes.truth.labels < current.stop)
        else:
            kept = [(task, scene) for task, scenes in enumerate(self.exemplars) for scene in scenes]
            rng = np.random.default_rng(derived_seed(c.seed, "replayed scenes", number))
            chosen = [kept[index] for index in rng.integers(len(kept), size=c.batch_size)]
            parts = [self._draw([scene], task) for task, scene in chosen]
            scenes = Scenes(
                torch.cat([part.images for part in parts]),
                Truth(*(torch.cat(values) for values in zip(*(part.truth for part in parts), strict=True))),
            )
            # Everything known by now: kept scenes are annotated anew, as in the paper's fine-tuning sets.
            annotated = scenes.truth.labels < tasks.known(phase.task)
        labels = torch.where(annotated, scenes.truth.labels, -1)
        check_truth(Truth(scenes.truth.boxes, labels), c.scenes.size, c.scenes.size, tasks.known(phase.task))
        return scenes.to(self.device), labels.to(self.device)

    def _draw(self, numbers: range | list[int], task: int) -> Scenes:
        c, taught = self.config, self.data.tasks.current(task)
        return draw_scenes(self.data.train, c.scenes, numbers, seed=c.seed, purpose="training scenes", taught=taught)

    def _after_step(self, phase: Phase) -> None:
        c, progress, session = self.config, self.progress, self.session
        session.bar.update(c.batch_size)
        if progress.steps % c.log.every == 0 or progress.steps == phase.end:
            row = session.report()
            session.bar.set_postfix({"phase": phase.name, "loss": f"{row['loss']:.3f}"}, refresh=False)
        if c.log.images_every and progress.steps % c.log.images_every == 0:
            session.image("pictures/training", self._picture_of_training(phase))
        if progress.steps % c.checkpoint.every == 0 and progress.steps < phase.end:
            self.save()

    # ------------------------------------------------------------------ between phases

    def _finish(self, phase: Phase) -> None:
        """Keeps exemplars of a task that was learned, evaluates, and moves on to the next phase."""
        if phase.kind == "learn":
            self.exemplars.append(self._choose_exemplars(phase))
        found = self._evaluate(phase)
        self.results.append(found)
        self.session.scalars({f"evaluation/{name}": value for name, value in found.items()})
        self.session.say(_in_words(phase.name, found, self.config.energy.enabled))
        self.progress.phase += 1

    def _choose_exemplars(self, phase: Phase) -> list[int]:
        c, current = self.config, self.data.tasks.current(phase.task)
        first, end = phase.first * c.batch_size, phase.end * c.batch_size
        wanted = c.exemplars.per_class
        searched = range(first, min(end, first + _SEARCHED_PER_EXEMPLAR * wanted * len(current)))
        chosen: list[int] = []
        if searched and wanted:
            bar = tqdm(searched, desc="choosing exemplars", unit="scene", leave=False, disable=None)
            labels = torch.cat([self._draw([number], phase.task).truth.labels for number in bar])
            chosen = choose(labels, searched, current, wanted)
        return chosen

    def _evaluate(self, phase: Phase) -> dict[str, float]:
        c, data, detector = self.config, self.data, self.detector
        known = data.tasks.known(phase.task)
        detector.eval()
        self.energies = fit_energies(
            detector, data.validation, c.scenes, c.energy, c.labeling, known=known, seed=c.seed
        )
        if self.energies is None:
            self.session.say(
                f"{phase.name}: too few proposals to fit energies on, so nothing is unknown by its energy: "
                "more steps, more energy.scenes or a lower labeling.objectness give more"
            )
        found = evaluate(
            detector,
            data.test,
            c.scenes,
            self.energies,
            known=known,
            count=c.test_scenes,
            use_energy=c.energy.enabled,
            shown=c.log.gallery,
        )
        detector.train()
        if found.shown:
            picture = gallery(found.shown, data.tasks.taught[:known])
            self.session.image(f"pictures/{phase.name}", picture)
            folder = own_folder(self.session.directory, GALLERY)
            write_durably(folder / f"{phase.name}.png", [_as_png(picture)])
        return self._as_numbers(phase, found)

    def _as_numbers(self, phase: Phase, found: Evaluation) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for prefix, measures in (("", found.with_energy), ("without_energy/", found.without_energy)):
            if measures is not None:
                own = self._measured(phase, measures)
                numbers |= {prefix + name: value for name, value in own.items()}
        return numbers

    def _measured(self, phase: Phase, found: Measures) -> dict[str, float]:
        tasks = self.data.tasks
        current, known = tasks.current(phase.task), tasks.known(phase.task)
        numbers = {
            "map": found.mean(range(known)),
            "map_current": found.mean(current),
            "unknown_recall": found.unknown_recall,
            "unknown_precision": found.unknown_precision,
            "open_set_error": float(found.open_set_error),
            "wilderness_impact": found.wilderness_impact,
        }
        if phase.task:
            numbers["map_previous"] = found.mean(range(current.start))
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    @torch.no_grad()
    def _picture_of_training(self, phase: Phase) -> np.typing.NDArray[np.uint8]:
        """Some test scenes with what is detected in them at this moment, without energy."""
        known = self.data.tasks.known(phase.task)
        self.detector.eval()
        scenes = draw_scenes(self.data.test, self.config.scenes, range(4), seed=0, purpose="test scenes")
        found = self.detector.decide(self.detector.see(scenes.images.to(self.device), known), None)
        self.detector.train()
        shown = [
            Shown(image, Truth(boxes[None], labels[None]), Detections(*(part.cpu() for part in one)))
            for image, boxes, labels, one in zip(scenes.images, *scenes.truth, found, strict=True)
        ]
        return gallery(shown, self.data.tasks.taught[:known])

    # ---------------------------------------------------------------------- saving

    def save(self) -> None:
        """Writes a checkpoint, the detector and the results so far.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written.
            OSError: writing failed; earlier checkpoints are intact.
        """
        weights = {f"detector.{name}": value for name, value in self.detector.state_dict().items()}
        self.session.save(weights, self._write)
        self._saved_at = (self.progress.steps, self.progress.phase)

    def _write(self) -> Contents:
        c, directory = self.config, self.session.directory
        # The last phase of which something has been learned: at its end the next one is already in progress.
        phase = next((one for one in reversed(self.phases) if one.first < self.progress.steps), self.phases[0])
        names = self.data.tasks.taught[: self.data.tasks.known(phase.task)]
        provenance = {"preset": c.preset, "seed": c.seed, "steps": self.progress.steps}
        test = self.energies if c.energy.enabled else None
        save_detector(self.detector, directory, names, test, c.scenes.size, provenance)
        done = {phase.name: found for phase, found in zip(self.phases, self.results, strict=False)}
        write_durably(directory / RESULTS, [(json.dumps(done, indent=2) + "\n").encode()])
        return Contents(self.state())

    def state(self) -> dict[str, Any]:
        """Contents of a checkpoint."""
        return {
            "run": self._identity(),
            "identity": self.data.identity,
            "detector": self.detector.state_dict(),
            "clusters": None if self.clusters is None else self.clusters.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.progress.steps,
            "phase": self.progress.phase,
            "exemplars": self.exemplars,
            "energies": None if self.energies is None else self.energies.state(),
            "results": self.results,
        }

    def _take(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint's state.

        Raises:
            ValueError: it is of another run, or of other cut-outs.
        """
        if state["run"] != self._identity():
            raise ValueError(f"it is of another run: {state['run']}")
        if state["identity"] != self.data.identity:
            raise ValueError(
                f"the cut-outs of {self.config.data} or the tasks are not those that the run began with: restore them, "
                "or start over with --fresh"
            )
        self.detector.load_state_dict(state["detector"])
        if self.clusters is not None:
            self.clusters.load_state_dict(state["clusters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress.steps, self.progress.phase = int(state["steps"]), int(state["phase"])
        self.exemplars = [list(map(int, numbers)) for numbers in state["exemplars"]]
        self.energies = None if state["energies"] is None else EnergyTest.from_state(state["energies"])
        self.results = [dict(found) for found in state["results"]]

    def _identity(self) -> dict[str, Any]:
        """What tells this run's checkpoints from those of another run with networks of the same shapes."""
        return {"preset": self.config.preset, "seed": self.config.seed, "kind": "detection"}

    def _new_optimizer(self) -> torch.optim.AdamW:
        """A new optimizer for a phase: the moments of the last task's gradients are of no use to the next."""
        c = self.config.optimizer
        groups = parameter_groups([{"params": self.detector.parameters()}], c.weight_decay)
        return torch.optim.AdamW(groups, lr=c.later_lr if self.progress.phase else c.lr, foreach=True)

    def _introduce(self) -> None:
        say, tasks, progress = self.session.say, self.data.tasks, self.progress
        say(f"run: {self.session.directory}")
        listed = "; then ".join(", ".join(task) for task in tasks.tasks)
        say(f"device: {self.device}; teaches {listed}; never {', '.join(tasks.unknown) or 'anything else'}")
        if progress.steps:
            say(f"resumed at {self.session.position().place}")


def _position(progress: Progress, parts: tuple[Phase, ...], tasks: Tasks) -> Position:
    phase = parts[min(progress.phase, len(parts) - 1)]
    place = f"{phase.name}, step {progress.steps - phase.first:,} of {phase.steps:,}"
    return Position(progress.steps * progress.batch_size, progress.steps, place, f"step {progress.steps:,}")


def _in_words(name: str, found: dict[str, float], use_energy: bool) -> str:
    """One line on an evaluation."""
    prefix = "" if use_energy and "map" in found else "without_energy/"
    chosen = {key: found[prefix + key] for key in _WORDS if prefix + key in found}
    return f"{name}: " + ", ".join(_WORDS[key].format(value) for key, value in chosen.items())


_WORDS = {
    "map": "mAP {:.1%}",
    "map_previous": "of earlier tasks {:.1%}",
    "map_current": "of this task {:.1%}",
    "unknown_recall": "recall of unknowns {:.1%}",
    "unknown_precision": "their AP {:.1%}",
    "open_set_error": "A-OSE {:.0f}",
    "wilderness_impact": "WI {:.3f}",
}


def _as_png(picture: np.typing.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(buffer, format="PNG")
    return buffer.getvalue()
