"""The training loop: act, store, update, evaluate, checkpoint."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curl_rl.artifacts.encoder_file import last_names, save_encoder
from curl_rl.encoders import PixelEncoder
from curl_rl.rl.agent import Agent
from curl_rl.rl.checks import check_device, check_environment, remark_on_endless
from curl_rl.rl.collector import Collector
from curl_rl.rl.config import RunConfig
from curl_rl.rl.contained import EnvironmentFault, contained
from curl_rl.rl.estimate import estimated_time
from curl_rl.rl.evaluation import evaluate
from curl_rl.rl.generators import Generators
from curl_rl.rl.guard import EnvironmentGuard
from curl_rl.rl.learner import Learner
from curl_rl.rl.loading import build_agent
from curl_rl.rl.observations import observation_spec
from curl_rl.rl.pictures import crops_picture
from curl_rl.rl.progress import Episode, Progress
from curl_rl.rl.replay import Replay, segment_files
from curl_rl.rl.starting_encoder import find_starting_encoder
from curl_rl.rl.workers import Environment, Environments, WorkerEnvironment, open_environments, pixel_spaces
from curl_rl.runs.compute import precision_in_words, prepared_device
from curl_rl.runs.console import counted, say
from curl_rl.runs.directory import REPLAY_SEGMENTS, claimed
from curl_rl.runs.disk_errors import in_words
from curl_rl.runs.errors import TrainingFault as TrainingFault  # raised by train()
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.faults import refusing_what_exceeds
from curl_rl.runs.files import own_folder
from curl_rl.runs.pictures import PictureWatch
from curl_rl.runs.seeds import derived_seed, unchanged_random_state
from curl_rl.runs.session import Contents, Position, Remedies, Session
from curl_rl.runs.signals import Stopped as Stopped  # likewise

_REMEDIES = Remedies(
    memory="lower agent.batch_size or replay.capacity, with --fresh if the run has begun, or move the replay with "
    "replay.storage",
    numbers="try a lower learning rate, with --fresh or in another --run directory, or check the rewards",
)


def train(
    config: RunConfig, make_environment: Callable[[], Environment], *, fresh: bool = False, salvage: bool = False
) -> Path:
    """Trains a run to its budget, resuming it if it was stopped.

    Args:
        config: the run's configuration.
        make_environment: makes a new environment; called for training and for evaluation.
        fresh: set aside an earlier run in the directory and start over.
        salvage: if no checkpoint is whole, resume from one whose networks are, without the damaged part of its replay.

    Returns:
        The run's directory.

    Raises:
        UserError: the directory belongs to another configuration, the encoder to start from does not fit, or the
            machine does not support the configuration.
        TrainingFault: a loss or the environment failed; the last checkpoint is intact.
        Stopped: SIGINT or SIGTERM was received; the run is saved.
    """
    device = prepared_device(config.device)
    check_device(config, device)
    config = replace(config, device=str(device))
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    with contextlib.ExitStack() as stack:
        t = config.training
        in_worker = t.overlap or t.environments > 1 or t.step_timeout is not None
        evaluation_environment: Environment
        try:
            environments = stack.enter_context(
                open_environments(make_environment, t.environments, overlap=t.overlap, step_timeout=t.step_timeout)
            )
            if t.step_timeout is None:
                evaluation_environment = contained(make_environment)
            else:
                evaluation_environment = WorkerEnvironment(make_environment, t.step_timeout)
        except (RuntimeError, OSError) as error:  # OSError: the workers' shared memory finds no room
            if not in_worker and not isinstance(error, EnvironmentFault):
                raise  # raised in this process, so the traceback shows the defect
            why = in_words(error) if isinstance(error, OSError) else one_line(error)
            raise UserError(f"environment: {why}") from None
        stack.callback(evaluation_environment.close)
        check_environment(config, evaluation_environment, device, fresh=fresh)
        config, start = find_starting_encoder(config, evaluation_environment, resumes=not fresh)
        claim = stack.enter_context(claimed(config.directory, config, fresh=fresh))
        with refusing_what_exceeds(device, _REMEDIES.memory):
            trainer = Trainer(
                config, config.directory, device, environments, evaluation_environment, start=start, salvage=salvage
            )
        stack.callback(trainer.close)
        claim.record(trainer.progress.frames)
        trainer.run()
    return config.directory


class Trainer:
    """One run in progress, constructed by :func:`train` after its checks."""

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        device: torch.device,
        environments: Environments,
        evaluation_environment: Environment,
        *,
        start: PixelEncoder | None = None,
        salvage: bool = False,
    ) -> None:
        self.config, self.device = config, device
        self.environments, self.evaluation_environment = environments, evaluation_environment
        shape, action_dim = pixel_spaces(environments)
        proprioception = observation_spec(environments.observation_space).proprioception
        # The weights have their own random stream, so that other draws cannot change them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "networks"))
            self.agent = build_agent(config, device, shape, action_dim, proprioception)
        try:
            self.replay = Replay(
                config.replay,
                shape,
                action_dim,
                stack=config.environment.stack,
                device=device,
                directory=directory,
                streams=environments.count,
                proprioception=proprioception,
            )
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        self.progress = Progress()
        self.session = Session(
            directory,
            device,
            functools.partial(_position, self.progress, self.agent),
            _REMEDIES,
            keep=config.checkpoint.keep,
            settings=config.schema.lasting(config),
            trackers=config.log.trackers,
        )
        self._watch = PictureWatch()
        self.collector = Collector(environments, self.replay, self.progress, config.seed, self._watch)
        self.generators = Generators(config.seed, device, self.replay.storage_device)
        self._newest_return: float | None = None

        resumed = self._restore(salvage)
        if start is not None and not resumed:
            self.agent.start_from(start)
        self.learner = Learner(
            self.agent, self.replay, self.generators.agent, self.generators.replay, capture=config.compute.capture
        )
        self.session.begin(resumed=resumed)

    def close(self) -> None:
        """Closes the log."""
        self.session.close()

    # -------------------------------------------------------------------- loop

    def run(self) -> None:
        """Trains until the budget is spent, then evaluates and saves."""
        c, p, session = self.config, self.progress, self.session
        self._introduce()
        if self._complete():
            say(f"this run is complete at {p.frames:,} frames; --frames extends it, --fresh starts over")
            return
        if self.device.type == "cpu":
            with session.memory_guarded(), self._guard(), unchanged_random_state():
                to_go = c.frames - p.frames
                say(estimated_time(c, self.agent, self.evaluation_environment, to_go, p.agent_steps))
        with session.training(c.frames, unit="frame", description=c.env):
            if self._evaluation_due():
                self._evaluate()
                # The checkpoint that a run resumed from does not include this evaluation yet.
                if p.frames:
                    self.save()
            saved = False
            while not session.stopping and p.frames < c.frames:
                before = p.frames
                self.advance()
                # Evaluate before saving, so that the checkpoint includes the evaluation.
                if self._evaluation_due():
                    self._evaluate()
                saved = _crossed(before, p.frames, c.checkpoint.every)
                if saved:
                    self.save()
            if not saved:
                self.save()
        if not self._complete():
            session.leave()
        play = shlex.join(["python", "scripts/evaluate_agent.py", str(session.directory)])
        say(f"done: {p.frames:,} frames; play it with: {play}")

    def _introduce(self) -> None:
        c, p = self.config, self.progress
        say(f"run: {self.session.directory}")
        precision = precision_in_words(self.agent.encoder.convolutions.precision, self.device)
        say(f"device: {self.device}, convolutions in {precision}; {self.replay.describe()}")
        if c.encoder is not None or c.agent.freeze_encoder:
            begin = f"starts from {c.encoder}" if c.encoder is not None else "starts from random weights"
            say(f"encoder: {begin}, {'frozen' if c.agent.freeze_encoder else 'trained further'}")
        remark = remark_on_endless(self.evaluation_environment, c.env, "--environment.max_episode_steps")
        if remark is not None:
            say(remark)
        if p.frames:
            say(f"resumed at {p.frames:,} of {c.frames:,} frames")

    def _complete(self) -> bool:
        return self.progress.frames >= self.config.frames and not self._evaluation_due()

    def advance(self) -> None:
        """Takes a :meth:`step`, and logs metrics and pictures when due."""
        c, p = self.config, self.progress
        before = p.frames
        self.step()
        self.session.bar.update(min(p.frames, c.frames) - min(before, c.frames))
        # The last interval is usually shorter, but is logged as well.
        if _crossed(before, p.frames, c.log.every) or p.frames >= c.frames:
            self._log()
        if c.log.images_every and _crossed(before, p.frames, c.log.images_every):
            self._log_pictures()

    def step(self) -> None:
        """Takes one agent step in every environment and, after the random steps, runs the updates that are due: after
        the step, or while it runs."""
        p, overlap, guard = self.progress, self.config.training.overlap, self._guard()
        with guard:
            self.collector.begin_episodes()
        actions = self._actions()
        before, after = p.agent_steps, p.agent_steps + len(actions)
        with guard:
            self.environments.send(actions.numpy())
        if overlap:
            guard.can_undo = False  # an update cannot be undone
            self._update(before, after)
        with guard:
            outcomes = self.environments.receive()
        if len(outcomes) > 1:
            guard.can_undo = False  # nor can one environment's step if the next one's cannot be stored
        for number, outcome in enumerate(outcomes):
            with guard:
                ended = self.collector.store(number, actions[number], outcome)
            if ended is not None:
                self._report_episode(ended)
        if not overlap:
            self._update(before, after)

    def _guard(self) -> EnvironmentGuard:
        return EnvironmentGuard(self.session, self.save, self.generators.agent)

    def _actions(self) -> Tensor:
        """``(E, A)`` on the CPU: uniform during the random steps, then sampled from the policy."""
        generator, shape = self.generators.agent, (self.environments.count, self.agent.action_dim)
        if self.progress.agent_steps < self.config.training.random_steps:
            return (torch.rand(shape, generator=generator, device=self.device) * 2 - 1).cpu()
        noise = torch.randn(shape, generator=generator, device=self.device)
        pixels, proprioception = self.collector.observations()
        beside = None if proprioception is None else torch.from_numpy(proprioception).to(self.device)
        actions = self.agent.act(torch.from_numpy(pixels).to(self.device), noise, beside).cpu()
        if not actions.isfinite().all():
            self.session.fail_by_numbers(FloatingPointError(f"the policy's action is {actions.tolist()}"))
        return actions

    def _update(self, before: int, after: int) -> None:
        """Runs the updates that are due for the agent steps in (before, after]."""
        training, means = self.config.training, self.session.means
        for agent_steps in range(before + 1, after + 1):
            learning_steps = agent_steps - training.random_steps
            if learning_steps <= 0 or learning_steps % training.update_every:
                continue
            if not len(self.replay):  # all of it was lost, and the first step after that has not arrived yet
                continue
            # Diagnostics cost time and make the host wait for a GPU: once per row of the log is enough.
            diagnose = self.agent.due.objective and "objective/effective_rank" not in means
            means.add(self.learner.update(diagnose=diagnose))

    def _report_episode(self, ended: Episode) -> None:
        self._newest_return = ended.total
        length, number = len(ended.actions), ended.number
        self.session.scalars({"episode/return": ended.total, "episode/length": length, "episode/number": number})

    # ----------------------------------------------------------- evaluation, logging

    def _evaluation_due(self) -> bool:
        """At the start, whenever another ``evaluation.every`` frames have passed, and at the end."""
        every, p = self.config.evaluation.every, self.progress
        if not every:
            return False
        finished = p.frames >= self.config.frames and p.evaluated_at < p.frames
        return finished or p.evaluated_at < 0 or _crossed(p.evaluated_at, p.frames, every)

    def _evaluate(self) -> None:
        c, p, session = self.config.evaluation, self.progress, self.session
        with session.paused():
            with self._guard(), unchanged_random_state():
                result = evaluate(
                    self.agent,
                    self.evaluation_environment,
                    episodes=c.episodes,
                    seed=self.config.seed,
                    record=c.video,
                    stop=session.stop.__bool__,
                    watch=self._watch,
                )
            if result is None:
                return
            p.evaluated_at = p.frames
            metrics = result.metrics()
            session.scalars(metrics)
            if result.pictures is not None:
                session.video("evaluation/video", result.pictures, result.pictures_per_second)
        mean, spread = metrics["evaluation/return_mean"], metrics["evaluation/return_std"]
        say(f"{p.frames:>9,} frames: evaluation {mean:.1f} ± {spread:.1f} over {counted(c.episodes, 'episode')}")

    def _log(self) -> None:
        row = self.session.report()
        shown = {"return": "–" if self._newest_return is None else f"{self._newest_return:.0f}"}
        self.session.bar.set_postfix(shown | {"updates/s": f"{row['speed/updates_per_second']:.1f}"}, refresh=False)

    def _log_pictures(self) -> None:
        if self.learner.newest is not None:
            self.session.image("observations/crops", crops_picture(*self.learner.newest))

    # ---------------------------------------------------------------------- saving

    def save(self) -> None:
        """Writes a checkpoint and the encoder.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written.
            OSError: writing failed; earlier checkpoints are intact.
        """
        self.session.save(self.agent.state_dict(), self._write)

    def _write(self) -> Contents:
        c, directory = self.config, self.session.directory
        provenance = {"env": c.env, "preset": c.preset, "seed": c.seed}
        if c.encoder is not None:
            provenance |= {"encoder": last_names(c.encoder), "encoder_sha256": c.encoder_sha256}
        if c.environment.camera is not None:
            provenance["camera"] = c.environment.camera
        provenance["frames"] = self.progress.frames
        manifest = self.replay.save(own_folder(directory, REPLAY_SEGMENTS))
        save_encoder(self.agent.encoder, directory, rendered_size=c.environment.size, provenance=provenance)
        return Contents(self.state(manifest), segment_files(manifest))

    def state(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The contents of a checkpoint, given the replay's ``manifest``."""
        return {
            "run": self._identity(),
            "agent": self.agent.training_state(),
            "replay": manifest,
            "progress": self.progress.state(),
            **self.generators.state(),
        }

    def _restore(self, salvage: bool) -> bool:
        """Restores the newest usable checkpoint; returns False if there is none."""
        try:
            state = self.session.restore(self._take)
        except UserError as error:
            if not salvage:
                raise UserError(
                    f"{error}; if only replay segments are damaged, --salvage continues without what they held"
                ) from None
            state = self.session.restore(functools.partial(self._take, salvage=True), incomplete=True)
        if state is None:
            return False
        try:
            self.collector.bring_back()
        except Exception as error:  # an environment is user code and may raise any exception
            advice = "the run is unchanged: fix the environment and start the same command again"
            self.session.fail(error, advice)
        return True

    def _take(self, state: dict[str, Any], *, salvage: bool = False) -> None:
        """Takes over a checkpoint's state.

        Raises:
            ValueError: it is of another run, or (without ``salvage``) its replay is damaged.
            OSError: its replay cannot be read; likewise.
        """
        if (run := state.get("run", self._identity())) != self._identity():  # earlier versions did not save it
            raise ValueError(f"it is of another run: {run}")
        p, replay = self.progress, self.replay
        self.agent.load_training_state(state["agent"])
        p.load(state)
        lost = replay.restore(self.session.directory / REPLAY_SEGMENTS, state["replay"], salvage=salvage)
        self.generators.load(state, p.frames)
        if salvage:
            say(
                f"salvaged at {p.frames:,} frames: the networks are whole, and so are {len(replay):,} transitions of "
                f"the replay; {lost:,} were in damaged files and are lost"
            )
            p.under_way = {number: one for number, one in p.under_way.items() if replay.has_open_episode(number)}

    def _identity(self) -> dict[str, Any]:
        """What tells this run's checkpoints from those of another run with networks of the same shapes."""
        return {"env": self.config.env, "preset": self.config.preset, "seed": self.config.seed}


def _position(progress: Progress, agent: Agent) -> Position:
    return Position(progress.frames, agent.updates, f"{progress.frames:,} frames", f"update {agent.updates:,}")


def _crossed(before: int, after: int, every: int) -> bool:
    """Tests whether (before, after] contains a multiple of ``every``."""
    return after // every > before // every
