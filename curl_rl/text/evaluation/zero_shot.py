"""Classification without training: an image is of the class whose description is most similar (CLIP, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PROMPTS = ("{}", "a picture of {}", "an image of {}", "{}, a kind of thing")
"""Descriptions of a class, whose name takes the place of the braces."""


def check_prompts(prompts: Sequence[str]) -> None:
    """Checks that each prompt has one pair of braces.

    Raises:
        ValueError: one has none, or several.
    """
    if wrong := [prompt for prompt in prompts if prompt.count("{}") != 1]:
        raise ValueError(f"a prompt must have one pair of braces for the name of the class, got {wrong[0]!r}")


@torch.no_grad()
def class_embeddings(
    classes: Sequence[str], embed: Callable[[list[str]], Tensor], prompts: Sequence[str] = PROMPTS
) -> Tensor:
    """``(C, D)`` of length 1: the mean of the normalized embeddings of each class's prompts (section 3.1.4).

    Args:
        classes: names of the classes; underscores are read as spaces.
        embed: turns N texts into ``(N, D)`` embeddings.
        prompts: each with one pair of braces.

    Raises:
        ValueError: there are no classes or no prompts, or a prompt has no place for the name.
    """
    if not classes or not prompts:
        raise ValueError(f"classes and prompts must not be empty, got {len(classes)} and {len(prompts)}")
    check_prompts(prompts)
    texts = [prompt.replace("{}", name.replace("_", " ")) for name in classes for prompt in prompts]
    embeddings = F.normalize(embed(texts).float(), dim=1)
    return F.normalize(embeddings.view(len(classes), len(prompts), -1).mean(1), dim=1)


@torch.no_grad()
def zero_shot_accuracy(images: Tensor, labels: Tensor, classes: Tensor) -> float:
    """Share of the images whose most similar class is their own.

    Args:
        images: ``(N, D)`` embeddings, of any length.
        labels: ``(N,)`` positions in ``classes``.
        classes: ``(C, D)`` from :func:`class_embeddings`.
    """
    predicted = (F.normalize(images.float(), dim=1) @ classes.T).argmax(1)
    return float((predicted == labels).double().mean())
