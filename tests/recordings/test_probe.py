"""The state probe against scikit-learn, and on encoders with known scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.encoders import EncoderConfig, PixelEncoder
from curl_rl.encoders.resnet import ResNet, ResNetConfig
from curl_rl.recordings.probe import L2, Row, Split, probe, probe_encoders, r2_score, report, ridge_path, table
from curl_rl.recordings.store import FrameWriter, RecordedFrames, Recording
from curl_rl.runs.errors import UserError

NAMES = ("brightness", "change", "constant", "noise")


def recorded(
    folder: Path, *, episodes: int = 10, length: int = 12, size: int = 14, names: Any = NAMES
) -> RecordedFrames:
    """Uniform frames: the state is their brightness, its change since the frame before, a constant, and noise."""
    generator = np.random.default_rng(0)
    writer = FrameWriter(folder, Recording("lamp", size, 1, "fast", 1, "random", tuple(names), 1))
    for _ in range(episodes):
        light = generator.integers(0, 256, length)
        frames = [np.full((3, size, size), value, np.uint8) for value in light]
        change = np.diff(light, prepend=light[:1])
        states = np.stack([light / 255, change / 255, np.full(length, 0.1), generator.normal(size=length)], 1)
        writer.add_episode(frames, list(states[:, : len(names)]), [np.zeros(1, np.float32)] * length, [0.0] * length)
    writer.flush()
    return RecordedFrames(folder)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> RecordedFrames:
    return recorded(tmp_path_factory.mktemp("recorded") / "lamp")


def run(directory: Path, encoder: PixelEncoder | ResNet, rendered_size: int = 14) -> Path:
    directory.mkdir()
    save_encoder(encoder, directory, rendered_size=rendered_size, provenance={})
    return directory


def pixel_encoder(stack: int = 1, side: int = 12, seed: int = 0) -> PixelEncoder:
    torch.manual_seed(seed)
    return PixelEncoder((3 * stack, side, side), EncoderConfig(4, (2, 1), 6))


# ---- regression


def test_ridge_matches_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(30, 7)), generator.normal(size=(30, 2))
    features[:, 3] = features[:, 1]  # a copy, which makes plain least squares singular
    features, targets = features - features.mean(0), targets - targets.mean(0)
    ours = ridge_path(torch.from_numpy(features), torch.from_numpy(targets), (10.0, 0.1, 1e-4))
    for weights, l2 in zip(ours, (10.0, 0.1, 1e-4), strict=True):
        theirs = linear_model.Ridge(alpha=30 * l2, fit_intercept=False, solver="cholesky").fit(features, targets)
        np.testing.assert_allclose(weights.numpy(), theirs.coef_.T, rtol=1e-6, atol=1e-9)


def test_r2_matches_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(2))
    assert r2_score(truth, predicted) == pytest.approx(metrics.r2_score(truth, predicted), rel=1e-12)


def test_the_whole_protocol_matches_scikit_learn() -> None:
    """Scaling, choice and refit with scikit-learn's scaler and ridge, in a loop."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    generator = np.random.default_rng(1)
    x = generator.normal(size=(60, 25)) * generator.uniform(0.01, 100, 25) + 5
    y = np.stack([x[:, 0] + 2 * generator.normal(size=60), np.sin(x[:, 1]) + x[:, 2] / 10], 1)
    part = np.arange(60) // 20
    split = Split(*(torch.from_numpy(part == number) for number in range(3)))

    def fitted(alpha_share: float, on: Any, target: int) -> Any:
        scaler = preprocessing.StandardScaler().fit(x[on])
        model = linear_model.Ridge(alpha=alpha_share * on.sum()).fit(scaler.transform(x[on]), y[on, target])
        return lambda where: model.predict(scaler.transform(x[where]))

    expected, chosen = [], []
    for target in range(2):
        errors = [np.mean((fitted(l2, part == 0, target)(part == 1) - y[part == 1, target]) ** 2) for l2 in L2]
        chosen.append(L2[int(np.argmin(errors))])
        truth, predicted = y[part == 2, target], fitted(chosen[-1], part < 2, target)(part == 2)
        expected.append(1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert chosen[0] != chosen[1], "the quantities must need different regularizations"
    assert probe(torch.from_numpy(x), torch.from_numpy(y), split) == pytest.approx(expected, rel=1e-6)


def test_features_that_are_the_state_give_1_and_noise_gives_0_or_less(frames: RecordedFrames) -> None:
    generator = torch.Generator().manual_seed(0)
    split, states = Split.of(frames), frames.states
    mixed = states @ torch.randn(4, 6, generator=generator, dtype=torch.float64) + 3
    scores = probe(mixed, states, split)
    assert scores[2] is None
    assert [scores[i] for i in (0, 1, 3)] == pytest.approx([1, 1, 1], abs=1e-6)
    noise = torch.randn(len(states), 6, generator=generator)
    for score in (score for score in probe(noise, states, split) if score is not None):
        # Strong regularization can be chosen, so the score is not far below 0.
        assert -0.2 < score <= 0.02


def test_units_of_features_and_states_do_not_matter(frames: RecordedFrames) -> None:
    generator = torch.Generator().manual_seed(0)
    features = frames.states + 0.3 * torch.randn(frames.states.shape, generator=generator, dtype=torch.float64)
    split = Split.of(frames)
    scores = probe(features, frames.states, split)
    other = probe(features * torch.tensor([1e3, 1e-3, 7, 1]) - 4, frames.states * 50 + 2, split)
    for one, another in zip(scores, other, strict=True):
        assert one == pytest.approx(another, abs=1e-8)


def test_a_dead_feature_is_ignored_and_nan_is_refused(frames: RecordedFrames) -> None:
    split = Split.of(frames)
    dead = torch.cat([frames.states, torch.ones(len(frames), 1)], 1)
    assert probe(dead, frames.states, split)[0] == pytest.approx(1, abs=1e-6)
    for features, states, named in ((dead * torch.nan, frames.states, "features"), (dead, dead / 0, "states")):
        with pytest.raises(ValueError, match=f"the {named} are not all finite"):
            probe(features, states, split)


@pytest.mark.parametrize("part", ["test", "train"])
def test_a_quantity_that_is_static_in_one_part_is_constant(frames: RecordedFrames, part: str) -> None:
    split = Split.of(frames)
    states = frames.states.clone()
    states[split.test if part == "test" else ~split.test, 0] = 0.3
    scores = probe(frames.states, states, split)
    assert scores[0] is None
    assert scores[1] == pytest.approx(1, abs=1e-6)


# ---- episodes


@pytest.mark.parametrize(
    ("episodes", "choice", "test"), [(3, [1], [2]), (4, [2], [3]), (10, [5], [4, 9]), (20, [5, 11, 17], [4, 9, 14, 19])]
)
def test_episodes_are_never_split(tmp_path: Path, episodes: int, choice: list[int], test: list[int]) -> None:
    frames = recorded(tmp_path / "lamp", episodes=episodes, length=3, size=2)
    split = Split.of(frames)
    assert frames.episodes[split.test].unique().tolist() == test
    assert frames.episodes[split.choice].unique().tolist() == choice
    assert torch.equal(
        split.fit.int() + split.choice.int() + split.test.int(), torch.ones(len(frames), dtype=torch.int)
    )
    assert split.counts(frames.episodes)["choice"] == {"frames": 3 * len(choice), "episodes": len(choice)}
    for mask in (split.fit, split.choice, split.test):
        assert mask.reshape(episodes, 3).float().mean(1).unique().tolist() == [0, 1]


@pytest.mark.parametrize("episodes", [1, 2])
def test_too_few_episodes_are_refused(tmp_path: Path, episodes: int) -> None:
    with pytest.raises(UserError, match=rf"has {episodes} episodes?, but a probe needs 3"):
        Split.of(recorded(tmp_path / "lamp", episodes=episodes))


# ---- encoders


def test_a_stack_shows_what_changes_and_one_frame_does_not(frames: RecordedFrames, tmp_path: Path) -> None:
    one, two = (pixel_encoder(stack) for stack in (1, 2))
    paths = [run(tmp_path / "one", one), run(tmp_path / "two", two)]
    rows = probe_encoders(frames, paths, untrained=3, raw_pixels=True)
    names = [row.name for row in rows]
    assert names[:2] == [str(path) for path in paths]
    assert [name.split(":")[0] for name in names[2:]] == ["untrained 1", "untrained 2", "raw pixels 12×12"]
    assert [row.features for row in rows] == [6, 6, 6, 6, 2 * 3 * 12 * 12]
    assert [len(row.means) for row in rows] == [1, 1, 3, 3, 1]
    for row in rows:
        assert row.r2["constant"] is None
    raw = rows[-1]
    # Brightness and change are linear in the pixels of two frames.
    assert raw.mean("brightness") == pytest.approx(1, abs=1e-6)
    assert raw.mean("change") == pytest.approx(1, abs=1e-6)
    assert raw.mean("noise") is not None
    assert raw.mean("noise") < 0.3  # type: ignore[operator]
    # The newest frame alone predicts the change only through its own brightness.
    _, single = probe_encoders(frames, [paths[0]], raw_pixels=True)
    assert single.features == 3 * 12 * 12
    assert 0.1 < single.mean("change") < 0.9  # type: ignore[operator]
    # The mean is over the three quantities that vary.
    assert raw.means[0] == pytest.approx(sum(raw.mean(name) or 0 for name in NAMES if name != "constant") / 3)


def test_untrained_encoders_use_the_seeds_0_1_and_so_on(frames: RecordedFrames, tmp_path: Path) -> None:
    paths = [run(tmp_path / str(seed), pixel_encoder(seed=seed)) for seed in range(2)]
    *given, untrained = probe_encoders(frames, paths, untrained=2)
    for quantity, values in untrained.r2.items():
        expected = [row.r2[quantity] for row in given]
        assert values is None or list(values) == [value[0] for value in expected if value is not None]


def test_larger_frames_are_center_cropped_except_for_resnets(tmp_path: Path) -> None:
    frames = recorded(tmp_path / "lamp", size=20)
    small = recorded(tmp_path / "small", size=12)
    torch.manual_seed(0)
    resnet = ResNet((3, 20, 20), ResNetConfig(depth=18, width=4))
    paths = [run(tmp_path / "pixel", pixel_encoder()), run(tmp_path / "resnet", resnet)]
    pixel, of_resnet = probe_encoders(frames, paths)
    # Frames of uniform brightness look the same in every crop.
    (cropped,) = probe_encoders(small, paths[:1])
    assert pixel.r2["brightness"] == pytest.approx(cropped.r2["brightness"])
    assert of_resnet.features == resnet.feature_spec.dim


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda: pixel_encoder(side=16), r"takes images of 16×16, but the frames in .* have 14×14"),
        (lambda: PixelEncoder((4, 12, 12), EncoderConfig(2, (2,), 3)), "takes 4 channels, which must be a multiple of"),
    ],
)
def test_encoders_that_do_not_fit_the_frames_are_refused(
    frames: RecordedFrames, tmp_path: Path, encoder: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        probe_encoders(frames, [run(tmp_path / "run", encoder(), rendered_size=16)])


def test_frames_without_a_varying_state_are_refused(tmp_path: Path) -> None:
    path = run(tmp_path / "run", pixel_encoder())
    with pytest.raises(UserError, match="has no physical state"):
        probe_encoders(recorded(tmp_path / "none", names=()), [path])
    frames = recorded(tmp_path / "still")
    frames.states[:] = 0.1
    with pytest.raises(UserError, match="no state varies"):
        probe_encoders(frames, [path])
    with pytest.raises(UserError, match="no encoder in"):
        probe_encoders(frames, [tmp_path / "nowhere"])


def test_the_table_and_the_report(frames: RecordedFrames) -> None:
    rows = [
        Row("one", {"a": (0.5,), "still": None, "b": (-0.25,)}, 7),
        Row("untrained", {"a": (0.25, 0.75), "still": None, "b": (0.0, 0.0)}, 7),
    ]
    assert table(rows).splitlines() == [
        "R²             one      untrained",
        "a            0.500  0.500 ± 0.354",
        "still     constant       constant",
        "b           -0.250  0.000 ± 0.000",
        "mean         0.125  0.250 ± 0.177",
        "features         7              7",
    ]
    content = report(rows, frames)
    assert content["rows"][1] == {
        "name": "untrained",
        "features": 7,
        "mean": [0.125, 0.375],
        "r2": {"a": [0.25, 0.75], "still": None, "b": [0.0, 0.0]},
    }
    assert (content["frames"], content["episodes"], content["split"]["test"]["episodes"]) == (120, 10, 2)
