"""The pretraining loop: read images, make views, step, evaluate, checkpoint.

The random numbers of a step come from the run's seed and the step's number alone, so that a resumed run needs no
random states to go on as it would have.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.artifacts.encoder_file import ENCODER, last_names, save_encoder
from curl_rl.artifacts.head_file import save_head
from curl_rl.augment import center_crop
from curl_rl.objectives import BatchInfo, ViewSpec
from curl_rl.pretraining import distributed
from curl_rl.pretraining.collapse import CollapseWatch
from curl_rl.pretraining.learner import Learner
from curl_rl.recordings.store import is_recording
from curl_rl.runs import checkpoint
from curl_rl.runs import directory as run_directory
from curl_rl.runs.compute import is_out_of_memory, keep_freed_memory, resolve_device
from curl_rl.runs.console import progress_bar, say
from curl_rl.runs.errors import TrainingFault, UserError, one_line
from curl_rl.runs.logger import Logger
from curl_rl.runs.meters import MetricMeans, Speedometer
from curl_rl.runs.seeds import derived_seed
from curl_rl.runs.signals import Stopped, StopRequest, stop_requests
from curl_rl.vision.checks import check_run
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data import DIGITS, load, say_what_cannot_be_learnt
from curl_rl.vision.data.image_sets import ImageBatch, ImageSet
from curl_rl.vision.evaluation.linear_probe import OnlineProbe
from curl_rl.vision.evaluation.protocols import Benchmark, Voting, encode, knn
from curl_rl.vision.images import images_of
from curl_rl.vision.networks import build_networks
from curl_rl.vision.pictures import views_picture
from curl_rl.vision.projector import write_projector
from curl_rl.vision.views import make_views

AXIS = "images"
"""What the x axis of a pretraining run counts: source images, each as often as it was seen."""

_SAVE_MEMORY = (
    "lower batch_size, encoder.resnet.width or objectives.moco.queue, or stream the images by --compute.storage stream"
)
_MEND_NUMBERS = "try a lower optimizer.lr or a longer warm-up, with --fresh or in another --run directory"


def pretrain(config: VisionConfig, *, fresh: bool = False) -> Path:
    """Pretrains a run to its last epoch, going on from where it was left.

    Started by ``torchrun``, its processes share each batch; process 0 alone writes.

    Args:
        config: the run.
        fresh: set an earlier run in the directory aside and start anew.

    Returns:
        The run's directory.

    Raises:
        UserError: the directory belongs to another configuration, or data or machine cannot do what is asked.
        TrainingFault: the numbers or the disk broke; the last checkpoint is intact.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    with contextlib.ExitStack() as stack:
        device = resolve_device(config.device)
        # Absolute, for whoever judges the run from another directory.
        data = config.data if config.data == DIGITS else str(Path(config.data).absolute())
        config = replace(config, device=str(device), data=data)
        stack.enter_context(distributed.process_group(device))
        if device.type == "cuda" and distributed.world_size() > 1:
            device = torch.device("cuda", torch.cuda.current_device())
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        if device.type == "cpu":
            keep_freed_memory()
        with distributed.raised_together(UserError):
            images = images_of(config, "train", device)
            check_run(config, images)
        with distributed.raised_together(UserError):  # the others wait until the directory is this run's
            if distributed.rank() == 0:
                if fresh and (aside := run_directory.set_aside(config.directory)):
                    say(f"the earlier run is now {aside}")
                stack.enter_context(run_directory.claimed(config.directory, config))
        with distributed.raised_together(UserError):
            try:
                pretrainer = Pretrainer(config, device, images)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise UserError(f"{device} has no room for this run: {_SAVE_MEMORY} ({one_line(error)})") from None
        stack.callback(pretrainer.close)
        pretrainer.run()
    return config.directory


class Pretrainer:
    """One run in progress. :func:`pretrain` checks what it is given and makes it."""

    def __init__(self, config: VisionConfig, device: torch.device, images: ImageSet) -> None:
        self.config, self.device, self.images = config, device, images
        self.directory = config.directory
        self.is_writer = distributed.rank() == 0
        self.steps_per_epoch = images.batches_per_epoch(config.batch_size)
        # Weights come from a generator of their own, so that nothing else that draws can change them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "networks"))
            encoder, objective = build_networks(config, images.channels, device)
        encoder = encoder.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.distribute_batch_norm(encoder)
        self.learner = Learner(
            encoder,
            objective.to(device),
            config.optimizer,
            batch_size=config.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=config.epochs,
        )
        self.probe: OnlineProbe | None = None
        if len(images.classes) > 1:
            self.probe = OnlineProbe(encoder.feature_spec.dim, len(images.classes)).to(device)
        self.generator = torch.Generator(device)
        self.means = MetricMeans()
        self.collapse = CollapseWatch()
        self._newest: tuple[ImageBatch, list[Tensor]] | None = None
        self._benchmark: Benchmark | None = None
        self._held_out: ImageSet | None = None
        if self.is_writer:
            run_directory.check_room(self.directory, self._bytes_to_save(), "lower objectives.moco.queue")

        restored = self._restore()
        self.speed = Speedometer(self.seen, self.learner.steps, AXIS)
        self.logger: Logger | None = None
        if self.is_writer:
            try:
                self.logger = Logger(self.directory, resume_at=self.seen if restored else -1, axis=AXIS)
            except (ValueError, OSError) as error:
                raise UserError(one_line(error)) from None

    @property
    def seen(self) -> int:
        """Source images so far."""
        return self.learner.steps * self.config.batch_size

    def close(self) -> None:
        """Closes the log."""
        if self.logger is not None:
            self.logger.close()

    # -------------------------------------------------------------------- loop

    def run(self) -> None:
        """Trains until the last epoch has ended, and saves."""
        learner, c = self.learner, self.config
        self._say(f"run: {self.directory}")
        processes = distributed.world_size()
        shared = f", shared by {processes} processes" if processes > 1 else ""
        self._say(
            f"device: {self.device}, network in {learner.encoder.precision}; {len(self.images):,} images of "
            f"{self.images.name}, {self.steps_per_epoch} steps of {c.batch_size} to an epoch{shared}"
        )
        if learner.steps:
            self._say(f"resumed at epoch {learner.steps / self.steps_per_epoch:.2f} of {c.epochs}")
        if learner.steps >= learner.total_steps:
            self._say(f"this run is complete at {c.epochs} epochs; --fresh starts anew")
            return
        self._prepare_knn()
        self._prepare_held_out()
        with stop_requests() as stop, self._progress_bar() as bar:
            self.speed.read(self.seen, learner.steps)
            try:
                while not self._stopping(stop) and learner.steps < learner.total_steps:
                    self._epoch(stop, bar)
                if learner.steps == learner.total_steps:
                    if learner.steps % c.log.every:
                        self._log(bar)
                    # Before saving: a run whose checkpoint is complete is not started again to mend what is missing.
                    with distributed.raised_together(OSError):
                        self._project()
                self.save()
            except (OSError, UserError) as error:
                self._fail(error, "nothing that was saved is lost: mend this and start the same command again")
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._fail(error, f"{run_directory.kept(self.directory)}: {_SAVE_MEMORY}")
        if learner.steps < learner.total_steps and stop.signal_number is not None:
            self._say(f"saved at epoch {learner.steps / self.steps_per_epoch:.2f}; the same command resumes")
            raise Stopped(stop.signal_number)
        if is_recording(c.data):  # without classes there is nothing for the script below to judge by
            self._say(f"done: {c.epochs} epochs; the encoder is {self.directory / ENCODER}.safetensors")
        else:
            self._say(f"done: {c.epochs} epochs; judge it with: python scripts/evaluate_vision.py {self.directory}")

    def _epoch(self, stop: StopRequest, bar: tqdm[Any]) -> None:
        """The epoch under way, from where it stands to its end or to a stop."""
        c, learner = self.config, self.learner
        epoch, start = divmod(learner.steps, self.steps_per_epoch)
        batches = self.images.batches(
            c.batch_size,
            seed=c.seed,
            epoch=epoch,
            start_batch=start,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        for batch in batches:
            self.step(batch)
            bar.update(c.batch_size)
            if learner.steps % c.log.every == 0:
                self._log(bar)
            if c.log.images_every and learner.steps % c.log.images_every == 0:
                self._log_picture()
            # Before saving: what is reported at these images is then known to the checkpoint of these images.
            if self._due(c.knn.every):
                self._knn()
            if self._due(c.frames.test_every):
                self._test()
            if learner.steps % c.checkpoint.every == 0:
                self.save()
            if self._stopping(stop):
                break

    def step(self, batch: ImageBatch) -> None:
        """One step of the optimizer on this process's share of a batch."""
        c, number = self.config, self.learner.steps
        processes, total = distributed.world_size(), c.batch_size
        self.generator.manual_seed(derived_seed(c.seed, "augmentation", number * processes + distributed.rank()))
        views = make_views(batch.images, c.augment, self.generator, batch.later)
        by_spec = {ViewSpec(index): view for index, view in enumerate(views)}
        self._newest = (batch, views)
        # The same on every process.
        self.generator.manual_seed(derived_seed(c.seed, "shuffled batch norm", number))
        order = torch.randperm(total, generator=self.generator, device=self.device)
        labels = None if batch.labels is None else distributed.gather(batch.labels, total)
        info = BatchInfo(distributed.gather(batch.indices, total), labels)
        # Once between two rows of the log is enough for what costs time.
        diagnose = "features/uniformity" not in self.means
        metrics, features = self.learner.step(by_spec, info, order, diagnose=diagnose)
        if self.probe is not None and labels is not None:
            learnt = self.probe.learn(features, labels)
            metrics |= {f"probe/{name}": value for name, value in learnt.items()}
        self.means.add(metrics)

    def _stopping(self, stop: StopRequest) -> bool:
        return distributed.any_process(bool(stop))

    # -------------------------------------------------------------- evaluation

    def _prepare_knn(self) -> None:
        """Reads the test images, if nearest neighbours are wanted and the data allow it; else says why not."""
        c = self.config
        if not c.knn.every or not self.is_writer or is_recording(c.data):  # recorded frames have no classes
            return
        try:
            test = load(
                c.data,
                "test",
                self.images.size,
                device=self.device,
                storage=c.compute.storage,
                workers=c.compute.workers,
            )
            self.images.required_labels()
            test.required_labels()
            say_what_cannot_be_learnt(self.images, test)
        except UserError as error:
            say(f"no nearest neighbours while training: {error}")
            return
        self._benchmark = Benchmark(self.images, test)

    def _prepare_held_out(self) -> None:
        """Opens the held-out episodes of recorded frames, if they are to be measured on; else says why not."""
        c = self.config
        if not c.frames.test_every or not is_recording(c.data):
            return
        try:
            held_out = images_of(c, "test", self.device)
            held_out.batches(c.batch_size)  # refuses a batch that is larger: of another size it would not compare
            self._held_out = held_out
        except UserError as error:
            self._say(f"no measurement on held-out episodes: {error}")

    def _test(self) -> None:
        """The method's own loss and metrics on the held-out episodes, which show whether it learns by heart."""
        test, c = self._held_out, self.config
        if test is None:
            return
        means = MetricMeans()
        with self.speed.paused():
            # Shuffled, as in training: the neighbours of a frame would be negatives nearly like it.
            rank, processes = distributed.rank(), distributed.world_size()
            shares = test.batches(c.batch_size, seed=c.seed, rank=rank, world_size=processes)
            for number, batch in enumerate(shares):
                # The same crops each time, so that what changes is the network.
                self.generator.manual_seed(derived_seed(c.seed, "held-out views", number * processes + rank))
                made = make_views(batch.images, c.augment, self.generator, batch.later)
                views = {ViewSpec(index): view for index, view in enumerate(made)}
                order = torch.arange(c.batch_size, device=self.device)  # batch norm is at rest: any order is as good
                info = BatchInfo(distributed.gather(batch.indices, c.batch_size))
                means.add(self.learner.measure(views, info, order))
            measured = {f"test/{name}": value for name, value in means.read().items()}
            self._refuse([name for name, value in measured.items() if not math.isfinite(value)])
            if self.logger is not None:
                self.logger.scalars(self.seen, measured)
        epochs = self.learner.steps // self.steps_per_epoch
        self._say(f"epoch {epochs:>4}: loss {measured['test/loss']:.3f} on held-out episodes")

    def _due(self, every: int) -> bool:
        """At the end of every so many epochs and of the last; 0, never."""
        epochs = self.learner.steps / self.steps_per_epoch
        return bool(every) and (epochs % every == 0 or epochs == self.config.epochs)

    def _knn(self) -> None:
        self._refuse(checkpoint.not_finite(self.learner.state_dict()))
        distributed.average_running_statistics(self.learner.encoder)
        with distributed.raised_together(OSError):
            if self._benchmark is not None and self.logger is not None:
                self._ask_neighbours(self._benchmark, self.logger)

    def _ask_neighbours(self, benchmark: Benchmark, logger: Logger) -> None:
        k, encoder = min(self.config.knn.k, len(self.images)), self.learner.encoder
        with self.speed.paused():
            train, test = (encode(encoder, encoder.input_shape[-1], images) for images in benchmark)
            accuracy = knn(train, test, benchmark.classes, Voting(k, self.config.knn.temperature))
            found = {"knn/accuracy": accuracy}
            if self.probe is not None:
                right = self.probe(test.features).argmax(1) == test.labels
                found["probe/test_accuracy"] = float(right.float().mean())
            logger.scalars(self.seen, found)
        epochs = self.learner.steps // self.steps_per_epoch
        say(f"epoch {epochs:>4}: {k} nearest neighbours are right on {accuracy:.1%} of the test images")

    @torch.no_grad()
    def _project(self) -> None:
        """The embedding projector's files, of test images where there are any."""
        if not self.config.log.projector or not self.is_writer:
            return
        shown = self._benchmark.test if self._benchmark else (self._held_out or self.images)
        encoder = self.learner.encoder
        # Drawn as training batches are: the first of an unshuffled set would all be of one class.
        batch = next(shown.batches(min(self.config.log.projector, len(shown)), seed=self.config.seed))
        encoder.eval()
        middle = center_crop(batch.images, encoder.input_shape[-1])
        features = torch.cat([encoder(part) for part in middle.split(512)])
        encoder.train()
        names = None if batch.labels is None else [shown.classes[label] for label in batch.labels.tolist()]
        write_projector(self.directory, features, batch.images[:, -3:], names)  # of a stack, the newest frame

    # ----------------------------------------------------------------- logging

    def _log(self, bar: tqdm[Any]) -> None:
        means = self._finite_means()
        speeds = self.speed.read(self.seen, self.learner.steps)
        if self.logger is not None:
            self.logger.scalars(self.seen, means | speeds)
            if warning := self.collapse.warning(means):
                say(warning)
        self.means.clear()
        shown = {"loss": f"{means['loss']:.3f}"}
        if "probe/accuracy" in means:
            shown["probe"] = f"{means['probe/accuracy']:.0%}"
        bar.set_postfix(shown, refresh=False)

    def _log_picture(self) -> None:
        if self.logger is not None and self._newest is not None:
            batch, views = self._newest
            self.logger.image(self.seen, "images/views", views_picture(batch.images, views))

    def _finite_means(self) -> dict[str, float]:
        """The metrics' means; a run that has gone to NaN ends here, before it could overwrite a good checkpoint."""
        means = self.means.read()
        self._refuse([name for name, value in means.items() if not math.isfinite(value)])
        return means

    def _refuse(self, broken: list[str]) -> None:
        if broken:
            self._fail(run_directory.not_finite(broken), _MEND_NUMBERS)

    def _progress_bar(self) -> tqdm[Any]:
        total = self.learner.total_steps * self.config.batch_size
        return progress_bar(
            total,
            initial=self.seen,
            unit="image",
            description=self.config.method,
            unit_scale=True,
            hidden=not self.is_writer,
        )

    def _say(self, line: str) -> None:
        if self.is_writer:
            say(line)

    # ---------------------------------------------------------- saving, failing

    def save(self) -> None:
        """Writes a checkpoint and the encoder.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written then.
            OSError: the disk refused; earlier checkpoints are intact.
        """
        self._finite_means()
        networks = self.learner.state_dict()
        self._refuse(checkpoint.not_finite(networks))
        for network in (self.learner.encoder, self.learner.target):
            if network is not None:
                distributed.average_running_statistics(network)
        with distributed.raised_together(OSError):
            if self.logger is not None:
                self._write(self.logger)

    def _write(self, logger: Logger) -> None:
        c = self.config
        with self.speed.paused():
            logger.flush()
            state = {
                "learner": self.learner.training_state(),
                "probe": None if self.probe is None else self.probe.state_dict(),
                "means": self.means.state(),
                "images": len(self.images),
                "identity": self.images.identity,
            }
            provenance = {"data": last_names(c.data), "method": c.method, "preset": c.preset, "seed": c.seed}
            provenance |= self.images.provenance
            head = self.learner.objective.projection_head()
            if head is not None:
                save_head(head, self.directory)
            # The encoder first: a run that is complete by its checkpoint is not started again to mend what is missing.
            save_encoder(
                self.learner.encoder,
                self.directory,
                rendered_size=self.images.size,
                provenance={**provenance, "epochs": self.learner.steps / self.steps_per_epoch},
            )
            checkpoint.save(self.directory / run_directory.CHECKPOINTS, self.seen, state, keep=c.checkpoint.keep)

    def _bytes_to_save(self) -> int:
        """About what the checkpoints of the whole run take on the disk."""
        networks = sum(value.nbytes for value in self.learner.state_dict().values())
        # An optimizer keeps two numbers to a weight; while one checkpoint is written, all the others are still there.
        return 3 * networks * (self.config.checkpoint.keep + 1)

    def _restore(self) -> bool:
        """Goes back to the newest usable checkpoint; False if there is none."""
        try:
            found = checkpoint.load_newest(self.directory / run_directory.CHECKPOINTS, read_only=not self.is_writer)
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        if found is None:
            return False
        _, state = found
        if state["images"] != len(self.images):
            raise UserError(
                f"{self.images.name} has {len(self.images)} images, and had {state['images']} when this run was saved: "
                "bring them back, or start anew with --fresh"
            )
        if state.get("identity", self.images.identity) != self.images.identity:
            raise UserError(
                f"{self.images.name} has as many images as when this run was saved, and they are others (one that was "
                "renamed, or moved to another class, counts): bring them back, or start anew with --fresh"
            )
        self.learner.load_training_state(state["learner"])
        if self.probe is not None:
            self.probe.load_state_dict(state["probe"])
        self.means.load(state["means"], self.device)
        return True

    def _fail(self, error: Exception, advice: str) -> NoReturn:
        where = f"epoch {self.learner.steps / self.steps_per_epoch:.2f} (step {self.learner.steps:,})"
        if str(error).startswith(distributed.ELSEWHERE.format("")):  # whose process writes down what happened
            raise TrainingFault(f"stopped at {where}: {error}") from error
        raise run_directory.fault(self.directory, where, error, advice) from error
