"""A set of images or recorded frame stacks as a source of pretraining data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.augment.pba import Schedule
from curl_rl.objectives import DataSpec, Modality, Need, ViewSpec
from curl_rl.vision.data.image_sets import ImageBatch, ImageSet
from curl_rl.vision.views import AugmentConfig, make_views, offset_of


def data_of(images: ImageSet) -> DataSpec:
    """Sizes of a set, for methods that depend on them."""
    return DataSpec(count=len(images), classes=len(images.classes) or None, action_dim=images.action_dim)


def offered_by(images: ImageSet) -> frozenset[Need]:
    """Needs of a method that a set satisfies."""
    needs: set[Need] = {"indices", "epochs"}
    if images.labels is not None:
        needs.add("labels")
    if images.action_dim is not None:
        needs.add("actions")
    return frozenset(needs)


class ImageSource:
    """Images and the recipe for their views: a :class:`~curl_rl.pretraining.sources.Source`.

    Args:
        images: the set.
        augment: the recipe.
        specs: the views that the objective compares.
        positive_offset: agent steps added to the offset of every view but the first.
        actions: number of actions to pass to the objective, starting at each observation; 0, none.
        provenance: facts about the images to store with the encoder, in addition to the set's own.
        schedule: the policies of a recipe with policy pba.
        epochs: length of the training, to which the schedule is stretched.

    Raises:
        UserError: a view shows a later moment, but the images are not frames.
    """

    unit = "image"

    def __init__(
        self,
        images: ImageSet,
        augment: AugmentConfig,
        specs: Sequence[ViewSpec],
        *,
        positive_offset: int = 0,
        actions: int = 0,
        provenance: dict[str, Any] | None = None,
        schedule: Schedule | None = None,
        epochs: int = 1,
    ) -> None:
        offsets = {offset_of(spec, positive_offset) for spec in specs} - {0}
        self.images = images.ahead(sorted(offsets), actions)
        self.name, self.size, self.classes = images.name, images.size, images.classes
        self.identity, self.provenance = images.identity, {**(provenance or {}), **images.provenance}
        self.shapes: Mapping[Modality, tuple[int, int, int]] = {"image": (images.channels, augment.size, augment.size)}
        self.data, self.has = data_of(images), offered_by(images)
        self._augment, self._specs = augment, tuple(specs)
        self._positive_offset, self._actions = positive_offset, actions
        self._schedule, self._epochs = schedule, epochs

    def of(self, images: ImageSet) -> ImageSource:
        """Returns a source of other images with the same views."""
        return ImageSource(
            images,
            self._augment,
            self._specs,
            positive_offset=self._positive_offset,
            actions=self._actions,
            schedule=self._schedule,
            epochs=self._epochs,
        )

    def __len__(self) -> int:
        return len(self.images)

    def batches_per_epoch(self, batch_size: int) -> int:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return self.images.batches_per_epoch(batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int = 0, start_batch: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[ImageBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        batches = self.images.batches(
            batch_size, seed=seed, epoch=epoch, start_batch=start_batch, rank=rank, world_size=world_size
        )
        return (batch._replace(epoch=epoch) for batch in batches)

    def everything(self, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Iterator[ImageBatch]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        alone = self.images.ahead(())
        return alone.batches(batch_size, shuffle=False, drop_last=False, rank=rank, world_size=world_size)

    def views(self, batch: ImageBatch, generator: torch.Generator) -> dict[ViewSpec, Tensor]:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return make_views(
            batch.images,
            self._augment,
            generator,
            self._specs,
            later=batch.later,
            positive_offset=self._positive_offset,
            policy=self._schedule and self._schedule.at(batch.epoch / self._epochs),
        )

    def center(self, batch: ImageBatch) -> Tensor:
        """See :class:`~curl_rl.pretraining.sources.Source`."""
        return center_crop(batch.images, self._augment.size)
