"""Pretraining on texts: sets up the trainer and runs it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from curl_rl.artifacts.encoder_file import ENCODER, last_names
from curl_rl.objectives import Objective, ObjectiveUser
from curl_rl.pretraining import distributed
from curl_rl.pretraining.checks import check_warmup, try_out
from curl_rl.pretraining.sources import Source, views_of
from curl_rl.pretraining.trainer import Pretrainer
from curl_rl.runs.allocator import keep_freed_memory
from curl_rl.runs.compute import resolve_device
from curl_rl.runs.console import counted
from curl_rl.runs.directory import Claim, claimed
from curl_rl.runs.disk_errors import cannot_write
from curl_rl.runs.errors import UserError
from curl_rl.runs.faults import refusing_what_exceeds
from curl_rl.runs.session import Remedies
from curl_rl.text.config import TextConfig
from curl_rl.text.sentences import GRAMMAR, read_sentences
from curl_rl.text.source import SentenceSource
from curl_rl.text.tokenizer import TOKENIZER, Tokenizer

if TYPE_CHECKING:
    from curl_rl.text.pair_config import PairConfig

C = TypeVar("C", TextConfig, "PairConfig")
C_contra = TypeVar("C_contra", TextConfig, "PairConfig", contravariant=True)

_REMEDIES = Remedies(
    memory="lower batch_size, tokens.length or an encoder's width, with --fresh if the run has begun",
    numbers="try a lower optimizer.lr or a longer warm-up, with --fresh or in another --run directory",
)


def pretrain(config: TextConfig, *, fresh: bool = False) -> Path:
    """Trains a run to its last epoch, resuming it if it has been started before.

    Under ``torchrun`` the processes share each batch, and only process 0 writes.

    Args:
        config: the run's settings.
        fresh: set an earlier run in the directory aside and start over.

    Returns:
        The run's directory.

    Raises:
        UserError: the directory belongs to another configuration, or the settings do not suit the data or the machine.
        TrainingFault: a value is not finite, or the disk failed; the last checkpoint is intact.
        Stopped: SIGINT or SIGTERM was received; the run is saved.
    """
    return pretrain_on(config, GRAMMAR, SentenceData, fresh=fresh)


class Data(Protocol[C_contra]):
    """The texts of a run, and what belongs to them."""

    @property
    def texts(self) -> Iterable[str]:
        """All texts, to train a tokenizer on."""

    def source(self, config: C_contra, tokenizer: Tokenizer, device: torch.device, *, fresh: bool) -> Source[Any]:
        """The data, with the views that the method compares.

        Raises:
            UserError: the settings contradict the data or each other.
        """


def pretrain_on(config: C, built_in: str, read: Callable[[C, torch.device], Data[C]], *, fresh: bool = False) -> Path:
    """:func:`pretrain` for any kind of data with texts in it.

    Args:
        config: the run's settings.
        built_in: name of the data that need no file.
        read: reads the data for a device.
        fresh: set an earlier run in the directory aside and start over.
    """
    with contextlib.ExitStack() as stack:
        device = resolve_device(config.device)
        # The whole path, so that the run means the same in another directory.
        place = config.data if config.data == built_in else os.path.abspath(os.path.expanduser(config.data))
        config = replace(config, device=str(device), data=place)
        stack.enter_context(distributed.process_group(device))
        if device.type == "cuda" and distributed.world_size() > 1:
            device = torch.device("cuda", torch.cuda.current_device())
        if config.compute.threads:
            torch.set_num_threads(config.compute.threads)
        if device.type == "cpu":
            keep_freed_memory()
        with distributed.raised_together(UserError):
            data = read(config, device)
        config, tokenizer = tokenizer_of(config, data.texts, fresh=fresh)
        with distributed.raised_together(UserError):
            source = data.source(config, tokenizer, device, fresh=fresh)
        claim: Claim | None = None
        with distributed.raised_together(UserError):  # the others wait until the directory is this run's
            if distributed.rank() == 0:
                claim = stack.enter_context(claimed(config.directory, config, fresh=fresh))
                _keep(tokenizer, config.directory)
        with distributed.raised_together(UserError), refusing_what_exceeds(device, _REMEDIES.memory):
            pretrainer = Pretrainer(
                config,
                device,
                source,
                remedies=_REMEDIES,
                next_step=f"the encoder is {config.directory / ENCODER}.safetensors, with {TOKENIZER} beside it",
                settings=config.schema.lasting(config),
            )
            stack.callback(pretrainer.close)
            if claim is not None:
                claim.record(pretrainer.session.position().count, f"{source.unit}s")
        pretrainer.run()
    return config.directory


def _keep(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes the tokenizer into the run's directory, unless it is there: before the first checkpoint, whose tokens mean
    nothing without it."""
    file, content = directory / TOKENIZER, tokenizer.content.encode()
    try:
        if not file.is_file() or file.read_bytes() != content:
            tokenizer.save(directory)
    except OSError as error:
        raise UserError(cannot_write(directory, error)) from None


def tokenizer_of(config: C, texts: Iterable[str], *, fresh: bool = False) -> tuple[C, Tokenizer]:
    """The tokenizer named in the settings, that of the run to resume, or a new one trained on the texts.

    All processes get the same. The settings come back with the hash of a tokenizer that they name.

    Raises:
        UserError: it cannot be read, or is not the one recorded in the settings.
    """
    c, content = config.tokens, b""
    with distributed.raised_together(UserError):
        if distributed.rank() == 0:
            saved = config.directory / TOKENIZER
            if c.tokenizer is not None:
                tokenizer = Tokenizer.load(c.tokenizer)
            elif saved.is_file() and not fresh:
                tokenizer = Tokenizer.load(saved)
            else:
                tokenizer = Tokenizer.train(texts, c.vocabulary)
            content = tokenizer.content.encode()
    tokenizer = Tokenizer(distributed.bytes_of_first(content).decode())
    if c.tokenizer is None:
        return config, tokenizer
    if c.tokenizer_sha256 not in (None, tokenizer.sha256):
        raise UserError(
            f"the tokenizer {c.tokenizer} must have tokens.tokenizer_sha256 {str(c.tokenizer_sha256)[:12]}…, got "
            f"SHA-256 {tokenizer.sha256[:12]}…"
        )
    recorded = replace(c, tokenizer=c.tokenizer.absolute(), tokenizer_sha256=tokenizer.sha256)
    return replace(config, tokens=recorded), tokenizer


class SentenceData:
    """Sentences from a file."""

    def __init__(self, config: TextConfig, device: torch.device) -> None:
        self.sentences = read_sentences(config.data)

    @property
    def texts(self) -> Iterable[str]:
        return (text for column in self.sentences.columns for text in column)

    def source(self, config: TextConfig, tokenizer: Tokenizer, device: torch.device, *, fresh: bool) -> SentenceSource:
        count = len(self.sentences.following)
        if config.batch_size > count:
            raise UserError(
                f"batch_size {config.batch_size} is larger than {self.sentences.name}, which has "
                f"{counted(count, 'sentence')}"
            )
        own = {"data": last_names(config.data)}
        source = SentenceSource(self.sentences, tokenizer, config.tokens.length, device, own)
        objective = _checked(config, source, fresh=fresh)
        return source.showing(views_of(objective))


def _checked(config: TextConfig, source: SentenceSource, *, fresh: bool) -> Objective:
    check_warmup(config, source.batches_per_epoch(config.batch_size))
    user = ObjectiveUser("method", source.name, source.has)
    return try_out(config, source.shapes, source.data, user, fresh=fresh)
