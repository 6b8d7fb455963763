"""Diagnosis of a run from its metrics: known faults of training, each with its evidence and what to try.

Every rule is a pure function of the logged curves. It judges the last quarter of a curve, because a network that has
just started may look faulty for a moment, and stays silent if a curve that it needs is missing or short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple


class Series(NamedTuple):
    """One metric over the run."""

    counts: list[int]
    """Environment frames, or images."""
    values: list[float]
    """As many numbers, all finite."""


Metrics = Mapping[str, Series]
"""The series of a run by name."""


@dataclass(frozen=True)
class Finding:
    """A fault that the metrics show."""

    fault: str
    """What is wrong."""
    evidence: str
    """What in the curves shows it."""
    remedy: str
    """What to try."""
    curves: tuple[str, ...]
    """The metrics that show it."""


def series_of(rows: Sequence[Mapping[str, Any]], axis: str) -> dict[str, Series]:
    """The series in the rows of a log over ``axis``, by name; values that were not finite are left out."""
    found: dict[str, Series] = {}
    for row in rows:
        for name, value in row.items():
            if name not in (axis, "wall_time") and value is not None:
                series = found.setdefault(name, Series([], []))
                series.counts.append(row[axis])
                series.values.append(float(value))
    return found


def diagnose(metrics: Metrics, *, method: str, discount: float = 0.99) -> list[Finding]:
    """All faults that the metrics of a run show.

    Args:
        metrics: the run's series.
        method: its self-supervised method; ``none`` for an agent without one.
        discount: an agent's discount per agent step.
    """
    found = [rule(metrics) for rule in _OF_EVERY_METHOD]
    if method in IDENTIFYING:
        found += [rule(metrics) for rule in _OF_CONTRAST]
    found.append(q_diverging(metrics, discount))
    return [finding for finding in found if finding is not None]


def examined(metrics: Metrics, *, method: str) -> list[str]:
    """What :func:`diagnose` vouches for if it finds no fault, in words; only what was logged."""
    found = []
    if method in IDENTIFYING and "objective/accuracy" in metrics:
        found.append("the contrastive task is not trivial")
    if any(name in metrics for name in _COLLAPSED):
        found.append("the embedding has not collapsed")
    if "critic/q" in metrics:
        found.append("temperature, Q values and policy are within bounds")
    return found


def judged(metrics: Metrics) -> bool:
    """Whether there are enough rows of learning metrics for the rules to judge."""
    return any(len(metrics[name].values) >= _FEWEST for name in ("critic/loss", "loss") if name in metrics)


IDENTIFYING = ("curl", "simclr", "moco", "n_pair", "instdisc", "pcl")
"""Methods whose accuracy is the share of queries that find their own positive among others."""

_FEWEST = 4  # points below which a curve is not judged
_SOLVED = 0.98
_OVERCONFIDENT = 0.25
_COLLAPSED = {
    "objective/embedding_std": (0.05, "nearly all inputs have the same embedding"),
    "objective/effective_rank": (1.5, "the features of all inputs lie on a line"),
    "features/effective_rank": (1.5, "the features of all inputs lie on a line"),
    "clusters/used": (0.2, "nearly all inputs are in a few clusters"),
}
_RUN_AWAY = 10.0
_VANISHED = 1e-3
_SATURATED = -4.0  # nats per action; uniform actions have log 2 = 0.69, a sound policy about −1
_OVERESTIMATED = 2.0


def contrast_solved(metrics: Metrics) -> Finding | None:
    """The contrastive task is so easy that it has nothing left to teach."""
    accuracy = _late(metrics, "objective/accuracy")
    if accuracy is None or median(accuracy) < _SOLVED:
        return None
    return Finding(
        "The contrastive task is solved trivially",
        f"In the last quarter {median(accuracy):.1%} of the queries find their own positive, so the loss gives the "
        "encoder little gradient. The run may still do well: then the reward teaches what the contrast does not.",
        "Make the task harder: smaller crops or stronger augmentation, or a larger batch. For an agent also try a "
        "lower agent.encoder_lr.",
        ("objective/accuracy", "objective/loss", "objective/logits_std"),
    )


def contrast_overconfident(metrics: Metrics) -> Finding | None:
    """The softmax is saturated on wrong answers."""
    accuracy, confidence = _late(metrics, "objective/accuracy"), _late(metrics, "objective/confidence")
    if accuracy is None or confidence is None or median(confidence) - median(accuracy) < _OVERCONFIDENT:
        return None
    return Finding(
        "The contrastive softmax is saturated on wrong answers",
        f"In the last quarter its mean confidence is {median(confidence):.2f}, but only {median(accuracy):.2f} of the "
        "queries find their positive. Scores of such a scale leave no gradient.",
        "Start the similarity from the identity (--objectives.curl.similarity_init identity), or lower the learning "
        "rate of the encoder.",
        ("objective/accuracy", "objective/confidence", "objective/logits_std"),
    )


def embedding_collapsed(metrics: Metrics) -> Finding | None:
    """Different inputs have the same embedding."""
    for name, (floor, meaning) in _COLLAPSED.items():
        late = _late(metrics, name)
        if late is not None and median(late) < floor:
            return Finding(
                "The embedding has collapsed",
                f"In the last quarter {name} is {median(late):.2g}, below {floor:g}: {meaning}.",
                "Try a lower learning rate, a longer warm-up, a larger batch, or a momentum closer to 1 (lower for a "
                "short run).",
                tuple(other for other in (*_COLLAPSED, "objective/alignment") if other in metrics),
            )
    return None


def temperature_run_away(metrics: Metrics) -> Finding | None:
    """The temperature α has risen without bound, or vanished."""
    late = _late(metrics, "temperature/value")
    if late is None:
        return None
    first = metrics["temperature/value"].values[0]
    change = late[-1] / first if first > 0 else 1.0
    if _VANISHED < change < _RUN_AWAY:
        return None
    curves = ("temperature/value", "actor/entropy", "temperature/loss")
    if change >= _RUN_AWAY:
        return Finding(
            "The temperature has run away",
            f"It has risen from {first:.3g} to {late[-1]:.3g}: the policy cannot keep its target entropy, and the "
            "entropy bonus outweighs the reward.",
            "Lower agent.temperature_lr, or scale the rewards up. If the policy is saturated, see there.",
            curves,
        )
    return Finding(
        "The temperature has vanished",
        f"It has fallen from {first:.3g} to {late[-1]:.3g}, so nothing rewards exploration any more.",
        "Lower agent.temperature_lr, or raise agent.initial_temperature. At the end of a run that does well, this is "
        "harmless.",
        curves,
    )


def q_diverging(metrics: Metrics, discount: float) -> Finding | None:
    """The critics promise more than the rewards can give.

    Rewards at the rate of the best episode so far, for ever, with the entropy bonus, are worth
    (rate + α·entropy) / (1 − discount); a Q value at twice that is no estimate of a return.
    """
    late = _late(metrics, "critic/q")
    returns, lengths = metrics.get("episode/return"), metrics.get("episode/length")
    if late is None or returns is None or lengths is None or len(returns.values) != len(lengths.values):
        return None
    rate = max(abs(value) / max(length, 1) for value, length in zip(returns.values, lengths.values, strict=True))
    entropy, alpha = (metrics.get(name, Series([], [])).values for name in ("actor/entropy", "temperature/value"))
    bonus = max((abs(h * a) for h, a in zip(entropy, alpha, strict=False)), default=0.0)
    limit = (rate + bonus) / max(1 - discount, 1 / max(lengths.values))
    if median(map(abs, late)) <= _OVERESTIMATED * limit:
        return None
    return Finding(
        "The Q values diverge",
        f"In the last quarter their mean is {median(late):,.4g}. The best training episode so far, repeated for ever, "
        f"would be worth about {limit:,.4g}.",
        "Lower agent.critic_lr, lower agent.critic_tau, or set agent.n_step to 1; check that the rewards have no "
        "outliers.",
        ("critic/q", "critic/target", "critic/loss", "critic/gradient_norm"),
    )


def policy_saturated(metrics: Metrics) -> Finding | None:
    """The policy has lost its randomness: its actions are points, usually at the bounds."""
    entropy = metrics.get("actor/entropy")
    loss, alpha = (metrics.get(f"temperature/{name}") for name in ("loss", "value"))
    late = _late(metrics, "actor/entropy")
    if entropy is None or late is None or loss is None or alpha is None:
        return None
    # The temperature's loss is α (entropy − target entropy), and the target is minus the number of actions.
    logged = zip(entropy.values, loss.values, alpha.values, strict=False)
    actions = max(1, round(median(one / a - h for h, one, a in logged if a > 0)))
    if median(late) / actions > _SATURATED:
        return None
    return Finding(
        "The policy is saturated",
        f"In the last quarter its entropy is {median(late):.3g} nats with {actions} action{'s' * (actions > 1)}; its "
        f"target is {-actions}. Its actions are nearly points, usually at the bounds, and exploration has ended.",
        "Lower agent.actor_lr, raise agent.log_std_min (to −5, say), or scale the rewards down.",
        ("actor/entropy", "temperature/value", "actor/gradient_norm"),
    )


def no_reward(metrics: Metrics) -> Finding | None:
    """The replay has never seen a reward."""
    rewards = metrics.get("batch/reward")
    if rewards is None or len(rewards.values) < _FEWEST or any(rewards.values):
        return None
    return Finding(
        "The agent has never seen a reward",
        f"All batches up to {rewards.counts[-1]:,} have reward 0, so there is nothing to learn from.",
        "Raise training.random_steps, lower environment.action_repeat, or choose a task with a denser reward.",
        ("batch/reward", "episode/return"),
    )


_Rule = Callable[[Metrics], Finding | None]
_OF_CONTRAST: tuple[_Rule, ...] = (contrast_solved, contrast_overconfident)
_OF_EVERY_METHOD: tuple[_Rule, ...] = (embedding_collapsed, temperature_run_away, policy_saturated, no_reward)


def _late(metrics: Metrics, name: str) -> list[float] | None:
    """The last quarter of a series; None if it is missing or too short to be judged."""
    values = metrics[name].values if name in metrics else []
    return values[-max(len(values) // 4, 2) :] if len(values) >= _FEWEST else None
