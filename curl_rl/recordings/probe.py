"""The state probe: how well a linear map predicts the physical state from an encoder's features.

Ridge regression from the features of recorded observations to each quantity of the state (a joint's position or
velocity), fitted on some episodes and scored by R² on others: 1 if the prediction is exact, 0 if it is no better than
the mean. Episodes are never split, because neighboring frames are nearly identical. The test episodes are those that
pretraining on the recording does not see (``RecordedFrames.held_out``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import Encoder
from curl_rl.recordings.store import RecordedFrames
from curl_rl.runs.errors import UserError, one_line

L2 = tuple(10.0 ** (exponent / 2) for exponent in range(6, -17, -1))
"""Candidate regularization strengths, from strong to weak, 10³ to 10⁻⁸; see :func:`ridge_path`."""
RAW_SIDE = 12
"""Side, in pixels, to which frames are averaged down for the raw-pixel baseline."""

_BATCH = 256  # observations encoded at a time
# Smaller variation, relative to the quantity's magnitude, is rounding error.
_CONSTANT = 1e-8


@dataclass(frozen=True)
class Split:
    """The split of a recording: three disjoint masks ``(N,)``, each of whole episodes."""

    fit: Tensor
    """Frames on which each candidate is fitted."""
    choice: Tensor
    """Frames on which the regularization is chosen."""
    test: Tensor
    """Frames on which the chosen model, refitted on all others, is scored."""

    @classmethod
    def of(cls, frames: RecordedFrames) -> Split:
        """Tests on the held-out episodes and chooses on every fifth of the others, or on the last of up to four.

        Raises:
            UserError: fewer than three episodes.
        """
        test = frames.held_out
        episodes = frames.episodes[~test].unique()
        if not test.any() or len(episodes) < 2:
            count = int(frames.episodes[-1]) + 1
            raise UserError(
                f"{frames.folder} has {count} episode{'s' if count > 1 else ''}, but a probe needs 3: one to fit, one "
                "to choose the regularization, one to score"
            )
        chosen = episodes[4::5] if len(episodes) > 4 else episodes[-1:]
        choice = torch.isin(frames.episodes, chosen) & ~test
        return cls(~test & ~choice, choice, test)

    def counts(self, episodes: Tensor) -> dict[str, dict[str, int]]:
        """Frames and episodes of each part, for reports."""
        parts = {"fit": self.fit, "choice": self.choice, "test": self.test}
        return {
            name: {"frames": int(mask.sum()), "episodes": len(episodes[mask].unique())} for name, mask in parts.items()
        }


@dataclass(frozen=True)
class Row:
    """One line of the table: the scores of one encoder, or of several that differ only in their seed."""

    name: str
    """Name of the encoder."""
    r2: dict[str, tuple[float, ...] | None]
    """By quantity, R² of each encoder on the test episodes; None for a quantity that does not vary."""
    features: int
    """Number of features."""

    def mean(self, quantity: str) -> float | None:
        """Mean R² of a quantity over the encoders; None for a quantity that does not vary."""
        values = self.r2[quantity]
        return None if values is None else fmean(values)

    @property
    def means(self) -> tuple[float, ...]:
        """Each encoder's mean R² over all quantities that vary."""
        return tuple(map(fmean, zip(*filter(None, self.r2.values()), strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every R², and each encoder's mean over the quantities that vary."""
        each = {name: None if values is None else list(values) for name, values in self.r2.items()}
        return {"name": self.name, "features": self.features, "mean": list(self.means), "r2": each}


def ridge_path(features: Tensor, targets: Tensor, l2: Iterable[float]) -> Tensor:
    """Weights that minimize ‖y − Xw‖²/N + l2 ‖w‖² in closed form, for each l2 (Hoerl & Kennard 1970, equation 2.1).

    Args:
        features: X, ``(N, D)`` float64, centered.
        targets: ``(N, Q)`` float64, centered.
        l2: regularization strengths above 0; N · l2 is scikit-learn's ``Ridge(alpha)``.

    Returns:
        ``(len(l2), D, Q)``, computed from a single decomposition.
    """
    count = len(features)
    curvature, basis = torch.linalg.eigh(features.T @ features / count)
    rotated = basis.T @ (features.T @ targets) / count
    # Rounding can make a zero eigenvalue negative.
    return torch.stack([basis @ (rotated / (curvature.clamp_min(0) + strength)[:, None]) for strength in l2])


def probe(features: Tensor, states: Tensor, split: Split) -> list[float | None]:
    """R² of each quantity on the test episodes.

    Features are standardized with the statistics of the fitted part. Each quantity gets its own regularization, the one
    with the smallest error on the choice episodes; the model is then refitted on all but the test episodes.

    Args:
        features: ``(N, D)``.
        states: ``(N, Q)``.
        split: the split of the N frames.

    Returns:
        Q numbers; None for a quantity that does not vary in the fitted or in the test part.

    Raises:
        ValueError: a feature or a state is not finite.
    """
    for name, values in (("features", features), ("states", states)):
        if not values.isfinite().all():
            raise ValueError(f"the {name} are not all finite: no model can be fitted to them")
    features, states = features.double(), states.double()
    train = ~split.test
    varies = _varies(states[train]) & _varies(states[split.test])
    scores: list[float | None] = [None] * states.shape[1]
    if not varies.any():
        return scores
    wanted = states[:, varies]

    tried = _predictions(features, wanted, split.fit, split.choice, L2)
    best = (tried - wanted[split.choice]).square().mean(1).argmin(0)  # argmin takes the first of equals, the stronger

    strengths = sorted(set(best.tolist()))
    final = _predictions(features, wanted, train, split.test, [L2[place] for place in strengths])
    for place, quantity in enumerate(varies.nonzero()[:, 0].tolist()):
        predicted = final[strengths.index(int(best[place])), :, place]
        scores[quantity] = r2_score(wanted[split.test, place], predicted)
    return scores


def r2_score(truth: Tensor, predicted: Tensor) -> float:
    """The coefficient of determination 1 − Σ(y − ŷ)² / Σ(y − ȳ)² of ``(N,)`` numbers; ȳ is the mean of these same y."""
    residual, total = (truth - predicted).square().sum(), (truth - truth.mean()).square().sum()
    return float(1 - residual / total)


def _predictions(features: Tensor, targets: Tensor, fit: Tensor, apply: Tensor, l2: Iterable[float]) -> Tensor:
    """``(len(l2), frames of apply, Q)`` predictions by maps fitted on ``fit``."""
    mean, scale = features[fit].mean(0), features[fit].std(0, correction=0)
    scale = torch.where(_varies(features[fit]), scale, torch.inf)  # ignore dead features
    offset = targets[fit].mean(0)
    weights = ridge_path((features[fit] - mean) / scale, targets[fit] - offset, l2)
    return (features[apply] - mean) / scale @ weights + offset


def _varies(values: Tensor) -> Tensor:
    """``(N, Q)`` to ``(Q,)``: whether each column varies by more than rounding error."""
    return values.std(0, correction=0) > _CONSTANT * values.abs().amax(0).clamp_min(1)


# ---------------------------------------------------------------------- encoders


def probe_encoders(
    frames: RecordedFrames,
    paths: list[Path],
    *,
    untrained: int = 0,
    raw_pixels: bool = False,
    device: torch.device | str = "cpu",
) -> list[Row]:
    """Returns a row for each encoder, followed by rows for the baselines.

    Args:
        frames: the recording.
        paths: run directories or encoder files.
        untrained: number of randomly initialized encoders in a baseline row, one row per encoder shape; 0 for no such
            rows.
        raw_pixels: add a baseline row for the pixels themselves, averaged down to ``RAW_SIDE``.
        device: the encoders' device.

    Raises:
        UserError: an encoder cannot be read or does not fit the frames, or the recording has no state that varies.
    """
    if not frames.state_names:
        raise UserError(f"{frames.folder} has no physical state (state_names is empty): there is nothing to probe")
    split = Split.of(frames)
    encoders = [_load(path, frames) for path in paths]

    def row(name: str, each: Iterable[Tensor]) -> Row:
        scores, size = [], 0
        for features in each:
            size = features.shape[1]
            scores.append(probe(features, frames.states, split))
        columns = zip(frames.state_names, zip(*scores, strict=True), strict=True)
        r2 = {quantity: None if None in values else tuple(values) for quantity, values in columns}
        if not any(r2.values()):
            raise UserError(f"{frames.folder}: no state varies, so there is nothing to probe")
        return Row(name, r2, size)

    rows = [
        row(str(path), [encoded(frames, encoder.to(device), str(path))])
        for path, encoder in zip(paths, encoders, strict=True)
    ]
    if untrained:
        kinds = {_kind(encoder.encoder): encoder for encoder in encoders}
        for number, (kind, like) in enumerate(kinds.items()):
            name = "untrained" if len(kinds) == 1 else f"untrained {number + 1}: {kind}"
            fresh = (_untrained(like, seed).to(device) for seed in range(untrained))
            rows.append(row(name, (encoded(frames, encoder, name) for encoder in fresh)))
    if raw_pixels:
        stack = max(_channels(encoder) // frames.recording.channels for encoder in encoders)
        rows.append(row(f"raw pixels {RAW_SIDE}×{RAW_SIDE}", [_raw(frames, stack)]))
    return rows


def encoded(frames: RecordedFrames, encoder: PretrainedEncoder, name: str) -> Tensor:
    """``(N, D)`` features of the observations at all frames, on the CPU; stacks as many frames as the encoder takes."""
    stack, device = _channels(encoder) // frames.recording.channels, next(encoder.parameters()).device
    batches = torch.arange(len(frames)).split(_BATCH)
    with torch.no_grad():
        return torch.cat(
            [
                encoder(frames.observations(batch, stack).to(device)).cpu()
                for batch in tqdm(batches, desc=f"encode ({name})", unit="batch", disable=None)
            ]
        )


def table(rows: list[Row]) -> str:
    """A text table of R² by quantity; ± is the standard deviation over encoders that differ in their seed."""

    def cell(values: tuple[float, ...] | None) -> str:
        if values is None:
            return "constant"
        return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")

    lines = [["R²", *(row.name for row in rows)]]
    lines += [[quantity, *(cell(row.r2[quantity]) for row in rows)] for quantity in rows[0].r2]
    lines += [["mean", *(cell(row.means) for row in rows)], ["features", *(str(row.features) for row in rows)]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def report(rows: list[Row], frames: RecordedFrames) -> dict[str, Any]:
    """For JSON: the recording, its split, and every score."""
    recording = frames.recording
    return {
        "folder": str(frames.folder),
        "env": recording.env,
        "policy": recording.policy,
        "size": recording.size,
        "frames": len(frames),
        "episodes": int(frames.episodes[-1]) + 1,
        "split": Split.of(frames).counts(frames.episodes),
        "rows": [row.as_dict() for row in rows],
    }


def _load(path: Path, frames: RecordedFrames) -> PretrainedEncoder:
    try:
        encoder = load_encoder(path)
    except ValueError as error:
        raise UserError(one_line(error)) from None
    channels, side = _channels(encoder), frames.recording.size
    if channels % frames.recording.channels:
        raise UserError(
            f"{path} takes {channels} channels, which must be a multiple of the recording's {frames.recording.channels}"
        )
    height, width = encoder.observation_shape[1:]
    if not encoder.encoder.any_size and max(height, width) > side:
        raise UserError(
            f"{path} takes images of {height}×{width}, but the frames in {frames.folder} have {side}×{side}"
        )
    return encoder


def _channels(encoder: PretrainedEncoder) -> int:
    return encoder.observation_shape[0]


def _kind(encoder: Encoder) -> str:
    """The shape of an encoder as text; equal for encoders that differ only in their weights."""
    description = encoder.describe()
    settings = ", ".join(f"{name} {value}" for name, value in description["config"].items())
    return f"{'×'.join(map(str, encoder.input_shape))} {description['kind']} ({settings})"


def _untrained(like: PretrainedEncoder, seed: int) -> PretrainedEncoder:
    """An encoder of the same shape with initial weights, as at the start of training."""
    return PretrainedEncoder(like.encoder.fresh(seed), like.rendered_size, {}, freeze=True)


def _raw(frames: RecordedFrames, stack: int) -> Tensor:
    """``(N, stack·C·side²)``: observations with frames averaged down."""
    side = min(RAW_SIDE, frames.recording.size)
    return torch.cat(
        [
            F.adaptive_avg_pool2d(frames.observations(batch, stack).float() / 255, side).flatten(1)
            for batch in torch.arange(len(frames)).split(_BATCH)
        ]
    )
