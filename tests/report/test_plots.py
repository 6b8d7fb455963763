"""The pictures: the lines in them are the numbers."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curl_rl.report.comparison import Comparison
from curl_rl.report.curves import Curve
from curl_rl.report.plots import draw_curves, draw_improvement, draw_profiles
from curl_rl.report.style import headless_pyplot, styles

pyplot = pytest.importorskip("matplotlib.pyplot")


LONG = "cpu, " + ", ".join(f"agent.setting_{number} value" for number in range(8))
BAND = "band: 95 % bootstrap interval (too narrow below 5 seeds)"


@pytest.fixture(autouse=True)
def no_figures() -> Iterator[None]:
    pyplot.close("all")
    yield
    pyplot.close("all")


def drawn(panel: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    """The lines of a panel by their labels."""
    lines = pyplot.gcf().axes[panel].lines
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def in_legend(panel: int | None = 0) -> list[str]:
    """The entries of a panel's legend; of the one below all panels for None."""
    legend = pyplot.gcf().legends[0] if panel is None else pyplot.gcf().axes[panel].get_legend()
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


def bands(panel: int = 0) -> list[np.ndarray]:
    """The corners of each band of a panel."""
    found = pyplot.gcf().axes[panel].collections
    return [
        band.get_paths()[0].vertices
        for band in found
        if type(band).__name__ in ("PolyCollection", "FillBetweenPolyCollection")
    ]


def uncut(picture: Path) -> None:
    pixels = np.asarray(Image.open(picture).convert("L"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert edges.min() == 255, "something is cut off"


def test_a_panel_per_task_with_the_seeds_mean_and_the_random_policy(tmp_path: Path) -> None:
    curves = [
        Curve("a", "first", {1: {0: 1.0, 10: 4.0}, 2: {0: 3.0, 10: 8.0}}, [2.0, 4.0]),
        Curve("a", "second", {1: {0: 5.0, 10: 6.0}}),
        Curve("b", "first", {1: {0: 0.0}}),
    ]
    draw_curves(curves, tmp_path / "new" / "curves.png")
    panels = pyplot.gcf().axes
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    lines = drawn()
    assert lines["first (2 seeds)"] == ([0, 10], [2.0, 6.0])
    assert lines["second (1 seed, no interval)"] == ([0, 10], [5.0, 6.0])
    assert lines["random policy"][1] == [3.0, 3.0]
    assert in_legend(0)[-1] == BAND
    assert in_legend(1) == ["first (1 seed, no interval)"]
    assert Image.open(tmp_path / "new" / "curves.png").width > 600


def test_the_band_of_two_seeds_reaches_from_one_to_the_other(tmp_path: Path) -> None:
    """A quarter of all resamples of two seeds holds one of them twice: more than the 2.5 % outside the interval."""
    draw_curves([Curve("a", "x", {1: {0: 1.0, 10: 4.0}, 2: {0: 3.0, 10: 8.0}}, [])], tmp_path / "x.png")
    (corners,) = bands()
    assert {tuple(corner) for corner in corners} == {(0, 1), (0, 3), (10, 4), (10, 8)}


def test_the_interquartile_mean_leaves_out_the_outer_seeds(tmp_path: Path) -> None:
    curve = Curve("a", "x", {seed: {0: value} for seed, value in enumerate([0.0, 4.0, 6.0, 1000.0])})
    draw_curves([curve], tmp_path / "x.png", center="iqm")
    assert drawn()["x (4 seeds)"] == ([0], [5.0])
    assert pyplot.gcf().axes[0].get_ylabel() == "return, interquartile mean"


def test_the_mean_ends_with_the_first_seed_and_the_others_go_on_alone(tmp_path: Path) -> None:
    seeds = {1: {0: 1.0, 10: 2.0, 20: 30.0}, 2: {0: 3.0, 10: 4.0}}
    draw_curves([Curve("a", "x", seeds, unfinished={2})], tmp_path / "x.png")
    lines = drawn()
    assert lines["x (2 seeds, 1 unfinished)"] == ([0, 10], [2.0, 3.0])
    assert lines["_one seed"] == ([10, 20], [2.0, 30.0])
    assert in_legend()[:2] == ["x (2 seeds, 1 unfinished)", "thin line: one seed that has got further"]


def test_five_seeds_have_an_interval_without_reservation(tmp_path: Path) -> None:
    draw_curves([Curve("a", "x", {seed: {0: float(seed)} for seed in range(5)})], tmp_path / "x.png")
    assert in_legend() == ["x (5 seeds)", "band: 95 % bootstrap interval"]


def test_seeds_without_common_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the seeds of a, x have no evaluation at the same frames"):
        draw_curves([Curve("a", "x", {1: {0: 1.0}, 2: {5: 1.0}})], tmp_path / "x.png")


def test_published_results_are_drawn_with_their_spread_and_other_repeats_are_hollow(tmp_path: Path) -> None:
    curve = Curve("cartpole-swingup", "cpu", {1: {0: 1.0, 100_000: 600.0}}, action_repeat=8, budgets={1: 100_000})
    draw_curves([curve], tmp_path / "x.png", published=["CURL", "DrQ-v2"])
    same, other = pyplot.gcf().axes[0].containers
    assert same.get_label() == "CURL, published (10 seeds, ± standard deviation)"
    assert other.get_label() == "DrQ-v2, published (8-10 seeds, ± standard deviation, action repeat 2)"
    assert list(zip(*same[0].get_data(), strict=True)) == [(100_000, 582)]  # not the one at 500,000 frames
    assert np.allclose(same[2][0].get_segments(), [[(100_000, 582 - 146), (100_000, 582 + 146)]])
    assert (same[0].get_markerfacecolor(), other[0].get_markerfacecolor()) == ("#444444", "white")
    _, high = pyplot.gcf().axes[0].get_ylim()
    assert high > 626 + 254


def test_on_a_task_with_the_same_repeat_nothing_is_hollow(tmp_path: Path) -> None:
    curve = Curve("walker-walk", "cpu", {1: {0: 1.0, 100_000: 600.0}}, action_repeat=2)
    draw_curves([curve], tmp_path / "x.png", published=["CURL", "DrQ-v2"])
    assert all("repeat" not in label for label in in_legend())


def test_names_are_texts_whatever_characters_they_hold(tmp_path: Path) -> None:
    """A dollar would begin a formula, and an underscore hide the name from the legend."""
    draw_curves([Curve("$task_{", label, {1: {0: 1.0}}) for label in ("$x_{$ y", "_own")], tmp_path / "x.png")
    assert in_legend() == [f"{label} (1 seed, no interval)" for label in ("$x_{$ y", "_own")]


@pytest.mark.parametrize("panels", [1, 2, 5])
def test_no_legend_covers_a_panel(panels: int, tmp_path: Path) -> None:
    curves = [
        Curve(f"task {panel}", label, {1: {0: 1.0, 10: 3.0}}, [1.0] if panel else [])
        for panel in range(panels)
        for label in ("cpu", LONG)
    ]
    draw_curves(curves, tmp_path / "x.png")
    axes = [axis for axis in pyplot.gcf().axes if axis.get_visible()]
    assert len(axes) == panels
    for axis in axes:
        legend = axis.get_legend().get_window_extent()
        assert legend.y1 < axis.xaxis.label.get_window_extent().y0
        assert not any(legend.overlaps(other.get_window_extent()) for other in axes)
    uncut(tmp_path / "x.png")


def test_panels_with_the_same_legend_share_one_below_them(tmp_path: Path) -> None:
    labels = ("cpu", "curl", "sac", LONG)
    curves = [Curve(f"task {panel}", label, {1: {0: 1.0}}) for panel in range(4) for label in labels]
    draw_curves(curves, tmp_path / "x.png")
    assert in_legend(None) == [f"{label} (1 seed, no interval)" for label in labels]
    (legend,) = pyplot.gcf().legends
    for axis in filter(lambda axis: axis.get_visible(), pyplot.gcf().axes):
        assert axis.get_legend() is None
        assert legend.get_window_extent().y1 < axis.xaxis.label.get_window_extent().y0
    uncut(tmp_path / "x.png")


def test_looks_differ_between_neighbors_in_color_marker_and_line() -> None:
    looks = list(styles(f"{number}" for number in range(28)).values())
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 28
    for one, next_one in itertools.pairwise(looks[:7]):
        assert all(one[part] != next_one[part] for part in ("color", "marker", "linestyle"))
    for one, same_color in zip(looks[:7], looks[7:], strict=False):
        assert one["color"] == same_color["color"]
        assert all(one[part] != same_color[part] for part in ("marker", "linestyle"))


def luminance(color: str) -> float:
    """Relative luminance as in WCAG 2."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_colors_stand_out_from_white() -> None:
    first = [look["color"] for look in styles("abcde").values()]
    assert all(1.05 / (luminance(color) + 0.05) > 2.5 for color in first)


def test_a_profile_is_a_step_at_every_return(tmp_path: Path) -> None:
    comparison = Comparison(10, ["a"], {"x": [np.array([1.0, 3.0])], "y": [np.array([2.0])]})
    draw_profiles(comparison, tmp_path / "x.svg")
    frames, fractions = drawn()["x (2 seeds)"]
    assert frames == pytest.approx([0, 1, 2, 3, 3.15])
    assert fractions == [1, 0.5, 0.5, 0, 0]
    assert "y (1 seed, no interval)" in drawn()
    assert len(bands()) == 1


def test_every_two_kinds_of_run_are_compared(tmp_path: Path) -> None:
    scores = {"x": [np.array([1.0, 3.0])], "y": [np.array([2.0, 2.5])], "z": [np.array([0.0])]}
    draw_improvement(Comparison(10, ["a"], scores), tmp_path / "x.png")
    points = [line.lines[0].get_xdata()[0] for line in pyplot.gcf().axes[0].containers]
    assert points == [0.5, 1.0, 1.0]  # x over y, x over z, y over z
    names = [text.get_text() for text in pyplot.gcf().axes[0].get_yticklabels()]
    assert names == ["x\n> y", "x\n> z\n(one seed, no interval)", "y\n> z\n(one seed, no interval)"]


def test_long_names_leave_a_comparison_its_room(tmp_path: Path) -> None:
    scores = {f"{number}, {LONG}": [np.array([float(number), 5.0])] for number in range(4)}
    draw_improvement(Comparison(10, ["a"], scores), tmp_path / "x.png")
    pyplot.gcf().canvas.draw()  # sizes in the figure's own resolution again
    (axis,) = pyplot.gcf().axes
    panel = axis.get_window_extent()
    names = [name.get_window_extent() for name in axis.get_yticklabels()]
    assert panel.width > 400
    assert max(name.width for name in names) < panel.width
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(names))
    uncut(tmp_path / "x.png")


def test_one_kind_of_run_cannot_improve_on_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="improvement compares kinds of run, and all of these are x"):
        draw_improvement(Comparison(10, ["a"], {"x": [np.array([1.0])]}), tmp_path / "x.png")


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_ending_chooses_the_format(ending: str, start: bytes, tmp_path: Path) -> None:
    out = tmp_path / f"x.{ending}"
    draw_curves([Curve("a", "x", {1: {0: 1.0}})], out)
    assert out.read_bytes().startswith(start)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^out must end in .png, .svg, .pdf, got .*x.jpeg$"):
        draw_curves([Curve("a", "x", {1: {0: 1.0}})], tmp_path / "x.jpeg")


def test_missing_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^matplotlib is missing: pip install matplotlib, or .* extra \[plot\]$"):
        headless_pyplot()
