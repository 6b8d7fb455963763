"""Distance of one update's losses and gradients in a lower precision from those in float64."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from benchmarks.timing import Row
from benchmarks.update import ACTIONS, SHAPE
from curl_rl.encoders import Precision
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from curl_rl.rl.replay import Batch

UpdateRule = Literal["exact", "joint"]


def measure(device: torch.device, batch: int) -> list[Row]:
    """A row per precision and update rule; network of the paper; weights, crops and noise of the float64 run.

    Gradients are those passed to each optimizer in the first update, in which actor, targets and objective are all due.
    The weights stay fixed: Adam's first step has the same size for every weight, so weights with almost no gradient
    would count as much as any other. An untrained network's Q values are near 0, so the critics' gradient comes from
    the rewards, which are drawn here.
    """
    rows = []
    rules: tuple[UpdateRule, ...] = ("exact", "joint")
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for rule in rules:
        exact = losses_and_gradients(device, batch, "float32", rule, torch.float64)
        for precision in precisions:
            rounded = losses_and_gradients(device, batch, precision, rule, torch.float32)
            apart = ", ".join(
                f"{name} {((rounded[name].double() - value).norm() / value.norm()).item():.1e}"
                for name, value in exact.items()
            )
            rows.append(Row(f"distance of {precision} from float64, {rule}, batch {batch}", note=f"relative: {apart}"))
    return rows


def losses_and_gradients(
    device: torch.device, batch: int, precision: Precision, rule: UpdateRule, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Losses of one update, and each optimizer's gradients as one vector, with weights of ``dtype``."""
    torch.manual_seed(0)
    config = AgentConfig(batch_size=batch, precision=precision, update_rule=rule)
    agent = Agent(SHAPE, ACTIONS, config).to(device)
    generator = torch.Generator().manual_seed(0)

    def pixels() -> Tensor:
        # Smooth images: neighboring pixels of frames are alike, so rounding errors do not average out.
        small = torch.rand(batch, SHAPE[0], 12, 12, generator=generator)
        large = torch.nn.functional.interpolate(small, SHAPE[1:], mode="bilinear")
        return (255 * large).to(torch.uint8).to(device)

    action = torch.rand(batch, ACTIONS, generator=generator) * 2 - 1
    reward, discount = torch.randn(batch, 1, generator=generator), torch.full((batch, 1), 0.99)
    action, reward, discount = (value.to(device) for value in (action, reward, discount))
    batch_of_frames = Batch(pixels(), action, reward, discount, pixels(), ())
    drawn = agent.draw(batch_of_frames, torch.Generator(device).manual_seed(0))
    numbers = ("action", "reward", "discount", "next_noise", "noise")
    inputs = drawn._replace(**{name: getattr(drawn, name).to(dtype) for name in numbers})
    agent.to(dtype)

    metrics, gradients = update_without_steps(agent, inputs)
    losses = {name: value for name, value in metrics.items() if name.endswith("/loss")}
    joined = {name: torch.cat([grad.flatten() for grad in own.values()]) for name, own in gradients.items()}
    return losses | {f"{name} gradient": value for name, value in joined.items()}


def update_without_steps(agent: Agent, inputs: UpdateInputs) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Metrics of one update in which everything is due, and the gradients passed to each optimizer, by parameter.

    No optimizer takes a step, then or later; momentum copies move.
    """
    gradients: dict[str, dict[str, Tensor]] = {}
    names = {parameter: name for name, parameter in agent.named_parameters()}
    for optimizer_name, optimizer in agent.optimizers.items():

        def handed(*_: object, name: str = optimizer_name, optimizer: torch.optim.Optimizer = optimizer) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            gradients[name] = {names[p]: p.grad for p in parameters if p.grad is not None}

        optimizer.step = handed  # type: ignore[method-assign, assignment]
    agent.updates = 0  # everything is due in the first update, whatever the intervals
    return agent.update(inputs), gradients
