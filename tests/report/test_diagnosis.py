"""Every rule on curves made to show its fault, on sound ones, and on the curves of recorded runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.report.curves import read_runs
from curl_rl.report.diagnosis import (
    IDENTIFYING,
    Finding,
    Metrics,
    Series,
    contrast_overconfident,
    contrast_solved,
    diagnose,
    embedding_collapsed,
    examined,
    judged,
    no_reward,
    policy_saturated,
    q_diverging,
    series_of,
    temperature_run_away,
)

RESULTS = Path(__file__).resolve().parents[2] / "results" / "cpu"


def metrics(**curves: list[float]) -> Metrics:
    """Curves by name, with two underscores for a slash."""
    return {
        name.replace("__", "/"): Series([1000 * row for row in range(len(values))], values)
        for name, values in curves.items()
    }


def fault_of(finding: Finding | None) -> str | None:
    return None if finding is None else finding.fault


@pytest.mark.parametrize(
    ("late", "found"), [(1.0, True), (0.985, True), (0.97, False), (0.5, False)], ids=["1", "0.985", "0.97", "0.5"]
)
def test_a_contrastive_task_that_nearly_every_query_solves_is_trivial(late: float, found: bool) -> None:
    curves = metrics(objective__accuracy=[0.1, 0.4, 0.6, 0.8, 0.9, 0.9, late, late])
    assert (contrast_solved(curves) is not None) == found


def test_an_accuracy_that_was_high_only_at_first_is_not_trivial() -> None:
    assert contrast_solved(metrics(objective__accuracy=[1.0, 1.0, 1.0, 1.0, 0.4, 0.4, 0.4, 0.4])) is None


def test_confidence_far_above_accuracy_is_saturation_on_wrong_answers() -> None:
    low = [0.3] * 8
    assert contrast_overconfident(metrics(objective__accuracy=low, objective__confidence=[0.9] * 8)) is not None
    assert contrast_overconfident(metrics(objective__accuracy=low, objective__confidence=[0.35] * 8)) is None
    assert contrast_overconfident(metrics(objective__accuracy=low)) is None  # other methods log no confidence


@pytest.mark.parametrize(
    ("name", "collapsed", "sound"),
    [
        ("objective__embedding_std", 0.01, 0.5),
        ("objective__effective_rank", 1.02, 20.0),
        ("features__effective_rank", 1.2, 8.0),
        ("clusters__used", 0.05, 0.9),
    ],
)
def test_each_measure_of_collapse_is_read(name: str, collapsed: float, sound: float) -> None:
    finding = embedding_collapsed(metrics(**{name: [sound, sound, sound, sound, collapsed, collapsed, collapsed]}))
    assert finding is not None
    assert name.replace("__", "/") in finding.curves
    assert embedding_collapsed(metrics(**{name: [collapsed, sound, sound, sound, sound]})) is None


def test_a_temperature_that_rises_or_falls_by_orders_of_magnitude_is_named() -> None:
    def found(last: float) -> str | None:
        return fault_of(temperature_run_away(metrics(temperature__value=[0.1, 0.1, 0.1, last / 2, last])))

    assert found(5.0) == "The temperature has run away"
    assert found(0.00001) == "The temperature has vanished"
    assert found(0.4) is found(0.01) is None


def test_q_values_are_held_against_the_best_episode_repeated_for_ever() -> None:
    # The best episode has 2 a step; with discount 0.9 that is worth 20, and the entropy bonus 0.1 · 1 / 0.1 = 1 more.
    def found(q: float) -> bool:
        curves = metrics(
            episode__return=[10.0, 100.0, 80.0],
            episode__length=[50.0, 50.0, 50.0],
            actor__entropy=[1.0] * 8,
            temperature__value=[0.1] * 8,
            critic__q=[0.0] * 6 + [q] * 2,
        )
        return q_diverging(curves, 0.9) is not None

    assert [found(q) for q in (15.0, 41.9, 42.1, 1e6, -1e6)] == [False, False, True, True, True]


def test_without_a_discount_an_episode_bounds_the_q_values() -> None:
    curves = metrics(episode__return=[50.0], episode__length=[50.0], critic__q=[0.0, 0.0, 0.0, 101.0, 101.0, 101.0])
    assert q_diverging(curves, 1.0) is not None
    assert q_diverging({**curves, "critic/q": Series([0, 1, 2, 3], [99.0] * 4)}, 1.0) is None


@pytest.mark.parametrize("actions", [1, 6])
def test_a_policy_far_below_its_target_entropy_is_saturated(actions: int) -> None:
    def found(per_action: float) -> Finding | None:
        entropy, alpha = per_action * actions, 0.2
        loss = alpha * (entropy + actions)  # the target entropy is −actions
        return policy_saturated(
            metrics(actor__entropy=[entropy] * 8, temperature__loss=[loss] * 8, temperature__value=[alpha] * 8)
        )

    finding = found(-6.0)
    assert finding is not None
    assert f"its target is {-actions}." in finding.evidence
    assert found(-1.0) is found(0.6) is None


def test_a_replay_without_any_reward_is_named() -> None:
    assert no_reward(metrics(batch__reward=[0.0] * 5)) is not None
    assert no_reward(metrics(batch__reward=[0.0] * 5 + [0.01])) is None


def test_short_and_missing_curves_are_not_judged() -> None:
    short = metrics(
        objective__accuracy=[1.0], objective__effective_rank=[1.0], critic__q=[1e9], batch__reward=[0.0], loss=[1.0]
    )
    assert diagnose(short, method="curl") == diagnose({}, method="simclr") == []
    assert not judged(short)
    assert judged(metrics(loss=[1.0] * 4))


def test_a_high_accuracy_means_nothing_for_methods_that_do_not_identify() -> None:
    curves = metrics(objective__accuracy=[1.0] * 8)
    assert [fault_of(one) for one in diagnose(curves, method="curl")] == ["The contrastive task is solved trivially"]
    assert diagnose(curves, method="supcon") == diagnose(curves, method="none") == []
    assert "supcon" not in IDENTIFYING


def test_only_what_was_logged_is_vouched_for() -> None:
    trivial, collapsed = "the contrastive task is not trivial", "the embedding has not collapsed"
    curves = metrics(objective__accuracy=[0.5] * 8)
    assert examined(curves, method="curl") == [trivial]
    assert examined(curves, method="swav") == examined({}, method="curl") == []
    everything = metrics(objective__accuracy=[0.5], features__effective_rank=[9.0], critic__q=[1.0])
    assert examined(everything, method="curl")[:2] == [trivial, collapsed]
    assert len(examined(everything, method="none")) == 2


def test_series_leave_out_what_was_not_finite() -> None:
    rows = [{"frames": 1, "wall_time": 5.0, "a": 2.0}, {"frames": 3, "wall_time": 6.0, "a": None, "b": 1}]
    assert series_of(rows, "frames") == {"a": ([1], [2.0]), "b": ([3], [1.0])}


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("cartpole-swingup", set()),
        ("tiny-reach", set()),
        ("vision", set()),
        # Its queries find their own positive in 98.6 and 98.8 % of cases, at a loss of 0.04.
        ("cheetah-run", {"The contrastive task is solved trivially"}),
    ],
)
def test_recorded_runs_are_sound_but_for_what_is_known_of_them(name: str, faults: set[str]) -> None:
    runs = read_runs([RESULTS / f"{name}.csv"], kinds=("agent", "pretraining"))
    assert runs
    for run in runs:
        agent = run.settings.get("agent", {})
        method = run.settings.get("method") or agent.get("objective", "curl")
        found = diagnose(series_of(run.rows, run.axis), method=method, discount=agent.get("discount", 0.99))
        assert {finding.fault for finding in found} == faults, (run.label, run.seed)
