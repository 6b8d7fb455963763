"""Model cards of the Hugging Face Hub: a YAML header, from which the Hub indexes a model, and text for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders.text import PADDING
from curl_rl.text import SentenceEncoder
from curl_rl.text.pair_encoder import PairEncoder
from curl_rl.text.tokenizer import END, START

Encoders = PretrainedEncoder | SentenceEncoder | PairEncoder
"""What a repository can hold: an encoder of images, one of texts, or both with a common space."""


def image_card(encoder: PretrainedEncoder, description: dict[str, Any], license: str, repo_id: str) -> str:
    """The card of an encoder of images, of which ``description`` is the description in its file."""
    provenance = description["provenance"]
    from_rl = "env" in provenance
    tags = ["contrastive-learning", "reinforcement-learning" if from_rl else "self-supervised-learning"]
    channels, height, width = encoder.observation_shape
    seen = f"{height}×{width}" if encoder.side else f"any size (trained on crops of {height}×{width})"
    trained = provenance.get("env") or provenance.get("data") or "images"
    body = f"""# Encoder trained on {_cell(trained)}

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
the network."""
    return _card(license, "image-feature-extraction", tags, body, provenance)


def text_card(sentences: SentenceEncoder, license: str, repo_id: str) -> str:
    """The card of an encoder of texts with its tokenizer."""
    vocabulary, _, length = sentences.encoder.input_shape
    body = f"""# Sentence encoder trained on {_cell(sentences.provenance.get("data") or "texts")}

Maps texts of up to {length} tokens to {sentences.features} features ({sentences.encoder.title}), trained with curl_rl.

## Use

```python
from curl_rl.integrations.hub import load_sentence_encoder_from_hub  # needs curl_rl with the extras hub and text

encoder = load_sentence_encoder_from_hub("{repo_id}")
vectors = encoder(["a sentence", "another"])  # (2, {sentences.features}), compared by cosine
```

`model.safetensors` can be read without that package: `config.json`, also stored in its metadata, describes the shape of
the network. `tokenizer.json`, of {vocabulary:,} tokens, is a file of the library `tokenizers`; a text is a start token
({START}), its own tokens, an end token ({END}), and {PADDING} as padding."""
    return _card(license, "sentence-similarity", ["contrastive-learning"], body, sentences.provenance)


def pair_card(pair: PairEncoder, license: str, repo_id: str) -> str:
    """The card of encoders of images and of texts with a common space."""
    side, provenance = pair.image_size, pair.images.provenance
    body = f"""# Encoders of images and texts trained on {_cell(provenance.get("data") or "images with captions")}

Map images of {side}×{side} and texts into a common space, in which they are compared by their products; trained with
curl_rl.

## Use

```python
from curl_rl.integrations.hub import load_pair_encoder_from_hub  # needs curl_rl with the extras hub and text

encoder = load_pair_encoder_from_hub("{repo_id}")
cosines = encoder.embed_images(images) @ encoder.embed_texts(texts).T  # images: uint8 (N, 3, {side}, {side})
```

Each encoder is a file, and so is the head behind it, which maps its features into the common space. All can be read
without that package: their metadata, and `config.json` for the encoders, describe the shapes of the networks.
`tokenizer.json` is a file of the library `tokenizers`."""
    return _card(license, "zero-shot-image-classification", ["contrastive-learning"], body, provenance)


def _card(license: str, task: str, tags: list[str], body: str, provenance: Mapping[str, Any]) -> str:
    header = ModelCardData(license=license, library_name="curl_rl", tags=["curl_rl", *tags], pipeline_tag=task)
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in provenance.items())
    return f"""---
{header.to_yaml()}
---

{body}

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
