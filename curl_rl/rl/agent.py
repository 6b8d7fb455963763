"""The agent: Soft Actor-Critic and a self-supervised objective on one shared encoder.

Networks, optimizers, acting, the random draws of an update, and checkpoint state. The update rules are in ``update``
(the paper's), ``joint_update`` and ``frozen_update``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from curl_rl.augment import center_crop, random_crops
from curl_rl.encoders import EncoderConfig, PixelEncoder, Precision, Projection, orthogonal_init
from curl_rl.objectives import DataSpec, ObjectiveUser, ViewSpec, registry
from curl_rl.objectives.composite import build_composite, check_methods, methods_in
from curl_rl.objectives.momentum import momentum_copy
from curl_rl.ranges import at_least, check_ranges, one_or_each, positive_finite, within
from curl_rl.rl import sac
from curl_rl.rl.frozen_update import frozen_update
from curl_rl.rl.joint_update import joint_update
from curl_rl.rl.replay import Batch
from curl_rl.rl.update import exact_update

Trained = Literal["encoder", "objective"]

REPLAY = ObjectiveUser("agent.objective", "a replay", has=frozenset({"actions"}))
"""What the agent offers to a method."""


@dataclass(frozen=True)
class AgentConfig:
    """Soft Actor-Critic on pixels with an auxiliary objective. The defaults are the CURL paper's (Table 3)."""

    objective: registry.ObjectiveName | str = "curl"
    """Self-supervised method that trains the encoder along with the critic, or several joined by +, such as curl+cpc;
    none: the critic alone."""
    objective_weight: Annotated[float | tuple[float, ...], one_or_each(positive_finite)] = 1.0
    """Factor on the objective's loss; for several one factor for all, or a list with one for each, such as [1,0.1]. In
    an exact update only their proportions matter, because Adam cancels a common factor."""
    update_rule: Literal["exact", "joint"] = "exact"
    """exact: critics, actor and objective in turn, as in the paper. joint: critics and objective share one pass and one
    gradient of the encoder, and the actor uses the features of that pass; faster, but a different algorithm."""
    batch_size: Annotated[int, at_least(1)] = 512
    """Transitions in one update."""
    crop: Annotated[int, at_least(1)] = 84
    """Side of the square crop of the rendered frame that the encoder sees, in pixels."""
    every_crop_offset: bool = True
    """Draw crops from all possible offsets. False leaves out the last row and column, as the released code does."""
    discount: Annotated[float, within("[0, 1]")] = 0.99
    """Discount per agent step."""
    n_step: Annotated[int, at_least(1)] = 1
    """Rewards summed before bootstrapping."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Shape of the shared encoder."""
    hidden: Annotated[int, at_least(1)] = 1024
    """Width of the two hidden layers of the actor and of each critic."""
    log_std_min: float = -10.0
    """Smallest log standard deviation of the policy, before squashing."""
    log_std_max: float = 2.0
    """Largest log standard deviation of the policy, before squashing."""
    actor_lr: Annotated[float, positive_finite] = 1e-3
    """Adam's learning rate for the actor."""
    critic_lr: Annotated[float, positive_finite] = 1e-3
    """Adam's learning rate for the critics and, through their loss, the encoder."""
    encoder_lr: Annotated[float, positive_finite] = 1e-3
    """Adam's learning rate for the objective: its heads and, through its loss, the encoder (a joint update trains the
    encoder with critic_lr)."""
    temperature_lr: Annotated[float, positive_finite] = 1e-4
    """Adam's learning rate for the temperature."""
    actor_beta: Annotated[float, within("[0, 1)")] = 0.9
    """Adam's first decay rate for the actor."""
    critic_beta: Annotated[float, within("[0, 1)")] = 0.9
    """Adam's first decay rate for the critics."""
    temperature_beta: Annotated[float, within("[0, 1)")] = 0.5
    """Adam's first decay rate for the temperature."""
    initial_temperature: Annotated[float, positive_finite] = 0.1
    """Initial temperature α."""
    critic_tau: Annotated[float, within("[0, 1]")] = 0.01
    """Step size τ of the critics' target: θ' ← (1 − τ) θ' + τ θ."""
    encoder_tau: Annotated[float, within("[0, 1]")] = 0.05
    """Step size τ of the encoder's target."""
    actor_every: Annotated[int, at_least(1)] = 2
    """Updates between steps of the actor and the temperature."""
    target_every: Annotated[int, at_least(1)] = 2
    """Updates between steps of the targets."""
    objective_every: Annotated[int, at_least(1)] = 1
    """Updates between steps of the objective."""
    detach_encoder: bool = False
    """Stop the critics' gradient at the convolutions, so that only the objective trains them."""
    freeze_encoder: bool = False
    """Keep the initial encoder, from --encoder or random: nothing trains it, it is its own target, and an update runs
    it twice, without gradient. Requires --agent.objective none."""
    objective_optimizers: tuple[tuple[Trained, ...], ...] = (("encoder", "objective"),)
    """Adam optimizers that step on the objective's gradient in turn, each with the parts it trains."""
    precision: Precision | Literal["auto"] = "float32"
    """Precision of the convolutions; auto: bfloat16 on hardware that computes it fast, else float32."""

    def __post_init__(self) -> None:
        check_ranges(self, "agent")
        check_methods(REPLAY, self.objective)
        weights, methods = self.objective_weight, methods_in(self.objective)
        if methods and isinstance(weights, tuple) and len(weights) != len(methods):
            raise ValueError(
                f"agent.objective_weight must be one number, or one for each of {' and '.join(methods)}, got "
                f"{list(weights)}"
            )
        if not self.log_std_min < self.log_std_max:
            raise ValueError(f"agent.log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}")
        if self.freeze_encoder and self.objective != "none":
            raise ValueError(
                f"agent.freeze_encoder leaves agent.objective {self.objective} nothing to train but its own heads: "
                "add --agent.objective none"
            )
        if self.freeze_encoder and self.detach_encoder:
            raise ValueError(
                "agent.detach_encoder must be false when agent.freeze_encoder is true: a frozen encoder is not trained"
            )
        if self.objective != "none" and not self.objective_optimizers:
            raise ValueError("agent.objective_optimizers must name at least one, such as [[encoder, objective]]")
        if self.update_rule == "joint" and self.objective_optimizers != (("encoder", "objective"),):
            raise ValueError(
                "agent.update_rule joint takes one step with the critics' optimizer: leave agent.objective_optimizers "
                f"[[encoder, objective]], got {[list(own) for own in self.objective_optimizers]}"
            )
        if not all(self.objective_optimizers) or not any("objective" in own for own in self.objective_optimizers):
            raise ValueError(
                f"agent.objective_optimizers {[list(own) for own in self.objective_optimizers]} must each train "
                "something, and one of them the objective, such as [[encoder, objective]]"
            )


class UpdateInputs(NamedTuple):
    """The inputs of one update besides the agent's own state, with crops and noise already drawn."""

    observation: Tensor
    """View 0: ``(B, C, S, S)`` uint8."""
    action: Tensor
    """``(B, A)``."""
    reward: Tensor
    """``(B, 1)``, n steps summed."""
    discount: Tensor
    """``(B, 1)``, the factor of the next state's value; 0 if that state is terminal."""
    next_observation: Tensor
    """``(B, C, S, S)`` uint8."""
    views: dict[ViewSpec, Tensor]
    """Further views for the objective, each ``(B, C, S, S)`` uint8."""
    next_noise: Tensor
    """``(B, A)`` standard normal: draws the action at the next observation, in the critics' target."""
    noise: Tensor
    """``(B, A)`` standard normal: draws the action of the actor's loss."""
    actions_ahead: Tensor | None = None
    """``(B, K, A)``: the actions up to the objective's farthest future offset; see ``replay.Batch``."""
    proprioception: Tensor | None = None
    """``(B, P)`` float32, beside ``observation``; None if the environment has none."""
    next_proprioception: Tensor | None = None
    """``(B, P)`` float32, beside ``next_observation``."""


class Due(NamedTuple):
    """The parts that take a step in one update; the critics always do."""

    actor: bool
    targets: bool
    objective: bool


class Agent(nn.Module):
    """SAC whose critics and objective train one encoder.

    Args:
        observation_shape: ``(C, H, W)`` of the environment's observation; the agent sees a crop of it.
        action_dim: size of the action vector; actions are in [−1, 1].
        config: the agent's settings.
        objectives: the settings of all objectives; ``config.objective`` selects one or more.
        proprioception: P, the length of the vector beside the pixels; 0: there is none. Actor and critics take it as
            it is, in addition to the encoder's features; encoder and objective never see it.

    Weights are drawn from torch's global generator. ``state_dict`` holds the networks; ``training_state`` adds the
    optimizers.

    Raises:
        ValueError: the crop is larger than the observation or too small for the encoder, or the objective needs data
            that a replay lacks, such as labels.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        config: AgentConfig,
        objectives: registry.ObjectiveConfigs | None = None,
        *,
        proprioception: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = observation_shape
        if config.crop > min(height, width):
            raise ValueError(f"agent.crop {config.crop} is larger than the rendered frame of {height}×{width}")
        if config.precision == "auto":
            raise ValueError("agent.precision auto must be resolved for a device first: see curl_rl.runs.compute")
        self.config = config
        self.action_dim = action_dim
        self.proprioception = proprioception
        self.target_entropy = -float(action_dim)
        self.updates = 0

        latent = config.encoder.latent
        seen = latent + proprioception  # by actor and critics
        self.encoder = PixelEncoder((channels, config.crop, config.crop), config.encoder, config.precision)
        self.critic = sac.TwinCritic(seen, action_dim, config.hidden)
        # The actor shares the convolutions; its own linear layer and norm learn from its loss.
        map_shape = self.encoder.convolutions.output_shape
        self.actor_projection = Projection(map_shape, latent).apply(orthogonal_init)
        self.actor = sac.Actor(seen, action_dim, config.hidden, config.log_std_min, config.log_std_max)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_temperature).log())
        data = DataSpec(action_dim=action_dim)
        self.objective = build_composite(
            config.objective, config.objective_weight, self.encoder.feature_spec, objectives, data, REPLAY
        )
        # A frozen encoder is its own target.
        frozen = config.freeze_encoder
        self.target_encoder = self.encoder.requires_grad_(False) if frozen else momentum_copy(self.encoder)
        self.target_critic = momentum_copy(self.critic)
        self._make_optimizers()
        rules = {"exact": exact_update, "joint": joint_update}
        self._update_rule = frozen_update if frozen else rules[config.update_rule]

    def start_from(self, encoder: PixelEncoder) -> None:
        """Copies the weights of a trained encoder of the same shape; call it before the first update.

        The encoder, its target and the actor's projection all start from these weights. The actor shares the encoder's
        convolutions, so a random projection would discard what the trained one has learned about their map.

        Raises:
            ValueError: the agent has already been updated, or the encoder has another shape. Nothing is copied.
        """
        if self.updates:
            raise ValueError(f"an agent must start from an encoder before its first update, got {self.updates} updates")
        shapes = [(one.observation_shape, one.config) for one in (encoder, self.encoder)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the encoder's shape must be the agent's, {shapes[1]}, got {shapes[0]}")
        weights = encoder.state_dict()
        self.encoder.load_state_dict(weights)
        self.target_encoder.load_state_dict(weights)
        self.actor_projection.load_state_dict(encoder.projection.state_dict())

    def _make_optimizers(self) -> None:
        c = self.config
        # The released code's Adam over the actor holds the shared convolutions too, but no gradient reaches them there.
        self.actor_parameters = [*self.actor_projection.parameters(), *self.actor.parameters()]
        self.actor_optimizer = _adam(self.actor_parameters, c.actor_lr, c.actor_beta)
        of_encoder = [] if c.freeze_encoder else [*self.encoder.parameters()]
        self.critic_parameters = [*of_encoder, *self.critic.parameters()]
        self.critic_optimizer = _adam(self.critic_parameters, c.critic_lr, c.critic_beta)
        self.temperature_optimizer = _adam([self.log_alpha], c.temperature_lr, c.temperature_beta)
        self.objective_parameters: list[nn.Parameter] = []
        self.objective_optimizers: list[torch.optim.Optimizer] = []
        if self.objective is not None:
            self.objective_parameters = [*self.encoder.parameters(), *self.objective.parameters()]
            groups: dict[Trained, list[dict[str, Any]]] = {
                "encoder": [{"params": list(self.encoder.parameters())}],
                "objective": self.objective.parameter_groups(),
            }
            # In a joint update the critics' optimizer takes the encoder's one step.
            joint: tuple[tuple[Trained, ...], ...] = (("objective",),)
            for trained in joint if c.update_rule == "joint" else c.objective_optimizers:
                # Copies: an optimizer modifies the groups passed to it.
                own = [dict(group) for name in trained for group in groups[name] if group["params"]]
                self.objective_optimizers.append(_adam(own, c.encoder_lr))

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimizer by name."""
        named = {
            "actor": self.actor_optimizer,
            "critic": self.critic_optimizer,
            "temperature": self.temperature_optimizer,
        }
        return named | {f"objective{i}": optimizer for i, optimizer in enumerate(self.objective_optimizers)}

    def make_capturable(self) -> None:
        """Lets CUDA graphs capture the optimizers' steps, without changing their results."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"] = True

    @property
    def alpha(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_alpha.exp()

    @property
    def due(self) -> Due:
        """The parts that take a step in the next update."""
        c, step = self.config, self.updates
        return Due(
            actor=step % c.actor_every == 0,
            targets=step % c.target_every == 0,
            objective=self.objective is not None and step % c.objective_every == 0,
        )

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """The future offsets of the objective's views, in steps, each once; the replay samples them."""
        return tuple(sorted({view.future for view in self._views() if view.future}))

    # ------------------------------------------------------------------ acting

    def policy(self, feature_map: Tensor, noise: Tensor, proprioception: Tensor | None = None) -> sac.Policy:
        """The policy on the encoder's map ``(B, C, h, w)`` and ``(B, P)`` proprioception, if there is any.

        ``(B, A)`` standard normal ``noise`` draws its action.
        """
        policy: sac.Policy = self.actor(sac.joined(self.actor_projection(feature_map), proprioception), noise)
        return policy

    @torch.no_grad()
    def act(self, observation: Tensor, noise: Tensor | None = None, proprioception: Tensor | None = None) -> Tensor:
        """Actions ``(B, A)`` for ``(B, C, H, W)`` observations, from their center crop, and ``(B, P)`` proprioception.

        Samples the policy with ``(B, A)`` standard normal ``noise``; without noise, returns its mean.
        """
        feature_map = self.encoder.convolutions(center_crop(observation, self.config.crop))
        if noise is None:
            no_noise = self.log_alpha.new_zeros(len(observation), self.action_dim)
            return self.policy(feature_map, no_noise, proprioception).mean
        return self.policy(feature_map, noise, proprioception).action

    # ---------------------------------------------------------------- learning

    def draw(self, batch: Batch, generator: torch.Generator) -> UpdateInputs:
        """Draws the randomness of one update, crops and policy noise, from a generator on the agent's device."""

        def crops(frames: Tensor, count: int) -> list[Tensor]:
            every_offset = self.config.every_crop_offset
            return random_crops(frames, self.config.crop, generator, count, every_offset=every_offset)

        def noise() -> Tensor:
            like = self.log_alpha
            return torch.randn(batch.action.shape, generator=generator, device=like.device, dtype=like.dtype)

        wanted = dict.fromkeys((ViewSpec(0), *self._views()))  # the critics always need view 0
        views: dict[ViewSpec, Tensor] = {}
        for moment, frames in zip((0, *self.future_offsets), (batch.observation, *batch.future), strict=True):
            specs = [spec for spec in wanted if spec.future == moment]
            views |= zip(specs, crops(frames, len(specs)), strict=True)
        (next_observation,) = crops(batch.next_observation, 1)
        observation = views.pop(ViewSpec(0))
        return UpdateInputs(
            observation,
            batch.action,
            batch.reward,
            batch.discount,
            next_observation,
            views,
            next_noise=noise(),
            noise=noise(),
            actions_ahead=batch.actions_ahead,
            proprioception=batch.proprioception,
            next_proprioception=batch.next_proprioception,
        )

    def update(self, inputs: UpdateInputs, *, diagnose: bool = False) -> dict[str, Tensor]:
        """One update of all parts that are due, by the configured update rule.

        ``diagnose`` adds the expensive metrics (the embedding's effective rank) and changes nothing else. Returns
        detached scalars by name.
        """
        metrics = self._update_rule(self, inputs, self.due, diagnose)
        self.updates += 1
        return metrics

    def _views(self) -> Iterator[ViewSpec]:
        if self.objective is not None:
            # dict.fromkeys: each view once, in a fixed order, because the order determines its random numbers.
            yield from dict.fromkeys((*self.objective.online_views, *self.objective.target_views))

    # ------------------------------------------------------------------ saving

    def training_state(self) -> dict[str, Any]:
        """Networks, objective, optimizers and update count: all the state that an update reads and changes."""
        return {
            "networks": self.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "updates": self.updates,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`training_state`."""
        self.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:
                group["capturable"] = False  # the saving machine's choice; a Learner sets its own
        self.updates = state["updates"]


def _adam(parameters: list[nn.Parameter] | list[dict[str, Any]], lr: float, beta: float = 0.9) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr, (beta, 0.999), fused=True)
