"""A trained policy with its preprocessing: from an environment's observations to actions."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.rl import sac
from curl_rl.rl.agent import Agent
from curl_rl.rl.config import EnvironmentConfig


class PretrainedPolicy(nn.Module):
    """The policy of a trained agent, for acting in your own code.

    ``policy(observations)`` takes ``(..., *image)`` with any batch shape, including none, and returns the deterministic
    actions ``(..., action_dim)``, in [−1, 1]. ``policy(observations, noise=...)`` returns sampled ones, by standard
    normal ``noise`` ``(..., action_dim)``. Observations are stacks of frames, oldest first, taken exactly as
    :class:`~curl_rl.PretrainedEncoder` takes them: uint8 or floats, channels first or last, cropped to the center.

    A policy of pixels and proprioception also takes the latter, ``policy(observations, proprioception)`` with
    ``(..., P)``: the vectors beside the newest frame, joined in the order of their names.

    Actions are in [−1, 1] whatever the bounds of the environment: the environment scales them, as ``envs.make`` and
    gymnasium's ``RescaleAction`` do. The policy computes in float32, has no gradients and is always in evaluation mode.

    Args:
        encoder: the preprocessing, the convolutions and the actor's own projection of their map.
        actor: the network from the projection to the action.
        stack: frames in an observation.
        action_repeat: environment steps for which the agent held each action in training.

    Raises:
        ValueError: in a call, observations or proprioception do not fit, or the noise has another shape than the
            actions.
    """

    def __init__(self, encoder: PretrainedEncoder, actor: sac.Actor, *, stack: int, action_repeat: int) -> None:
        super().__init__()
        self.encoder, self.actor = encoder, actor
        self.stack = stack
        """Frames in an observation."""
        self.action_repeat = action_repeat
        """Environment steps for which the agent held each action in training."""
        self.requires_grad_(False).eval()

    @property
    def action_dim(self) -> int:
        """Size of an action."""
        return self.actor.actions

    @property
    def proprioception(self) -> int:
        """P, the size of the proprioception; 0 if the policy takes none."""
        return self.actor.features - self.encoder.features

    @property
    def observation_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an observation as in training; C counts the channels of all frames."""
        return (self.encoder.observation_shape[0], self.rendered_size, self.rendered_size)

    @property
    def rendered_size(self) -> int:
        """Side of the frames that the agent was trained on, in pixels."""
        return self.encoder.rendered_size

    @property
    def provenance(self) -> dict[str, Any]:
        """How the agent was trained: task, frames, preset, seed, versions."""
        return self.encoder.provenance

    def train(self, mode: bool = True) -> PretrainedPolicy:
        return super().train(False)

    def forward(
        self, observations: Tensor, proprioception: Tensor | None = None, *, noise: Tensor | None = None
    ) -> Tensor:
        features = self.encoder(observations)
        shape = (*features.shape[:-1], self.action_dim)
        found = None if proprioception is None else proprioception.shape
        expected = (*features.shape[:-1], self.proprioception) if self.proprioception else None
        if found != expected:
            raise ValueError(
                f"proprioception must be {'left out' if expected is None else expected}, got "
                f"{'none' if found is None else tuple(found)}"
            )
        features = sac.joined(features, proprioception)
        if noise is None:
            mean: Tensor = self.actor(features, features.new_zeros(shape)).mean
            return mean
        if noise.shape != shape:
            raise ValueError(f"noise must have the shape of the actions, {tuple(shape)}, got {tuple(noise.shape)}")
        action: Tensor = self.actor(features, noise).action
        return action


def policy_of(
    agent: Agent,
    environment: EnvironmentConfig,
    provenance: dict[str, Any],
    *,
    scale: float = 1.0,
    layout: Layout = "auto",
) -> PretrainedPolicy:
    """A copy of an agent's policy, on the CPU.

    Args:
        agent: the agent.
        environment: the settings that it was trained with: size and stacking of the frames, action repeat.
        provenance: how the agent was trained, JSON-serializable.
        scale: factor on floating-point observations, as in :func:`~curl_rl.load_encoder`.
        layout: order of an observation's dimensions, as in :func:`~curl_rl.load_encoder`.

    Raises:
        ValueError: scale or layout is invalid.
    """
    network = copy.deepcopy(agent.encoder).cpu()
    network.projection = copy.deepcopy(agent.actor_projection).cpu()
    network.precision = "float32"
    encoder = PretrainedEncoder(network, environment.size, provenance, scale=scale, layout=layout, freeze=True)
    actor = copy.deepcopy(agent.actor).cpu()
    return PretrainedPolicy(encoder, actor, stack=environment.stack, action_repeat=environment.action_repeat)
