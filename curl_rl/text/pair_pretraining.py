"""Pretraining on images with captions: what of it differs from pretraining on sentences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from curl_rl.artifacts.encoder_file import last_names
from curl_rl.objectives import ObjectiveUser
from curl_rl.pretraining.checks import check_warmup, try_out
from curl_rl.pretraining.sources import views_of
from curl_rl.text.data.pairs import SHAPES, PairSet, load_pairs
from curl_rl.text.pair_config import PairConfig
from curl_rl.text.pair_source import PairSource
from curl_rl.text.pretraining import pretrain_on
from curl_rl.text.tokenizer import Tokenizer
from curl_rl.vision.checks import check_number_of_views, check_sizes
from curl_rl.vision.data.image_sets import Split


def pretrain_pairs(config: PairConfig, *, fresh: bool = False) -> Path:
    """Trains a run to its last epoch, resuming it if it has been started before.

    See :func:`curl_rl.text.pretraining.pretrain` for arguments, result and errors.
    """
    return pretrain_on(config, SHAPES, PairData, fresh=fresh)


class PairData:
    """The images and captions that a run is trained on."""

    def __init__(self, config: PairConfig, device: torch.device) -> None:
        self.pairs = pairs_of(config, "train", device)

    @property
    def texts(self) -> Iterable[str]:
        return self.pairs.texts

    def source(self, config: PairConfig, tokenizer: Tokenizer, device: torch.device, *, fresh: bool) -> PairSource:
        images = self.pairs.images
        images.batches(config.batch_size)  # refuses a batch larger than the set
        check_warmup(config, images.batches_per_epoch(config.batch_size))
        check_sizes(config.augment, images)

        own = {"data": last_names(config.data)}
        source = PairSource(self.pairs, tokenizer, config.tokens.length, config.augment, provenance=own)
        user = ObjectiveUser("method", source.name, source.has)
        objective = try_out(config, source.shapes, source.data, user, fresh=fresh)
        check_number_of_views(config.augment, objective, f"{config.method} compares")
        return source.showing(views_of(objective))


def pairs_of(config: PairConfig, split: Split, device: torch.device, data: str | None = None) -> PairSet:
    """The images and captions that a run is trained (train) or tested (test) on, or others of the same sizes.

    Raises:
        UserError: as in :func:`~curl_rl.text.data.pairs.load_pairs`.
    """
    return load_pairs(
        data or config.data,
        split,
        config.image_size,
        captions=config.captions,
        device=device,
        storage=config.compute.storage,
        workers=config.compute.workers,
        small_images=config.small_images,
    )
