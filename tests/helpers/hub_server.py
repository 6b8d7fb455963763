"""A folder in the place of the Hugging Face Hub, with the signatures of its own client."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from curl_rl.integrations import hub


class Server:
    """The part of the Hub's API in use, with its signatures; each repository is a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root, list[tuple[str, dict[str, Any]]]()

    def api(self, token: str | None = None) -> Server:
        self.calls.append(("api", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> None:
        inspect.signature(huggingface_hub.HfApi.create_repo).bind(self, repo_id, **options)
        huggingface_hub.utils.validate_repo_id(repo_id)
        self.calls.append(("create_repo", options))
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        given = {"repo_id": repo_id, "folder_path": folder_path, "commit_message": commit_message}
        inspect.signature(huggingface_hub.HfApi.upload_folder).bind(self, **given)
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return huggingface_hub.CommitInfo(
            commit_url=f"https://huggingface.co/{repo_id}/commit/1", commit_message=commit_message,
            commit_description="", oid="1",
        )  # fmt: skip

    def snapshot(self, repo_id: str, *, revision: str | None, token: str | None, allow_patterns: list[str]) -> str:
        options = {"revision": revision, "token": token, "allow_patterns": allow_patterns}
        inspect.signature(huggingface_hub.snapshot_download).bind(repo_id, **options)
        huggingface_hub.utils.validate_repo_id(repo_id)
        self.calls.append(("snapshot", options))
        if not (self.root / repo_id).exists():
            raise LocalEntryNotFoundError("Cannot find the repository\nand outgoing traffic has been disabled.")
        return str(self.root / repo_id)

    def download(self, repo_id: str, filename: str, *, revision: str | None, token: str | None) -> str:
        huggingface_hub.utils.validate_repo_id(repo_id)
        self.calls.append(("download", {"revision": revision, "token": token}))
        path = self.root / repo_id / filename
        if not path.exists():
            raise LocalEntryNotFoundError(f"Cannot find {filename}\nand outgoing traffic has been disabled.")
        return str(path)


def stand_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Lets the integration talk to a folder."""
    made = Server(root)
    monkeypatch.setattr(hub, "HfApi", made.api)
    monkeypatch.setattr(hub, "hf_hub_download", made.download)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot)
    return made
