"""Hugging Face Hub: saving, pushing and loading an encoder as a model repository with a card.

An encoder of texts goes with its tokenizer, and encoders of images with captions go together, with their heads.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from curl_rl.artifacts.encoder_file import ENCODER, HUB_NAME, TEXT_ENCODER, as_safetensors, describe, load_encoder
from curl_rl.artifacts.head_file import HEAD, TEXT_HEAD, head_as_safetensors
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.installation import installation_of
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import write_durably
from curl_rl.text import SentenceEncoder, load_sentence_encoder, sentence_encoder
from curl_rl.text.pair_encoder import PairEncoder, load_pair_encoder
from curl_rl.text.tokenizer import TOKENIZER

try:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from curl_rl.integrations.model_cards import Encoders, image_card, pair_card, text_card
except ModuleNotFoundError as error:
    if error.name != "huggingface_hub":
        raise
    raise ImportError(f"curl_rl.integrations.hub needs huggingface_hub: {installation_of('hub')}") from None

CONFIG, CARD = "config.json", "README.md"
_WEIGHTS = f"{HUB_NAME}.safetensors"
_PAIR = [f"{name}.safetensors" for name in (ENCODER, TEXT_ENCODER, HEAD, TEXT_HEAD)]


def save_for_hub(encoder: Encoders, folder: Path | str, *, license: str, repo_id: str = "USER/MODEL") -> Path:
    """Writes the files of a model repository: ``model.safetensors``, ``config.json`` and the card, ``README.md``.

    An encoder of texts has its ``tokenizer.json`` as well. Encoders of images with captions have the files of their run
    in the place of ``model.safetensors``.

    Args:
        encoder: the encoder to write.
        folder: the target folder, created if missing; other files in it are kept.
        license: license of the weights, by its name on the Hub, such as "mit" or "cc-by-4.0".
        repo_id: the repository's name, for the example in the card.

    Returns:
        The folder.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(encoder, license, repo_id).items():
        write_durably(folder / name, [content])
    return folder


def push_encoder(
    encoder: Encoders,
    repo_id: str,
    *,
    license: str,
    private: bool = False,
    message: str = "Upload an encoder",
    token: str | None = None,
) -> str:
    """Pushes an encoder to the Hub, as :func:`save_for_hub` writes it, and creates the repository if missing.

    The upload includes all of ``encoder.provenance``, with the last three names of the run's and the data's paths (or
    the data's whole path, in files written by earlier versions). Edit it first to withhold anything.

    Args:
        encoder: the encoder to push; one of texts with its tokenizer, or those of images with captions.
        repo_id: "user/model".
        license: license of the weights, by its name on the Hub.
        private: make a newly created repository private.
        message: commit message.
        token: the Hub's access token. [default: that of `hf auth login`]

    Returns:
        The URL of the commit.

    Raises:
        UserError: the name is invalid, or the Hub refuses the upload.
    """
    api = HfApi(token=token)
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_for_hub(encoder, folder, license=license, repo_id=repo_id)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise UserError(f"cannot push to {repo_id!r}: {one_line(error)[:300]}") from None
    return str(commit.commit_url)


def load_encoder_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    freeze: bool = True,
    scale: float = 1.0,
    layout: Layout = "auto",
    token: str | None = None,
) -> PretrainedEncoder:
    """Loads an encoder from the Hub; downloads are cached.

    Args:
        repo_id: "user/model".
        revision: branch, tag or commit. Name a commit if the weights must not change. [default: the main branch]
        freeze, scale, layout: as in :func:`~curl_rl.load_encoder`.
        token: the Hub's access token, for a private repository. [default: that of `hf auth login`]

    Raises:
        ValueError: the repository, revision or file does not exist, the Hub cannot be reached, or the file is not a
            valid encoder.
    """
    try:
        path = hf_hub_download(repo_id, _WEIGHTS, revision=revision, token=token)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        at = f" at {revision}" if revision else ""
        raise UserError(f"cannot load {_WEIGHTS} of {repo_id!r}{at}: {one_line(error)[:300]}") from None
    return load_encoder(path, freeze=freeze, scale=scale, layout=layout)


def load_sentence_encoder_from_hub(
    repo_id: str, *, revision: str | None = None, freeze: bool = True, token: str | None = None
) -> SentenceEncoder:
    """Loads an encoder of texts and its tokenizer from the Hub; downloads are cached.

    Args:
        repo_id: "user/model".
        revision, token: as in :func:`load_encoder_from_hub`.
        freeze: as in :func:`~curl_rl.text.load_sentence_encoder`.

    Raises:
        ValueError: as :func:`load_encoder_from_hub`, or the tokenizer is not the encoder's.
    """
    return load_sentence_encoder(_downloaded(repo_id, [_WEIGHTS, TOKENIZER], revision, token), freeze=freeze)


def load_pair_encoder_from_hub(repo_id: str, *, revision: str | None = None, token: str | None = None) -> PairEncoder:
    """Loads encoders of images and of texts with a common space from the Hub; downloads are cached.

    Args:
        repo_id: "user/model".
        revision, token: as in :func:`load_encoder_from_hub`.

    Raises:
        ValueError: as :func:`load_encoder_from_hub`, or the files do not belong together.
    """
    return load_pair_encoder(_downloaded(repo_id, [*_PAIR, TOKENIZER], revision, token))


def _downloaded(repo_id: str, files: Sequence[str], revision: str | None, token: str | None) -> Path:
    """The folder of these files, all of one commit.

    Raises:
        UserError: the Hub cannot be reached, or the repository, the revision or a file does not exist.
    """
    at = f" at {revision}" if revision else ""
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=list(files)))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise UserError(f"cannot load {files[0]} of {repo_id!r}{at}: {one_line(error)[:300]}") from None
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(f"cannot load {missing[0]} of {repo_id!r}{at}: the repository does not have it")
    return folder


def _files(encoder: Encoders, license: str, repo_id: str) -> dict[str, bytes]:
    """The files of a repository by name.

    The Hub counts downloads by config.json; only the safetensors, which describe themselves, are loaded.
    """
    if isinstance(encoder, PairEncoder):
        images, texts = encoder.images, encoder.texts
        described = {"image": describe(images), "text": sentence_encoder.describe(texts)}
        weights = (as_safetensors(images), sentence_encoder.as_safetensors(texts))
        heads = (head_as_safetensors(encoder.image_head), head_as_safetensors(encoder.text_head))
        files = dict(zip(_PAIR, (*weights, *heads), strict=True)) | {TOKENIZER: texts.tokenizer.content.encode()}
        card = pair_card(encoder, license, repo_id)
    elif isinstance(encoder, SentenceEncoder):
        described = sentence_encoder.describe(encoder)
        files = {_WEIGHTS: sentence_encoder.as_safetensors(encoder), TOKENIZER: encoder.tokenizer.content.encode()}
        card = text_card(encoder, license, repo_id)
    else:
        described = describe(encoder)
        files = {_WEIGHTS: as_safetensors(encoder)}
        card = image_card(encoder, described, license, repo_id)
    return {**files, CONFIG: (json.dumps(described, indent=2) + "\n").encode(), CARD: card.encode()}
