"""A linear classifier that is trained alongside pretraining to track how well the features separate the classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.encoders.heads import zero_linear


class OnlineProbe(nn.Module):
    """A linear classifier on detached features.

    Args:
        dim: size of the features.
        classes: number of classes.
        learning_rate: Adam's learning rate.

    It has its own optimizer and never touches the encoder's gradient; ``state_dict`` holds both classifier and
    optimizer, so a run resumes exactly. With several processes, pass each the whole gathered batch: all then keep
    identical probes.
    """

    def __init__(self, dim: int, classes: int, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.classifier = zero_linear(dim, classes, torch.empty(0))
        self.optimizer = torch.optim.Adam(self.classifier.parameters(), learning_rate)

    def forward(self, features: Tensor) -> Tensor:
        """Maps ``(B, D)`` features to ``(B, classes)`` logits; no gradient reaches the features."""
        logits: Tensor = self.classifier(features.detach().to(self.classifier.weight.dtype))
        return logits

    def learn(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Takes one step on ``(B, D)`` features with ``(B,)`` labels.

        Returns:
            ``accuracy`` in [0, 1] and ``loss``, scalars, both computed before the step.
        """
        with torch.enable_grad():
            logits = self(features)
            loss = F.cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"accuracy": (logits.detach().argmax(1) == labels).float().mean(), "loss": loss.detach()}

    def get_extra_state(self) -> dict[str, Any]:
        """Adds the optimizer's state to ``state_dict``."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`get_extra_state`."""
        self.optimizer.load_state_dict(state)
