"""What the command line refuses before a run is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.commands.finetune_vision import main


@pytest.mark.parametrize("flag", ["--unlabelled_weight", "--confidence", "--temperature"])
def test_settings_of_unlabeled_images_need_them(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), flag, "0.5"])
    assert f"{flag} applies to unlabeled images only: add --unlabelled, or leave it out" in capsys.readouterr().err


def test_a_range_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--unlabelled", "--confidence", "1.5"])
    assert "confidence must lie in [0, 1], got 1.5" in capsys.readouterr().err
