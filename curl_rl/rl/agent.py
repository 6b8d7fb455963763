"""The agent: Soft Actor-Critic and a self-supervised objective on one shared encoder; one update of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from curl_rl.augment import center_crop, random_crops
from curl_rl.encoders import EncoderConfig, PixelEncoder, Precision, Projection, orthogonal_init
from curl_rl.losses import effective_rank
from curl_rl.objectives import (
    BatchInfo,
    Features,
    Result,
    ViewSpec,
    build_objective,
    registry,
)
from curl_rl.objectives.momentum import momentum_copy, move_towards
from curl_rl.rl import sac
from curl_rl.rl.replay import Batch

Trained = Literal["encoder", "objective"]


@dataclass(frozen=True)
class AgentConfig:
    """Soft Actor-Critic on pixels with an auxiliary objective. The defaults are the CURL paper's (Table 3)."""

    objective: registry.ObjectiveName = "curl"
    """The self-supervised method that trains the encoder along with the critic; none: the critic alone."""
    update_rule: Literal["exact", "joint"] = "exact"
    """exact: critics, actor and objective in turn, as in the paper. joint: critics and objective share one pass and one
    gradient of the encoder, and the actor looks at the features of that pass; faster, and another algorithm."""
    batch_size: int = 512
    """Transitions in one update."""
    crop: int = 84
    """Side of the square that the encoder sees, cropped from the rendered frame, in pixels."""
    every_crop_offset: bool = True
    """Draw crops from all possible places. False leaves the last row and column out, as the released code does."""
    discount: float = 0.99
    """Discount of one agent step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Shape of the shared encoder."""
    hidden: int = 1024
    """Width of the two hidden layers of the actor and of each critic."""
    log_std_min: float = -10.0
    """Smallest log standard deviation of the policy, before squashing."""
    log_std_max: float = 2.0
    """Largest log standard deviation of the policy, before squashing."""
    actor_lr: float = 1e-3
    """Adam's learning rate for the actor."""
    critic_lr: float = 1e-3
    """Adam's learning rate for the critics and, through their loss, the encoder."""
    encoder_lr: float = 1e-3
    """Adam's learning rate for the objective: its heads and, through its loss, the encoder (in a joint update critic_lr
    is the encoder's)."""
    temperature_lr: float = 1e-4
    """Adam's learning rate for the temperature."""
    actor_beta: float = 0.9
    """Adam's first decay rate for the actor."""
    critic_beta: float = 0.9
    """Adam's first decay rate for the critics."""
    temperature_beta: float = 0.5
    """Adam's first decay rate for the temperature."""
    initial_temperature: float = 0.1
    """The temperature α at the start."""
    critic_tau: float = 0.01
    """Share of the critics that their target takes over each time it moves."""
    encoder_tau: float = 0.05
    """Share of the encoder that its target takes over each time it moves."""
    actor_every: int = 2
    """Updates from one actor and temperature step to the next."""
    target_every: int = 2
    """Updates from one move of the targets to the next."""
    objective_every: int = 1
    """Updates from one step of the objective to the next."""
    detach_encoder: bool = False
    """Stop the critics' loss at the convolutions, so that the objective alone trains them."""
    freeze_encoder: bool = False
    """Leave the encoder as it starts, given by --encoder or random: nothing trains it, it is its own target, and an
    update passes it twice, without gradient. There is no objective then (--agent.objective none)."""
    objective_optimizers: tuple[tuple[Trained, ...], ...] = (("encoder", "objective"),)
    """The Adams that take the objective's step one after the other, each with what it trains."""
    precision: Precision | Literal["auto"] = "float32"
    """What the convolutions compute in; auto: bfloat16 where the hardware is fast in it, else float32."""

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "crop", "n_step", "hidden", "actor_every", "target_every", "objective_every")
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"agent.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("actor_lr", "critic_lr", "encoder_lr", "temperature_lr", "initial_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"agent.{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("discount", "critic_tau", "encoder_tau"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"agent.{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("actor_beta", "critic_beta", "temperature_beta"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"agent.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not self.log_std_min < self.log_std_max:
            raise ValueError(f"agent.log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}")
        if self.freeze_encoder and self.objective != "none":
            raise ValueError(
                f"agent.freeze_encoder leaves agent.objective {self.objective} nothing to train but its own heads: "
                "add --agent.objective none"
            )
        if self.freeze_encoder and self.detach_encoder:
            raise ValueError(
                "agent.detach_encoder must be false where agent.freeze_encoder is true: nothing trains it then"
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
    """All that one update depends on beside the agent's own state: crops and noise are already drawn."""

    observation: Tensor
    """View 0: ``(B, C, S, S)`` uint8."""
    action: Tensor
    """``(B, A)``."""
    reward: Tensor
    """``(B, 1)``, n steps summed."""
    discount: Tensor
    """``(B, 1)``, what the next state's value is multiplied by; 0 where it is terminal."""
    next_observation: Tensor
    """``(B, C, S, S)`` uint8."""
    views: dict[ViewSpec, Tensor]
    """Further views that the objective asks for, each ``(B, C, S, S)`` uint8."""
    next_noise: Tensor
    """``(B, A)`` standard normal: draws the action at the next observation, in the critics' target."""
    noise: Tensor
    """``(B, A)`` standard normal: draws the action of the actor's loss."""


class Due(NamedTuple):
    """Who takes a step in one update; the critics always do."""

    actor: bool
    targets: bool
    objective: bool


class Agent(nn.Module):
    """SAC whose critics and objective train one encoder.

    Args:
        observation_shape: ``(C, H, W)`` of the environment's observation; the agent sees a crop of it.
        action_dim: size of the action, which lies in [−1, 1].
        config: the agent's settings.
        objectives: the settings of each objective, of which ``config.objective`` names one.

    Weights are drawn from torch's global generator. ``state_dict`` holds the networks; ``training_state`` the
    optimizers as well.

    Raises:
        ValueError: the crop is larger than the observation, or too small for the encoder.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        config: AgentConfig,
        objectives: registry.ObjectiveConfigs | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = observation_shape
        if config.crop > min(height, width):
            raise ValueError(f"agent.crop {config.crop} is larger than the rendered frame of {height}×{width}")
        if config.precision == "auto":
            raise ValueError("agent.precision auto must be resolved for a device first: see curl_rl.runs.compute")
        self.config = config
        self.action_dim = action_dim
        self.target_entropy = -float(action_dim)
        self.updates = 0

        latent = config.encoder.latent
        self.encoder = PixelEncoder((channels, config.crop, config.crop), config.encoder, config.precision)
        self.critic = sac.TwinCritic(latent, action_dim, config.hidden)
        # The actor shares the convolutions; its own linear layer and norm learn from its loss.
        map_shape = self.encoder.convolutions.output_shape
        self.actor_projection = Projection(map_shape, latent).apply(orthogonal_init)
        self.actor = sac.Actor(latent, action_dim, config.hidden, config.log_std_min, config.log_std_max)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_temperature).log())
        self.objective = build_objective(config.objective, self.encoder.feature_spec, objectives)
        # What stands still is its own slow copy.
        frozen = config.freeze_encoder
        self.target_encoder = self.encoder.requires_grad_(False) if frozen else momentum_copy(self.encoder)
        self.target_critic = momentum_copy(self.critic)
        self._make_optimizers()

    def start_from(self, encoder: PixelEncoder) -> None:
        """Copies the weights of a trained encoder of the same shape; to be called before the first update.

        Encoder and target start as it is. So does the actor's projection, whose convolutions are the encoder's: a
        random one would read that map in a way of its own, and throw away what the trained one had learnt to read.

        Raises:
            ValueError: updates were made already, or the encoder has another shape. Nothing is copied then.
        """
        if self.updates:
            raise ValueError(f"an encoder is what an agent starts from, and this one has made {self.updates} updates")
        shapes = [(one.observation_shape, one.config) for one in (encoder, self.encoder)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the encoder has the shape {shapes[0]} and the agent's {shapes[1]}: they must agree")
        weights = encoder.state_dict()
        self.encoder.load_state_dict(weights)
        self.target_encoder.load_state_dict(weights)
        self.actor_projection.load_state_dict(encoder.projection.state_dict())

    def _make_optimizers(self) -> None:
        c = self.config
        # The released code's Adam over the actor holds the shared convolutions too, but no gradient reaches them there.
        self.actor_parameters = [*self.actor_projection.parameters(), *self.actor.parameters()]
        self.actor_optimizer = torch.optim.Adam(self.actor_parameters, c.actor_lr, (c.actor_beta, 0.999), fused=True)
        of_encoder = [] if c.freeze_encoder else [*self.encoder.parameters()]
        self.critic_parameters = [*of_encoder, *self.critic.parameters()]
        self.critic_optimizer = torch.optim.Adam(
            self.critic_parameters, c.critic_lr, (c.critic_beta, 0.999), fused=True
        )
        self.temperature_optimizer = torch.optim.Adam(
            [self.log_alpha], c.temperature_lr, (c.temperature_beta, 0.999), fused=True
        )
        self.objective_optimizers: list[torch.optim.Optimizer] = []
        self.objective_parameters: list[nn.Parameter] = []
        if self.objective is not None:
            self.objective_parameters = [*self.encoder.parameters(), *self.objective.parameters()]
            groups: dict[Trained, list[dict[str, Any]]] = {
                "encoder": [{"params": list(self.encoder.parameters())}],
                "objective": self.objective.parameter_groups(),
            }
            # In a joint update the critics' optimizer takes the encoder's one step.
            joint: tuple[tuple[Trained, ...], ...] = (("objective",),)
            for trained in joint if c.update_rule == "joint" else c.objective_optimizers:
                # Fresh dictionaries: an optimizer writes into the groups that it is given.
                own = [dict(group) for name in trained for group in groups[name] if group["params"]]
                self.objective_optimizers.append(torch.optim.Adam(own, c.encoder_lr, fused=True))

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
        """Lets CUDA graphs capture the optimizers' steps; the numbers stay the same."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["capturable"] = True

    @property
    def alpha(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log_alpha.exp()

    @property
    def due(self) -> Due:
        """Who takes a step in the next update."""
        c, step = self.config, self.updates
        return Due(
            actor=step % c.actor_every == 0,
            targets=step % c.target_every == 0,
            objective=self.objective is not None and step % c.objective_every == 0,
        )

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """How many steps ahead the objective's views lie, each offset once; the replay is asked for them."""
        return tuple(sorted({view.future for view in self._views() if view.future}))

    # ------------------------------------------------------------------ acting

    @torch.no_grad()
    def act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions ``(B, A)`` for ``(B, C, H, W)`` observations, from their centre crop.

        With ``(B, A)`` standard normal ``noise`` the policy is sampled; without, its mean is taken.
        """
        view = center_crop(observation, self.config.crop)
        features = self.actor_projection(self.encoder.convolutions(view))
        policy = self.actor(features, features.new_zeros(len(features), self.action_dim) if noise is None else noise)
        action: Tensor = policy.mean if noise is None else policy.action
        return action

    # ---------------------------------------------------------------- learning

    def draw(self, batch: Batch, generator: torch.Generator) -> UpdateInputs:
        """Draws all that is random in one update: the crops and the policy's noise. The generator is on the device."""

        def crops(frames: Tensor, count: int) -> list[Tensor]:
            every_offset = self.config.every_crop_offset
            return random_crops(frames, self.config.crop, generator, count, every_offset=every_offset)

        def noise() -> Tensor:
            like = self.log_alpha
            return torch.randn(batch.action.shape, generator=generator, device=like.device, dtype=like.dtype)

        wanted = dict.fromkeys((ViewSpec(0), *self._views()))  # the critics want view 0, whatever the objective does
        views: dict[ViewSpec, Tensor] = {}
        for moment, frames in zip((0, *self.future_offsets), (batch.observation, *batch.future), strict=True):
            specs = [spec for spec in wanted if spec.future == moment]
            views |= zip(specs, crops(frames, len(specs)), strict=True)
        (next_observation,) = crops(batch.next_observation, 1)
        observation = views.pop(ViewSpec(0))
        return UpdateInputs(
            observation, batch.action, batch.reward, batch.discount, next_observation, views, noise(), noise()
        )

    def update(self, inputs: UpdateInputs, *, diagnose: bool = False) -> dict[str, Tensor]:
        """One update of everything that is due.

        ``diagnose`` adds the metrics that cost something (the embedding's effective rank); it changes nothing else.
        Returns detached scalars by name.
        """
        learn = self._update_joint if self.config.update_rule == "joint" else self._update_exact
        metrics = learn(inputs, self.due, diagnose)
        self.updates += 1
        return metrics

    def _update_exact(self, inputs: UpdateInputs, due: Due, diagnose: bool) -> dict[str, Tensor]:
        """Critics, actor and temperature, targets, objective: each looks at what those before it have learnt."""
        observed = self.encoder.encode(inputs.observation)
        loss, metrics = self._critic_loss(inputs, observed)
        metrics["critic/gradient_norm"] = _step(loss, self.critic_parameters, [self.critic_optimizer])
        # The critics' step was the last that changes the encoder before the objective's own: one pass through it serves
        # the actor, the critics under the actor's action, and the objective's query. A frozen one has not changed.
        if (due.actor or due.objective) and not self.config.freeze_encoder:
            with torch.set_grad_enabled(due.objective):
                observed = self.encoder.encode(inputs.observation)
        if due.actor:
            metrics |= self._update_actor(observed, inputs.noise)
        if due.targets:
            self._move_targets()
        if due.objective:
            result, more = self._objective_result(inputs, observed, diagnose)
            metrics |= more
            metrics["objective/gradient_norm"] = _step(
                result.loss, self.objective_parameters, self.objective_optimizers
            )
            self._after_objective_step(result, due)
        return metrics

    def _update_joint(self, inputs: UpdateInputs, due: Due, diagnose: bool) -> dict[str, Tensor]:
        """One pass over the observation for all: the encoder takes one step on the sum of both losses' gradients.

        The actor looks at the features of that pass, so at the encoder before the step. Targets move last.
        """
        observed = self.encoder.encode(inputs.observation)
        loss, metrics = self._critic_loss(inputs, observed)
        parameters, optimizers = self.critic_parameters, list[torch.optim.Optimizer]([self.critic_optimizer])
        if due.objective:
            assert self.objective is not None
            result, more = self._objective_result(inputs, observed, diagnose)
            metrics |= more
            loss = loss + result.loss
            parameters = [*parameters, *self.objective.parameters()]
            optimizers = [*optimizers, *self.objective_optimizers]
        metrics["critic/gradient_norm"] = _step(loss, parameters, optimizers)
        if due.actor:
            metrics |= self._update_actor(observed, inputs.noise)
        if due.targets:
            self._move_targets()
        if due.objective:
            self._after_objective_step(result, due)
        return metrics

    def _critic_loss(self, inputs: UpdateInputs, observed: Features) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            if self.config.freeze_encoder:
                next_vector, next_map, _ = self.encoder.encode(inputs.next_observation)
            else:
                next_map = self.encoder.convolutions(inputs.next_observation)
                next_vector = self.target_encoder(inputs.next_observation)
            policy = self.actor(self.actor_projection(next_map), inputs.next_noise)
            next_q = self.target_critic(next_vector, policy.action)
            target = sac.td_target(inputs.reward, inputs.discount, next_q, policy.log_prob, self.alpha)
        detach = self.config.detach_encoder
        features = self.encoder.projection(observed.map.detach()) if detach else observed.vector
        q = self.critic(features, inputs.action)
        loss = sac.critic_loss(q, target)
        return loss, {
            "critic/loss": loss.detach(),
            "critic/q": q.detach().mean(),
            "critic/target": target.mean(),
            "batch/reward": inputs.reward.mean(),
        }

    def _move_targets(self) -> None:
        move_towards(self.target_critic.parameters(), self.critic.parameters(), self.config.critic_tau)
        if not self.config.freeze_encoder:
            move_towards(self.target_encoder.parameters(), self.encoder.parameters(), self.config.encoder_tau)

    def _update_actor(self, observed: Features, noise: Tensor) -> dict[str, Tensor]:
        alpha = self.alpha
        policy = self.actor(self.actor_projection(observed.map.detach()), noise)
        q = self.critic(observed.vector.detach(), policy.action)
        loss = sac.actor_loss(q, policy.log_prob, alpha.detach())
        gradient_norm = _step(loss, self.actor_parameters, [self.actor_optimizer])
        temperature_loss = sac.temperature_loss(alpha, policy.log_prob, self.target_entropy)
        _step(temperature_loss, [self.log_alpha], [self.temperature_optimizer])
        return {
            "actor/loss": loss.detach(),
            "actor/entropy": -policy.log_prob.detach().mean(),
            "actor/gradient_norm": gradient_norm,
            "temperature/loss": temperature_loss.detach(),
            "temperature/value": alpha.detach(),
        }

    def _objective_result(
        self, inputs: UpdateInputs, observed: Features, diagnose: bool
    ) -> tuple[Result, dict[str, Tensor]]:
        assert self.objective is not None
        online = [
            observed if spec == ViewSpec(0) else self.encoder.encode(inputs.views[spec])
            for spec in self.objective.online_views
        ]
        with torch.no_grad():
            target = [
                self.target_encoder.encode(inputs.observation if spec == ViewSpec(0) else inputs.views[spec])
                for spec in self.objective.target_views
            ]
        result = self.objective(online, target, BatchInfo())
        metrics = {"loss": result.loss.detach(), **result.metrics}
        if diagnose:
            metrics["effective_rank"] = effective_rank(online[0].vector.detach())
        return result, {f"objective/{name}": value for name, value in metrics.items()}

    def _after_objective_step(self, result: Result, due: Due) -> None:
        assert self.objective is not None
        momentum = 1 - self.config.encoder_tau if due.targets else 1.0
        self.objective.after_step(result.carry, result.loss.new_full((), momentum))

    def _views(self) -> Iterator[ViewSpec]:
        if self.objective is not None:
            # dict.fromkeys: each view once, in a fixed order, because the order decides which random numbers it gets.
            yield from dict.fromkeys((*self.objective.online_views, *self.objective.target_views))

    # ------------------------------------------------------------------ saving

    def training_state(self) -> dict[str, Any]:
        """Networks, objective, optimizers and the count of updates: all that an update depends on and changes."""
        return {
            "networks": self.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "updates": self.updates,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`training_state` gave."""
        self.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:
                group["capturable"] = False  # that of the machine that saved it; a Learner decides anew
        self.updates = state["updates"]


def _step(loss: Tensor, parameters: list[nn.Parameter], optimizers: Iterable[torch.optim.Optimizer]) -> Tensor:
    """One gradient of ``loss`` by ``parameters``, taken by each optimizer in turn; returns the gradient's norm."""
    loss.backward(inputs=parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    for optimizer in optimizers:
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return norm
