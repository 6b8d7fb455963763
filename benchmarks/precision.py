"""How far one update's losses and gradients in a lower precision lie from those in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import Row
from benchmarks.update import ACTIONS, SHAPE
from curl_rl.agent import Agent, AgentConfig
from curl_rl.encoders import Precision
from curl_rl.replay import Batch


def measure(device: torch.device, batch: int) -> list[Row]:
    """A row for each precision: the same weights, crops and noise as in float64, at the paper's network.

    An untrained network's Q values are near 0, so the critics' gradient comes from the rewards, which are drawn here.
    """
    exact = _losses_and_gradients(device, batch, "float32", torch.float64)
    rows = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        rounded = _losses_and_gradients(device, batch, precision, torch.float32)
        apart = ", ".join(
            f"{name} {((rounded[name].double() - value).norm() / value.norm()).item():.1e}"
            for name, value in exact.items()
        )
        rows.append(Row(f"distance of {precision} from float64, batch {batch}", note=f"relative: {apart}"))
    return rows


def _losses_and_gradients(
    device: torch.device, batch: int, precision: Precision, dtype: torch.dtype
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    agent = Agent(SHAPE, ACTIONS, AgentConfig(batch_size=batch, precision=precision)).to(device)
    generator = torch.Generator().manual_seed(0)

    def pixels() -> Tensor:
        # Smooth pictures: neighbouring pixels of frames are alike, and the errors of rounding do not average out.
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
    result = {}
    observed = agent.encoder.encode(inputs.observation)
    critic_loss, _ = agent._critic_loss(inputs, observed)
    contrastive, _ = agent._objective_result(inputs, observed, diagnose=False)
    for name, loss in (("critic", critic_loss), ("objective", contrastive.loss)):
        gradients = torch.autograd.grad(loss, list(agent.encoder.parameters()), retain_graph=True)
        result[f"{name} loss"] = loss.detach()
        result[f"{name} gradient of the encoder"] = torch.cat([gradient.flatten() for gradient in gradients])
    return result
