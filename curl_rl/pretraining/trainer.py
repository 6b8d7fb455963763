"""The pretraining loop: read a batch, make views, step, measure, checkpoint.

It is independent of the kind of data: samples come from a :class:`~curl_rl.pretraining.sources.Source`, measurements
between steps from a :class:`~curl_rl.pretraining.watchers.Watcher`.

A step's random numbers depend on the run's seed and the step's number alone, so a run resumes exactly without saved
random states.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from curl_rl.artifacts.encoder_file import TEXT_ENCODER, save_encoder
from curl_rl.artifacts.head_file import HEAD, TEXT_HEAD, save_head
from curl_rl.encoders import Features, map_features
from curl_rl.objectives import BatchInfo, ObjectiveUser, ViewSpec
from curl_rl.pretraining import distributed
from curl_rl.pretraining.collapse import CollapseWatch
from curl_rl.pretraining.config import Settings
from curl_rl.pretraining.learner import Learner
from curl_rl.pretraining.networks import build_networks
from curl_rl.pretraining.online_probe import OnlineProbe
from curl_rl.pretraining.replicas import make_equal, training_tensors
from curl_rl.pretraining.sources import Batch, Source
from curl_rl.pretraining.watchers import Watcher
from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import derived_seed, global_generator
from curl_rl.runs.session import Contents, Position, Remedies, Session
from curl_rl.runs.settings import Layer


class Pretrainer:
    """One run in progress, in one of the processes that share it.

    Args:
        config: settings, already checked against the source (:mod:`curl_rl.pretraining.checks`).
        device: this process's device.
        source: the training data.
        watchers: called between steps, in this order.
        remedies: advice printed after a fault.
        next_step: suggested use of the encoder, printed in the last line of a complete run.
        settings: what :class:`~curl_rl.runs.session.Session` keeps in each checkpoint.

    Raises:
        UserError: the disk lacks space, the checkpoints or the log are damaged, the run was started with other
            samples, or not all processes see its checkpoints.
    """

    def __init__(
        self,
        config: Settings,
        device: torch.device,
        source: Source[Any],
        watchers: Sequence[Watcher] = (),
        *,
        remedies: Remedies,
        next_step: str,
        settings: Layer | None = None,
    ) -> None:
        self.config, self.device, self.source, self.watchers = config, device, source, watchers
        self.next_step = next_step
        self.steps_per_epoch = source.batches_per_epoch(config.batch_size)
        # Weights have their own random stream, so that no other draws can change them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "networks"))
            user = ObjectiveUser("method", source.name, source.has)
            networks = build_networks(config, source.shapes, device, source.data, user)
        for network in networks.encoders:
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
            distributed.distribute_batch_norm(network)
        encoder, objective, text_encoder = networks
        self.learner = Learner(
            encoder,
            objective.to(device),
            config.optimizer,
            batch_size=config.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=config.epochs,
            text_encoder=text_encoder,
        )
        self.probe: OnlineProbe | None = None
        if len(source.classes) > 1:
            self.probe = OnlineProbe(encoder.feature_spec.dim, len(source.classes)).to(device)
        self.generator = torch.Generator(device)
        self.collapse = CollapseWatch(source.unit)
        self.newest: tuple[Batch, dict[ViewSpec, Tensor]] | None = None
        """Batch and views of the last step."""
        self._saved_at = -1
        self.session = Session(
            config.directory,
            device,
            functools.partial(_position, self.learner, self.steps_per_epoch),
            remedies,
            keep=config.checkpoint.keep,
            axis=f"{source.unit}s",
            processes=distributed,
            settings=settings,
            trackers=config.log.trackers,
        )
        resumed = self._restore()
        self._make_equal()
        self.session.begin(resumed=resumed)

    def close(self) -> None:
        """Closes the log."""
        self.session.close()

    @property
    def epochs(self) -> float:
        """Epochs trained, fractional within an epoch."""
        return self.learner.steps / self.steps_per_epoch

    @property
    def complete(self) -> bool:
        """True once the last epoch has ended."""
        return self.learner.steps >= self.learner.total_steps

    def due(self, every: int) -> bool:
        """Returns whether an epoch divisible by ``every``, or the last one, has just ended; 0, never."""
        return bool(every) and (self.epochs % every == 0 or self.epochs == self.config.epochs)

    # -------------------------------------------------------------------- loop

    def run(self) -> None:
        """Trains to the end of the last epoch, and saves.

        Raises:
            TrainingFault: a value is not finite, or the data or the disk failed; the last checkpoint is intact.
            Stopped: SIGINT or SIGTERM was received; the run is saved.
        """
        c, learner, session = self.config, self.learner, self.session
        self._introduce()
        if self.complete:
            session.say(f"this run is complete at {counted(c.epochs, 'epoch')}; --fresh starts over")
            return
        for watcher in self.watchers:
            watcher.prepare(self)
        total = learner.total_steps * c.batch_size
        with session.training(total, unit=self.source.unit, description=c.method, unit_scale=True):
            while not session.stopping and not self.complete:
                self._epoch()
            if self.complete:
                if learner.steps % c.log.every:
                    self._log()
                # Before saving: a complete run is not resumed, so anything missing would stay missing.
                with distributed.raised_together(OSError):
                    for watcher in self.watchers:
                        watcher.finish(self)
            if self._saved_at != learner.steps:
                self.save()
        if not self.complete:
            session.leave()
        session.say(f"done: {counted(c.epochs, 'epoch')}; {self.next_step}")

    def _introduce(self) -> None:
        c, source, say = self.config, self.source, self.session.say
        say(f"run: {self.session.directory}")
        processes = distributed.world_size()
        shared = f", shared by {processes} processes" if processes > 1 else ""
        say(
            f"device: {self.device}, network in {self.learner.encoder.precision}; {counted(len(source), source.unit)} "
            f"of {source.name}, {counted(self.steps_per_epoch, 'step')} of {c.batch_size} per epoch{shared}"
        )
        if self.learner.steps:
            say(f"resumed at epoch {self.epochs:.2f} of {c.epochs}")

    def _epoch(self) -> None:
        """Trains to the end of the current epoch, or to a stop."""
        c, learner, session = self.config, self.learner, self.session
        epoch, start = divmod(learner.steps, self.steps_per_epoch)
        if start == 0:  # a run resumed in mid-epoch restores the result with the method's buffers
            self._before_epoch(epoch)
        rank, processes = distributed.rank(), distributed.world_size()
        for batch in self.source.batches(
            c.batch_size, seed=c.seed, epoch=epoch, start_batch=start, rank=rank, world_size=processes
        ):
            self.step(batch)
            session.bar.update(c.batch_size)
            if learner.steps % c.log.every == 0:
                self._log()
            for watcher in self.watchers:
                watcher.after_step(self)
            # The last checkpoint says that the run is complete, which it is only after the watchers have finished.
            if learner.steps % c.checkpoint.every == 0 and not self.complete:
                self.save()
            if session.stopping:
                break

    def step(self, batch: Batch) -> None:
        """Takes one optimizer step on this process's share of a batch."""
        c, number, means = self.config, self.learner.steps, self.session.means
        place = number * distributed.world_size() + distributed.rank()
        self.generator.manual_seed(derived_seed(c.seed, "augmentation", place))
        views = self.source.views(batch, self.generator)
        self.newest = (batch, views)
        # The same on every process.
        self.generator.manual_seed(derived_seed(c.seed, "shuffled batch norm", number))
        order = torch.randperm(c.batch_size, generator=self.generator, device=self.device)
        info = self.whole_batch(batch)
        # The costly metrics are computed once per row of the log.
        diagnose = "features/uniformity" not in means
        with global_generator(derived_seed(c.seed, "noise of the network", place), self.device):
            metrics, features = self.learner.step(views, info, order, diagnose=diagnose)
        if self.probe is not None and info.labels is not None:
            learned = self.probe.learn(features, info.labels)
            metrics |= {f"probe/{name}": value for name, value in learned.items()}
        means.add(metrics)

    def whole_batch(self, batch: Batch) -> BatchInfo:
        """Gathers what is known of the whole batch, except its views, from each process's share."""
        parts = (batch.indices, batch.labels, batch.actions, batch.contents, batch.hidden)
        total = self.config.batch_size
        return BatchInfo(*(None if part is None else distributed.gather(part, total) for part in parts))

    # ------------------------------------------------------------- between epochs

    @torch.no_grad()
    def _before_epoch(self, epoch: int) -> None:
        """Lets the method process all samples, identically in every process; then broadcasts process 0's result."""
        objective = self.learner.objective
        if (encoded_by := objective.wants_all(epoch)) is not None:
            self._remember_all(encoded_by)
        generator = torch.Generator().manual_seed(derived_seed(self.config.seed, "clusters", epoch))
        try:
            found = objective.between_epochs(epoch, generator)
        except ValueError as error:  # collapsed embeddings cannot be clustered
            self.session.fail_by_numbers(error)
        distributed.broadcast_buffers(objective)
        self.session.means.add({f"clusters/{name}": value.to(self.device) for name, value in found.items()})

    def _remember_all(self, encoded_by: Literal["online", "target"]) -> None:
        learner, maps = self.learner, self.learner.objective.reads_maps
        network = learner.encoder if encoded_by == "online" else learner.target
        assert network is not None, "a method without target views has no target network"
        distributed.average_running_statistics(network)
        rank, processes = distributed.rank(), distributed.world_size()
        learner.eval()
        try:
            for batch in self.source.everything(self.config.batch_size, rank=rank, world_size=processes):
                own = network.encode(self.source.center(batch))
                if maps:
                    features = map_features(distributed.gather_uneven, own)
                else:
                    vector = distributed.gather_uneven(own.vector)
                    features = Features(vector, own.map.new_empty(len(vector), 0))
                parts = (batch.indices, batch.labels)
                info = BatchInfo(*(None if part is None else distributed.gather_uneven(part) for part in parts))
                learner.objective.remember(features, info)
        finally:
            learner.train()

    # --------------------------------------------------------------------- logging

    def _log(self) -> None:
        row = self.session.report()
        if warning := self.collapse.warning(row):
            self.session.say(warning)
        shown = {"loss": f"{row['loss']:.3f}"}
        if "probe/accuracy" in row:
            shown["probe"] = f"{row['probe/accuracy']:.0%}"
        self.session.bar.set_postfix(shown, refresh=False)

    # ---------------------------------------------------------------------- saving

    def save(self) -> None:
        """Writes a checkpoint, the encoder and the method's projection head.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written.
            OSError: writing failed; earlier checkpoints are intact.
        """
        for network in (self.learner.encoder, self.learner.target):
            if network is not None:
                distributed.average_running_statistics(network)
        self._make_equal()
        self.session.save(self.learner.state_dict(), self._write_networks)
        self._saved_at = self.learner.steps

    def _write_networks(self) -> Contents:
        c, directory = self.config, self.session.directory
        objective = self.learner.objective
        for name, head in {HEAD: objective.projection_head(), TEXT_HEAD: objective.text_projection_head()}.items():
            if head is not None:
                save_head(head, directory, name)
        provenance = {"method": c.method, "preset": c.preset, "seed": c.seed, **self.source.provenance}
        save_encoder(
            self.learner.encoder.exported,
            directory,
            rendered_size=self.source.size,
            provenance={**provenance, "epochs": self.epochs},
        )
        if self.learner.text_encoder is not None:
            save_encoder(
                self.learner.text_encoder,
                directory,
                name=TEXT_ENCODER,
                rendered_size=self.source.shapes["text"][-1],
                provenance={**provenance, "epochs": self.epochs},
            )
        return Contents(self.state())

    def state(self) -> dict[str, Any]:
        """Contents of a checkpoint."""
        return {
            "run": self._identity(),
            "learner": self.learner.training_state(),
            "probe": None if self.probe is None else self.probe.state_dict(),
            "images": len(self.source),  # of any unit: the key dates from image-only runs
            "identity": self.source.identity,
        }

    def _restore(self) -> bool:
        """Restores the newest usable checkpoint; returns False if there is none."""
        state = self.session.restore(self._take)
        steps = distributed.gather_uneven(torch.tensor([0 if state is None else state["learner"]["steps"]])).tolist()
        if len(set(steps)) > 1:
            raise UserError(
                f"all processes must resume from the same checkpoint, got those of steps {', '.join(map(str, steps))}: "
                f"{self.session.directory} must be on a file system that all of them share"
            )
        if state is None:
            return False
        if misfit := self._misfit(state):
            raise UserError(misfit)
        if "identity" not in state:
            self.session.say(
                f"this run was saved by an earlier version, which did not record its {self.source.unit}s: not compared"
            )
        return True

    def _take(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint's state, unless it was learned from other samples.

        Raises:
            ValueError: it is of another run.
        """
        if (run := state.get("run", self._identity())) != self._identity():  # earlier versions did not save it
            raise ValueError(f"it is of another run: {run}")
        if self._misfit(state) is None:
            self.learner.load_training_state(state["learner"])
            if self.probe is not None:
                self.probe.load_state_dict(state["probe"])

    def _misfit(self, state: dict[str, Any]) -> str | None:
        """How the samples differ from those that a checkpoint's run learned from."""
        source, units = self.source, f"{self.source.unit}s"
        if state["images"] != len(source):
            return (
                f"{source.name} has {len(source)} {units}, but had {state['images']} when this run was saved: restore "
                "them, or start over with --fresh"
            )
        if state.get("identity", source.identity) != source.identity:
            return (
                f"{source.name} has as many {units} as when this run was saved, but not the same ones (renaming one or "
                "moving it to another class counts): restore them, or start over with --fresh"
            )
        return None

    def _identity(self) -> dict[str, Any]:
        """What tells this run's checkpoints from those of another run with networks of the same shapes."""
        return {"method": self.config.method, "preset": self.config.preset, "seed": self.config.seed}

    def _make_equal(self) -> None:
        """Checks that all processes have the same state; where they differ, says so and continues with process 0's."""
        tensors = dict(training_tensors(self.learner, self.learner.optimizer))
        if self.probe is not None:
            tensors |= {f"probe.{name}": value for name, value in training_tensors(self.probe, self.probe.optimizer)}
        different = make_equal(tensors)
        if different:
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            self.session.say(
                f"the processes had different values in {', '.join(different[:3])}{more}: all continue with process 0's"
            )


def _position(learner: Learner, steps_per_epoch: int) -> Position:
    steps = learner.steps
    return Position(steps * learner.batch_size, steps, f"epoch {steps / steps_per_epoch:.2f}", f"step {steps:,}")
