"""The program learns from the folders that the package reads, by SimCLR's loss as written in the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from curl_rl import ResNet, load_encoder
from curl_rl.objectives import SimCLR
from examples import simclr_on_a_folder as example
from helpers.image_folders import make_classes

SMALL = ["--size", "6", "--width", "0.0625", "--batch_size", "4", "--epochs", "2"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["simclr_on_a_folder.py", *map(str, arguments)])
    example.main()


def test_it_prints_loss_and_neighbors_and_saves_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        make_classes(tmp_path / "images" / split, one=6, two=5)
    out = tmp_path / "out"
    out.mkdir()
    run(monkeypatch, tmp_path / "images", *SMALL, "--out", out)
    printed = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+\.\d+", "x", line) for line in printed] == [
        "11 images, 2 steps an epoch: untrained, nearest neighbors x%",
        "epoch   1: loss x, nearest neighbors x%",
        "epoch   2: loss x, nearest neighbors x%",
        f'saved; in Python: curl_rl.load_encoder("{out}")',
    ]
    encoder = load_encoder(out)
    assert encoder.rendered_size == 6
    assert encoder(torch.zeros(3, 3, 6, 6, dtype=torch.uint8)).shape == (3, 32)


def test_a_folder_without_labels_is_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_classes(tmp_path, flat=6)
    run(monkeypatch, tmp_path / "flat", *SMALL)
    printed = capsys.readouterr()
    assert re.fullmatch(r"6 images, 1 steps an epoch: untrained\n(epoch   \d: loss \d\.\d+\n){2}", printed.out)
    assert re.search(r"^no nearest neighbors: .*test", printed.err, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none"),
        (["flat", "--batch_size", "1"], "--batch_size must be at least 2, got 1"),
        (["flat", "--mirror", "2"], "augment.mirror must lie in [0, 1], got 2.0"),
    ],
    ids=["no folder", "batch of one", "mirror"],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_classes(tmp_path, flat=6)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *SMALL, *arguments)
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "error: " in line
    assert message in line


def test_the_loss_is_the_one_of_both_views_by_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed loss of a single step is NT-Xent, written out, of the views that the encoder was given."""
    make_classes(tmp_path, flat=4)
    seen: list[torch.Tensor] = []

    class Recorded(ResNet):
        def encode(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
            features = super().encode(images)
            if self.training:
                seen.append(features.vector.detach())
            return features

    heads: list[SimCLR] = []

    class Kept(SimCLR):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            self.train()
            heads.append(self)

        def forward(self, *args: object):  # type: ignore[no-untyped-def]
            self.embeddings = self.head(torch.cat([view.vector for view in args[0]])).detach()  # type: ignore[attr-defined]
            return super().forward(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(example, "ResNet", Recorded)
    monkeypatch.setattr(example, "SimCLR", Kept)
    run(monkeypatch, tmp_path / "flat", *SMALL, "--epochs", "1")
    (vectors,) = seen  # both views in one pass, as batch norm requires
    assert vectors.shape == (8, 32)
    embeddings = heads[0].embeddings.double()
    expected = 0.0
    for i in range(8):
        scores = [float(torch.cosine_similarity(embeddings[i], embeddings[j], dim=0)) / 0.2 for j in range(8) if j != i]
        partner = float(torch.cosine_similarity(embeddings[i], embeddings[(i + 4) % 8], dim=0)) / 0.2
        expected += (torch.tensor(scores).logsumexp(0).item() - partner) / 8
    printed = re.findall(r"loss (\d+\.\d+)", capsys.readouterr().out)
    assert float(printed[0]) == pytest.approx(expected, abs=6e-4)


@pytest.mark.slow
def test_the_program_learns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    run(monkeypatch, "digits", "--mirror", "0", "--size", "16", "--width", "0.125")
    scores = [float(found) for found in re.findall(r"neighbors (\d+\.\d)%", capsys.readouterr().out)]
    assert scores[-1] > scores[0] + 1
