"""Hugging Face Hub: an encoder as a model repository with a card, in a folder, pushed, and loaded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from curl_rl.artifacts.encoder_file import HUB_NAME, as_safetensors, describe, load_encoder
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.files import write_durably

try:
    from huggingface_hub import HfApi, ModelCardData, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
except ModuleNotFoundError as error:
    if error.name != "huggingface_hub":
        raise
    raise ImportError(
        "curl_rl.integrations.hub needs huggingface_hub: pip install -e '.[hub]' in curl_rl's clone"
    ) from None

CONFIG, CARD = "config.json", "README.md"
_WEIGHTS = f"{HUB_NAME}.safetensors"


def save_for_hub(encoder: PretrainedEncoder, folder: Path | str, *, license: str, repo_id: str = "USER/MODEL") -> Path:
    """Writes what a model repository holds: ``model.safetensors``, ``config.json`` and the card, ``README.md``.

    Args:
        encoder: what to write.
        folder: where to; it is made if need be, and other files in it stay.
        license: of the weights, by the Hub's name for it, such as "mit" or "cc-by-4.0".
        repo_id: the repository's name, for the example in the card.

    Returns:
        The folder.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = describe(encoder)
    # config.json is what the Hub counts downloads by; the safetensors describe themselves, and are what is loaded.
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
    """Puts an encoder on the Hub, as :func:`save_for_hub` writes it, and makes the repository if there is none.

    All of ``encoder.provenance`` goes along, the last three names of the paths of run and data included (a file that an
    earlier version wrote has the data's whole path): change it first if it shall not.

    Args:
        encoder: what to push.
        repo_id: "user/model".
        license: of the weights, by the Hub's name for it.
        private: whether a repository that is made now is private.
        message: of the commit.
        token: the Hub's access token. [default: that of `hf auth login`]

    Returns:
        The address of the commit.

    Raises:
        UserError: the name is none, or the Hub refuses.
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
    """An encoder from the Hub; what was downloaded once is not downloaded again.

    Args:
        repo_id: "user/model".
        revision: branch, tag or commit. Name a commit where the weights must not change. [default: the main branch]
        freeze, scale, layout: as in :func:`~curl_rl.load_encoder`.
        token: the Hub's access token, for a private repository. [default: that of `hf auth login`]

    Raises:
        ValueError: there is no such repository, revision or file, the Hub cannot be reached, or the file is no sound
            encoder.
    """
    try:
        path = hf_hub_download(repo_id, _WEIGHTS, revision=revision, token=token)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        at = f" at {revision}" if revision else ""
        raise UserError(f"cannot load {_WEIGHTS} of {repo_id!r}{at}: {one_line(error)[:300]}") from None
    return load_encoder(path, freeze=freeze, scale=scale, layout=layout)


def _card(encoder: PretrainedEncoder, description: dict[str, Any], license: str, repo_id: str) -> str:
    """The model card: a YAML header, which the Hub files it by, and what people read."""
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

Images with {channels} channels to {encoder.features} features, by a {_kind(description)}, trained with curl_rl.

## Use

```python
from curl_rl.integrations.hub import load_encoder_from_hub  # wants curl_rl with its extra hub

encoder = load_encoder_from_hub("{repo_id}")
features = encoder(observations)  # (..., {channels}, H, W) or (..., H, W, {channels}) -> (..., {encoder.features})
```

uint8 is divided by 255; floats are taken as they are, in [0, 1], unless `scale=` says otherwise. The encoder sees
{seen}{" in the middle of the image" if encoder.side else ""}; it was trained on images of
{encoder.rendered_size}×{encoder.rendered_size}.

`model.safetensors` can be read without that package: `config.json`, which is in its metadata as well, has the shape of
the network.

## Training

| | |
| --- | --- |
{rows}
"""


def _kind(description: dict[str, Any]) -> str:
    config = description["config"]
    if description["kind"] == "resnet":
        return f"ResNet-{config['depth']} of width {config['width']:g}"
    return f"network of {len(config['strides'])} convolutions with {config['filters']} filters"


def _cell(value: object) -> str:
    """On one line, and no end of the table's cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
