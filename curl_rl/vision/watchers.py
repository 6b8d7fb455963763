"""Measurements and pictures between the steps of pretraining on images."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from curl_rl.pretraining import distributed
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.pretraining.watchers import Watcher
from curl_rl.recordings.store import is_recording
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError
from curl_rl.runs.faults import non_finite_names
from curl_rl.runs.meters import MetricMeans
from curl_rl.runs.seeds import derived_seed
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data import warn_about_unseen_classes
from curl_rl.vision.evaluation.protocols import Benchmark, Voting, encode, knn
from curl_rl.vision.images import images_of
from curl_rl.vision.pictures import views_picture
from curl_rl.vision.projector import write_projector
from curl_rl.vision.source import ImageSource


class ViewPictures(Watcher):
    """Logs some images next to their views, every ``every`` steps; 0, none."""

    def __init__(self, every: int) -> None:
        self._every = every

    def after_step(self, run: Pretrainer) -> None:
        if self._every and run.learner.steps % self._every == 0 and run.session.writes and run.newest is not None:
            batch, views = run.newest
            run.session.image("images/views", views_picture(batch.images, list(views.values())))  # type: ignore[attr-defined]


class NearestNeighbors(Watcher):
    """Weighted nearest neighbors on the test images, every ``knn.every`` epochs, if the data have labels and a test."""

    def __init__(self, config: VisionConfig, source: ImageSource) -> None:
        self._config, self._source = config, source
        self.benchmark: Benchmark | None = None

    def prepare(self, run: Pretrainer) -> None:
        c, train = self._config, self._source.images
        if not c.knn.every or not run.session.writes or is_recording(c.data):  # recorded frames have no classes
            return
        try:
            test = images_of(replace(c, image_size=train.size), "test", run.device)
            train.required_labels()
            test.required_labels()
            warn_about_unseen_classes(train, test)
        except UserError as error:
            say(f"no nearest neighbors during training: {error}")
            return
        self.benchmark = Benchmark(train, test)

    def after_step(self, run: Pretrainer) -> None:
        if not run.due(self._config.knn.every):
            return
        run.session.refuse_non_finite(non_finite_names(run.learner.state_dict()))
        distributed.average_running_statistics(run.learner.encoder)
        with distributed.raised_together(OSError):
            if self.benchmark is not None:
                self._measure(run, self.benchmark)

    def _measure(self, run: Pretrainer, benchmark: Benchmark) -> None:
        k, encoder = min(self._config.knn.k, len(benchmark.train)), run.learner.encoder.exported
        with run.session.paused():
            train, test = (encode(encoder, encoder.input_shape[-1], images) for images in benchmark)
            accuracy = knn(train, test, benchmark.classes, Voting(k, self._config.knn.temperature))
            found = {"knn/accuracy": accuracy}
            if run.probe is not None and encoder is run.learner.encoder:  # the features that the probe has learned
                right = run.probe(test.features).argmax(1) == test.labels
                found["probe/test_accuracy"] = float(right.float().mean())
            run.session.scalars(found)
        say(f"epoch {run.epochs:>4.0f}: {k} nearest neighbors classify {accuracy:.1%} of the test images correctly")


class HeldOutEpisodes(Watcher):
    """The method's loss and metrics on held-out episodes of recorded frames, to reveal overfitting."""

    def __init__(self, config: VisionConfig, source: ImageSource) -> None:
        self._config, self._training = config, source
        self.source: ImageSource | None = None

    def prepare(self, run: Pretrainer) -> None:
        c = self._config
        if not c.frames.test_every or not is_recording(c.data):
            return
        if "indices" in run.learner.objective.needs:  # the index of a held-out frame is not one of the method's
            run.session.say(f"no measurement on held-out episodes: {c.method} knows the training frames only")
            return
        try:
            source = self._training.of(images_of(c, "test", run.device))
            source.images.batches(c.batch_size)  # refuses a larger batch: losses compare at equal sizes only
            self.source = source
        except UserError as error:
            run.session.say(f"no measurement on held-out episodes: {error}")

    def after_step(self, run: Pretrainer) -> None:
        if self.source is None or not run.due(self._config.frames.test_every):
            return
        c, generator, means = self._config, run.generator, MetricMeans()
        rank, processes = distributed.rank(), distributed.world_size()
        with run.session.paused():
            # Shuffled, as in training: a frame's neighbors would be negatives almost identical to it.
            shares = self.source.batches(c.batch_size, seed=c.seed, rank=rank, world_size=processes)
            for number, batch in enumerate(shares):
                # The same crops each time, so that only the network changes.
                generator.manual_seed(derived_seed(c.seed, "held-out views", number * processes + rank))
                views = self.source.views(batch, generator)
                order = torch.arange(
                    c.batch_size, device=run.device
                )  # batch norm is in evaluation mode: any order will do
                means.add(run.learner.measure(views, run.whole_batch(batch), order))
            measured = {f"test/{name}": value for name, value in means.read().items()}
            run.session.refuse_non_finite([name for name, value in measured.items() if not math.isfinite(value)])
            run.session.scalars(measured)
        run.session.say(f"epoch {run.epochs:>4.0f}: loss {measured['test/loss']:.3f} on held-out episodes")


class EmbeddingProjector(Watcher):
    """Writes the files of TensorBoard's embedding projector at the end, from test images if available.

    Args:
        count: number of images; 0, none.
        seed: seed of their selection.
        training: the run's training data.
        neighbors: may hold test images.
        held_out: may hold held-out frames.
    """

    def __init__(
        self, count: int, seed: int, training: ImageSource, neighbors: NearestNeighbors, held_out: HeldOutEpisodes
    ) -> None:
        self._count, self._seed, self._training = count, seed, training
        self._neighbors, self._held_out = neighbors, held_out

    @torch.no_grad()
    def finish(self, run: Pretrainer) -> None:
        if not self._count or not run.session.writes:
            return
        shown = self._training.images
        if self._neighbors.benchmark is not None:
            shown = self._neighbors.benchmark.test
        elif self._held_out.source is not None:
            shown = self._held_out.source.images
        encoder = run.learner.encoder
        # Shuffled like training batches: the first images of an unshuffled set would all have one class.
        batch = next(shown.ahead(()).batches(min(self._count, len(shown)), seed=self._seed))
        encoder.eval()
        features = torch.cat([encoder(part) for part in self._training.center(batch).split(512)])
        encoder.train()
        names = None if batch.labels is None else [shown.classes[label] for label in batch.labels.tolist()]
        write_projector(run.session.directory, features, batch.images[:, -3:], names)  # of a stack, the newest frame
