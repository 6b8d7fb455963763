"""Packages are found where they are unpacked, and what is missing is named with a way to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.text.packages import cldr, gensim_data, stamps, wordnet
from curl_rl.text.packages.found import Package, find
from helpers import packages


def test_a_package_is_found_in_a_folder_of_folders_with_its_version_and_license(tmp_path: Path) -> None:
    packages.cldr(tmp_path / "all" / "unicode")
    for root in (tmp_path / "all", tmp_path / "all" / "unicode"):
        found = cldr.find_cldr([tmp_path, root])
        assert found.root == tmp_path / "all" / "unicode"
        assert found.version == "1.2-3"
        assert found.license_text() == "License of unicode-cldr-core: everything\n"


def test_a_wheel_has_its_version_and_license_in_its_metadata(tmp_path: Path) -> None:
    packages.gensim(tmp_path)
    found = find(gensim_data.GENSIM, "gensim/test/test_data/lee.cor", [tmp_path])
    assert (found.version, found.license_text()) == ("4.4.0", "Lesser General Public License\n")


@pytest.mark.parametrize(
    ("package", "command"),
    [
        (
            stamps.STAMPS,
            "apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb packages",
        ),
        (gensim_data.GENSIM, "pip download --no-deps gensim && python -m zipfile -e gensim-*.whl packages"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_gets_it(
    tmp_path: Path, package: Package, command: str
) -> None:
    with pytest.raises(UserError) as raised:
        find(package, "some/file", [tmp_path])
    message = str(raised.value)
    assert message.startswith(f"no {package.name} ({package.registry}: {package.holds}) in {tmp_path}")
    assert f"`{command}`" in message
    assert "\n" not in message
    with pytest.raises(UserError, match="^no folder "):
        find(package, "some/file", [tmp_path / "nowhere"])


def test_a_package_without_its_license_is_refused(tmp_path: Path) -> None:
    packages.wordnet(tmp_path)
    (tmp_path / packages.DOC / "wordnet-base" / "copyright").unlink()
    with pytest.raises(UserError, match="lacks the license of wordnet-base, which must stay with the data"):
        wordnet.find_wordnet([tmp_path]).license_text()
