"""One update from replay to metrics: sample, crop and learn, eagerly or as a captured CUDA graph.

A graph launches all kernels of an update with one call; from Python, launching them takes longer than a fast GPU needs
to run them. Each replay of the graph draws new transitions, crops and noise: the range to sample from is on the device,
and the generators are registered with the graph.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from curl_rl.rl.agent import Agent, Due, UpdateInputs
from curl_rl.rl.replay import Batch, Replay
from curl_rl.runs.errors import UserError
from curl_rl.runs.storage import Storage

_WARM_UP = 2  # eager updates of each kind before its capture, in which the optimizers create their state


class Learner:
    """Updates an agent from a replay.

    Args:
        agent: the agent to update.
        replay: the replay to sample from.
        generator: draws crops and noise; on the agent's device.
        replay_generator: draws transitions; on the replay's storage device.
        capture: capture the update as CUDA graphs, one for each combination of parts that take a step (actor, targets,
            objective). The first updates of each kind, and updates with ``diagnose``, run eagerly.

    Attributes:
        newest: the last update's batch and the inputs drawn for it; None before the first.

    Raises:
        UserError: ``capture`` is set, and the agent or the replay is not on a GPU.
    """

    def __init__(
        self,
        agent: Agent,
        replay: Replay,
        generator: torch.Generator,
        replay_generator: torch.Generator,
        *,
        capture: bool = False,
    ) -> None:
        if capture:
            check_capture(generator.device, replay.storage)
        self.agent, self.replay = agent, replay
        self.generator, self.replay_generator = generator, replay_generator
        self.newest: tuple[Batch, UpdateInputs] | None = None
        self._capture = capture
        self._graphs: dict[Due, _CapturedUpdate] = {}
        self._warmed_up: Counter[Due] = Counter()
        if capture:
            agent.make_capturable()
            # Optimizers warn about capturable during the warm-up, which runs without a capture on purpose.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self._side_stream = torch.cuda.Stream(generator.device)

    def update(self, *, diagnose: bool = False) -> dict[str, Tensor]:
        """Updates the agent once. Returns its metrics, see :meth:`Agent.update`."""
        if not self._capture:
            return self._learn(diagnose)
        with torch.cuda.device(self.generator.device):  # streams and graphs use the current device
            return self._captured(diagnose)

    def sample(self) -> Batch:
        """Samples a batch with the agent's settings."""
        a = self.agent.config
        return self.replay.sample(
            a.batch_size,
            self.replay_generator,
            discount=a.discount,
            n_step=a.n_step,
            future=self.agent.future_offsets,
        )

    def _captured(self, diagnose: bool) -> dict[str, Tensor]:
        due = self.agent.due
        if diagnose or self._warmed_up[due] < _WARM_UP:
            self._warmed_up[due] += 1
            # PyTorch requires the warm-up of a capture to run on a side stream.
            side = self._side_stream
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                metrics = self._learn(diagnose)
            torch.cuda.current_stream().wait_stream(side)
            return metrics
        if due not in self._graphs:
            pool = next(iter(self._graphs.values())).graph.pool() if self._graphs else None
            self._graphs[due] = _CapturedUpdate(self, pool)
        else:
            self.agent.updates += 1  # the graph holds only device work
        return self._graphs[due].replay()

    def _learn(self, diagnose: bool) -> dict[str, Tensor]:
        batch = self.sample()
        inputs = self.agent.draw(batch, self.generator)
        self.newest = batch, inputs
        return self.agent.update(inputs, diagnose=diagnose)


def check_capture(device: torch.device, storage: Storage) -> None:
    """Checks that an update on ``device`` with a replay in ``storage`` can be captured.

    Raises:
        UserError: it cannot.
    """
    if device.type != "cuda":
        raise UserError(f"compute.capture: {device} has no CUDA graphs; leave it false, or choose a GPU with --device")
    if storage != "device":
        raise UserError(
            f"compute.capture needs the replay on the GPU, got a replay in {storage}: use --replay.storage device, "
            "with a smaller --replay.capacity if necessary"
        )


class _CapturedUpdate:
    """An update of one kind as a graph. Capturing executes no kernels; only :meth:`replay` does."""

    def __init__(self, learner: Learner, pool: Any) -> None:
        self.graph, self._learner = torch.cuda.CUDAGraph(), learner
        for generator in {learner.generator, learner.replay_generator}:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph, pool=pool):
            metrics = learner._learn(diagnose=False)
            self._values = torch.stack([value.float() for value in metrics.values()])
        self._names = list(metrics)
        self._newest = learner.newest

    def replay(self) -> dict[str, Tensor]:
        self.graph.replay()
        self._learner.newest = self._newest
        # A copy: the next replay writes its metrics into the same memory.
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))
