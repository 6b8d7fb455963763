"""Policy files in the format of :mod:`~curl_rl.artifacts.network_file`: describing, writing and loading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from curl_rl.artifacts import encoder_file, network_file
from curl_rl.artifacts.network_file import damaged, file_description, load_network, network_files
from curl_rl.artifacts.pretrained import Layout, PretrainedEncoder
from curl_rl.encoders import PixelEncoder, build_encoder
from curl_rl.rl import sac
from curl_rl.rl.loading import load_agent
from curl_rl.rl.pretrained_policy import PretrainedPolicy, policy_of
from curl_rl.runs import directory as run_directory

POLICY = "policy"
"""Name of a policy's file."""


def describe(policy: PretrainedPolicy) -> dict[str, Any]:
    """The description that this policy's file holds, JSON-serializable."""
    actor = policy.actor
    about = encoder_file.describe(policy.encoder)
    encoder = {name: about[name] for name in ("kind", "observation_shape", "flattening", "preprocessing", "config")}
    own = {
        "kind": POLICY,
        "encoder": encoder,
        "actor": {
            "features": actor.features,
            "actions": actor.actions,
            "hidden": actor.hidden,
            "log_std_min": actor.log_std_min,
            "log_std_max": actor.log_std_max,
        },
        "rendered_size": policy.rendered_size,
        "stack": policy.stack,
        "stacking": "channels of all frames, oldest frame first; after a reset the first frame, repeated",
        "action": {
            "size": policy.action_dim,
            "range": [-1, 1],
            "repeat": policy.action_repeat,
            "deterministic": "tanh(m)",
            "sampled": "tanh(m + exp(s) noise), noise standard normal",
            "m, s": "halves of the actor's output; s = log_std_min + (log_std_max - log_std_min) (tanh(half) + 1) / 2",
        },
        "provenance": about["provenance"],
    }
    if policy.proprioception:
        joined = (
            "the vectors beside the newest frame, in the order of their names; the actor takes them after the features"
        )
        own["proprioception"] = {"size": policy.proprioception, "joined": joined}
    return file_description(_networks(policy), own)


def as_safetensors(policy: PretrainedPolicy) -> bytes:
    """A policy as one self-describing file, for :func:`load_policy`."""
    return network_file.as_safetensors(_networks(policy), describe(policy))


def load_policy(path: Path | str, *, scale: float = 1.0, layout: Layout = "auto") -> PretrainedPolicy:
    """Loads the policy of a run, ready to take an environment's observations. Does not change the run.

    Args:
        path: directory of an agent's run, whose newest checkpoint is read, or a file from scripts/export_policy.py
            ``--format safetensors``.
        scale: factor on floating-point observations: 1 if they lie in [0, 1], 1/255 if they lie in [0, 255]. uint8 is
            always divided by 255.
        layout: order of an observation's dimensions, needed if its shape is ambiguous
            (:class:`~curl_rl.PretrainedEncoder`).

    Raises:
        UserError: a file is missing, damaged or of a newer format, or holds no policy.
        ValueError: scale or layout is invalid.
    """
    path = Path(path)
    if (path / run_directory.CONFIG).is_file():
        agent, config, frames = load_agent(path, "cpu")
        provenance = {
            "run": encoder_file.last_names(path.resolve()),
            "env": config.env,
            "preset": config.preset,
            "seed": config.seed,
            "frames": frames,
        }
        if config.environment.camera is not None:
            provenance["camera"] = config.environment.camera
        return policy_of(agent, config.environment, provenance, scale=scale, layout=layout)
    files = network_files(path, POLICY)
    networks, description = load_network(files, POLICY, _build)
    encoder, actor = networks["encoder"], networks["actor"]
    assert isinstance(encoder, PixelEncoder)
    assert isinstance(actor, sac.Actor)
    try:
        size, stack = description["rendered_size"], description["stack"]
        repeat, provenance = description["action"]["repeat"], description["provenance"]
        encoder_file.check_size(encoder, size)
        for name, number in (("stack", stack), ("action.repeat", repeat)):
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} must be a positive integer, got {number!r}")
        if not isinstance(provenance, dict):
            raise ValueError(f"provenance must be a mapping, got a {type(provenance).__name__}")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(POLICY, files[0], error) from None
    pretrained = PretrainedEncoder(encoder, size, provenance, scale=scale, layout=layout, freeze=True)
    return PretrainedPolicy(pretrained, actor, stack=stack, action_repeat=repeat)


def _networks(policy: PretrainedPolicy) -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": policy.encoder.encoder, "actor": policy.actor})


def _build(description: dict[str, Any]) -> nn.ModuleDict:
    """Untrained networks of this description."""
    if description["kind"] != POLICY:
        raise ValueError(f"kind must be {POLICY}, got {description['kind']!r}")
    shape = description["actor"]
    for name in ("features", "actions", "hidden"):
        if type(shape[name]) is not int or shape[name] < 1:
            raise ValueError(f"actor.{name} must be a positive integer, got {shape[name]!r}")
    actor = sac.Actor(
        shape["features"], shape["actions"], shape["hidden"], float(shape["log_std_min"]), float(shape["log_std_max"])
    )
    encoder, beside = build_encoder(description["encoder"]), description.get("proprioception", {"size": 0})["size"]
    if type(beside) is not int or beside < 0:
        raise ValueError(f"proprioception.size must be at least 0, got {beside!r}")
    features = actor.features - beside
    if not isinstance(encoder, PixelEncoder) or encoder.feature_spec.dim != features:
        raise ValueError(f"the encoder must be a PixelEncoder of {features} features, got {encoder.title}")
    return nn.ModuleDict({"encoder": encoder, "actor": actor})
