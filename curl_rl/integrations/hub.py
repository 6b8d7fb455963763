"""Hugging Face Hub: saving, pushing and loading an encoder as a model repository with a card."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from curl_rl.artifacts.encoder_file import HUB_NAME, as_safetensors, describe, load_encoder
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.installation import installation_of
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import write_durably

try:
    from huggingface_hub import HfApi, ModelCardData, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
except ModuleNotFoundError as error:
    if error.name != "huggingface_hub":
        raise
    raise ImportError(f"curl_rl.integrations.hub needs huggingface_hub: {installation_of('hub')}") from None

CONFIG, CARD = "config.json", "README.md"
_WEIGHTS = f"{HUB_NAME}.safetensors"


def save_for_hub(encoder: PretrainedEncoder, folder: Path | str, *, license: str, repo_id: str = "USER/MODEL") -> Path:
    """Writes the files of a model repository: ``model.safetensors``, ``config.json`` and the card, ``README.md``.

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
    description = describe(encoder)
    # The Hub counts downloads by config.json; only the safetensors, which describe themselves, are loaded.
    write_durably(folder / _WEIGHTS, [as_safetensors(encoder)])
    write_durably(folder / CONFIG, [(json.dumps(description, indent=2) + "\n").encode()])
    write_durably(folder / CARD, [_card(encoder, description, license, repo_id).encode()])
    return folder


def push_encoder(
    encoder: PretrainedEncoder,
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
        encoder: the encoder to push.
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


def _card(encoder: PretrainedEncoder, description: dict[str, Any], license: str, repo_id: str) -> str:
    """The model card: a YAML header, from which the Hub indexes the model, and text for readers."""
    provenance = description["provenance"]
    from_rl = "env" in provenance
    tags = ["curl_rl", "contrastive-learning", "reinforcement-learning" if from_rl else "self-supervised-learning"]
    header = ModelCardData(license=license, library_name="curl_rl", tags=tags, pipeline_tag="image-feature-extraction")
    channels, height, width = encoder.observation_shape
    seen = f"{height}×{width}" if encoder.side else f"any size (trained on crops of {height}×{width})"
    trained = provenance.get("env") or provenance.get("data") or "images"
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in provenance.items())
    return f"""---
{header.to_yaml()}
---

# Encoder trained on {_cell(trained)}

Maps images with {channels} channels to {encoder.features} features with a {_kind(description)}, trained with curl_rl.

## Use

```python
from curl_rl.integrations.hub import load_encoder_from_hub  # needs curl_rl with the hub extra

encoder = load_encoder_from_hub("{repo_id}")
features = encoder(observations)  # (..., {channels}, H, W) or (..., H, W, {channels}) -> (..., {encoder.features})
```

uint8 is divided by 255; floats are expected in [0, 1], unless `scale=` is given. The encoder sees
{seen}{" in the middle of the image" if encoder.side else ""}; it was trained on images of
{encoder.rendered_size}×{encoder.rendered_size}.

`model.safetensors` can be read without that package: `config.json`, also stored in its metadata, describes the shape of
the network.

## Training

| | |
| --- | --- |
{rows}
"""


def _kind(description: dict[str, Any]) -> str:
    config = description["config"]
    if description["kind"] == "two_stream":
        resnet = config["resnet"]
        return f"pair of ResNets-{resnet['depth']} of width {resnet['width']:g}, one for lightness and one for color"
    if description["kind"] == "resnet":
        return f"ResNet-{config['depth']} of width {config['width']:g}"
    return f"network of {len(config['strides'])} convolutions with {config['filters']} filters"


def _cell(value: object) -> str:
    """Formats a value for a table cell: on one line, with pipes escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")
