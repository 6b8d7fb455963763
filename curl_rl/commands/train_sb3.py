"""Train Stable-Baselines3's SAC from pixels, with its own encoder or with ours.

    python scripts/train_sb3.py --env tiny-reach --encoder nature         # Stable-Baselines3's own
    python scripts/train_sb3.py --env tiny-reach --encoder curl           # ours, new, with the contrastive loss
    python scripts/train_sb3.py --env tiny-reach --encoder runs/tiny-reach/cpu/seed1   # ours, trained before, frozen

A worked example of curl_rl.integrations.stable_baselines3. Each evaluation is printed, and with --json written as a
line: steps (agent steps), return_mean, return_std.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

from curl_rl import EncoderConfig, PretrainedEncoder, load_encoder
from curl_rl.commands.environments import MakeEnvironment, camera_flag, make_configured
from curl_rl.objectives import METHODS
from curl_rl.rl.checks import remark_on_endless
from curl_rl.rl.config import EnvironmentConfig
from curl_rl.rl.contained import EnvironmentFault, Outcome, contained
from curl_rl.rl.workers import Environment
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.console import say

# RGB frames in an observation.
STACK = 3
# The smallest frames that the convolutions of Stable-Baselines3's NatureCNN accept.
LEAST_FOR_NATURE = 36


def main(argv: Sequence[str], make: MakeEnvironment[Environment], *unavailable: type[Exception]) -> int:
    """Reads the command line and trains.

    Args:
        argv: the command's arguments.
        make: makes the environment named by ``--env``.
        unavailable: exceptions that ``make`` raises, besides ValueError, if this machine cannot run the environment.
    """
    parser = command_parser(__doc__)
    parser.add_argument("--env", default="tiny-reach", help="environment of envs.make [%(default)s]")
    parser.add_argument("--camera", type=camera_flag, help="number or name of the camera [the task's usual one]")
    parser.add_argument(
        "--encoder",
        type=os.path.expanduser,
        default="curl",
        help="nature: Stable-Baselines3's own; pixel: ours, trained by SAC alone; curl (or another objective's name): "
        "ours, trained by SAC and that loss; a run, or an encoder.safetensors: that encoder, frozen [%(default)s]",
    )
    parser.add_argument("--steps", type=int, default=5000, help="agent steps [%(default)s]")
    parser.add_argument("--every", type=int, default=1000, help="agent steps between evaluations [%(default)s]")
    parser.add_argument("--episodes", type=int, default=10, help="episodes per evaluation [%(default)s]")
    parser.add_argument("--size", type=int, help="side of a frame in pixels [that of the run's frames; else 36]")
    parser.add_argument("--crop", type=int, help="side of the crop for a new encoder of ours [32]")
    parser.add_argument("--max_episode_steps", type=int, help="environment steps after which an episode is truncated")
    parser.add_argument("--batch_size", type=int, default=64, help="of SAC and of the contrastive loss [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of everything [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evaluations here, one per line")
    arguments = parser.parse_args(argv)
    with refusals(parser, EnvironmentFault, *unavailable):
        train(arguments, make)
    return 0


def train(arguments: argparse.Namespace, make: MakeEnvironment[Environment]) -> None:
    """Trains and evaluates with the parsed arguments."""
    for name in ("steps", "every", "episodes", "size", "crop", "batch_size", "max_episode_steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    pretrained = None if names_a_new_one(arguments.encoder) else load_encoder(arguments.encoder)
    size, crop = sizes(arguments, pretrained)
    # Imported here, so that --help works without the library, and its absence is reported in one line.
    from curl_rl.integrations.stable_baselines3 import ContrastiveCallback, CurlFeaturesExtractor  # names the extra

    # isort: split
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    chosen = {"camera": arguments.camera, "max_episode_steps": arguments.max_episode_steps}
    shown = EnvironmentConfig(size=size, stack=STACK, action_repeat=1, **chosen)
    environment, evaluation_environment = (
        Monitor(_FiniteRewards(contained(lambda: make_configured(make, arguments.env, shown)))) for _ in range(2)
    )
    if remark := remark_on_endless(environment.unwrapped, arguments.env, "--max_episode_steps"):
        say(remark)
    policy: dict[str, Any] = {"net_arch": [256, 256]}
    callbacks: list[BaseCallback] = []
    if arguments.encoder != "nature":
        policy["features_extractor_class"] = CurlFeaturesExtractor
        if pretrained is not None:
            policy["features_extractor_kwargs"] = {"pretrained": pretrained}
        else:
            shape = EncoderConfig(strides=(2, 2, 1))
            policy["features_extractor_kwargs"] = {"crop": crop, "config": shape}
            if arguments.encoder != "pixel":
                callbacks.append(ContrastiveCallback(arguments.encoder, batch_size=arguments.batch_size))
    model = SAC(
        "CnnPolicy",
        environment,
        policy_kwargs=policy,
        learning_rate=1e-3,
        batch_size=arguments.batch_size,
        buffer_size=min(arguments.steps, 100_000),
        learning_starts=min(500, arguments.steps // 2),
        seed=arguments.seed,
        device="auto",
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text("")

    class Evaluation(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % arguments.every == 0:
                evaluation_environment.reset(seed=arguments.seed)  # the same initial states every time
                mean, std = evaluate_policy(self.model, evaluation_environment, n_eval_episodes=arguments.episodes)
                print(f"{self.num_timesteps:>9,} steps: {mean:.1f} ± {std:.1f}", flush=True)
                if arguments.json:
                    row = {"steps": self.num_timesteps, "return_mean": mean, "return_std": std}
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            return True

    model.learn(arguments.steps, callback=CallbackList([*callbacks, Evaluation()]), progress_bar=False)
    environment.close()
    evaluation_environment.close()


class _FiniteRewards(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Refuses a reward of NaN, on which Stable-Baselines3 would train."""

    def step(self, action: Any) -> Outcome:
        outcome: Any = self.env.step(action)
        if not math.isfinite(outcome[1]):
            raise ValueError(f"the environment's reward must be finite, got {outcome[1]}")
        return outcome


def names_a_new_one(encoder: str) -> bool:
    """Tests whether ``--encoder`` names a kind of new encoder rather than a file.

    Raises:
        ValueError: it names neither.
    """
    names = ("nature", "pixel", *METHODS)
    is_path = "/" in encoder or encoder.endswith(".safetensors") or Path(encoder).exists()
    if encoder not in names and not is_path:
        raise ValueError(f"--encoder must be one of {', '.join(names)}, or the directory of a run, got {encoder!r}")
    return encoder in names


def sizes(arguments: argparse.Namespace, pretrained: PretrainedEncoder | None) -> tuple[int, int]:
    """Sides of the frames and of the crop for a new encoder of ours, in pixels.

    Raises:
        ValueError: the encoder, ``--size`` and ``--crop`` are inconsistent.
    """
    name, size, crop = arguments.encoder, arguments.size, arguments.crop
    if crop is not None and (pretrained is not None or name == "nature"):
        raise ValueError(f"--crop {crop} is for a new encoder of ours and does not apply to {name}: leave it out")
    if pretrained is not None:
        channels, trained_on, least = pretrained.observation_shape[0], pretrained.rendered_size, pretrained.side or 1
        if channels != 3 * STACK:
            raise ValueError(
                f"--encoder {name} takes {channels} channels, but the observations here have {3 * STACK}, {STACK} RGB "
                f"frames: use one trained with --environment.stack {STACK}"
            )
        size = size or trained_on
        if size < least:
            raise ValueError(
                f"--size {size} is too small for {name}, which sees {least}×{least}: use --size {trained_on}"
            )
        if size != trained_on:
            print(
                f"the encoder was trained on frames of {trained_on} pixels: with --size {size} it sees the scene at "
                "another scale",
                file=sys.stderr,
            )
        return size, least
    size, crop = size or 36, crop or 32
    if name == "nature":
        if size < LEAST_FOR_NATURE:
            raise ValueError(f"--size {size} is too small for nature: use --size {LEAST_FOR_NATURE} or more")
    elif size < crop:
        raise ValueError(f"--size {size} is smaller than --crop {crop}: use --size {crop + 4}, or a smaller --crop")
    elif size == crop and name != "pixel":
        raise ValueError(
            f"--size {size} leaves --crop {crop} nothing to choose from, so all views of {name} would be the same: "
            f"use --size {crop + 4}, or a smaller --crop"
        )
    return size, crop
