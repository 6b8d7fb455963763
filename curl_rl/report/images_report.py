"""The parts of a report that need the images and the encoder of a pretraining run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.report.charts import class_map
from curl_rl.report.page import Section, figure, png
from curl_rl.report.projection import principal_components
from curl_rl.runs.errors import UserError, one_line
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.evaluation.comparison import evaluate_runs
from curl_rl.vision.evaluation.neighbors import nearest
from curl_rl.vision.evaluation.protocols import EvaluationConfig, Protocol
from curl_rl.vision.evaluation.saved_runs import read_run
from curl_rl.vision.images import images_of
from curl_rl.vision.showcase import Shown, encode_some, sample_views

_ENCODED = 1000
_QUERIES, _NEIGHBORS = 8, 8
_THUMBNAILS = 150
_CANVAS = (620, 1000)  # pixels
_GREEN, _RED = (0, 158, 115), (213, 94, 0)


def add_images(section: Section, directory: Path, *, protocols: Sequence[Protocol], device: torch.device) -> None:
    """Adds the parts that need the images; where one cannot be made, a note says why.

    Args:
        section: the run's section of the page.
        directory: the run.
        protocols: protocols to evaluate the encoder by.
        device: device to compute on.
    """
    try:
        run = read_run(directory, device)
    except ValueError as error:
        section.note(f"Views, neighbors and embeddings need a saved encoder: {one_line(error)}")
        return
    section.heading("Views")
    try:
        training = images_of(run.config, "train", device)
    except (UserError, OSError) as error:
        section.note(f"The images cannot be loaded here, so what they show is left out: {one_line(error)}")
        return
    views = sample_views(run.config, training)
    width = min(1000, (1 if views.shape[-1] > 300 else 2) * views.shape[-1])
    section.figure(figure(png(views), "png", "Images, each next to views of it.", width=width))
    if protocols and training.labels is not None:
        _add_scores(section, directory, protocols, device)
    images, which = _held_out(run.config, training, device)
    shown = encode_some(run.encoder, images, count=_ENCODED, seed=run.config.seed)
    section.heading("Nearest neighbors")
    k = min(_NEIGHBORS, len(shown.images) - 1)
    if k:
        words = (
            f"{which} images, each followed by its {k} nearest neighbors among {len(shown.images):,}, nearest first."
        )
        if shown.labels is not None:
            words += " Green: of the same class; red: of another."
        picture = neighbors_picture(shown, k)
        section.figure(figure(png(picture), "png", words, width=min(1000, 3 * picture.shape[-1])))
    section.heading("Map of the embeddings")
    coordinates, shares = principal_components(shown.features)
    if shown.labels is not None:
        colored = class_map(coordinates, shares, shown.labels, shown.classes)
        section.figure(figure(colored, "svg+xml", f"Features of {len(shown.images):,} images, by class."))
    section.figure(
        figure(
            png(thumbnail_map(shown.images[:_THUMBNAILS], coordinates[:_THUMBNAILS])),
            "png",
            f"The images themselves along the two principal components of their features, which hold "
            f"{float(shares.sum()):.0%} of the variance. Neighbors on this map should look alike.",
        )
    )


def _add_scores(section: Section, directory: Path, protocols: Sequence[Protocol], device: torch.device) -> None:
    section.heading("Standard protocols")
    try:
        rows = evaluate_runs([directory], EvaluationConfig(protocols=tuple(protocols)), untrained=True, device=device)
    except ValueError as error:
        section.note(f"Not evaluated: {one_line(error)}")
        return
    names = list(rows[0].scores)
    cells = [[row.name, *(f"{row.mean(name):.1%}" for name in names)] for row in rows]
    section.table([["encoder", *names], *cells])


def _held_out(config: VisionConfig, training: ImageSet, device: torch.device) -> tuple[ImageSet, str]:
    """Test images if there are any, else the training images."""
    try:
        return images_of(config, "test", device), "Test"
    except (UserError, OSError):
        return training.ahead(()), "Training"


def neighbors_picture(shown: Shown, k: int) -> Tensor:
    """One row per query, its ``k`` nearest after it, in the color of agreement; ``(3, height, width)`` uint8."""
    queries = torch.linspace(0, len(shown.images) - 1, min(_QUERIES, len(shown.images))).long()
    indices, _ = nearest(shown.features, queries, k)
    rows = []
    for query, found in zip(queries.tolist(), indices.tolist(), strict=True):
        tiles = [_framed(shown.images[query], (34, 34, 34))]
        for other in found:
            same = shown.labels is not None and bool(shown.labels[query] == shown.labels[other])
            color = (204, 204, 204) if shown.labels is None else _GREEN if same else _RED
            tiles.append(_framed(shown.images[other], color))
        rows.append(torch.cat(tiles, dim=2))
    return torch.cat(rows, dim=1)


def _framed(image: Tensor, color: tuple[int, int, int]) -> Tensor:
    edge = max(1, image.shape[-1] // 16)
    framed = torch.tensor(color, dtype=torch.uint8)[:, None, None].repeat(
        1, *(side + 2 * edge for side in image.shape[1:])
    )
    framed[:, edge:-edge, edge:-edge] = image
    return F.pad(framed, (0, edge, 0, edge), value=255)


def thumbnail_map(images: Tensor, coordinates: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """``(N, 3, S, S)`` images at their ``(N, 2)`` coordinates; ``(height, width, 3)`` uint8."""
    side = 40
    tiles = F.interpolate(images.float(), (side, side), mode="nearest").to(torch.uint8).permute(0, 2, 3, 1).numpy()
    height, width = _CANVAS
    low, high = coordinates.min(0).values, coordinates.max(0).values
    places = (coordinates - low) / (high - low).clamp_min(torch.finfo(coordinates.dtype).tiny)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for tile, (x, y) in zip(tiles, places.tolist(), strict=True):
        top, left = round((1 - y) * (height - side)), round(x * (width - side))
        canvas[top : top + side, left : left + side] = tile
    return canvas
