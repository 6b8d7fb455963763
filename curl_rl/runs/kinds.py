"""The kinds of runs: what each trains, and the commands that train and evaluate it, for messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["agent", "pretraining", "detection", "text", "pairs"]
"""The kind of a run: it trains an agent, a detector, or encoders without labels: on images (``pretraining``), on texts
or on images with captions (``pairs``)."""


class KindOfRun(NamedTuple):
    """What users are told about a kind of run."""

    trains: str
    """What it trains."""
    by: str
    """The command that trains it, and takes its settings."""
    evaluated_by: str
    """The command that evaluates or uses it."""


KINDS: Mapping[Kind, KindOfRun] = {
    "agent": KindOfRun("an agent", "scripts/train_agent.py", "scripts/evaluate_agent.py"),
    "pretraining": KindOfRun("an encoder of images", "scripts/pretrain_vision.py", "scripts/evaluate_vision.py"),
    "detection": KindOfRun("a detector", "scripts/train_detector.py", "scripts/detect.py"),
    "text": KindOfRun("an encoder of texts", "scripts/pretrain_text.py", "scripts/evaluate_text.py"),
    "pairs": KindOfRun(
        "encoders of images and of texts", "scripts/pretrain_text.py --method clip", "scripts/evaluate_text.py"
    ),
}


def of_another_kind(place: object, kind: Kind, wanted: Kind) -> str:
    """The message for a run of one kind where one of another is wanted."""
    own, right = KINDS[kind], KINDS[wanted]
    return f"{place} is not a run of {right.by}, but of {own.by}, which trains {own.trains}: use {own.evaluated_by}"
