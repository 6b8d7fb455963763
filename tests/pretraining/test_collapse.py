"""The collapse warning on handwritten rows of metrics."""

from __future__ import annotations

from curl_rl.pretraining.collapse import CollapseWatch

GOOD = {"objective/embedding_std": 0.9, "features/effective_rank": 40.0}


def test_it_warns_once_after_three_consecutive_rows() -> None:
    watch, bad = CollapseWatch(), {**GOOD, "objective/embedding_std": 0.01}
    assert [watch.warning(row) for row in (bad, bad, GOOD, bad, bad)] == [None] * 5
    line = watch.warning(bad)
    assert line is not None
    assert line.startswith("warning: the representation is collapsing: nearly all images have the same embedding")
    assert "learning rate" in line
    assert "\n" not in line
    assert watch.warning(bad) is None


def test_features_on_a_line() -> None:
    watch = CollapseWatch()
    lines = [watch.warning({"features/effective_rank": 1.2}) for _ in range(3)]
    assert lines[:2] == [None, None]
    assert "features of all images lie on a line" in (lines[2] or "")


def test_clusters_without_images() -> None:
    watch = CollapseWatch()
    lines = [watch.warning({"clusters/used": share}) for share in (0.1, 0.3, 0.1, 0.1, 0.1)]
    assert lines[:4] == [None] * 4
    assert "nearly all images are in a few clusters (clusters/used 0.1)" in (lines[4] or "")


def test_methods_that_report_no_such_metric_are_never_warned_about() -> None:
    watch = CollapseWatch()
    assert [watch.warning({"loss": 0.0}) for _ in range(5)] == [None] * 5
