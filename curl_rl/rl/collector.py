"""Collects experience: starts the episodes of all environments, stores their steps, and replays them on resuming."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from curl_rl.rl.observations import Pixels, Proprioception, observation_spec
from curl_rl.rl.progress import Episode, Progress
from curl_rl.rl.replay import Replay
from curl_rl.rl.workers import Beginning, Environments, Observation, Outcome
from curl_rl.runs.console import say
from curl_rl.runs.pictures import PictureWatch
from curl_rl.runs.seeds import derived_seed


class Collector:
    """Runs the episodes of the training environments and stores their transitions.

    Args:
        environments: the training environments.
        replay: has one stream per environment.
        progress: the run's progress, including the unfinished episodes.
        seed: the run's seed; an episode's seed is derived from it and the episode's number.
        watch: looks at the pictures.
    """

    def __init__(
        self, environments: Environments, replay: Replay, progress: Progress, seed: int, watch: PictureWatch
    ) -> None:
        self.environments = environments
        self._replay, self._progress, self._seed, self._watch = replay, progress, seed, watch
        self._spec = observation_spec(environments.observation_space)

    def begin_episodes(self) -> None:
        """Begins the next episode in every environment without an unfinished one."""
        p = self._progress
        waiting = [number for number in range(self.environments.count) if number not in p.under_way]
        begin = {number: Beginning(self._episode_seed(p.episodes_begun + i)) for i, number in enumerate(waiting)}
        for number, first in self.environments.begin(begin).items():
            assert first is not None, "an episode without actions cannot be over"
            pixels, proprioception = self._spec.read(first)
            self._replay.start_episode(pixels, proprioception=proprioception, stream=number)
            self._watch.begin(pixels, number=number)
            p.under_way[number] = Episode(p.episodes_begun, pixels, proprioception=proprioception)
            p.episodes_begun += 1

    def observations(self) -> tuple[Pixels, Proprioception | None]:
        """``(E, C, H, W)`` and ``(E, P)``: the newest observation of each environment."""
        newest = [self._progress.under_way[number] for number in range(self.environments.count)]
        beside = [episode.proprioception for episode in newest if episode.proprioception is not None]
        return np.stack([episode.observation for episode in newest]), np.stack(beside) if beside else None

    def store(self, number: int, action: Tensor, outcome: Outcome) -> Episode | None:
        """Stores the outcome of an action in environment ``number``; returns the episode if it has ended."""
        observation, reward, terminated, truncated, info = outcome
        pixels, proprioception = self._spec.read(observation)
        frames = int(info.get("environment_steps", 1))
        self._replay.add(
            action.numpy(),
            reward,
            pixels,
            terminated=terminated,
            truncated=truncated,
            next_proprioception=proprioception,
            stream=number,
        )
        self._watch.step(pixels, over=terminated or truncated, number=number)
        p = self._progress
        episode = p.under_way[number]
        episode.observation, episode.proprioception = pixels, proprioception
        episode.total += reward
        episode.actions.append(action)
        p.frames += frames
        p.agent_steps += 1
        return p.under_way.pop(number) if terminated or truncated else None

    def bring_back(self) -> None:
        """Replays the unfinished episodes in new environments: the same seed and actions lead to the same state."""
        p = self._progress
        episodes = {
            number: Beginning(self._episode_seed(episode.number), [action.numpy() for action in episode.actions])
            for number, episode in p.under_way.items()
        }
        for number, observation in self.environments.begin(episodes).items():
            if observation is None or not self._shows(observation, p.under_way[number]):
                say("an environment did not repeat itself (another machine or version?): starting its next episode")
                del p.under_way[number]

    def _shows(self, observation: Observation, episode: Episode) -> bool:
        """Tests whether an observation is the episode's newest."""
        pixels, proprioception = self._spec.read(observation)
        before = episode.proprioception
        same = np.array_equal(pixels, episode.observation)
        return same and (proprioception is None or before is None or np.array_equal(proprioception, before))

    def _episode_seed(self, number: int) -> int:
        return derived_seed(self._seed, "training episode", number)
