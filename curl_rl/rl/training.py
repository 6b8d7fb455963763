"""The training loop: act, store, update, evaluate, checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.artifacts.encoder_file import last_names, save_encoder
from curl_rl.encoders import PixelEncoder
from curl_rl.rl.checks import check_device, check_environment
from curl_rl.rl.config import RunConfig
from curl_rl.rl.estimate import estimated_time
from curl_rl.rl.evaluation import evaluate
from curl_rl.rl.learner import Learner
from curl_rl.rl.loading import build_agent
from curl_rl.rl.pictures import crops_picture
from curl_rl.rl.progress import Episode, Progress
from curl_rl.rl.replay import Replay, segment_files
from curl_rl.rl.starting_encoder import find_starting_encoder
from curl_rl.rl.workers import Beginning, Environment, Environments, open_environments, pixel_spaces
from curl_rl.runs import checkpoint
from curl_rl.runs import directory as run_directory
from curl_rl.runs.compute import is_out_of_memory, precision_in_words, prepared_device
from curl_rl.runs.console import progress_bar, say
from curl_rl.runs.errors import TrainingFault as TrainingFault  # what train() raises
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.logger import Logger
from curl_rl.runs.meters import MetricMeans, Speedometer
from curl_rl.runs.seeds import derived_seed
from curl_rl.runs.signals import Stopped, StopRequest, stop_requests

_SAVE_MEMORY = "lower agent.batch_size or replay.capacity, or keep the replay elsewhere by replay.storage"
_MEND_NUMBERS = "the last checkpoint is from before; try a lower learning rate, or look at the rewards"


def train(config: RunConfig, make_environment: Callable[[], Environment], *, fresh: bool = False) -> Path:
    """Trains a run to its budget, going on from where it was left.

    Args:
        config: the run.
        make_environment: gives a new environment; called for training and for evaluation.
        fresh: set an earlier run in the directory aside and start anew.

    Returns:
        The run's directory.

    Raises:
        UserError: the directory belongs to another configuration, the encoder to start from does not fit, or the
            machine cannot do what is asked.
        TrainingFault: a loss or the environment broke; the last checkpoint is intact.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    device = prepared_device(config.device)
    check_device(config, device)
    config = replace(config, device=str(device))
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    directory = config.directory
    with contextlib.ExitStack() as stack:
        t = config.training
        try:
            environments = stack.enter_context(open_environments(make_environment, t.environments, overlap=t.overlap))
        except RuntimeError as error:
            if t.environments == 1 and not t.overlap:
                raise  # in this process, where a defect shows its traceback
            raise UserError(f"environment: {one_line(error)}") from None
        evaluation_environment = make_environment()
        stack.callback(evaluation_environment.close)
        check_environment(config, evaluation_environment, device)
        config, start = find_starting_encoder(config, evaluation_environment, resumes=not fresh)
        if fresh and (aside := run_directory.set_aside(directory)):
            say(f"the earlier run is now {aside}")
        stack.enter_context(run_directory.claimed(directory, config))
        try:
            trainer = Trainer(config, directory, device, environments, evaluation_environment, start=start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"{device} has no room for this run: {_SAVE_MEMORY} ({one_line(error)})") from None
        stack.callback(trainer.close)
        trainer.run()
    return directory


class Trainer:
    """One run in progress. :func:`train` checks what it is given and makes it."""

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        device: torch.device,
        environments: Environments,
        evaluation_environment: Environment,
        *,
        start: PixelEncoder | None = None,
    ) -> None:
        self.config, self.directory, self.device = config, directory, device
        self.environments, self.evaluation_environment = environments, evaluation_environment
        shape, action_dim = pixel_spaces(environments)
        # Weights come from a generator of their own, so that nothing else that draws can change them.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "networks"))
            self.agent = build_agent(config, device, shape, action_dim)
        try:
            self.replay = Replay(
                config.replay,
                shape,
                action_dim,
                stack=config.environment.stack,
                device=device,
                directory=directory,
                streams=environments.count,
            )
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        run_directory.check_room(directory, self._bytes_to_save())
        self.generator = torch.Generator(device)
        self.replay_generator = torch.Generator(self.replay.storage_device)
        self._seed_generators(index=0)
        self.progress = Progress()
        self.means = MetricMeans()
        self._newest_return: float | None = None

        restored = self._restore()
        if start is not None and not restored:
            self.agent.start_from(start)
        self.learner = Learner(
            self.agent, self.replay, self.generator, self.replay_generator, capture=config.compute.capture
        )
        self.speed = Speedometer(self.progress.frames, self.agent.updates)
        try:
            self.logger = Logger(directory, resume_at=self.progress.frames if restored else -1)
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None

    def close(self) -> None:
        """Closes the log."""
        self.logger.close()

    # -------------------------------------------------------------------- loop

    def run(self) -> None:
        """Trains until the budget is spent, then evaluates and saves."""
        c, p = self.config, self.progress
        say(f"run: {self.directory}")
        precision = precision_in_words(self.agent.encoder.convolutions.precision, self.device)
        say(f"device: {self.device}, convolutions in {precision}; {self.replay.describe()}")
        if c.encoder is not None or c.agent.freeze_encoder:
            begin = f"starts from {c.encoder}" if c.encoder is not None else "starts with random weights"
            say(f"encoder: {begin}, {'frozen' if c.agent.freeze_encoder else 'trained further'}")
        if p.frames:
            say(f"resumed at {p.frames:,} of {c.frames:,} frames")
        if p.frames >= c.frames and not self._evaluation_due():
            say(f"this run is complete at {p.frames:,} frames; --frames takes it further, --fresh starts anew")
            return
        if self.device.type == "cpu":
            with self._memory_at_work(), self._environment_at_work():
                to_go = c.frames - p.frames
                say(estimated_time(c, self.agent, self.evaluation_environment, to_go, p.agent_steps))
        with self._memory_at_work(), stop_requests() as stop, self._progress_bar() as bar:
            self.speed.read(p.frames, self.agent.updates)
            try:
                if self._evaluation_due():
                    self._evaluate(stop)
                    # A run that goes on has a checkpoint of these frames, which does not know of the evaluation yet.
                    if p.frames:
                        self.save()
                while not stop and p.frames < c.frames:
                    before = p.frames
                    self.advance(bar)
                    # Before saving: what is reported at these frames is then known to the checkpoint of these frames.
                    if self._evaluation_due():
                        self._evaluate(stop)
                    if _crossed(before, p.frames, c.checkpoint.every):
                        self.save()
                self.save()
            except OSError as error:
                self._fail(error, "nothing that was saved is lost: make room and start the same command again")
        if stop.signal_number is not None and (p.frames < c.frames or self._evaluation_due()):
            say(f"saved at {p.frames:,} frames; the same command resumes")
            raise Stopped(stop.signal_number)
        say(f"done: {p.frames:,} frames; play it with: python scripts/evaluate_agent.py {self.directory}")

    def advance(self, bar: tqdm[Any]) -> None:
        """A :meth:`step`, and what is to be reported by now."""
        c, p = self.config, self.progress
        before = p.frames
        self.step()
        bar.update(min(p.frames, c.frames) - min(before, c.frames))
        # The last interval is rarely a whole one, and is reported all the same.
        if _crossed(before, p.frames, c.log.every) or p.frames >= c.frames:
            self._log(bar)
        if c.log.images_every and _crossed(before, p.frames, c.log.images_every):
            self._log_pictures()

    def step(self) -> None:
        """One agent step in every environment and, after the random ones, the updates that are due for them: after the
        step, or while it runs."""
        p, overlap = self.progress, self.config.training.overlap
        randomness = self.generator.get_state()
        with self._environment_at_work():
            self._begin_episodes()
        actions = self._actions()
        before, after = p.agent_steps, p.agent_steps + len(actions)
        with self._environment_at_work(randomness):
            self.environments.send(actions.numpy())
        if overlap:
            self._update(before, after)
        # An update that ran meanwhile cannot be taken back, so a fault then is one that must not be saved.
        with self._environment_at_work(randomness, save=not overlap):
            outcomes = self.environments.receive()
        # Neither can a step that one environment has taken when the next one's is refused.
        with self._environment_at_work(randomness, save=not overlap and len(outcomes) == 1):
            for number, (observation, reward, terminated, truncated, info) in enumerate(outcomes):
                action, ends = actions[number], {"terminated": terminated, "truncated": truncated}
                self.replay.add(action.numpy(), reward, observation, **ends, stream=number)
                episode = p.under_way[number]
                episode.observation = observation
                episode.total += reward
                episode.actions.append(action)
                p.frames += int(info.get("environment_steps", 1))
                p.agent_steps += 1
                if terminated or truncated:
                    self._end_episode(number)
        if not overlap:
            self._update(before, after)

    def _begin_episodes(self) -> None:
        p = self.progress
        waiting = [number for number in range(self.environments.count) if number not in p.under_way]
        begin = {number: Beginning(self._episode_seed(p.episodes_begun + i)) for i, number in enumerate(waiting)}
        for number, first in self.environments.begin(begin).items():
            assert first is not None, "an episode without actions cannot be over"
            self.replay.start_episode(first, stream=number)
            p.under_way[number] = Episode(p.episodes_begun, first)
            p.episodes_begun += 1

    def _episode_seed(self, number: int) -> int:
        return derived_seed(self.config.seed, "training episode", number)

    def _actions(self) -> Tensor:
        """``(E, A)`` on the CPU: uniform in the random steps, then drawn from the policy."""
        count = self.environments.count
        shape = (count, self.agent.action_dim)
        if self.progress.agent_steps < self.config.training.random_steps:
            return (torch.rand(shape, generator=self.generator, device=self.device) * 2 - 1).cpu()
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        observations = np.stack([self.progress.under_way[number].observation for number in range(count)])
        actions = self.agent.act(torch.from_numpy(observations).to(self.device), noise).cpu()
        if not actions.isfinite().all():
            self._fail(FloatingPointError(f"the policy's action is {actions.tolist()}"), _MEND_NUMBERS)
        return actions

    def _update(self, before: int, after: int) -> None:
        """The updates that are due for the agent steps in (before, after]."""
        training = self.config.training
        for agent_steps in range(before + 1, after + 1):
            learning_steps = agent_steps - training.random_steps
            if learning_steps <= 0 or learning_steps % training.update_every:
                continue
            # Once between two rows of the log is enough for what costs time, and on a GPU makes the host wait.
            diagnose = self.agent.due.objective and "objective/effective_rank" not in self.means
            self.means.add(self.learner.update(diagnose=diagnose))

    def _end_episode(self, number: int) -> None:
        p = self.progress
        episode = p.under_way.pop(number)
        self._newest_return = episode.total
        self.logger.scalars(
            p.frames,
            {
                "episode/return": episode.total,
                "episode/length": len(episode.actions),
                "episode/number": episode.number,
            },
        )

    # -------------------------------------------------------------- evaluation

    def _evaluation_due(self) -> bool:
        """At the start, whenever another ``evaluation.every`` frames have passed, and at the end."""
        every, p = self.config.evaluation.every, self.progress
        if not every:
            return False
        finished = p.frames >= self.config.frames and p.evaluated_at < p.frames
        return finished or p.evaluated_at < 0 or _crossed(p.evaluated_at, p.frames, every)

    def _evaluate(self, stop: StopRequest) -> None:
        c, p = self.config.evaluation, self.progress
        with self.speed.paused(), self._environment_at_work():
            result = evaluate(
                self.agent,
                self.evaluation_environment,
                episodes=c.episodes,
                seed=self.config.seed,
                record=c.video,
                stop=stop.__bool__,
            )
        if result is None:
            return
        p.evaluated_at = p.frames
        metrics = result.metrics()
        with self.speed.paused():
            self.logger.scalars(p.frames, metrics)
            if result.pictures is not None:
                path = self.directory / run_directory.VIDEOS / f"{p.frames:010d}.gif"
                self.logger.video(p.frames, "evaluation/video", result.pictures, result.pictures_per_second, path)
        mean, spread = metrics["evaluation/return_mean"], metrics["evaluation/return_std"]
        say(f"{p.frames:>9,} frames: evaluation {mean:.1f} ± {spread:.1f} over {c.episodes} episodes")

    # ----------------------------------------------------------------- logging

    def _log(self, bar: tqdm[Any]) -> None:
        p = self.progress
        speeds = self.speed.read(p.frames, self.agent.updates)
        self.logger.scalars(p.frames, self._finite_means() | speeds)
        self.means.clear()
        shown = {"return": "–" if self._newest_return is None else f"{self._newest_return:.0f}"}
        bar.set_postfix(shown | {"updates/s": f"{speeds['speed/updates_per_second']:.1f}"}, refresh=False)

    def _log_pictures(self) -> None:
        if self.learner.newest is not None:
            self.logger.image(self.progress.frames, "observations/crops", crops_picture(*self.learner.newest))

    def _finite_means(self) -> dict[str, float]:
        """The metrics' means; a run that has gone to NaN ends here, before it could overwrite a good checkpoint."""
        means = self.means.read()
        self._refuse([name for name, value in means.items() if not math.isfinite(value)])
        return means

    def _refuse(self, broken: list[str]) -> None:
        if broken:
            self._fail(run_directory.not_finite(broken), _MEND_NUMBERS)

    def _progress_bar(self) -> tqdm[Any]:
        c = self.config
        return progress_bar(c.frames, initial=self.progress.frames, unit="frame", description=c.env)

    # ---------------------------------------------------------- saving, failing

    def save(self) -> None:
        """Writes a checkpoint and the encoder.

        Raises:
            TrainingFault: a metric or a weight is not finite; nothing is written then.
            OSError: the disk refused; earlier checkpoints are intact.
        """
        self._finite_means()
        self._refuse(checkpoint.not_finite(self.agent.state_dict()))
        p, checkpoints = self.progress, self.directory / run_directory.CHECKPOINTS
        with self.speed.paused():
            self.logger.flush()
            manifest = self.replay.save(self.directory / run_directory.REPLAY_SEGMENTS)
            state = {
                "agent": self.agent.training_state(),
                "replay": manifest,
                "progress": p.state(),
                "means": self.means.state(),
                "generators": {
                    "devices": self._generator_devices(),
                    "states": [self.generator.get_state(), self.replay_generator.get_state()],
                },
                "random": checkpoint.random_state(),
            }
            # The encoder first: a run that is complete by its checkpoint is not started again to mend what is missing.
            provenance = {"env": self.config.env, "preset": self.config.preset, "seed": self.config.seed}
            if self.config.encoder is not None:
                start = last_names(self.config.encoder)
                provenance |= {"encoder": start, "encoder_sha256": self.config.encoder_sha256}
            save_encoder(
                self.agent.encoder,
                self.directory,
                rendered_size=self.config.environment.size,
                provenance={**provenance, "frames": p.frames},
            )
            checkpoint.save(
                checkpoints, p.frames, state, attachments=segment_files(manifest), keep=self.config.checkpoint.keep
            )

    def _bytes_to_save(self) -> int:
        """About what the checkpoints of the whole run take on the disk."""
        c = self.config
        transitions = min(c.replay.capacity, math.ceil(c.frames / c.environment.action_repeat))
        channels, height, width = pixel_spaces(self.environments)[0]
        networks = sum(value.nbytes for value in self.agent.state_dict().values())
        # Adam keeps two numbers to a weight; while one checkpoint is written, all the others are still there.
        return transitions * (channels // c.environment.stack) * height * width + 3 * networks * (c.checkpoint.keep + 1)

    def _seed_generators(self, *, index: int) -> None:
        self.generator.manual_seed(derived_seed(self.config.seed, "exploration and crops", index))
        self.replay_generator.manual_seed(derived_seed(self.config.seed, "replay", index))

    def _generator_devices(self) -> list[str]:
        return [self.generator.device.type, self.replay_generator.device.type]

    def _restore(self) -> bool:
        """Goes back to the newest usable checkpoint; False if there is none."""
        segments = self.directory / run_directory.REPLAY_SEGMENTS
        try:
            found = checkpoint.load_newest(
                self.directory / run_directory.CHECKPOINTS,
                usable=lambda state: self.replay.restore(segments, state["replay"]),
            )
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from None
        if found is None:
            return False
        _, state = found
        self.agent.load_training_state(state["agent"])
        self.progress = Progress.from_state(state)
        self.means.load(state["means"], self.device)
        checkpoint.restore_random_state(state["random"])
        if state["generators"]["devices"] == self._generator_devices():
            for generator, saved in zip(
                (self.generator, self.replay_generator), state["generators"]["states"], strict=True
            ):
                generator.set_state(saved)
        else:
            say("resumed on another kind of device: the random numbers go on differently")
            self._seed_generators(index=self.progress.frames)
        try:
            self._bring_environments_back()
        except Exception as error:  # an environment is anybody's code and may raise anything
            self._fail(error, "the run is as it was saved: mend the environment and start the same command again")
        return True

    def _bring_environments_back(self) -> None:
        """Repeats the unfinished episodes in new environments: the same seed and actions lead to where they stood."""
        p = self.progress
        episodes = {
            number: Beginning(self._episode_seed(episode.number), [action.numpy() for action in episode.actions])
            for number, episode in p.under_way.items()
        }
        for number, observation in self.environments.begin(episodes).items():
            if observation is None or not np.array_equal(observation, p.under_way[number].observation):
                say("an environment did not repeat itself (another machine or version?): starting its next episode")
                del p.under_way[number]

    @contextlib.contextmanager
    def _environment_at_work(self, randomness: Tensor | None = None, *, save: bool = True) -> Iterator[None]:
        """In here runs an environment, which is anybody's code and may raise anything: the run is saved then.

        ``randomness`` is the generator's state that the saved run is to go on with. Without ``save`` the run goes back
        to its last checkpoint.
        """
        try:
            yield
        except FloatingPointError as error:
            self._fail(error, _MEND_NUMBERS)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # the agent's, as a rule: a batch is larger than anything of the environment's
            if randomness is not None:
                self.generator.set_state(randomness)
            if not save:
                kept = run_directory.kept(self.directory)
                self._fail(error, f"{kept}: mend the environment and start the same command again")
            saved = "the run is saved"
            try:
                self.save()
            except TrainingFault:
                raise
            except Exception as unsaved:
                saved = f"{run_directory.kept(self.directory)}, a new one could not be written ({one_line(unsaved)})"
            self._fail(error, f"{saved}: mend the environment and start the same command again")

    @contextlib.contextmanager
    def _memory_at_work(self) -> Iterator[None]:
        """In here the device's memory may turn out too small."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._fail(error, f"{run_directory.kept(self.directory)}: {_SAVE_MEMORY}")

    def _fail(self, error: Exception, advice: str) -> NoReturn:
        where = f"{self.progress.frames:,} frames (update {self.agent.updates:,})"
        raise run_directory.fault(self.directory, where, error, advice) from error


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, after]."""
    return after // every > before // every
