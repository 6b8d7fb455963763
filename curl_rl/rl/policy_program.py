"""A policy as a program that needs no code of this package: see :mod:`curl_rl.artifacts.programs`."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.artifacts.programs import INPUT, Draw, Program, ProgramInput
from curl_rl.rl.policy_file import POLICY, describe
from curl_rl.rl.pretrained_policy import PretrainedPolicy

NOISE, PROPRIOCEPTION, OUTPUT = "noise", "proprioception", "action"
"""Names of the further inputs, of a sampling program and of one with proprioception, and of the output."""


def policy_program(
    policy: PretrainedPolicy,
    taken: ProgramInput = ProgramInput(),  # noqa: B008 (frozen)
    *,
    sampled: bool = False,
) -> Program:
    """The program of a policy: ``observation`` ``(batch, *shape)`` to ``action`` ``(batch, action_dim)`` in [−1, 1].

    The program crops the observations itself. Its action is the deterministic one; with ``sampled`` it takes a second
    input, standard normal ``noise`` ``(batch, action_dim)``, and returns the sampled action, which for noise of zeros
    is the deterministic one. If the policy takes proprioception, ``(batch, P)`` of it is the last input. The
    description lists the inputs in order under ``inputs``, and the ``output``.

    Args:
        policy: the policy, left unchanged.
        taken: the observations.
        sampled: sample by an input of noise.

    Raises:
        ValueError: the observations do not fit the policy.
    """
    encoder, size = policy.encoder, policy.action_dim
    inputs: dict[str, Draw] = {INPUT: lambda batch, generator: taken.random(encoder, batch, generator)}
    specs: list[dict[str, Any]] = [taken.spec(encoder)]  # refuses observations that do not fit
    restricted = PretrainedEncoder(
        copy.deepcopy(encoder.encoder).cpu(),
        encoder.rendered_size,
        encoder.provenance,
        layout=taken.layout,
        freeze=True,
    )
    module: nn.Module = PretrainedPolicy(
        restricted, copy.deepcopy(policy.actor).cpu(), stack=policy.stack, action_repeat=policy.action_repeat
    )
    if sampled:
        module = _Sampled(module).eval()
        inputs[NOISE] = lambda batch, generator: torch.randn(batch, size, generator=generator)
        shape = ["batch", size]
        specs.append({"name": NOISE, "shape": shape, "dtype": "float32", "distribution": "standard normal"})
    if width := policy.proprioception:
        inputs[PROPRIOCEPTION] = lambda batch, generator: torch.randn(batch, width, generator=generator)
        specs.append({"name": PROPRIOCEPTION, "shape": ["batch", width], "dtype": "float32", "range": None})
    output = {"name": OUTPUT, "shape": ["batch", size], "dtype": "float32", "range": [-1, 1], "sampled": sampled}
    return Program(POLICY, module, inputs, OUTPUT, {**describe(policy), "inputs": specs, "output": output})


class _Sampled(nn.Module):
    """A policy that takes its noise by position, as programs do."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor, noise: Tensor, proprioception: Tensor | None = None) -> Tensor:
        action: Tensor = self.policy(observations, proprioception, noise=noise)
        return action
