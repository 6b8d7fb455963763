"""Zero-shot classes with embeddings whose answers are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from curl_rl.text.evaluation.zero_shot import class_embeddings, zero_shot_accuracy


def spelled(texts: list[str]) -> torch.Tensor:
    """Counts of the letters a, b and c, with a length that must not matter."""
    return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts]) * len(texts[0])


def test_a_class_is_the_mean_of_its_normalized_prompts() -> None:
    found = class_embeddings(["a_a", "b"], spelled, ["{}", "c{}"])
    a, b, ac, bc = (torch.tensor(row) for row in ([1.0, 0, 0], [0.0, 1, 0], [2.0, 0, 1], [0.0, 1, 1]))
    expected = [F.normalize(a + F.normalize(ac, dim=0), dim=0), F.normalize(b + F.normalize(bc, dim=0), dim=0)]
    assert torch.allclose(found, torch.stack(expected))


def test_the_most_similar_class_counts() -> None:
    classes = class_embeddings(["a", "b", "c"], spelled, ["{}"])
    images = torch.tensor([[9.0, 1, 1], [0.1, 0.2, 0.3], [1.0, 1, 0.5], [0.0, 5, 4]])
    assert zero_shot_accuracy(images, torch.tensor([0, 2, 2, 1]), classes) == 0.75


@pytest.mark.parametrize(
    ("classes", "prompts", "message"),
    [
        (["a"], [], "must not be empty, got 1 and 0"),
        ([], ["{}"], "got 0 and 1"),
        (["a"], ["{}", "a"], "one pair of braces"),
    ],
)
def test_prompts_need_a_place_for_the_name(classes: list[str], prompts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_embeddings(classes, spelled, prompts)
