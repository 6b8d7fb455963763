"""A linear classifier that learns beside pretraining: what the labels would say by now."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.heads import zero_linear


class OnlineProbe(nn.Module):
    """A linear classifier of detached features.

    Args:
        dim: size of the features.
        classes: how many classes there are.
        learning_rate: Adam's.

    It has its own optimizer and never touches the encoder's gradient; ``state_dict`` holds both, so that a resumed run
    goes on exactly. With many processes give each the whole batch, gathered: then all keep the same probe.
    """

    def __init__(self, dim: int, classes: int, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.classifier = zero_linear(dim, classes, torch.empty(0))
        self.optimizer = torch.optim.Adam(self.classifier.parameters(), learning_rate)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, classes)`` logits; no gradient reaches the features."""
        logits: Tensor = self.classifier(features.detach().to(self.classifier.weight.dtype))
        return logits

    def learn(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step on ``(B, D)`` features with ``(B,)`` labels.

        Returns:
            ``accuracy`` in [0, 1] and ``loss``, scalars, both from before the step.
        """
        with torch.enable_grad():
            logits = self(features)
            loss = F.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"accuracy": (logits.detach().argmax(1) == labels).float().mean(), "loss": loss.detach()}

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state, which a module's ``state_dict`` would leave out."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`get_extra_state` gave."""
        self.optimizer.load_state_dict(state)
