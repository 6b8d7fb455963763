"""The encoder that an agent starts from: loads it, identifies it by a hash of its weights, and checks that it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from curl_rl.artifacts.encoder_file import load_encoder
from curl_rl.artifacts.network_file import weights_sha256
from curl_rl.artifacts.pretrained import PretrainedEncoder
from curl_rl.encoders import PixelEncoder
from curl_rl.rl.agent import AgentConfig
from curl_rl.rl.config import RunConfig, read_config
from curl_rl.rl.workers import Environment, pixel_spaces
from curl_rl.runs import directory as run_directory
from curl_rl.runs.console import say
from curl_rl.runs.errors import UserError, one_line
from curl_rl.runs.settings import is_same_place


def find_starting_encoder(
    config: RunConfig, environment: Environment, *, resumes: bool
) -> tuple[RunConfig, PixelEncoder | None]:
    """The configuration, completed with the hash of the initial weights, and the encoder, unless the run resumes.

    A run that resumes from a checkpoint has its weights there and the hash in its configuration: the original file may
    have been deleted or changed. Only if the configuration names another path is that read, to compare the hashes.

    Raises:
        UserError: the encoder cannot be read, is not the recorded one, or does not fit.
    """
    if config.encoder is None:
        return config, None
    directory = config.directory
    if (
        resumes
        and (directory / run_directory.CONFIG).is_file()
        and any((directory / run_directory.CHECKPOINTS).glob("*.ckpt"))
    ):
        earlier = read_config(directory / run_directory.CONFIG)
        if earlier.encoder is not None and is_same_place(config.encoder, earlier.encoder):
            return replace(config, encoder_sha256=config.encoder_sha256 or earlier.encoder_sha256), None
        # At another path the weights may be the same or not: the run may resume, or its settings differ.
        return replace(config, encoder_sha256=read_starting_encoder(config.encoder, config.encoder_sha256)[1]), None
    pretrained, found = read_starting_encoder(config.encoder, config.encoder_sha256)
    encoder = _check_fit(config.encoder, pretrained, pixel_spaces(environment)[0], config.agent)
    if pretrained.rendered_size != config.environment.size:
        say(
            f"the encoder was trained on frames of {pretrained.rendered_size} pixels: with environment.size "
            f"{config.environment.size} it sees the scene at another scale"
        )
    return replace(config, encoder_sha256=found), encoder


def read_starting_encoder(path: Path, sha256: str | None = None) -> tuple[PretrainedEncoder, str]:
    """Loads the encoder at ``path`` and returns it with the hash of its weights.

    Args:
        path: directory of a run, or an encoder file.
        sha256: required hash of the weights; None accepts any.

    Raises:
        UserError: the encoder is missing or damaged, or its weights have another hash.
    """
    try:
        pretrained = load_encoder(path)
    except ValueError as error:
        raise UserError(f"encoder: {one_line(error)}") from None
    found = weights_sha256(pretrained.encoder.state_dict())
    if sha256 is not None and sha256 != found:
        raise UserError(
            f"the weights of encoder {path} must have encoder_sha256 {sha256[:12]}…, got SHA-256 {found[:12]}…"
        )
    return pretrained, found


def _check_fit(
    path: Path, pretrained: PretrainedEncoder, observation_shape: tuple[int, int, int], config: AgentConfig
) -> PixelEncoder:
    """Returns the encoder itself, if an agent of this configuration can start from it.

    Args:
        path: the encoder's path, for the message.
        pretrained: the encoder read from it.
        observation_shape: ``(C, H, W)`` of the environment's observations.
        config: the agent's configuration.

    Raises:
        UserError: the two do not fit; the message lists the differences, with the flags that resolve them.
    """
    encoder = pretrained.encoder
    if not isinstance(encoder, PixelEncoder):
        raise UserError(
            f"encoder {path} must be a PixelEncoder, got a {type(encoder).__name__}: start from one trained by "
            "another agent, or by pretraining on recorded frames"
        )
    channels, crop, width_seen = encoder.observation_shape
    (shown, height, width), wanted, own = observation_shape, encoder.config, config.encoder
    misfits = []
    if channels != shown:
        stack = f"--environment.stack {channels // 3}" if channels % 3 == 0 else "not a stack of RGB frames"
        misfits.append(f"it takes {channels} channels and the environment gives {shown} ({stack})")
    if (crop, width_seen) != (config.crop, config.crop):
        size = f"--environment.size {pretrained.rendered_size} " if crop > min(height, width) else ""
        flags = f"{size}--agent.crop {crop}" if crop == width_seen else "an agent's crops are square"
        misfits.append(
            f"it takes images of {crop}×{width_seen} and the agent crops to {config.crop}×{config.crop} ({flags})"
        )
    for name, encoders, agents in (
        ("filters", wanted.filters, own.filters),
        ("strides", list(wanted.strides), list(own.strides)),
        ("latent", wanted.latent, own.latent),
    ):
        if encoders != agents:
            flag = f"--agent.encoder.{name} {encoders}".replace(", ", ",")
            misfits.append(f"it has {name} {encoders} and the agent {agents} ({flag})")
    if misfits:
        raise UserError(f"encoder {path} does not fit the agent: {'; '.join(misfits)}")
    return encoder
