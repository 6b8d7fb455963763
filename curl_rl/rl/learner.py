"""One update from the replay to the metrics: sample, crop, learn; eagerly, or as a CUDA graph that was captured once.

A graph starts all of an update's kernels with one call, where Python would take longer to start them than a fast GPU
to run them. It draws new transitions, crops and noise each time: the replay keeps the range to draw from on the device,
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

_WARM_UP = 2  # eager updates of each kind before its capture: in them optimizers make their state


class Learner:
    """Updates an agent from a replay.

    Args:
        agent: it learns.
        replay: it remembers.
        generator: draws crops and noise; on the agent's device.
        replay_generator: draws transitions; on the replay's storage device.
        capture: capture the update as CUDA graphs, one for each set of those that take a step in it (actor, targets,
            objective). The first updates of each kind, and those that are diagnosed, run eagerly.

    Attributes:
        newest: the last update's batch and what was drawn for it; None before the first.

    Raises:
        UserError: ``capture``, and the agent or the replay is not on a GPU.
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
            # Optimizers complain of it in the warm-up, which is meant to run without a capture.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self._side_stream = torch.cuda.Stream(generator.device)

    def update(self, *, diagnose: bool = False) -> dict[str, Tensor]:
        """One update of the agent. Returns its metrics, see :meth:`Agent.update`."""
        if not self._capture:
            return self._learn(diagnose)
        with torch.cuda.device(self.generator.device):  # streams and graphs belong to the current one
            return self._captured(diagnose)

    def sample(self) -> Batch:
        """A batch as the agent wants it."""
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
            # On a stream of its own, as PyTorch asks of what warms up a capture.
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
            self.agent.updates += 1  # the graph holds the device's work only
        return self._graphs[due].replay()

    def _learn(self, diagnose: bool) -> dict[str, Tensor]:
        batch = self.sample()
        inputs = self.agent.draw(batch, self.generator)
        self.newest = batch, inputs
        return self.agent.update(inputs, diagnose=diagnose)


def check_capture(device: torch.device, storage: Storage) -> None:
    """Whether an update on this device, from a replay that lies there, can be captured.

    Raises:
        UserError: it cannot.
    """
    if device.type != "cuda":
        raise UserError(
            f"compute.capture: there are no CUDA graphs on {device}; leave it false, or use a GPU by --device"
        )
    if storage != "device":
        raise UserError(
            f"compute.capture: the replay would lie in {storage}, and an update can be captured only with the replay "
            "on the GPU: take --replay.storage device, with a smaller --replay.capacity if need be"
        )


class _CapturedUpdate:
    """An update of one kind as a graph. Capturing runs nothing; only :meth:`replay` does."""

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
